package grant

import (
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

const day = 24 * time.Hour

// asking is a modest request with something laid over it.
func asking(change func(*Request)) Request {
	r := Request{
		Namespace: "ns", Labels: map[string]string{"team": "a"}, Roles: []string{"org.permission.customer.read"},
		Lifetime: 90 * day, Expiry: "after: 90d", CIDRs: []string{"10.1.0.0/16"},
	}
	if change != nil {
		change(&r)
	}
	return r
}

// catalogue reads entries such as "write: create update" or "read".
func catalogue(entries ...string) *access.Catalogue {
	roles := make([]access.Role, 0, len(entries))
	for _, entry := range entries {
		name, includes, _ := strings.Cut(entry, ":")
		roles = append(roles, access.Role{Name: name, Includes: strings.Fields(includes)})
	}
	return access.NewCatalogue(roles)
}

func never(r *Request) { r.Never, r.Lifetime = true, 0 }

func lives(life time.Duration) func(*Request) { return func(r *Request) { r.Lifetime = life } }

func from(cidrs ...string) func(*Request) { return func(r *Request) { r.CIDRs = cidrs } }

func with(roles ...string) func(*Request) { return func(r *Request) { r.Roles = roles } }

// owned sets attributes, as pairs of name and value.
func owned(pairs ...string) func(*Request) {
	return func(r *Request) {
		r.Attributes = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			r.Attributes[pairs[i]] = pairs[i+1]
		}
	}
}

func team(name string) func(map[string]string) bool {
	return func(labels map[string]string) bool { return labels["team"] == name }
}

func TestOnePolicy(t *testing.T) {
	for name, c := range map[string]struct {
		terms  Terms
		change func(*Request)
		// want are parts of the message; none means that the request is allowed.
		want []string
	}{
		"every role":                        {Terms{Roles: []string{"*"}}, nil, nil},
		"every role, a never":               {Terms{Roles: []string{"*"}}, never, nil},
		"every role, no networks":           {Terms{Roles: []string{"*"}}, from(), nil},
		"no roles at all":                   {Terms{}, nil, []string{"the role org.permission.customer.read"}},
		"the exact role":                    {Terms{Roles: []string{"org.permission.customer.read"}}, nil, nil},
		"another role":                      {Terms{Roles: []string{"org.permission.customer"}}, nil, []string{`policy "p" refuses the role org.permission.customer.read (it allows org.permission.customer)`}},
		"a prefix":                          {Terms{Roles: []string{"org.permission.*"}}, nil, nil},
		"a prefix is not a role":            {Terms{Roles: []string{"org.permission.*"}}, with("org.permission"), []string{"the role org.permission (it allows org.permission.*)"}},
		"a prefix ends at a dot":            {Terms{Roles: []string{"org.permission.*"}}, with("org.permissions.x"), []string{"the role org.permissions.x"}},
		"the prefix itself with its dot":    {Terms{Roles: []string{"org.permission.*"}}, with("org.permission."), []string{"the role"}},
		"one role of two":                   {Terms{Roles: []string{"a"}}, with("a", "b"), []string{"the role b (it allows a)"}},
		"the admin role":                    {Terms{Roles: []string{"org.permission.*", "org.user.*"}}, with("org.admin.setting.write"), []string{"the role org.admin.setting.write (it allows org.permission.*, org.user.*)"}},
		"an empty role":                     {Terms{Roles: []string{"a"}}, with(""), []string{"the role "}},
		"a star in the middle":              {Terms{Roles: []string{"org.*.read", "org.permission.customer.read"}}, nil, []string{`the policy is invalid: spec.roles: invalid entry "org.*.read"`}},
		"a star without a dot":              {Terms{Roles: []string{"org*"}}, nil, []string{`the policy is invalid: spec.roles: invalid entry "org*"`}},
		"a dot and a star":                  {Terms{Roles: []string{".*"}}, nil, []string{"the policy is invalid"}},
		"two stars":                         {Terms{Roles: []string{"**"}}, nil, []string{"the policy is invalid"}},
		"a life as long as allowed":         {Terms{Roles: []string{"*"}, MaxLifetime: 90 * day}, nil, nil},
		"a life a second longer":            {Terms{Roles: []string{"*"}, MaxLifetime: 90*day - time.Second}, nil, []string{"expiry.after: 90d (its maxLifetime is 89d23h59m59s)"}},
		"a life of nothing":                 {Terms{Roles: []string{"*"}, MaxLifetime: time.Second}, lives(0), nil},
		"a life that is over":               {Terms{Roles: []string{"*"}, MaxLifetime: time.Second}, lives(-day), nil},
		"never, of a policy with a longest": {Terms{Roles: []string{"*"}, MaxLifetime: 3650 * day}, never, []string{"expiry.never (its maxLifetime is 3650d)"}},
		"never, where expiry is required":   {Terms{Roles: []string{"*"}, RequireExpiry: true}, never, []string{"expiry.never (it requires expiry.after or expiry.at)"}},
		"ten years, where that is all":      {Terms{Roles: []string{"*"}, RequireExpiry: true}, lives(3650 * day), nil},
		"a negative longest":                {Terms{Roles: []string{"*"}, MaxLifetime: -1}, nil, []string{"the policy is invalid"}},
		"within a network":                  {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, nil, nil},
		"the network itself":                {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("10.0.0.0/8"), nil},
		"more than the network":             {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("10.0.0.0/7"), []string{"the network 10.0.0.0/7 (each must lie within one of 10.0.0.0/8)"}},
		"beside the network":                {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("11.0.0.0/8"), []string{"the network 11.0.0.0/8"}},
		"everything":                        {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("0.0.0.0/0"), []string{"the network 0.0.0.0/0"}},
		"everything in two halves":          {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("0.0.0.0/1", "128.0.0.0/1"), []string{"the network 0.0.0.0/1, 128.0.0.0/1"}},
		"a network in two allowed halves":   {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/9", "10.128.0.0/9"}}, from("10.0.0.0/8"), []string{"the network 10.0.0.0/8"}},
		"both allowed halves":               {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/9", "10.128.0.0/9"}}, from("10.0.0.0/9", "10.128.0.0/9"), nil},
		"everything of IPv6":                {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("10.0.0.0/8", "::/0"), []string{"the network ::/0"}},
		"IPv4 within all of IPv6":           {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"::/0"}}, nil, []string{"the network 10.1.0.0/16"}},
		"IPv6 within all of IPv4":           {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"0.0.0.0/0"}}, from("2001:db8::/32"), []string{"the network 2001:db8::/32"}},
		"everything, where that is allowed": {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"0.0.0.0/0", "::/0"}}, from("0.0.0.0/0", "::/0"), nil},
		"IPv4 mapped into IPv6":             {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("::ffff:10.0.0.0/104"), []string{"the network ::ffff:10.0.0.0/104"}},
		"host bits":                         {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("10.0.0.1/16"), []string{"the network 10.0.0.1/16"}},
		"an address":                        {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from("10.0.0.1"), []string{"the network 10.0.0.1"}},
		"no network":                        {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from(""), []string{"the network "}},
		"a key without networks":            {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8"}}, from(), []string{"a key without cidrs (each must lie within one of 10.0.0.0/8)"}},
		"an allowed network with host bits": {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.1/8", "10.0.0.0/8"}}, nil, []string{`the policy is invalid: spec.allowedCIDRs: invalid network "10.0.0.1/8"`}},
		"an allowed network that is none":   {Terms{Roles: []string{"*"}, AllowedCIDRs: []string{"10.0.0.0/8", "x"}}, nil, []string{`the policy is invalid: spec.allowedCIDRs: invalid network "x"`}},
		"a required attribute":              {Terms{Roles: []string{"*"}, RequiredAttributes: []string{"owner"}}, owned("owner", "team-a"), nil},
		"a required attribute is missing":   {Terms{Roles: []string{"*"}, RequiredAttributes: []string{"plan", "owner"}}, owned("owner", "team-a"), []string{"a key without the attribute plan (it requires plan, owner)"}},
		"all required attributes missing":   {Terms{Roles: []string{"*"}, RequiredAttributes: []string{"plan", "owner"}}, nil, []string{"a key without the attributes plan, owner (it requires plan, owner)"}},
		"more attributes than required":     {Terms{Roles: []string{"*"}, RequiredAttributes: []string{"owner"}}, owned("owner", "team-a", "plan", "gold"), nil},
		"an allowed value":                  {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"owner": {"team-b", "team-a"}}}, owned("owner", "team-a"), nil},
		"another value":                     {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"owner": {"team-b", "team, c"}}}, owned("owner", "team-a"), []string{`policy "p" refuses the attribute owner: "team-a" (it allows "team-b", "team, c")`}},
		"a part of an allowed value":        {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"owner": {"team-a"}}}, owned("owner", "team"), []string{`the attribute owner: "team"`}},
		"an allowed value in upper case":    {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"owner": {"team-a"}}}, owned("owner", "TEAM-A"), []string{`the attribute owner: "TEAM-A"`}},
		"no value is allowed":               {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"owner": {}}}, owned("owner", "team-a"), []string{`the attribute owner: "team-a" (it allows )`}},
		"two other values":                  {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"plan": {"gold"}, "owner": {"team-b"}}}, owned("owner", "team-a", "plan", "tin"), []string{`the attribute owner: "team-a" (it allows "team-b"), and the attribute plan: "tin" (it allows "gold")`}},
		"an attribute that is not listed":   {Terms{Roles: []string{"*"}, AllowedAttributes: map[string][]string{"owner": {"team-a"}}}, owned("plan", "gold"), nil},
		"required, and another value":       {Terms{Roles: []string{"*"}, RequiredAttributes: []string{"plan"}, AllowedAttributes: map[string][]string{"owner": {"team-b"}}}, owned("owner", "team-a"), []string{`a key without the attribute plan (it requires plan), and the attribute owner: "team-a" (it allows "team-b")`}},
		"its own namespace":                 {Terms{Roles: []string{"*"}, Selects: team("a")}, nil, nil},
		"another's namespace":               {Terms{Roles: []string{"*"}, Selects: team("b")}, nil, []string{`none selects namespace "ns"`}},
		"a policy that its reader gave up":  {Terms{Roles: []string{"*"}, Unreadable: "why"}, nil, []string{"refuses every key because the policy is invalid: why"}},
		"a policy with an invalid selector": {Terms{Roles: []string{"*"}, Unreadable: "why", Selects: team("b")}, nil, []string{"the policy is invalid: why"}},
		"all at once": {Terms{Roles: []string{"a"}, MaxLifetime: day, AllowedCIDRs: []string{"192.0.2.0/24"}}, nil,
			[]string{"the role ", ", and the network ", ", and expiry.after: 90d"}},
	} {
		c.terms.Name = "p"
		verdict := NewRules(catalogue(), []Terms{c.terms}, false, false).Judge(asking(c.change))
		if allowed := verdict.Outcome == Allowed; allowed != (c.want == nil) || verdict.Outcome == Unjudged {
			t.Errorf("%s: outcome %d, %q", name, verdict.Outcome, verdict.Message)
		}
		for _, part := range c.want {
			if !strings.Contains(verdict.Message, part) {
				t.Errorf("%s: %q lacks %q", name, verdict.Message, part)
			}
		}
	}
}

func TestPoliciesAddUpButNotInParts(t *testing.T) {
	short := Terms{Name: "short", Roles: []string{"*"}, MaxLifetime: day}
	narrow := Terms{Name: "narrow", Roles: []string{"org.permission.*"}, Selects: team("a")}
	judge := func(r Request, policies ...Terms) Verdict {
		return NewRules(catalogue(), policies, false, false).Judge(r)
	}
	if v := judge(asking(nil), short, narrow); v.Outcome != Allowed {
		t.Errorf("one of two allows it: %q", v.Message)
	}
	// One policy allows the role and the other the life: neither allows the key.
	v := judge(asking(with("org.admin")), short, narrow)
	want := `no ApiKeyPolicy allows this key: policy "narrow" refuses the role org.admin (it allows org.permission.*); ` +
		`policy "short" refuses expiry.after: 90d (its maxLifetime is 1d)`
	if v.Outcome != NotAllowed || v.Message != want {
		t.Errorf("got  %q\nwant %q", v.Message, want)
	}
	if v := judge(asking(with("org.admin")), narrow, Terms{Name: "other", Selects: team("b")}); strings.Contains(v.Message, "other") {
		t.Errorf("a policy for other namespaces changes what is told: %q", v.Message)
	}
	other := judge(asking(nil), narrow, short)
	if v := judge(asking(nil), short, narrow); v != other {
		t.Error("the order of policies makes a difference")
	}
}

func TestIncludedRolesAreJudged(t *testing.T) {
	c := catalogue("org.helper: org.middle", "org.middle: org.admin.setting.write org.helper", "org.plain")
	rules := NewRules(c, []Terms{{Name: "p", Roles: []string{"org.helper", "org.middle", "org.plain"}}}, false, false)
	v := rules.Judge(asking(with("org.plain", "org.helper")))
	if v.Outcome != NotAllowed || !strings.Contains(v.Message, "the role org.admin.setting.write (included by org.helper)") {
		t.Errorf("%d %q", v.Outcome, v.Message)
	}
	if v := rules.Judge(asking(with("org.plain"))); v.Outcome != Allowed {
		t.Error(v.Message)
	}
}

func TestCatalogueAndEmptiness(t *testing.T) {
	some, policies := catalogue("org.permission.customer.read: x"), []Terms{{Name: "p", Roles: []string{"*"}}}
	for name, c := range map[string]struct {
		catalogue                *access.Catalogue
		policies                 []Terms
		needCatalogue, needRules bool
		change                   func(*Request)
		want                     Outcome
		message                  string
	}{
		"nothing at all":                   {catalogue(), nil, false, false, nil, Allowed, ""},
		"a known role":                     {some, nil, false, false, nil, Allowed, ""},
		"an unknown role":                  {some, nil, false, false, with("org.permission.customer.read", "z"), UnknownRole, "the catalogue has no ApiRole z"},
		"a role that is only included":     {some, nil, false, false, with("x"), UnknownRole, "no ApiRole x"},
		"an included role need not be":     {some, policies, true, true, nil, Allowed, ""},
		"an empty catalogue is required":   {catalogue(), policies, true, false, nil, UnknownRole, "--require-catalogue"},
		"a policy is required":             {some, nil, false, true, nil, NotAllowed, "--require-policy"},
		"both are required, and there":     {some, policies, true, true, nil, Allowed, ""},
		"both are required, and not there": {catalogue(), nil, true, true, nil, UnknownRole, "--require-catalogue"},
		"unknown comes before not allowed": {some, []Terms{{Name: "p"}}, false, false, with("z"), UnknownRole, "z"},
		"policies without a catalogue":     {catalogue(), policies, false, true, with("z"), Allowed, ""},
		"an empty policy counts as one":    {catalogue(), []Terms{{}}, false, false, nil, NotAllowed, ""},
	} {
		verdict := NewRules(c.catalogue, c.policies, c.needCatalogue, c.needRules).Judge(asking(c.change))
		if verdict.Outcome != c.want || !strings.Contains(verdict.Message, c.message) || (c.want == Allowed) != (verdict.Message == "") ||
			(c.want == Allowed) != (verdict.Cure == "") {
			t.Errorf("%s: %d %q", name, verdict.Outcome, verdict.Message)
		}
	}
}

func TestTimeAloneMayAllow(t *testing.T) {
	shrinking := func(r *Request) { r.Shrinks, r.Expiry = true, "at: 2030-01-01T00:00:00Z" }
	terms := func(name string, most time.Duration, roles ...string) Terms {
		return Terms{Name: name, MaxLifetime: most, Roles: roles}
	}
	for name, c := range map[string]struct {
		policies []Terms
		change   func(*Request)
		want     time.Duration
	}{
		"not a fixed length":             {[]Terms{terms("a", day, "*")}, nil, 0},
		"the rest of a longer life":      {[]Terms{terms("a", day, "*")}, shrinking, 89 * day},
		"the nearest of two":             {[]Terms{terms("a", day, "*"), terms("b", 30*day, "*")}, shrinking, 60 * day},
		"not where more is refused":      {[]Terms{terms("a", day, "*"), terms("b", 30*day, "other")}, shrinking, 89 * day},
		"not where never would":          {[]Terms{terms("a", day, "other")}, shrinking, 0},
		"nothing to wait for if allowed": {[]Terms{terms("a", day, "*"), terms("b", 0, "*")}, shrinking, 0},
	} {
		if got := NewRules(catalogue(), c.policies, false, false).Judge(asking(c.change)); got.Wait != c.want {
			t.Errorf("%s: %s, %q", name, got.Wait, got.Message)
		}
	}
	// A message that told the time left would be written again in each pass.
	rules := NewRules(catalogue(), []Terms{terms("a", day, "*")}, false, false)
	now, later := asking(shrinking), asking(shrinking)
	later.Lifetime -= time.Second
	if rules.Judge(now).Message != rules.Judge(later).Message {
		t.Error("the message changes with time")
	}
}

func TestMessagesAreBounded(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", 240) + strconv.Itoa(n) }
	roles, policies := make([]string, 0, 256), make([]Terms, 0, 512)
	for i := range 256 {
		roles = append(roles, long(i))
		policies = append(policies, Terms{Name: long(i), Roles: []string{"é" + long(i)}}, Terms{Name: "other" + long(i), Selects: team("b")})
	}
	for _, rules := range []*Rules{
		NewRules(catalogue(), policies, false, false), NewRules(catalogue("x"), nil, false, false), NewRules(catalogue(), nil, true, false),
	} {
		verdict := rules.Judge(asking(with(roles...)))
		if n := len(verdict.Message); n == 0 || n > MaxMessage || !utf8.ValidString(verdict.Message) {
			t.Errorf("%d bytes", n)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	policies := make([]Terms, 0, 100)
	for i := range 100 {
		policies = append(policies, Terms{Name: strconv.Itoa(i), Roles: []string{"org.user.*"}, Selects: team(strconv.Itoa(i % 10))})
	}
	rules := NewRules(catalogue("org.permission.customer.read"), policies, false, false)
	for b.Loop() {
		rules.Judge(asking(nil))
	}
}
