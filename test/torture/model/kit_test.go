package model_test

import (
	"net/netip"
	"time"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

var promises = Promises{Watch: 5 * time.Second, MaxStaleness: 15 * time.Second, ClockTolerance: 5 * time.Minute}

// at returns a moment of a synthetic history, in seconds.
func at(seconds float64) time.Time {
	return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

const (
	uid    = "uid-1"
	digest = "sha256:1"
)

// world is what each history begins with: a role that includes another one, a policy, and beats.
func world(end float64) History {
	var h History
	for name, value := range map[string]Setting{
		"role/reader": {}, "role/writer": {Includes: []string{"reader"}}, "policy/base": {Roles: []string{"*"}}, "label/shop": {},
	} {
		h = append(h, Operation{Kind: "edit", Subject: name, Asked: at(-60), Answered: at(-60), Value: &value})
	}
	h = append(h, Start{Process: "verifier-1", At: at(-60)})
	for second := -60.0; second <= end; second++ {
		for _, kind := range BeatKinds {
			h = append(h, Beat{Kind: kind, At: at(second)})
		}
	}
	return h
}

// seen is the key of most histories at a moment, as it is once it has been issued, unless changes say otherwise.
func seen(second float64, version uint64, changes ...func(*Key)) Key {
	k := Key{
		At: at(second), UID: uid, Namespace: "shop", Name: "key", Version: version, Roles: []string{"writer"},
		Digest: digest, Issued: at(1), Reason: ReasonIssued, TTL: time.Hour,
	}
	for _, change := range changes {
		change(&k)
	}
	return k
}

func gone(k *Key)    { k.Gone = true }
func expired(k *Key) { k.Reason = ReasonExpired }
func kept(k *Key)    { k.Kept = true }

func deadline(second float64) func(*Key) { return func(k *Key) { k.Deadline = at(second) } }
func ttl(d time.Duration) func(*Key)     { return func(k *Key) { k.TTL = d } }
func pending(reason string) func(*Key) {
	return func(k *Key) { k.Digest, k.Issued, k.Reason = "", time.Time{}, reason }
}

func network(cidr string) func(*Key) {
	return func(k *Key) { k.Networks = []netip.Prefix{netip.MustParsePrefix(cidr)} }
}

func deleted(from, to float64) Operation {
	return Operation{Kind: "delete", Subject: "shop/key", UID: uid, Asked: at(from), Answered: at(to)}
}

func edit(name string, from, to float64, value Setting) Operation {
	return Operation{Kind: "edit", Subject: name, Asked: at(from), Answered: at(to), Value: &value}
}

func fault(kind, target string, from, to float64) Fault {
	return Fault{Kind: kind, Target: target, From: at(from), Back: at(to), To: at(to)}
}

// ask is a request with the key's token for the role reader, which takes a tenth of a second, unless changes say otherwise.
func ask(second float64, result Result, changes ...func(*Answer)) Answer {
	a := Answer{
		Verifier: "verifier-1", Protocol: ForwardAuth, Start: at(second), End: at(second + 0.1), Credential: Token, Digest: digest,
		Role: "reader", Address: netip.MustParseAddr("192.0.2.7"), Result: result,
	}
	if result == Allowed {
		a.UID = uid
	}
	for _, change := range changes {
		change(&a)
	}
	return a
}

// forOther asks for a role that the key has not.
func forOther(a *Answer) { a.Role = "other" }

// What many histories are made of: the key once it has been issued, its Secret, its creation, and the end of a run.
var (
	issued  = seen(1, 2)
	short   = []func(*Key){deadline(20)}
	secret  = Secret{At: at(1), Namespace: "shop", Name: "key", Owner: uid, Digest: digest}
	created = Operation{Kind: "create", Subject: "shop/key", UID: uid, Asked: at(0), Answered: at(0.5)}
)

func settled(secrets ...Secret) Settled { return Settled{At: at(60), Until: at(70), Secrets: secrets} }
