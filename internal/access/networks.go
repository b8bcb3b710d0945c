package access

import (
	"errors"
	"fmt"
	"net/netip"
)

// Networks are the networks that an address may be in. The zero value contains no address, so that a value
// that was never set or couldn't be parsed grants nothing. Networks are equal, and in the same order, if == says so.
type Networks struct {
	// list holds encodedSize bytes for each network: the address, as IPv6, and the length of the prefix. A verifier has
	// networks in memory for each key, and a string is smaller than a slice and less work for the garbage collector.
	list string
}

const encodedSize = 16 + 1

// everything takes the place of a list that contains every address. No list has its length.
const everything = "any"

// AnyNetwork returns Networks that contain every address, including the unknown one.
func AnyNetwork() Networks { return Networks{everything} }

// ParseNetworks parses networks in CIDR notation, such as 10.0.0.0/8 or 2001:db8::/32. An empty list results
// in Networks that contain no address, and so does an error. IPv4-mapped IPv6 networks become IPv4 networks.
func ParseNetworks(cidrs []string) (Networks, error) {
	list := make([]byte, 0, len(cidrs)*encodedSize)
	for _, cidr := range cidrs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return Networks{}, fmt.Errorf("%q is not a network: must be an address and a prefix length, such as 10.0.0.0/8 or 2001:db8::/32", cidr)
		}
		prefix, err = unmapPrefix(prefix)
		if err != nil {
			return Networks{}, fmt.Errorf("%q is not a network: %w", cidr, err)
		}
		address := prefix.Masked().Addr().As16()
		list = append(append(list, address[:]...), byte(prefix.Bits())) //nolint:gosec // at most 128
	}
	return Networks{string(list)}, nil
}

// all yields the networks of the list.
func (n Networks) all(yield func(netip.Prefix) bool) {
	for list := n.list; len(list) >= encodedSize; list = list[encodedSize:] {
		var address [16]byte
		copy(address[:], list)
		// No IPv6 network is IPv4-mapped: see unmapPrefix.
		if !yield(netip.PrefixFrom(netip.AddrFrom16(address).Unmap(), int(list[16]))) {
			return
		}
	}
}

// ParseProxies parses the networks of trusted proxies as users write them in flags. Unlike [ParseNetworks],
// it rejects likely mistakes: networks that contain every address, host bits, and IPv4 addresses written as
// IPv6.
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
			return Networks{}, fmt.Errorf("%q contains every address, so every client could claim any address: list only the networks of the proxies", cidr)
		case written != prefix:
			return Networks{}, fmt.Errorf("%q is an IPv4-mapped IPv6 network: write %s", cidr, masked)
		case masked != prefix:
			return Networks{}, fmt.Errorf("%q has host bits set: write %s for the network or %s/%d for the single address", cidr, masked, prefix.Addr(), prefix.Addr().BitLen())
		}
	}
	return networks, nil
}

// mappedBits is the prefix length of ::ffff:0:0/96, the network of IPv4-mapped IPv6 addresses (RFC 4291,
// section 2.5.5.2).
const mappedBits = 96

func unmapPrefix(p netip.Prefix) (netip.Prefix, error) {
	if !p.Addr().Is4In6() {
		return p, nil
	}
	if p.Bits() < mappedBits {
		return netip.Prefix{}, errors.New("it contains IPv4-mapped and other IPv6 addresses: write an IPv4 network and an IPv6 network")
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits), nil
}

// Contains reports whether the address is in one of the networks. It treats an IPv4-mapped address as IPv4
// and ignores zones. Only [AnyNetwork] contains the zero address, which stands for an unknown one.
func (n Networks) Contains(address netip.Addr) bool {
	if n.list == everything {
		return true
	}
	if !address.IsValid() {
		return false
	}
	address = address.Unmap().WithZone("")
	for prefix := range n.all {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
