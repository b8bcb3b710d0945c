// Package script runs the test cases in cases/ against the decision and against every protocol, so that all
// give the same results. It is for tests only: products must not import it.
//
// A script has one statement per line. # starts a comment:
//
//	key NAME [namespace=N] [role=R]... [cidr=C]... [ttl=1h]     a key that exists from time 0; without ttl, it never expires
//	key NAME ... [attribute=NAME:VALUE]...                      a key with attributes
//	key NAME ... silent                                         a key in a namespace with stale data
//	delete NAME                                                 deletes a key
//	suspend NAME        resume NAME                             suspends a key, and resumes it
//	token NAME                                                  a token that no key ever had
//	prefixes P,...      proxies CIDR...      defaults role=R...      require-scope      forward ATTRIBUTE...      unloaded
//	ask [at=30m] [from=ADDRESS] [xff=LINE]... [authorization=LINE]... [apikey=LINE]... [role=R]... [namespace=N] [param=NAME:VALUE] -> RESULT
//
// In a LINE, <NAME> stands for a token and <NAME!> for the same token with a wrong checksum. Quotes preserve
// spaces. PROTOCOL=RESULT at the end of an ask overrides the result for a protocol that can't express all of
// the request.
//
// After Allowed, header=NAME:VALUE is an attribute that the upstream must receive in a header, and attribute=NAME:VALUE
// one that it must receive over a protocol that tells all attributes. It must receive no others.
package script

import (
	"embed"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/serve"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

//go:embed cases/*.txt
var cases embed.FS

// start is time 0 of every script.
var start = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

const maxStaleness = time.Hour

// World is the state that the requests of a script are decided with.
type World struct {
	Protocol *serve.Protocol
	Index    *index.Index
	Reader   verify.Reader
	Proxies  access.Proxies
	Defaults verify.Defaults
	// Attributes are sent to the upstream in headers.
	Attributes []serve.AttributeHeader
	// Now is the time of the current request.
	Now time.Time

	name     string
	registry *prometheus.Registry
	source   *index.Source
	silent   *index.Source
	loaded   bool
	tokens   map[string]token.Token
	entries  map[string]index.Entry
	isSilent map[index.ID]bool
}

// Ask is a request of a script.
type Ask struct {
	// From is the peer address. The zero value is a peer without an address.
	From          netip.Addr
	ForwardedFor  []string
	Authorization []string
	APIKey        []string
	Roles         []string
	Namespaces    []string
	// Params are further parameters of the route as pairs of name and value. No protocol knows them.
	Params [][2]string

	// SameClass is the class of the expected result, for protocols that don't distinguish some classes.
	SameClass verify.Class
}

// BareToken returns the token of a request that has a token, or nothing, and no other parameters. It returns
// false for other requests.
func (a Ask) BareToken() (string, bool) {
	if len(a.APIKey)+len(a.ForwardedFor)+len(a.Roles)+len(a.Namespaces)+len(a.Params) > 0 || len(a.Authorization) > 1 {
		return "", false
	}
	if len(a.Authorization) == 0 {
		return "", true
	}
	return strings.CutPrefix(a.Authorization[0], "Bearer ")
}

// Answer is what a client receives.
type Answer struct {
	// Class is the class that the answer stands for.
	Class verify.Class
	// Bytes is the answer as sent, without dates.
	Bytes string
	// Identity is what the upstream receives: namespace, name, UID and roles, as far as the protocol has
	// them. It is empty for a refusal.
	Identity string
	// Headers are the attributes that the upstream receives in headers, by name. Nil if the protocol has no headers.
	Headers map[string]string
	// Attributes are all attributes of the key that the protocol tells, by name. Nil if it doesn't tell them.
	Attributes map[string]string
}

// Adapter sends a request over a protocol. It returns false if the protocol can't express the request.
type Adapter func(t *testing.T, world *World, ask Ask) (answer Answer, ok bool)

// Run runs all scripts over a protocol, without and with an observer that notes the use of keys. It compares the answers of both.
func Run(t *testing.T, protocol string, adapter Adapter) {
	files, err := cases.ReadDir("cases")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d scripts, error %v", len(files), err)
	}
	asked := 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(file.Name(), ".txt"), func(t *testing.T) {
			text, err := cases.ReadFile("cases/" + file.Name())
			if err != nil {
				t.Fatal(err)
			}
			plain := newRunner(protocol, adapter)
			plain.runAll(t, string(text))
			noting := newRunner(protocol, adapter, serve.NewUsage(usage.NewMeter(start)))
			noting.runAll(t, string(text))
			compare(t, plain, noting)
			asked += len(plain.answers)
		})
	}
	if asked == 0 {
		t.Error("the adapter can't express any request of the scripts")
	}
}

// compare checks that the use of keys is noted where a request is accepted, and changes no answer.
func compare(t *testing.T, plain, noting *runner) {
	t.Helper()
	if !reflect.DeepEqual(plain.answers, noting.answers) {
		for line, answer := range plain.answers {
			if !reflect.DeepEqual(answer, noting.answers[line]) {
				t.Errorf("line %d: the answer differs if the use of keys is noted:\ngot  %+v\nwant %+v", line, noting.answers[line], answer)
			}
		}
	}
	accepted, noted := 0, 0
	for _, answer := range noting.answers {
		if answer.Class == verify.OK {
			accepted++
		}
	}
	noting.Index.Used(func(*verify.Key, *token.Digest) { noted++ })
	if accepted > 0 && noted == 0 {
		t.Errorf("%d requests were accepted, and no use was noted", accepted)
	}
	plain.Index.Used(func(*verify.Key, *token.Digest) { t.Error("a use was noted without the observer") })
}

func newWorld(protocol string, observers ...serve.Observer) *World {
	w := &World{
		Index: index.New(start, index.Options{MaxStaleness: maxStaleness}), Reader: verify.Reader{Prefixes: []string{token.DefaultPrefix}},
		Proxies: access.Proxies{PeerIsClient: true},
		name:    protocol, registry: prometheus.NewRegistry(), loaded: true,
		tokens: map[string]token.Token{}, entries: map[string]index.Entry{}, isSilent: map[index.ID]bool{},
	}
	w.source, w.silent = w.Index.Source(), w.Index.Source()
	w.source.Heard(start.Add(1e6 * time.Hour)) // later than any request
	w.silent.Heard(start.Add(-2 * maxStaleness))
	w.Protocol = serve.NewChecker(serve.Options{
		Keys: w.Index, Now: func() time.Time { return w.Now },
		Observers: append([]serve.Observer{serve.NewMetrics(w.registry), serve.NewLog(logr.Logger{}, false, w.registry)}, observers...),
	}).Protocol(protocol)
	return w
}

type runner struct {
	*World
	adapter  Adapter
	line     int
	answers  map[int]Answer          // by line
	refusals map[verify.Class]string // the bytes of the first refusal of each class
}

func newRunner(protocol string, adapter Adapter, observers ...serve.Observer) *runner {
	return &runner{
		World: newWorld(protocol, observers...), adapter: adapter, answers: map[int]Answer{}, refusals: map[verify.Class]string{},
	}
}

func (r *runner) runAll(t *testing.T, text string) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		r.line = i + 1
		r.run(t, line)
	}
}

func (r *runner) run(t *testing.T, line string) {
	t.Helper()
	words, err := split(line)
	if err != nil {
		t.Fatalf("line %d: %v", r.line, err)
	}
	if len(words) == 0 {
		return
	}
	verb, args := words[0], words[1:]
	switch verb {
	case "key":
		r.key(t, args)
	case "delete":
		id := r.entries[args[0]].ID
		r.sourceOf(id).Remove(id)
	case "suspend", "resume":
		entry := r.entries[args[0]]
		entry.Suspended = verb == "suspend"
		r.entries[args[0]] = entry
		r.sourceOf(entry.ID).Put(entry)
	case "token":
		r.tokens[args[0]] = token.Mint(r.Reader.Prefixes[0])
	case "prefixes":
		r.Reader.Prefixes = strings.Split(args[0], ",")
	case "proxies":
		if r.Proxies.Trusted, err = access.ParseNetworks(args); err != nil {
			t.Fatalf("line %d: %v", r.line, err)
		}
	case "defaults":
		for _, arg := range args {
			r.Defaults.Roles = append(r.Defaults.Roles, strings.TrimPrefix(arg, "role="))
		}
	case "require-scope":
		r.Defaults.RequireScope = true
	case "forward":
		if r.Attributes, err = serve.NewAttributeHeaders(args); err != nil {
			t.Fatalf("line %d: %v", r.line, err)
		}
	case "unloaded":
		r.loaded = false
	case "ask":
		r.ask(t, args)
	default:
		t.Fatalf("line %d: unknown statement %q", r.line, verb)
	}
}

func (r *runner) key(t *testing.T, args []string) {
	t.Helper()
	name := args[0]
	minted := token.Mint(r.Reader.Prefixes[0])
	entry := index.Entry{
		ID: index.ID{Namespace: "shop", Name: name}, UID: "uid-of-" + name, Created: start,
		Credentials: []index.Credential{{Digest: minted.Digest(), Deadline: expiry.Never()}}, Networks: access.AnyNetwork(),
	}
	var cidrs []string
	attributes := map[string]string{}
	for _, arg := range args[1:] {
		option, value, _ := strings.Cut(arg, "=")
		switch option {
		case "namespace":
			entry.Namespace = value
		case "role":
			entry.Roles = append(entry.Roles, value)
		case "cidr":
			cidrs = append(cidrs, value)
		case "attribute":
			name, value, _ := strings.Cut(value, ":")
			attributes[name] = value
		case "silent":
			r.isSilent[entry.ID] = true
		case "ttl":
			entry.Credentials[0].Deadline = expiry.At(start.Add(duration(t, value)))
		default:
			t.Fatalf("line %d: unknown option %q of a key", r.line, option)
		}
	}
	if len(cidrs) > 0 {
		// An error results in networks without addresses.
		entry.Networks, _ = access.ParseNetworks(cidrs)
	}
	var err error
	if entry.Attributes, err = verify.NewAttributes(attributes); err != nil {
		t.Fatalf("line %d: %v", r.line, err)
	}
	r.tokens[name], r.entries[name] = minted, entry
	r.sourceOf(entry.ID).Put(entry)
}

func (r *runner) sourceOf(id index.ID) *index.Source {
	if r.isSilent[id] {
		return r.silent
	}
	return r.source
}

func (r *runner) ask(t *testing.T, args []string) {
	t.Helper()
	arrow := slices.Index(args, "->")
	if arrow < 0 || arrow+1 >= len(args) {
		t.Fatalf("line %d: a request without a result", r.line)
	}
	want := args[arrow+1]
	told := Answer{Headers: map[string]string{}, Attributes: map[string]string{}}
	for _, other := range args[arrow+2:] {
		option, value, _ := strings.Cut(other, "=")
		name, attribute, _ := strings.Cut(value, ":")
		switch option {
		case r.name:
			want = value
		case "header":
			told.Headers[name] = attribute
		case "attribute":
			told.Attributes[name] = attribute
		}
	}
	ask := r.parse(t, args[:arrow])
	ask.SameClass = resultOf(want).Class()
	if r.loaded {
		r.loaded = false // once
		var heard, silent []index.Entry
		for _, entry := range r.entries {
			if r.isSilent[entry.ID] {
				silent = append(silent, entry)
			} else {
				heard = append(heard, entry)
			}
		}
		r.source.Replace(heard)
		r.silent.Replace(silent)
	}
	before := r.results(t)
	answer, ok := r.adapter(t, r.World, ask)
	if !ok {
		return
	}
	r.answers[r.line] = answer
	var decided []string
	for result, n := range r.results(t) {
		if n != before[result] {
			decided = append(decided, result)
		}
	}
	if got := strings.Join(decided, ","); got != want {
		t.Errorf("line %d: decided %s, want %s; if %s can't express this ask in full, end the line with %[4]s=RESULT", r.line, got, want, r.name)
		return
	}
	r.check(t, want, answer)
	if want == verify.Allowed.String() {
		r.checkAttributes(t, told, answer)
	}
}

// checkAttributes compares the attributes that the upstream receives with those that it must receive.
func (r *runner) checkAttributes(t *testing.T, want, got Answer) {
	t.Helper()
	if got.Headers != nil && !maps.Equal(got.Headers, want.Headers) {
		t.Errorf("line %d: the upstream receives the attributes %v in headers, want %v", r.line, got.Headers, want.Headers)
	}
	if got.Attributes != nil && !maps.Equal(got.Attributes, want.Attributes) {
		t.Errorf("line %d: the upstream receives the attributes %v, want %v", r.line, got.Attributes, want.Attributes)
	}
	if got.Headers == nil && got.Attributes == nil {
		t.Errorf("line %d: the protocol tells no attributes", r.line)
	}
}

// check compares the answer with the result.
func (r *runner) check(t *testing.T, want string, answer Answer) {
	t.Helper()
	result := resultOf(want)
	if answer.Class != result.Class() {
		t.Errorf("line %d: the answer for %s has class %d, want %d", r.line, want, answer.Class, result.Class())
	}
	if (answer.Identity != "") != (result == verify.Allowed) {
		t.Errorf("line %d: the answer for %s has the identity %q", r.line, want, answer.Identity)
	}
	if result == verify.Allowed {
		return
	}
	if len(answer.Headers)+len(answer.Attributes) > 0 {
		t.Errorf("line %d: the answer for %s tells attributes of the key", r.line, want)
	}
	first, known := r.refusals[answer.Class]
	if !known {
		r.refusals[answer.Class] = answer.Bytes
	} else if answer.Bytes != first {
		t.Errorf("line %d: the answer for %s differs from the first refusal of its class:\ngot  %q\nwant %q", r.line, want, answer.Bytes, first)
	}
}
