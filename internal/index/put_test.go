package index_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// with is an object of these digests.
func with(name string, digests ...token.Digest) index.Entry {
	e := entry(name, 0, token.Digest{})
	e.Credentials = nil
	for _, d := range digests {
		e.Credentials = append(e.Credentials, index.Credential{Digest: d, Deadline: expiry.Never()})
	}
	return e
}

func TestAnObjectOfSeveralDigests(t *testing.T) {
	x, s := loaded()
	current, pending, other := digest(1), digest(2), digest(3)
	found := func(want map[token.Digest]string) {
		t.Helper()
		size := 0
		for _, d := range []token.Digest{current, pending, other} {
			expect(t, x, d, want[d])
			if want[d] != "" {
				size++
			}
		}
		if x.Size() != size || x.Duplicates() != 0 {
			t.Errorf("%d digests of which %d are refused, want %d", x.Size(), x.Duplicates(), size)
		}
	}
	s.Put(with("a", current))
	s.Put(with("a", current, pending))
	found(map[token.Digest]string{current: "a", pending: "a"})
	s.Put(with("a", pending, current)) // confirmed
	found(map[token.Digest]string{current: "a", pending: "a"})
	s.Put(with("b", other))
	s.Put(with("a", pending))
	found(map[token.Digest]string{pending: "a", other: "b"})
	s.Put(with("a", pending, pending)) // said twice, and no duplicate
	found(map[token.Digest]string{pending: "a", other: "b"})
	s.Put(with("a", current, pending, pending, current))
	s.Put(with("b"))
	found(map[token.Digest]string{current: "a", pending: "a"})
	again := with("a", pending) // another object of the same name
	again.UID = "another"
	s.Put(again)
	found(map[token.Digest]string{pending: "a"})
	s.Put(with("a", current, pending))
	s.Remove(again.ID)
	found(nil)
}

// Each digest has a deadline of its own: that of a token which is about to be retired comes before the key's.
func TestEachDigestHasItsDeadline(t *testing.T) {
	x, s := loaded()
	current, retiring := digest(1), digest(2)
	a := with("a", current, retiring)
	a.Credentials[1].Deadline = expiry.At(born.Add(time.Hour))
	s.Put(a)
	for d, want := range map[token.Digest]bool{current: false, retiring: true} {
		if key := find(x, d); key.Deadline.Passed(born) || key.Deadline.Passed(born.Add(time.Hour)) != want {
			t.Errorf("after an hour dead: %t", !want)
		}
	}
}

// Whoever remembers something of a key does so by its address: a write of the status, of which there are many, must not lose that.
func TestAKeyStaysTheSameUntilItIsAnother(t *testing.T) {
	networks := func(cidr string) access.Networks {
		parsed, err := access.ParseNetworks([]string{cidr})
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	base := func() index.Entry {
		e := with("a", digest(1), digest(2))
		e.Roles, e.Networks = []string{"read", "write"}, networks("10.0.0.0/8")
		e.Credentials[0].Deadline, e.Credentials[1].Deadline = expiry.At(born.Add(time.Hour)), expiry.At(born.Add(time.Minute))
		return e
	}
	for name, c := range map[string]struct {
		change        func(*index.Entry)
		first, second bool // stay the same
	}{
		"nothing":             {func(*index.Entry) {}, true, true},
		"the order of roles":  {func(e *index.Entry) { e.Roles = []string{"write", "read", "write"} }, true, true},
		"the order of tokens": {func(e *index.Entry) { slices.Reverse(e.Credentials) }, true, true},
		"a further token": {func(e *index.Entry) {
			e.Credentials = append(with("a", digest(3)).Credentials, e.Credentials...)
		}, true, true},
		"a token less":      {func(e *index.Entry) { e.Credentials = e.Credentials[:1] }, true, false},
		"a deadline of one": {func(e *index.Entry) { e.Credentials[1].Deadline = expiry.Deadline{} }, true, false},
		"roles":             {func(e *index.Entry) { e.Roles = []string{"read"} }, false, false},
		"networks":          {func(e *index.Entry) { e.Networks = networks("10.0.0.0/9") }, false, false},
		"any network":       {func(e *index.Entry) { e.Networks = access.AnyNetwork() }, false, false},
		"its suspension":    {func(e *index.Entry) { e.Suspended = true }, false, false},
		"the object":        {func(e *index.Entry) { e.UID = "another" }, false, false},
		"when it was made":  {func(e *index.Entry) { e.Created = born.Add(time.Second) }, false, false},
	} {
		x, s := loaded()
		s.Put(base())
		first, second := find(x, digest(1)), find(x, digest(2))
		old := *first
		changed := base()
		c.change(&changed)
		for range 2 {
			s.Put(changed)
			if (find(x, digest(1)) == first) != c.first || (find(x, digest(2)) == second) != c.second {
				t.Errorf("%s: the same keys: %t, %t", name, find(x, digest(1)) == first, find(x, digest(2)) == second)
			}
		}
		if first.Suspended != old.Suspended || first.Deadline != old.Deadline || first.Roles != old.Roles || first.UID != old.UID || !first.Networks.Equal(old.Networks) {
			t.Errorf("%s: a key that somebody may be reading was changed", name)
		}
	}
}

// A copy of one of a key's digests stops that digest, and no other.
func TestADuplicateOfOneDigest(t *testing.T) {
	x, s := loaded()
	mine, stolen := digest(1), digest(2)
	elder := with("elder", mine, stolen)
	elder.Created = born.Add(-time.Hour)
	s.Put(elder)
	s.Put(with("copy", stolen, digest(3)))
	expect(t, x, mine, "elder")
	expect(t, x, stolen, "")
	expect(t, x, digest(3), "copy")
	s.Put(elder) // a write of its status changes nothing of that
	elder.Credentials[1].Deadline = expiry.At(born.Add(time.Hour))
	s.Put(elder)
	expect(t, x, stolen, "")
	s.Put(with("copy", digest(3)))
	expect(t, x, stolen, "elder")
	if key := find(x, stolen); key == nil || !key.Deadline.Passed(born.Add(time.Hour)) {
		t.Errorf("found %+v", key)
	}
	if x.Size() != 3 || x.Duplicates() != 0 {
		t.Errorf("%d digests, %d duplicates", x.Size(), x.Duplicates())
	}
}

// Whatever sets of digests objects have, one after another: the index knows what a plain list would.
func TestSetsOfDigestsAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x, s := loaded()
	model := map[token.Digest]verify.Key{}
	for step := range 20_000 {
		number := random.IntN(20)
		e := with(fmt.Sprintf("key-%d", number))
		for i := range 4 { // each name has digests of its own
			d := digest(4*number + i)
			delete(model, d)
			if random.IntN(2) == 0 {
				e.Credentials = append(e.Credentials, index.Credential{Digest: d, Deadline: expiry.At(born.Add(time.Duration(random.IntN(3)) * time.Hour))})
			}
		}
		random.Shuffle(len(e.Credentials), func(i, j int) { e.Credentials[i], e.Credentials[j] = e.Credentials[j], e.Credentials[i] })
		if random.IntN(10) == 0 {
			e.UID = "another"
		}
		for _, c := range e.Credentials {
			model[c.Digest] = verify.Key{Name: e.Name, UID: e.UID, Deadline: c.Deadline}
		}
		s.Put(e)
		if x.Size() != len(model) || x.Duplicates() != 0 {
			t.Fatalf("step %d: %d digests and %d duplicates, want %d", step, x.Size(), x.Duplicates(), len(model))
		}
		for i := range 4 {
			want, known := model[digest(4*number+i)]
			key := find(x, digest(4*number+i))
			if (key != nil) != known || known && (key.Name != want.Name || key.UID != want.UID || key.Deadline != want.Deadline) {
				t.Fatalf("step %d: found %+v, want %+v", step, key, want)
			}
		}
	}
}

// While tokens become one another, each of them that stays is found at every moment.
func TestADigestThatStaysDoesNotBlink(t *testing.T) {
	x, s := loaded()
	current, next := digest(1), digest(2)
	states := []index.Entry{with("a", current), with("a", current, next), with("a", next, current), with("a", next, digest(3), current)}
	states[2].Credentials[1].Deadline = expiry.At(born.Add(time.Hour)) // retiring
	states[3].Roles = []string{"read"}
	s.Put(states[0])
	done, reading := make(chan struct{}), make(chan struct{})
	missed := 0
	var reader sync.WaitGroup
	reader.Go(func() {
		for i := 0; ; i++ {
			if find(x, current) == nil {
				missed++
			}
			if i == 0 {
				close(reading)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	<-reading
	for i := range 50_000 {
		s.Put(states[i%len(states)])
	}
	close(done)
	reader.Wait()
	if missed > 0 {
		t.Errorf("not found %d times", missed)
	}
}

// BenchmarkStatusWrite is a source's word of a key of which nothing has changed that decides.
func BenchmarkStatusWrite(b *testing.B) {
	_, s := loaded()
	entries := make([]index.Entry, 10_000)
	for i := range entries {
		entries[i] = entry(fmt.Sprintf("key-%d", i), 0, digest(i), "read", "write")
	}
	s.Replace(entries)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.Put(entries[i])
		if i++; i == len(entries) {
			i = 0
		}
	}
}
