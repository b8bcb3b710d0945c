package model_test

import (
	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

// wrongEnds are states that must not be there once everything has settled.
var wrongEnds = map[string]defect{
	"a Secret outlives its key": {
		RuleLeft,
		History{issued, secret, deleted(10, 11), seen(11, 3, gone), settled(secret)},
		History{issued, secret, deleted(10, 11), seen(11, 3, gone), settled()},
	},
	"a Secret outlives its key, which another one of its name follows": {
		RuleLeft,
		History{
			issued, secret, deleted(10, 11), seen(11, 3, gone), waits(12), refuseAll, settled(secret),
		},
		History{
			issued, secret, deleted(10, 11), seen(11, 3, gone), waits(12), refuseAll, settled(secret), fault("kill", APIServer, 9, 12),
		},
	},
	"a Secret outlives its key and a fault, which was over before another one of its name followed": {
		RuleLeft,
		History{
			issued, secret, fault("kill", APIServer, 9, 12), deleted(10, 11), seen(12, 3, gone), waits(20), refuseAll, settled(secret),
		},
		History{
			issued, secret, fault("kill", APIServer, 9, 12), deleted(10, 11), seen(12, 3, gone), waits(19), refuseAll, settled(secret),
		},
	},
	"a Secret outlives its key and a fault, and another one of its name was issued": {
		RuleLeft,
		History{
			issued, secret, fault("kill", APIServer, 9, 12), deleted(10, 11), seen(12, 3, gone), waits(12), follows(15, 5),
			ask(65, Allowed, func(a *Answer) { a.Digest, a.UID = "sha256:2", "uid-2" }), settled(secret),
		},
		History{
			issued, secret, fault("kill", APIServer, 9, 12), deleted(10, 11), seen(12, 3, gone), waits(12), follows(15, 5),
			ask(65, Allowed, func(a *Answer) { a.Digest, a.UID = "sha256:2", "uid-2" }), settled(),
		},
	},
	"a Secret outlives the deadline": {
		RuleLeft,
		History{seen(1, 2, short...), secret, seen(21, 3, deadline(20), expired), settled(secret)},
		History{seen(1, 2, short...), secret, seen(21, 3, deadline(20), expired), settled()},
	},
	"the Secret of a key that was there before stands in the way of its successor's": {
		RuleLeft,
		History{
			issued, deleted(10, 11), seen(11, 3, gone), seen(12, 4, func(k *Key) { k.UID, k.Digest = "uid-2", "sha256:2" }),
			ask(65, Allowed, func(a *Answer) { a.Digest, a.UID = "sha256:2", "uid-2" }), settled(secret),
		},
		History{
			issued, deleted(10, 11), seen(11, 3, gone), seen(12, 4, func(k *Key) { k.UID, k.Digest = "uid-2", "sha256:2" }),
			ask(65, Allowed, func(a *Answer) { a.Digest, a.UID = "sha256:2", "uid-2" }),
			settled(Secret{Namespace: "shop", Name: "key", Owner: "uid-2", Digest: "sha256:2"}),
		},
	},
	"a key is never issued": {
		RuleLost,
		History{created, seen(0.5, 1, pending("Issuing")), settled()},
		History{created, seen(0.5, 1, pending("Issuing")), issued, ask(65, Allowed), settled(secret)},
	},
	"a key that may be issued waits on": {
		RuleLost,
		History{edit("policy/base", 0, 1, Setting{Roles: []string{"x"}}), seen(2, 1, pending("NotAllowed")),
			edit("policy/base", 9, 10, Setting{Roles: []string{"*"}}), settled()},
		History{edit("policy/base", 0, 1, Setting{Roles: []string{"x"}}), seen(2, 1, pending("NotAllowed")), settled()},
	},
	"the token of an issued key opens nothing": {
		RuleLost,
		History{issued, secret, settled(secret)},
		History{issued, secret, ask(65, Allowed), settled(secret)},
	},
	"nobody marks a dead key": {
		RuleLost,
		History{seen(1, 2, short...), settled()},
		History{seen(1, 2, short...), seen(21, 3, deadline(20), expired), settled()},
	},
	"the watch that all of this is judged by has ended": {
		RuleUnseen,
		History{created, settled()},
		History{created, issued, ask(65, Allowed), settled()},
	},
	"a token is in a log": {
		RuleFinding,
		History{Finding{at(70), "3 traces of tokens in the log of operator-1"}},
		History{},
	},
}

// follows is another key of the same name, and waits is the same while policies refuse it.
func follows(second float64, version uint64) Key {
	return seen(second, version, func(k *Key) { k.UID, k.Digest = "uid-2", "sha256:2" })
}

func waits(second float64) Key {
	return seen(second, 4, func(k *Key) { k.UID = "uid-2" }, pending("NotAllowed"))
}

// refuseAll makes the policy refuse every key.
var refuseAll = edit("policy/base", 11, 11, Setting{Roles: []string{"x"}})
