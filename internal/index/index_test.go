package index_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

var born = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func digest(n int) (d token.Digest) {
	random := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}) //nolint:gosec // the truncation is intended
	_, _ = random.Read(d[:])                                                  // never fails
	return d
}

func entry(name string, age time.Duration, d token.Digest, roles ...string) index.Entry {
	return index.Entry{
		ID: index.ID{Namespace: "shop", Name: name}, UID: "uid-of-" + name, Created: born.Add(-age),
		Credentials: []index.Credential{{Digest: d, Deadline: expiry.Never()}}, Networks: access.AnyNetwork(), Roles: roles,
	}
}

func nameOf(key *verify.Key) string {
	if key == nil {
		return ""
	}
	return key.Name
}

func loaded() (*index.Index, *index.Source) {
	x := index.New(born, index.Options{})
	s := x.Source()
	s.Replace(nil)
	return x, s
}

func find(x *index.Index, d token.Digest) *verify.Key {
	key, _ := x.Find(d, born)
	return key
}

func expect(t *testing.T, x *index.Index, d token.Digest, name string) {
	t.Helper()
	if got := nameOf(find(x, d)); got != name {
		t.Errorf("found %q, want %q", got, name)
	}
}

func TestLifeOfAnObject(t *testing.T) {
	x, s := loaded()
	d, other := digest(1), digest(2)
	expect(t, x, d, "")
	s.Put(entry("a", 0, d))
	expect(t, x, d, "a")
	s.Put(entry("a", 0, other)) // rotated
	expect(t, x, d, "")
	expect(t, x, other, "a")
	again := entry("a", 0, d) // another object with the same name
	again.UID = "another"
	s.Put(again)
	expect(t, x, other, "")
	if got := find(x, d); got == nil || got.UID != "another" {
		t.Errorf("found %+v, want the key with the UID another", got)
	}
	s.Remove(again.ID)
	s.Remove(again.ID)
	expect(t, x, d, "")
	if x.Size() != 0 || x.Duplicates() != 0 {
		t.Errorf("after the object is removed, %d keys and %d duplicates are left", x.Size(), x.Duplicates())
	}
}

func TestReplaceRemovesOtherObjects(t *testing.T) {
	x, s := loaded()
	s.Replace([]index.Entry{entry("a", 0, digest(1)), entry("b", 0, digest(2))})
	s.Replace([]index.Entry{entry("b", 0, digest(3)), entry("c", 0, digest(1))})
	expect(t, x, digest(1), "c")
	expect(t, x, digest(2), "")
	expect(t, x, digest(3), "b")
	if x.Size() != 2 {
		t.Errorf("the index has %d keys, want 2", x.Size())
	}
}

// Of two objects with the same digest, neither is accepted, and the younger one never is.
func TestDuplicates(t *testing.T) {
	d := digest(1)
	older, younger, sameAge := entry("older", time.Hour, d), entry("younger", 0, d), entry("sameAge", time.Hour, d)
	for name, c := range map[string]struct {
		steps func(s *index.Source)
		found string
		count int
	}{
		"older first":             {func(s *index.Source) { s.Put(older); s.Put(younger) }, "", 1},
		"younger first":           {func(s *index.Source) { s.Put(younger); s.Put(older) }, "", 1},
		"loaded together":         {func(s *index.Source) { s.Replace([]index.Entry{younger, older}) }, "", 1},
		"the copy is deleted":     {func(s *index.Source) { s.Put(older); s.Put(younger); s.Remove(younger.ID) }, "older", 0},
		"the original is deleted": {func(s *index.Source) { s.Put(older); s.Put(younger); s.Remove(older.ID) }, "", 1},
		"both are deleted":        {func(s *index.Source) { s.Put(older); s.Put(younger); s.Remove(older.ID); s.Remove(younger.ID) }, "", 0},
		"both are deleted, then created again": {func(s *index.Source) {
			s.Put(older)
			s.Put(younger)
			s.Remove(older.ID)
			s.Remove(younger.ID)
			s.Put(sameAge)
		}, "sameAge", 0},
		"the original gets another digest": {func(s *index.Source) { s.Put(older); s.Put(younger); s.Put(entry("older", time.Hour, digest(2))) }, "", 1},
		"the copy gets another digest":     {func(s *index.Source) { s.Put(older); s.Put(younger); s.Put(entry("younger", 0, digest(2))) }, "older", 0},
		"relist without either":            {func(s *index.Source) { s.Put(older); s.Put(younger); s.Replace(nil) }, "", 0},
		"relist with the copy":             {func(s *index.Source) { s.Put(older); s.Put(younger); s.Replace([]index.Entry{younger}) }, "", 1},
		"of the same age":                  {func(s *index.Source) { s.Put(older); s.Put(sameAge); s.Remove(sameAge.ID) }, "", 1},
		"three": {func(s *index.Source) {
			s.Put(younger)
			s.Put(older)
			s.Put(entry("third", time.Minute, d))
			s.Remove(younger.ID)
		}, "", 1},
		"three, then only the oldest": {func(s *index.Source) {
			s.Put(younger)
			s.Put(older)
			s.Put(entry("third", time.Minute, d))
			s.Remove(younger.ID)
			s.Remove(index.ID{Namespace: "shop", Name: "third"})
		}, "older", 0},
		"an update changes nothing": {func(s *index.Source) { s.Put(older); s.Put(younger); s.Put(older); s.Put(younger) }, "", 1},
		"an update, then the copy goes": {func(s *index.Source) {
			s.Put(older)
			s.Put(younger)
			s.Put(older)
			s.Remove(younger.ID)
		}, "older", 0},
	} {
		x, s := loaded()
		c.steps(s)
		if got := nameOf(find(x, d)); got != c.found || x.Duplicates() != c.count {
			t.Errorf("%s: found %q with %d duplicates, want %q with %d", name, got, x.Duplicates(), c.found, c.count)
		}
	}
}

func TestReady(t *testing.T) {
	x := index.New(born, index.Options{MaxStaleness: time.Minute})
	if x.Ready(born) {
		t.Error("ready without a source")
	}
	source, catalogue := x.Source(), x.Catalogue()
	source.Heard(born)
	source.Replace(nil)
	if x.Ready(born) || x.Loaded() {
		t.Error("ready without the catalogue")
	}
	catalogue.Heard(born)
	catalogue.Replace(access.NewCatalogue(nil))
	for at, want := range map[time.Duration]bool{0: true, time.Minute: true, time.Minute + 1: false} {
		if x.Ready(born.Add(at)) != want {
			t.Errorf("after %s, ready is %t, want %t", at, !want, want)
		}
	}
	later := born.Add(time.Hour)
	source.Heard(later)
	if x.Ready(later) {
		t.Error("ready with a stale catalogue")
	}
	source.Put(entry("a", 0, digest(1)))
	if _, fresh := x.Find(digest(1), later); fresh {
		t.Error("a key is fresh with a stale catalogue")
	}
	catalogue.Heard(later)
	if !x.Ready(later) || !x.Loaded() || source.Age(later.Add(time.Second)) != time.Second {
		t.Error("not ready with fresh data, or the age of the source is not a second")
	}
	forever := index.New(born, index.Options{})
	forever.Source().Replace(nil)
	if !forever.Ready(born.Add(1e6 * time.Hour)) {
		t.Error("not ready without a limit of the age")
	}
}

// Each source is fresh or stale by itself. One fresh source is enough for the index to be ready.
func TestStaleSourceDoesNotAffectOthers(t *testing.T) {
	x := index.New(born, index.Options{MaxStaleness: time.Minute})
	first, second, catalogue := x.Source(), x.Source(), x.Catalogue()
	catalogue.Heard(born.Add(time.Hour))
	catalogue.Replace(access.NewCatalogue(nil))
	other := entry("b", 0, digest(2))
	other.Namespace = "other"
	first.Heard(born)
	first.Replace([]index.Entry{entry("a", 0, digest(1))})
	if _, fresh := x.Find(digest(1), born); fresh || x.Ready(born) {
		t.Error("ready before the second source is loaded")
	}
	second.Heard(born)
	second.Replace([]index.Entry{other})
	expect := func(at time.Duration, ready, firstFresh, secondFresh bool) {
		t.Helper()
		now := born.Add(at)
		if x.Ready(now) != ready {
			t.Errorf("after %s, ready is %t, want %t", at, !ready, ready)
		}
		for n, want := range map[int]bool{1: firstFresh, 2: secondFresh} {
			if key, fresh := x.Find(digest(n), now); key == nil || fresh != want {
				t.Errorf("after %s, the key is %+v and fresh is %t, want %t", at, key, fresh, want)
			}
		}
		if key, fresh := x.Find(digest(3), now); key != nil || fresh {
			t.Errorf("after %s, an unknown digest finds %+v with fresh %t", at, key, fresh)
		}
	}
	expect(time.Minute, true, true, true)
	first.Heard(born.Add(30 * time.Minute))
	expect(31*time.Minute, true, true, false)
	expect(31*time.Minute+1, false, false, false) // both sources are stale
	second.Heard(born.Add(50 * time.Minute))
	expect(51*time.Minute, true, false, true)
	first.Heard(born.Add(51 * time.Minute))
	expect(51*time.Minute, true, true, true)
}

// The index doesn't wait for a source that may not be read, but uses it once it is loaded.
func TestForbiddenSource(t *testing.T) {
	x := index.New(born, index.Options{MaxStaleness: time.Minute})
	forbidden, loaded, catalogue := x.Source(), x.Source(), x.Catalogue()
	catalogue.Heard(born)
	catalogue.Replace(access.NewCatalogue(nil))
	forbidden.Forbidden()
	forbidden.Forbidden() // the feed reports it at each attempt
	forbidden.Heard(born)
	if x.Ready(born) || x.Loaded() {
		t.Error("ready with one source not loaded and the other forbidden")
	}
	loaded.Heard(born)
	loaded.Replace([]index.Entry{entry("a", 0, digest(1))})
	if _, fresh := x.Find(digest(1), born); !fresh || !x.Ready(born) || !x.Loaded() {
		t.Error("not ready with one source loaded and the other forbidden")
	}
	if x.Ready(born.Add(time.Minute + 1)) {
		t.Error("ready with a stale source and one that was never loaded")
	}
	other := entry("b", 0, digest(2))
	other.Namespace = "other"
	forbidden.Heard(born.Add(time.Hour))
	forbidden.Replace([]index.Entry{other})
	catalogue.Heard(born.Add(time.Hour))
	if _, fresh := x.Find(digest(2), born.Add(time.Hour)); !fresh || !x.Ready(born.Add(time.Hour)) {
		t.Error("not ready after the forbidden source was loaded")
	}
	alone := index.New(born, index.Options{})
	alone.Source().Forbidden()
	if alone.Ready(born) || alone.Loaded() {
		t.Error("ready though all sources are forbidden")
	}
}

func TestRolesInclude(t *testing.T) {
	x := index.New(born, index.Options{})
	s, catalogue := x.Source(), x.Catalogue()
	d := digest(1)
	s.Put(entry("a", 0, d, "write", "other"))
	s.Put(entry("b", 0, digest(2), "other", "write"))
	carried := func(want ...string) {
		t.Helper()
		for _, d := range []token.Digest{d, digest(2)} {
			if got := find(x, d).Roles.Names(); !slices.Equal(got, want) {
				t.Errorf("a key carries %v, want %v", got, want)
			}
		}
	}
	carried("other", "write")
	catalogue.Replace(access.NewCatalogue([]access.Role{{Name: "write", Includes: []string{"create"}}, {Name: "create", Includes: []string{"write", "read", "gone"}}}))
	carried("create", "gone", "other", "read", "write")
	s.Put(entry("c", 0, digest(3), "create"))
	if got := find(x, digest(3)).Roles.Names(); !slices.Equal(got, []string{"create", "gone", "read", "write"}) {
		t.Errorf("a new key carries %v", got)
	}
	catalogue.Replace(access.NewCatalogue(nil))
	carried("other", "write")
}

// The index must agree with a map, whatever the order of updates.
func TestAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x, s := loaded()
	model := map[index.ID]index.Entry{}
	for step := range 20_000 {
		number := random.IntN(50)
		name := fmt.Sprintf("key-%d", number)
		switch random.IntN(10) {
		case 0:
			id := index.ID{Namespace: "shop", Name: name}
			s.Remove(id)
			delete(model, id)
		case 1:
			if random.IntN(20) == 0 {
				s.Replace(slices.Collect(func(yield func(index.Entry) bool) {
					for _, e := range model {
						if !yield(e) {
							return
						}
					}
				}))
			}
		default:
			// Each name has its own digests: TestDuplicates covers shared ones.
			e := entry(name, 0, digest(4*number+random.IntN(4)))
			s.Put(e)
			model[e.ID] = e
		}
		if x.Size() != len(model) {
			t.Fatalf("step %d: the index has %d keys, want %d", step, x.Size(), len(model))
		}
	}
	for id, e := range model {
		expect(t, x, e.Credentials[0].Digest, id.Name)
	}
}

// This test is for the race detector.
func TestReadersAndAWriter(_ *testing.T) {
	x, s := loaded()
	catalogue := x.Catalogue()
	catalogue.Replace(access.NewCatalogue(nil))
	const n = 200
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if key := find(x, digest(i%n)); key != nil {
					key.Roles.Missing([]string{"a"})
				}
				x.Ready(born)
				runtime.Gosched()
			}
		})
	}
	for i := range 5 * n {
		s.Put(entry(strconv.Itoa(i%n), 0, digest(i%n), "a", "b"))
		if i%7 == 0 {
			s.Remove(index.ID{Namespace: "shop", Name: strconv.Itoa(i % n)})
			catalogue.Replace(access.NewCatalogue([]access.Role{{Name: "a", Includes: []string{strconv.Itoa(i)}}}))
		}
	}
	close(done)
	readers.Wait()
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d keys", n), func(b *testing.B) { benchmarkDecide(b, n) })
	}
}

// BenchmarkMemory reports the live heap per key, for keys with two roles and two networks.
func BenchmarkMemory(b *testing.B) {
	benchmarkMemory(b, func(int) map[string]string { return nil })
}

// BenchmarkMemoryOfAttributes does the same for keys with two attributes: those of a hundred owners, or of an owner each.
func BenchmarkMemoryOfAttributes(b *testing.B) {
	for _, owners := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("%d owners", owners), func(b *testing.B) {
			benchmarkMemory(b, func(i int) map[string]string {
				return map[string]string{"owner": fmt.Sprintf("team-%d", i%owners), "plan": "gold"}
			})
		})
	}
}

func benchmarkMemory(b *testing.B, attributes func(key int) map[string]string) {
	const n = 100_000
	heap := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	for b.Loop() {
		before := heap()
		x := index.New(born, index.Options{})
		s := x.Source()
		for i := range n {
			e := entry(fmt.Sprintf("key-%d", i), 0, digest(i), "org.permission.customer.read", "org.permission.message.create")
			e.UID = fmt.Sprintf("%036d", i)
			var err error
			if e.Networks, err = access.ParseNetworks([]string{"10.0.0.0/8", "2001:db8::/32"}); err != nil {
				b.Fatal(err)
			}
			if e.Attributes, err = verify.NewAttributes(attributes(i)); err != nil {
				b.Fatal(err)
			}
			s.Put(e)
		}
		b.ReportMetric((heap()-before)/n, "bytes/key")
		runtime.KeepAlive(x)
	}
}

// decider decides about requests with a thousand tokens from all over an index.
type decider struct {
	x       *index.Index
	now     time.Time
	headers [][]string
	reader  verify.Reader
	peer    netip.Addr
	route   verify.Route
}

func newDecider(b *testing.B, n int) *decider {
	b.Helper()
	now := time.Now() // with a monotonic reading, as in a verifier
	d := &decider{
		x: index.New(now, index.Options{MaxStaleness: time.Minute}), now: now, headers: make([][]string, 0, 1000),
		reader: verify.Reader{Prefixes: []string{token.DefaultPrefix}},
		peer:   access.Proxies{PeerIsClient: true}.Client(netip.MustParseAddr("10.1.2.3"), nil),
		route:  verify.NewRoute([]string{"org.permission.customer.read"}, nil),
	}
	s := d.x.Source()
	entries := make([]index.Entry, n)
	networks, err := access.ParseNetworks([]string{"10.0.0.0/8", "2001:db8::/32"})
	if err != nil {
		b.Fatal(err)
	}
	for i := range entries {
		entries[i] = entry(fmt.Sprintf("key-%d", i), 0, digest(i), "org.permission.customer.read", "org.permission.message.create")
		entries[i].Networks, entries[i].Credentials[0].Deadline = networks, expiry.At(now.Add(time.Hour))
		if i%(n/1000) == 0 {
			minted := token.Mint(token.DefaultPrefix)
			entries[i].Credentials[0].Digest = minted.Digest()
			d.headers = append(d.headers, []string{"Bearer " + minted.Reveal()})
		}
	}
	s.Replace(entries)
	s.Heard(now)
	return d
}

// allows does what a verifier does for a request, from the text of the header to the decision.
func (d *decider) allows(header []string) bool {
	request := verify.Request{Credential: d.reader.Headers(header, nil), Address: d.peer, Route: d.route}
	return verify.Decide(d.x, &request, d.now).Allowed()
}

func benchmarkDecide(b *testing.B, n int) {
	d := newDecider(b, n)
	benchmarkHeaders(b, d, func(i int) bool { return d.allows(d.headers[i]) })
}

// BenchmarkParts measures the parts of a decision with 100,000 keys: SHA-256 alone, the check of a token, the reading of its header, the
// lookup of its digest, and the lookup with the judgement. The check includes SHA-256, and the reading includes the check.
func BenchmarkParts(b *testing.B) {
	d := newDecider(b, 100_000)
	texts, digests, credentials := make([]string, len(d.headers)), make([]token.Digest, len(d.headers)), make([]verify.Credential, len(d.headers))
	for i, header := range d.headers {
		texts[i] = strings.TrimPrefix(header[0], "Bearer ")
		var err error
		if _, digests[i], err = token.Check(texts[i]); err != nil {
			b.Fatal(err)
		}
		credentials[i] = d.reader.Headers(header, nil)
	}
	for _, part := range []struct {
		name string
		ok   func(i int) bool
	}{
		{"hash", func(i int) bool {
			var text [token.MaxLength]byte
			return sha256.Sum256(text[:copy(text[:], texts[i])]) == digests[i]
		}},
		{"token", func(i int) bool { _, got, _ := token.Check(texts[i]); return got == digests[i] }},
		{"header", func(i int) bool { return d.reader.Headers(d.headers[i], nil) == credentials[i] }},
		{"lookup", func(i int) bool { key, fresh := d.x.Find(digests[i], d.now); return key != nil && fresh }},
		{"lookup and judgement", func(i int) bool {
			request := verify.Request{Credential: credentials[i], Address: d.peer, Route: d.route}
			return verify.Decide(d.x, &request, d.now).Allowed()
		}},
	} {
		b.Run(part.name, func(b *testing.B) { benchmarkHeaders(b, d, part.ok) })
	}
}

// benchmarkHeaders measures a function of the number of a header, which must return true.
func benchmarkHeaders(b *testing.B, d *decider, ok func(i int) bool) {
	b.Helper()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if !ok(i) {
			b.Fatal("a valid token was refused")
		}
		if i++; i == len(d.headers) {
			i = 0
		}
	}
}

// BenchmarkAllCores compares the throughput of all cores with that of one. It does the same with a function that shares nothing, to show
// what the machine can give: cores may share caches, power and, as threads, even their arithmetic. Runs alternate, and the medians of the
// pairs are reported.
func BenchmarkAllCores(b *testing.B) {
	const pairs, decisions = 101, 20_000
	d := newDecider(b, 100_000)
	// rate returns how often so many goroutines do something in a second. Each has a number.
	rate := func(cores int, once func(core, i int)) float64 {
		var group sync.WaitGroup
		began := time.Now()
		for core := range cores {
			group.Go(func() {
				for i := range decisions {
					once(core, i)
				}
			})
		}
		group.Wait()
		return float64(cores*decisions) / time.Since(began).Seconds()
	}
	cores := runtime.GOMAXPROCS(0)
	decide := func(core, i int) {
		if !d.allows(d.headers[(i+core*len(d.headers)/cores)%len(d.headers)]) {
			b.Error("a valid token was refused")
		}
	}
	hash := func(_, i int) { sha256.Sum256([]byte(d.headers[i%len(d.headers)][0])) }
	times, alone := make([]float64, 0, pairs*b.N), make([]float64, 0, pairs*b.N)
	for range b.N {
		for range pairs {
			times = append(times, rate(cores, decide)/rate(1, decide))
			alone = append(alone, rate(cores, hash)/rate(1, hash))
		}
	}
	slices.Sort(times)
	slices.Sort(alone)
	b.ReportMetric(0, "ns/op") // the time of all pairs says nothing
	b.ReportMetric(times[len(times)/2], "times")
	b.ReportMetric(alone[len(alone)/2], "times-for-SHA-256")
}
