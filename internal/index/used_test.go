package index_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/usage"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// No update of an object loses its uses, not even those that a request marks by an entry that was replaced.
func TestUseSurvivesUpdates(t *testing.T) {
	d := digest(1)
	for name, update := range map[string]func(*index.Entry){
		"nothing":         func(*index.Entry) {},
		"roles":           func(e *index.Entry) { e.Roles = []string{"other"} },
		"the deadline":    func(e *index.Entry) { e.Credentials[0].Deadline = expiry.At(born.Add(time.Hour)) },
		"a further token": func(e *index.Entry) { e.Credentials = append(with("a", digest(2)).Credentials, e.Credentials...) },
		"the suspension":  func(e *index.Entry) { e.Suspended = true },
		"the record":      func(e *index.Entry) { e.Credentials[0].Recorded = born },
		"networks":        func(e *index.Entry) { e.Networks = access.Networks{} },
	} {
		x, s := loaded()
		s.Put(with("a", d))
		before := find(x, d)
		before.Use.Use(7)
		changed := with("a", d)
		update(&changed)
		s.Put(changed)
		before.Use.Use(8)
		if after := find(x, d); after.Use.Used() != 8 {
			t.Errorf("%s: the last use is %d, want 8", name, after.Use.Used())
		}
		s.Replace([]index.Entry{changed})
		if after := find(x, d); after.Use.Used() != 8 {
			t.Errorf("%s: after a load, the last use is %d, want 8", name, after.Use.Used())
		}
	}
}

// Another object with the same digest or name, and another token of the same object, have uses of their own.
func TestUseIsOfOneToken(t *testing.T) {
	x, s := loaded()
	s.Put(with("a", digest(1), digest(2)))
	find(x, digest(1)).Use.Use(7)
	again := with("a", digest(1), digest(3))
	if used := find(x, digest(2)).Use.Used(); used != 0 {
		t.Errorf("the other token was used at %d", used)
	}
	again.UID = "another"
	s.Put(again)
	if used := find(x, digest(1)).Use.Used(); used != 0 {
		t.Errorf("the token of another object of the same name was used at %d", used)
	}
}

func TestUsed(t *testing.T) {
	x, s := loaded()
	recorded := with("b", digest(3))
	recorded.Credentials[0].Recorded = born
	s.Replace([]index.Entry{with("a", digest(1), digest(2)), recorded, with("unused", digest(4))})
	find(x, digest(2)).Use.Use(7)
	find(x, digest(3)).Use.Use(9)
	got := map[token.Digest]string{}
	x.Used(func(key *verify.Key, d *token.Digest) {
		got[*d] = fmt.Sprintf("%s %d %s", key.Name, key.Use.Used(), key.Use.Recorded().Format(time.TimeOnly))
	})
	if want := map[token.Digest]string{digest(2): "a 7 00:00:00", digest(3): "b 9 12:00:00"}; !maps.Equal(got, want) {
		t.Errorf("used are %v, want %v", got, want)
	}
	recorded.Credentials[0].Recorded = born.Add(time.Hour)
	s.Put(recorded)
	if got := find(x, digest(3)).Use.Recorded(); !got.Equal(born.Add(time.Hour)) {
		t.Errorf("recorded at %s, want an hour later", got)
	}
}

// BenchmarkUse measures a decision together with the mark, on all cores: when all of them use one key, and when they use a
// thousand.
func BenchmarkUse(b *testing.B) {
	for _, marked := range []bool{false, true} {
		for _, keys := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%d keys, marked %t", keys, marked), func(b *testing.B) { benchmarkUse(b, keys, marked) })
		}
	}
}

func benchmarkUse(b *testing.B, keys int, marked bool) {
	started := time.Now()
	x := index.New(started, index.Options{})
	s := x.Source()
	credentials := make([]verify.Credential, keys)
	entries := make([]index.Entry, keys)
	for i := range entries {
		minted := token.Mint(token.DefaultPrefix)
		credentials[i] = verify.Reader{Prefixes: []string{token.DefaultPrefix}}.Token(minted.Reveal())
		entries[i] = entry(fmt.Sprintf("key-%d", i), 0, minted.Digest(), "read")
	}
	s.Replace(entries)
	meter, route := usage.NewMeter(started), verify.NewRoute([]string{"read"}, nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			now := time.Now()
			request := verify.Request{Credential: credentials[i%keys], Route: route}
			decision := verify.Decide(x, &request, now)
			if !decision.Allowed() {
				b.Error("a valid token was refused")
				return
			}
			if marked {
				decision.Key.Use.Use(meter.Second(now))
			}
		}
	})
}

// BenchmarkUsed measures how long it takes to find the tokens in use, which are each tenth of a million.
func BenchmarkUsed(b *testing.B) {
	const n = 1_000_000
	x, s := loaded()
	entries := make([]index.Entry, n)
	for i := range entries {
		entries[i] = entry(fmt.Sprintf("key-%d", i), 0, digest(i), "read")
	}
	s.Replace(entries)
	for i := 0; i < n; i += 10 {
		find(x, digest(i)).Use.Use(1)
	}
	for b.Loop() {
		used := 0
		x.Used(func(*verify.Key, *token.Digest) { used++ })
		if used != n/10 {
			b.Fatalf("%d are in use, want %d", used, n/10)
		}
	}
}
