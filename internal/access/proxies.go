package access

import (
	"net/netip"
	"strings"
)

// Proxies tell a client's address from what a chain of proxies says about it.
type Proxies struct {
	// Trusted are the networks of the proxies whose word is taken. The zero value trusts nobody.
	Trusted Networks

	// PeerIsClient says that a peer which is no trusted proxy is the client itself, as where a connection reaches the one
	// who asks. Where it is false such a peer speaks for a client that nobody knows.
	PeerIsClient bool
}

// Client is the address of the client, or the zero address for an unknown one. The peer is the other end of the connection.
// forwarded are the values of all X-Forwarded-For headers in their order: each proxy adds at the right the address that it was
// called from, so the first from the right that is not a trusted proxy is as far as anybody's word can be taken. What stands
// left of it the client may have written itself.
//
// A hop that can't be parsed makes the client unknown. So does a missing header behind a trusted proxy. Where every hop is a
// trusted proxy, the leftmost is the client.
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

// ParsePeer reads the other end of a connection as net/http and net.Addr write it: an address and a port. An IPv4-mapped address is its IPv4
// address. The zero address, which nothing but AnyNetwork contains, stands for a peer that has none, as behind a Unix socket, and for
// whatever else can't be read.
func ParsePeer(text string) netip.Addr {
	peer, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}

// parseHop reads an address with or without a port and a zone, an IPv6 address in brackets or not; the zero address stands for
// anything else.
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
