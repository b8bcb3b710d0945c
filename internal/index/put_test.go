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

// with returns an object with these digests.
func with(name string, digests ...token.Digest) index.Entry {
	e := entry(name, 0, token.Digest{})
	e.Credentials = nil
	for _, d := range digests {
		e.Credentials = append(e.Credentials, index.Credential{Digest: d, Deadline: expiry.Never()})
	}
	return e
}

func TestObjectWithSeveralDigests(t *testing.T) {
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
			t.Errorf("the index has %d digests and %d duplicates, want %d and 0", x.Size(), x.Duplicates(), size)
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
	s.Put(with("a", pending, pending)) // twice in the same object is not a duplicate
	found(map[token.Digest]string{pending: "a", other: "b"})
	s.Put(with("a", current, pending, pending, current))
	s.Put(with("b"))
	found(map[token.Digest]string{current: "a", pending: "a"})
	again := with("a", pending) // another object with the same name
	again.UID = "another"
	s.Put(again)
	found(map[token.Digest]string{pending: "a"})
	s.Put(with("a", current, pending))
	s.Remove(again.ID)
	found(nil)
}

// A token that is about to be retired expires before the key.
func TestEachDigestHasItsDeadline(t *testing.T) {
	x, s := loaded()
	current, retiring := digest(1), digest(2)
	a := with("a", current, retiring)
	a.Credentials[1].Deadline = expiry.At(born.Add(time.Hour))
	s.Put(a)
	for d, want := range map[token.Digest]bool{current: false, retiring: true} {
		if key := find(x, d); key.Deadline.Passed(born) || key.Deadline.Passed(born.Add(time.Hour)) != want {
			t.Errorf("the deadline is %v, want it to pass within an hour: %t", key.Deadline, want)
		}
	}
}

// attributes are those of a key of this owner.
func attributes(t *testing.T, owner string) verify.Attributes {
	t.Helper()
	a, err := verify.NewAttributes(map[string]string{"owner": owner, "plan": "gold"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Callers may associate data with the address of a key. The frequent updates of the status must not change
// it.
func TestKeyStaysTheSameUnlessItChanges(t *testing.T) {
	networks := func(cidr string) access.Networks {
		parsed, err := access.ParseNetworks([]string{cidr})
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	base := func() index.Entry {
		e := with("a", digest(1), digest(2))
		e.Roles, e.Networks, e.Attributes = []string{"read", "write"}, networks("10.0.0.0/8"), attributes(t, "team-a")
		e.Credentials[0].Deadline, e.Credentials[1].Deadline = expiry.At(born.Add(time.Hour)), expiry.At(born.Add(time.Minute))
		return e
	}
	for name, c := range map[string]struct {
		change        func(*index.Entry)
		first, second bool // whether the key of each digest stays the same
	}{
		"nothing":             {func(*index.Entry) {}, true, true},
		"the order of roles":  {func(e *index.Entry) { e.Roles = []string{"write", "read", "write"} }, true, true},
		"the order of tokens": {func(e *index.Entry) { slices.Reverse(e.Credentials) }, true, true},
		"a further token": {func(e *index.Entry) {
			e.Credentials = append(with("a", digest(3)).Credentials, e.Credentials...)
		}, true, true},
		"one token less":    {func(e *index.Entry) { e.Credentials = e.Credentials[:1] }, true, false},
		"one deadline":      {func(e *index.Entry) { e.Credentials[1].Deadline = expiry.Deadline{} }, true, false},
		"roles":             {func(e *index.Entry) { e.Roles = []string{"read"} }, false, false},
		"networks":          {func(e *index.Entry) { e.Networks = networks("10.0.0.0/9") }, false, false},
		"any network":       {func(e *index.Entry) { e.Networks = access.AnyNetwork() }, false, false},
		"the suspension":    {func(e *index.Entry) { e.Suspended = true }, false, false},
		"the attributes":    {func(e *index.Entry) { e.Attributes = attributes(t, "team-b") }, false, false},
		"no attributes":     {func(e *index.Entry) { e.Attributes = verify.Attributes{} }, false, false},
		"equal attributes":  {func(e *index.Entry) { e.Attributes = attributes(t, "team-a") }, true, true},
		"the UID":           {func(e *index.Entry) { e.UID = "another" }, false, false},
		"the creation time": {func(e *index.Entry) { e.Created = born.Add(time.Second) }, false, false},
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
				t.Errorf("%s: the keys of the digests stay the same: %t and %t", name, find(x, digest(1)) == first, find(x, digest(2)) == second)
			}
		}
		if first.Suspended != old.Suspended || first.Deadline != old.Deadline || first.Roles != old.Roles || first.UID != old.UID || first.Attributes != old.Attributes ||
			first.Networks != old.Networks {
			t.Errorf("%s: a key that others may be reading was modified", name)
		}
	}
}

func TestKeyHasTheAttributesOfItsObject(t *testing.T) {
	x, s := loaded()
	e := with("a", digest(1), digest(2))
	e.Attributes = attributes(t, "team-a")
	s.Put(e)
	for _, d := range []token.Digest{digest(1), digest(2)} {
		if got := find(x, d).Attributes.Get("owner"); got != "team-a" {
			t.Errorf("the owner is %q, want team-a", got)
		}
	}
}

// A copy of one digest of a key affects only that digest.
func TestDuplicateOfOneDigest(t *testing.T) {
	x, s := loaded()
	mine, stolen := digest(1), digest(2)
	older := with("older", mine, stolen)
	older.Created = born.Add(-time.Hour)
	s.Put(older)
	s.Put(with("copy", stolen, digest(3)))
	expect(t, x, mine, "older")
	expect(t, x, stolen, "")
	expect(t, x, digest(3), "copy")
	s.Put(older) // an update of the status changes nothing
	older.Credentials[1].Deadline = expiry.At(born.Add(time.Hour))
	s.Put(older)
	expect(t, x, stolen, "")
	s.Put(with("copy", digest(3)))
	expect(t, x, stolen, "older")
	if key := find(x, stolen); key == nil || !key.Deadline.Passed(born.Add(time.Hour)) {
		t.Errorf("found %+v, want a key that expires within an hour", key)
	}
	if x.Size() != 3 || x.Duplicates() != 0 {
		t.Errorf("the index has %d digests and %d duplicates, want 3 and 0", x.Size(), x.Duplicates())
	}
}

// The index must agree with a map for objects with any set of digests.
func TestSetsOfDigestsAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x, s := loaded()
	model := map[token.Digest]verify.Key{}
	for step := range 20_000 {
		number := random.IntN(20)
		e := with(fmt.Sprintf("key-%d", number))
		for i := range 4 { // each name has its own digests
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
			t.Fatalf("step %d: the index has %d digests and %d duplicates, want %d and 0", step, x.Size(), x.Duplicates(), len(model))
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

// A digest that the object keeps can be found at every moment of an update.
func TestKeptDigestIsAlwaysFound(t *testing.T) {
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
		t.Errorf("a digest that the object kept was not found %d times", missed)
	}
}

// BenchmarkStatusWrite measures an update that changes nothing that a decision depends on.
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
