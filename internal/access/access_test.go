package access_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

func TestParseNetworks(t *testing.T) {
	for name, c := range map[string]struct {
		cidrs           []string
		in, out         []string
		invalid         bool
		validForProxies bool // ParseProxies accepts it, too
	}{
		"IPv4":          {cidrs: []string{"10.0.0.0/8"}, in: []string{"10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"}, out: []string{"9.255.255.255", "11.0.0.0", "::a00:0"}, validForProxies: true},
		"IPv6":          {cidrs: []string{"2001:db8::/32"}, in: []string{"2001:db8::", "2001:db8:ffff::1", "2001:db8::1%eth0"}, out: []string{"2001:db7::1", "10.0.0.1"}, validForProxies: true},
		"one address":   {cidrs: []string{"10.1.2.3/32", "::1/128"}, in: []string{"10.1.2.3", "::1"}, out: []string{"10.1.2.4", "::2"}, validForProxies: true},
		"all of IPv4":   {cidrs: []string{"0.0.0.0/0"}, in: []string{"0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"}, out: []string{"::1"}},
		"all of IPv6":   {cidrs: []string{"::/0"}, in: []string{"::", "2001:db8::1"}, out: []string{"10.0.0.1", "::ffff:10.0.0.1"}},
		"mapped":        {cidrs: []string{"::ffff:10.0.0.0/104"}, in: []string{"10.1.2.3", "::ffff:10.1.2.3"}, out: []string{"11.0.0.0"}},
		"host bits":     {cidrs: []string{"10.1.2.3/8"}, in: []string{"10.0.0.0"}, out: []string{"11.0.0.0"}},
		"none":          {out: []string{"10.0.0.1", "::1"}, validForProxies: true},
		"no length":     {cidrs: []string{"10.0.0.1"}, invalid: true},
		"too long":      {cidrs: []string{"10.0.0.0/33"}, invalid: true},
		"zeros":         {cidrs: []string{"010.0.0.0/8"}, invalid: true},
		"zone":          {cidrs: []string{"fe80::%eth0/64"}, invalid: true},
		"mapped, wide":  {cidrs: []string{"::ffff:0:0/90"}, invalid: true},
		"one is broken": {cidrs: []string{"10.0.0.0/8", "x"}, invalid: true},
	} {
		networks, err := access.ParseNetworks(c.cidrs)
		if (err != nil) != c.invalid {
			t.Errorf("%s: error %v, want an error: %t", name, err, c.invalid)
		}
		if _, err := access.ParseProxies(c.cidrs); (err == nil) != c.validForProxies {
			t.Errorf("%s: ParseProxies returns the error %v, want an error: %t", name, err, !c.validForProxies)
		}
		if c.invalid {
			c.out = append(c.out, "10.0.0.1", "::1", "fe80::1")
		}
		for _, address := range c.in {
			if !networks.Contains(netip.MustParseAddr(address)) {
				t.Errorf("%s: does not contain %s", name, address)
			}
		}
		for _, address := range c.out {
			if networks.Contains(netip.MustParseAddr(address)) {
				t.Errorf("%s: contains %s", name, address)
			}
		}
		if networks.Contains(netip.Addr{}) {
			t.Errorf("%s: contains the unknown address", name)
		}
	}
	if !access.AnyNetwork().Contains(netip.Addr{}) {
		t.Error("AnyNetwork does not contain the unknown address")
	}
}

// A trusted proxy can claim any client address. A network that is wider than intended must be an error that
// says what to write instead.
func TestParseProxiesRejectsMistakes(t *testing.T) {
	for cidr, problem := range map[string]string{
		"0.0.0.0/0":                      "contains every address",
		"::/0":                           "contains every address",
		"::ffff:0:0/96":                  "contains every address",
		"::ffff:10.0.0.1/96":             "contains every address",
		"::ffff:0.0.0.0/96":              "contains every address",
		"::ffff:0:0/95":                  "write an IPv4 network and an IPv6 network",
		"::ffff:0:0/0":                   "write an IPv4 network and an IPv6 network",
		"::ffff:0:0/97":                  "write 0.0.0.0/1",
		"::ffff:10.0.0.0/104":            "write 10.0.0.0/8",
		"::ffff:10.0.0.1/104":            "write 10.0.0.0/8",
		"::ffff:a00:1/128":               "write 10.0.0.1/32",
		"10.0.0.1/8":                     "host bits set: write 10.0.0.0/8 for the network or 10.0.0.1/32 for the single address",
		"2001:db8::1/32":                 "host bits set: write 2001:db8::/32 for the network or 2001:db8::1/128 for the single address",
		"0.0.0.0/1":                      "",
		"::/1":                           "",
		"10.0.0.1/32":                    "",
		"2001:db8::1/128":                "",
		"::fffe:0:0/95":                  "", // covers the IPv4-mapped addresses, but as an IPv6 network it contains no IPv4 address
		"::ffff:0:0:0/96":                "", // IPv4-translated addresses (RFC 2765) are not treated as IPv4
		"64:ff9b::/96":                   "", // neither are NAT64 addresses
		"0000:0000::ffff:10.0.0.0/0x68":  "is not a network",
		"::ffff:10.0.0.0/129":            "is not a network",
		"10.0.0.0/8,::ffff:10.0.0.0/104": "is not a network",
	} {
		networks, err := access.ParseProxies([]string{"192.0.2.0/24", cidr})
		switch {
		case problem == "" && err != nil:
			t.Errorf("%s: %v", cidr, err)
		case problem != "" && (err == nil || !strings.Contains(err.Error(), problem)):
			t.Errorf("%s: error %v, want one that contains %q", cidr, err, problem)
		case problem != "" && networks.Contains(netip.MustParseAddr("192.0.2.1")):
			t.Errorf("%s: ParseProxies returns an error and networks that contain an address", cidr)
		case problem == "" && strings.Contains(cidr, ":") && networks.Contains(netip.MustParseAddr("10.0.0.1")):
			t.Errorf("%s contains an IPv4 address", cidr)
		}
	}
}

func TestMissingRoles(t *testing.T) {
	roles := access.NewRoles("b", "a", "b")
	for _, c := range []struct {
		wanted  []string
		missing string
	}{{nil, ""}, {[]string{"a"}, ""}, {[]string{"b", "a", "b"}, ""}, {[]string{"a", "c"}, "c"}, {[]string{""}, ""}, {[]string{"A"}, "A"}} {
		name, missing := roles.Missing(c.wanted)
		if name != c.missing || missing != (c.missing != "" || len(c.wanted) == 1 && c.wanted[0] == "") {
			t.Errorf("Missing(%q) = %q, %t; want %q", c.wanted, name, missing, c.missing)
		}
	}
	var none *access.Roles
	if _, missing := none.Missing([]string{"a"}); !missing {
		t.Error("a role is not missing in the nil set")
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "org.permission.customer.read": true, "0.1-2": true, strings.Repeat("a", 253): true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "-a": false, "a-": false, "a.-b": false, "A": false, "a_b": false, "a b": false,
		"a\n": false, "é": false, "a,b": false, strings.Repeat("a", 254): false,
	} {
		if err := access.ValidateRole(name); (err == nil) != ok {
			t.Errorf("ValidateRole(%.40q) = %v, want valid: %t", name, err, ok)
		}
	}
	for name, ok := range map[string]bool{
		"a": true, "team-a": true, strings.Repeat("a", 63): true, "": false, "a.b": false, "-a": false, "A": false, strings.Repeat("a", 64): false,
	} {
		if err := access.ValidateNamespace(name); (err == nil) != ok {
			t.Errorf("ValidateNamespace(%.40q) = %v, want valid: %t", name, err, ok)
		}
	}
}

// For any headers, Client must not panic, and must return an address without zone that a trusted hop
// reported.
func FuzzClient(f *testing.F) {
	f.Add("198.51.100.1", "10.0.0.1, 198.51.100.2", "198.51.100.3")
	f.Add("::ffff:198.51.100.1", "[2001:db8::1]:80", "fe80::1%eth0")
	f.Add("198.51.100.1", "\xff,,", "")
	trusted, err := access.ParseNetworks([]string{"198.51.100.0/24"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, peerText, first, second string) {
		peer, _ := netip.ParseAddr(peerText)
		for _, proxies := range []access.Proxies{{Trusted: trusted}, {Trusted: trusted, PeerIsClient: true}, {PeerIsClient: true}} {
			client := proxies.Client(peer, []string{first, second})
			if !client.IsValid() {
				continue
			}
			if client.Is4In6() || client.Zone() != "" {
				t.Errorf("client address %v is IPv4-mapped or has a zone", client)
			}
			if plain := peer.Unmap().WithZone(""); !proxies.Trusted.Contains(peer) && (client != plain || !proxies.PeerIsClient) {
				t.Errorf("client address %v comes from the untrusted peer %v", client, peer)
			}
			// All hops to the right of the client are trusted proxies, so a further untrusted hop becomes the client.
			if proxies.Trusted.Contains(peer) {
				if got := proxies.Client(peer, []string{first, second, "203.0.113.9"}); got != netip.MustParseAddr("203.0.113.9") {
					t.Errorf("client address %v, want the rightmost untrusted hop 203.0.113.9", got)
				}
			}
		}
	})
}

func TestParsePeer(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:4711": "192.0.2.1", "[2001:db8::1]:4711": "2001:db8::1", "[::ffff:192.0.2.1]:4711": "192.0.2.1",
		"@": "", "": "", "/run/gateway": "", "192.0.2.1": "", "2001:db8::1": "", "localhost:80": "", "192.0.2.1:": "",
	} {
		if want, _ := netip.ParseAddr(want); access.ParsePeer(text) != want {
			t.Errorf("ParsePeer(%q) = %v, want %v", text, access.ParsePeer(text), want)
		}
	}
}
