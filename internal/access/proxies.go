package access

import (
	"net/netip"
	"strings"
)

// Proxies determine the client address from the peer address and X-Forwarded-For.
type Proxies struct {
	// Trusted are the networks of the trusted proxies. The zero value trusts none.
	Trusted Networks

	// PeerIsClient means that a peer that isn't a trusted proxy is the client, as for a server that clients
	// connect to directly. If it is false, such a peer is a gateway without a trusted address, and the client
	// address is unknown.
	PeerIsClient bool
}

// Client returns the client address, or the zero address if it is unknown. peer is the peer address of the
// connection. forwarded has the values of all X-Forwarded-For headers in order.
//
// Each proxy appends the address that it was called from. So the client is the rightmost hop that isn't a
// trusted proxy. The hops to the left of it could be forged by the client.
//
// The client is unknown if a hop that is needed can't be parsed, or if a trusted proxy sent no header. If all
// hops are trusted proxies, the leftmost is the client.
func (p Proxies) Client(peer netip.Addr, forwarded []string) netip.Addr {
	peer = peer.Unmap().WithZone("")
	if !peer.IsValid() {
		return netip.Addr{}
	}
	if !p.Trusted.Contains(peer) {
		if p.PeerIsClient {
			return peer
		}
		return netip.Addr{}
	}
	client := netip.Addr{}
	for i := len(forwarded) - 1; i >= 0; i-- {
		rest, more := forwarded[i], true
		for more {
			var hop string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, hop = rest[:comma], rest[comma+1:]
			} else {
				hop, more = rest, false
			}
			client = parseHop(hop)
			if !client.IsValid() || !p.Trusted.Contains(client) {
				return client
			}
		}
	}
	return client
}

// ParsePeer parses an address and port as net/http and [net.Addr] format the peer of a connection.
// IPv4-mapped addresses become IPv4. Anything else, such as the peer of a Unix socket, results in the zero
// address, which only [AnyNetwork] contains.
func ParsePeer(text string) netip.Addr {
	peer, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}

// parseHop parses an address that may have a port, a zone or, for IPv6, brackets. Anything else results in
// the zero address.
func parseHop(hop string) netip.Addr {
	hop = strings.Trim(hop, " \t")
	address, err := netip.ParseAddr(hop)
	if err != nil {
		withPort, err := netip.ParseAddrPort(hop)
		if err == nil {
			address = withPort.Addr()
		} else if inner, ok := strings.CutPrefix(hop, "["); ok && strings.HasSuffix(inner, "]") {
			address, err = netip.ParseAddr(strings.TrimSuffix(inner, "]"))
			if err != nil || address.Is4() {
				return netip.Addr{}
			}
		}
	}
	return address.Unmap().WithZone("")
}
