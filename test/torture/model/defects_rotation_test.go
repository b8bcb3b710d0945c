package model_test

import (
	"slices"
	"time"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

const second, third = "sha256:2", "sha256:3"

// The usual rotation: requested at 10 with an overlap of ten seconds, confirmed at 12, so that the old token retires at 22.
var (
	committed = seen(11, 3, begun(second))
	confirmed = seen(12, 4, rotated(1, second, 12), retires(digest, 22))
	retired   = seen(22.5, 5, rotated(1, second, 12))
	rotation  = History{issued, requested(Rotate, 10, 10*time.Second), committed, confirmed}
)

// after is the usual rotation and what follows.
func after(events ...Event) History { return slices.Concat(rotation, events) }

// wrongRotations are defects around keys that have more than one token.
var wrongRotations = map[string]defect{
	"a pending token is refused": {
		RuleAnswer,
		History{issued, requested(Rotate, 10, 0), committed, ask(17, InvalidToken, ofSecond)},
		History{issued, requested(Rotate, 10, 0), committed, ask(15, InvalidToken, ofSecond), ask(17, Allowed, ofSecond)},
	},
	"the current token is refused while another one is pending": {
		RuleAnswer,
		History{issued, requested(Rotate, 10, 0), committed, ask(17, InvalidToken)},
		History{issued, requested(Rotate, 10, 0), committed, ask(17, Allowed)},
	},
	"a retiring token is refused within its overlap": {
		RuleAnswer,
		after(ask(21, InvalidToken)),
		after(ask(21, Allowed), ask(21.95, InvalidToken)),
	},
	"a retiring token is accepted after its overlap, before the operator removes it": {
		RuleAnswer,
		after(ask(22, Allowed)),
		after(ask(21.95, Allowed), ask(22, InvalidToken)),
	},
	"a retired token comes back": {
		RuleBack,
		after(ask(13, Allowed), requested(Retire, 15, 0), seen(16, 5, rotated(1, second, 12)), ask(16.2, InvalidToken), ask(17, Allowed)),
		after(ask(13, Allowed), requested(Retire, 15, 0), seen(16, 5, rotated(1, second, 12)), ask(16.2, Allowed), ask(17, InvalidToken)),
	},
	"a token without an overlap is accepted": {
		RuleAnswer,
		History{issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12)), ask(17.5, Allowed)},
		History{issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12)), ask(16, Allowed), ask(17.5, InvalidToken)},
	},
	"the newest token blinks": {
		RuleAnswer,
		after(ask(18, InvalidToken, ofSecond)),
		after(ask(18, Allowed, ofSecond)),
	},
	"a retiring token outlives its key": {
		RuleAnswer,
		History{
			seen(1, 2, short...), requested(Rotate, 10, time.Minute), seen(11, 3, deadline(20), begun(second)),
			seen(12, 4, deadline(20), rotated(1, second, 12), retires(digest, 72)), ask(20.5, Allowed),
		},
		History{
			seen(1, 2, short...), requested(Rotate, 10, time.Minute), seen(11, 3, deadline(20), begun(second)),
			seen(12, 4, deadline(20), rotated(1, second, 12), retires(digest, 72)), ask(19, Allowed), ask(20.5, InvalidToken),
		},
	},
	"a pending token that was given up is accepted": {
		RuleAnswer,
		History{issued, requested(Rotate, 10, 0), committed, seen(13, 4, begun(third)), ask(19, Allowed, ofSecond)},
		History{issued, requested(Rotate, 10, 0), committed, seen(13, 4, begun(third)), ask(17, Allowed, ofSecond), ask(19, InvalidToken, ofSecond)},
	},
	"a token becomes current that was not pending": {
		RuleMint,
		History{issued, requested(Rotate, 10, 10*time.Second), committed, seen(12, 4, rotated(1, third, 12), retires(digest, 22))},
		rotation,
	},
	"a rotation that nobody requested": {
		RuleMint,
		History{issued, committed, seen(12, 4, rotated(1, second, 12))},
		History{issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12))},
	},
	"one request is served twice": {
		RuleMint,
		History{
			issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12)), seen(13, 5, rotated(1, second, 12), begun(third)),
			seen(14, 6, rotated(2, third, 14)),
		},
		History{
			issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12)), requested(Rotate, 12.5, 0),
			seen(13, 5, rotated(1, second, 12), begun(third)), seen(14, 6, rotated(2, third, 14)),
		},
	},
	"a rotation that is not counted": {
		RuleMint,
		History{issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(0, second, 12))},
		History{issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12))},
	},
	"a rotation is taken back": {
		RuleRewrite,
		after(seen(13, 5)),
		after(),
	},
	"a token retires that was not the current one": {
		RuleRewrite,
		History{issued, requested(Rotate, 10, 10*time.Second), committed, seen(12, 4, rotated(1, second, 12), retires(third, 22))},
		rotation,
	},
	"the end of an overlap moves": {
		RuleRewrite,
		after(seen(13, 5, rotated(1, second, 12), retires(digest, 32))),
		after(seen(13, 5, rotated(1, second, 12), retires(digest, 22))),
	},
	"an overlap is longer than was requested": {
		RuleExpiry,
		History{issued, requested(Rotate, 10, 10*time.Second), committed, seen(12, 4, rotated(1, second, 12), retires(digest, 42))},
		rotation,
	},
	"an overlap is left out": {
		RuleExpiry,
		History{issued, requested(Rotate, 10, 10*time.Second), committed, seen(12, 4, rotated(1, second, 12))},
		History{issued, requested(Rotate, 10, 0), committed, seen(12, 4, rotated(1, second, 12))},
	},
	"an overlap ends early": {
		RuleExpiry,
		after(seen(21, 5, rotated(1, second, 12))),
		after(requested(Retire, 20, 0), seen(21, 5, rotated(1, second, 12))),
	},
	"a request from before the overlap ends it": {
		RuleExpiry,
		slices.Concat(History{issued, requested(Retire, 3, 0)}, after(seen(21, 5, rotated(1, second, 12)))),
		slices.Concat(History{issued, requested(Retire, 3, 0)}, after(retired)),
	},
	"a rotation begins although no policy allows the key": {
		RuleGrant,
		slices.Concat(History{edit("policy/base", 2, 3, Setting{Roles: []string{"other"}})}, rotation),
		slices.Concat(History{edit("policy/base", 9, 10, Setting{Roles: []string{"other"}})}, rotation),
	},
	"a Secret gets a token that was never pending": {
		RuleMint,
		after(Secret{At: at(13), Namespace: "shop", Name: "key", Owner: uid, Digest: third}),
		after(Secret{At: at(13), Namespace: "shop", Name: "key", Owner: uid, Digest: second}),
	},
	"a Secret gets an unseen token without a rotation that the watch may have missed": {
		RuleMint,
		History{
			issued, fault("kill", APIServer, 4, 9),
			Secret{At: at(13), Namespace: "shop", Name: "key", Owner: uid, Digest: second}, deleted(14, 15), seen(16, 5, gone),
		},
		History{
			issued, fault("kill", APIServer, 4, 9), requested(Rotate, 10, 0),
			Secret{At: at(13), Namespace: "shop", Name: "key", Owner: uid, Digest: second}, deleted(14, 15), seen(16, 5, gone),
		},
	},
	"a Secret gets an unseen token although the watch was never lost": {
		RuleMint,
		History{
			issued, requested(Rotate, 10, 0),
			Secret{At: at(13), Namespace: "shop", Name: "key", Owner: uid, Digest: second}, deleted(14, 15), seen(16, 5, gone),
		},
		History{
			issued, fault("kill", APIServer, 9, 12), requested(Rotate, 10, 0),
			Secret{At: at(13), Namespace: "shop", Name: "key", Owner: uid, Digest: second}, deleted(14, 15), seen(16, 5, gone),
		},
	},
	"a Secret gets an unseen token long after the watch was lost": {
		RuleMint,
		History{
			issued, requested(Rotate, 10, 0), fault("kill", APIServer, 20, 23),
			Secret{At: at(32), Namespace: "shop", Name: "key", Owner: uid, Digest: second}, deleted(33, 34), seen(35, 5, gone),
		},
		History{ // the operators were disturbed until then
			issued, requested(Rotate, 10, 0), fault("kill", APIServer, 20, 23),
			Secret{At: at(25), Namespace: "shop", Name: "key", Owner: uid, Digest: second}, deleted(26, 27), seen(28, 5, gone),
		},
	},
	"the Secret holds the retired token at the end": {
		RuleLeft,
		after(retired, ask(65, Allowed, ofSecond), settled(secret)),
		after(retired, ask(65, Allowed, ofSecond), settled(Secret{At: at(12), Namespace: "shop", Name: "key", Owner: uid, Digest: second})),
	},
	"a retiring token is never removed": {
		RuleLost,
		after(ask(65, Allowed, ofSecond), settled()),
		after(retired, ask(65, Allowed, ofSecond), settled()),
	},
	"a requested rotation never comes": {
		RuleLost,
		History{issued, requested(Rotate, 10, 0), seen(11, 3, unserved), ask(65, Allowed), settled()},
		History{issued, requested(Rotate, 10, 0), seen(11, 3), ask(65, Allowed), settled()}, // it is blocked
	},
	"the refusal of a retired token has other bytes than that of an unknown one": {
		RuleTells,
		after(unknown, ask(23, InvalidToken, bytes("b"))),
		after(unknown, ask(23, InvalidToken, bytes("a"))),
	},
}

func unserved(k *Key) { k.Waiting = true }

func begun(pending string) func(*Key) { return func(k *Key) { k.Pending = pending } }

func rotated(count int, current string, second float64) func(*Key) {
	return func(k *Key) { k.Rotations, k.Digest, k.RotatedAt = count, current, at(second) }
}

func retires(retiring string, second float64) func(*Key) {
	return func(k *Key) { k.Retiring, k.RetiresAt = retiring, at(second) }
}

// requested is a request at a moment, which is answered at once.
func requested(kind string, second float64, overlap time.Duration) Operation {
	return Operation{Kind: kind, Subject: "shop/key", UID: uid, Asked: at(second), Answered: at(second + 0.1), Overlap: overlap}
}

// ofSecond makes an answer one to the second token of the key.
func ofSecond(a *Answer) { a.Digest = second }
