package access

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Networks are the networks that something may come from. The zero value contains no address at all: what was never set, or
// could not be read, must open nothing.
type Networks struct {
	prefixes []netip.Prefix
	any      bool
}

// AnyNetwork contains every address, the unknown one included.
func AnyNetwork() Networks { return Networks{any: true} }

// ParseNetworks reads networks in CIDR notation, such as 10.0.0.0/8 or 2001:db8::/32; none makes a Networks that contains no
// address. IPv4-mapped IPv6 networks are unmapped. An error comes with Networks that contain nothing.
func ParseNetworks(cidrs []string) (Networks, error) {
	prefixes := make([]netip.Prefix, 0, len(cidrs))
	for _, cidr := range cidrs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return Networks{}, fmt.Errorf("%q is no network: want an address and a length, such as 10.0.0.0/8 or 2001:db8::/32", cidr)
		}
		prefix, err = unmapPrefix(prefix)
		if err != nil {
			return Networks{}, fmt.Errorf("%q is no network: %w", cidr, err)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return Networks{prefixes: prefixes}, nil
}

// ParseProxies reads the networks of trusted proxies, as people write them in flags: networks that contain everybody, host bits, and IPv4
// written as IPv6, are mistakes there.
func ParseProxies(cidrs []string) (Networks, error) {
	networks, err := ParseNetworks(cidrs)
	if err != nil {
		return Networks{}, err
	}
	for _, cidr := range cidrs {
		written := netip.MustParsePrefix(cidr) // parsed above
		prefix, _ := unmapPrefix(written)      // done above
		masked := prefix.Masked()
		switch {
		case prefix.Bits() == 0:
			return Networks{}, fmt.Errorf("%q contains everybody: whoever is trusted can claim any address; name the proxies alone", cidr)
		case written != prefix:
			return Networks{}, fmt.Errorf("%q is IPv4 mapped into IPv6; the network is %s", cidr, masked)
		case masked != prefix:
			return Networks{}, fmt.Errorf("%q has host bits; the network is %s, the single address %s/%d", cidr, masked, prefix.Addr(), prefix.Addr().BitLen())
		}
	}
	return networks, nil
}

// mappedBits is the length of ::ffff:0:0/96, the IPv6 network that IPv4 is mapped into (RFC 4291, section 2.5.5.2).
const mappedBits = 96

func unmapPrefix(p netip.Prefix) (netip.Prefix, error) {
	if !p.Addr().Is4In6() {
		return p, nil
	}
	if p.Bits() < mappedBits {
		return netip.Prefix{}, errors.New("it contains IPv4 mapped into IPv6, and more; write an IPv4 network and an IPv6 network")
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits), nil
}

// Equal tells whether two are the same networks in the same order.
func (n Networks) Equal(other Networks) bool {
	return n.any == other.any && slices.Equal(n.prefixes, other.prefixes)
}

// Contains tells whether an address lies in one of the networks. An IPv4-mapped address is its IPv4 address, and a zone is
// ignored. The zero address, which stands for an unknown one, is contained by AnyNetwork alone.
func (n Networks) Contains(address netip.Addr) bool {
	if n.any {
		return true
	}
	if !address.IsValid() {
		return false
	}
	address = address.Unmap().WithZone("")
	for _, prefix := range n.prefixes {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
