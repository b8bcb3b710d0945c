package model_test

import (
	"time"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

// wrongSuspensions are defects around keys that are turned off and on.
var wrongSuspensions = map[string]defect{
	"a suspended key is accepted again": {
		RuleAnswer,
		History{issued, turned(Suspend, 10, 11), ask(12, InvalidToken), ask(17, Allowed), ask(18, InvalidToken)},
		History{issued, turned(Suspend, 10, 11), ask(12, InvalidToken), ask(15, Allowed), ask(17, InvalidToken), ask(18, InvalidToken)},
	},
	"a suspended key is refused as if its role were missing": {
		RuleAnswer,
		History{issued, turned(Suspend, 10, 11), ask(17, RoleMissing, forOther)},
		History{issued, turned(Suspend, 10, 11), ask(17, InvalidToken, forOther)},
	},
	"a suspended key tells a foreign network from its own": {
		RuleAnswer,
		History{seen(1, 2, network("10.0.0.0/8")), turned(Suspend, 10, 11), ask(17, Forbidden)},
		History{seen(1, 2, network("10.0.0.0/8")), turned(Suspend, 10, 11), ask(15, Forbidden), ask(17, InvalidToken)},
	},
	"a resume is forgotten": {
		RuleAnswer,
		History{issued, turned(Suspend, 5, 6), turned(Resume, 10, 11), ask(17, InvalidToken)},
		History{issued, turned(Suspend, 5, 6), turned(Resume, 10, 11), ask(15, InvalidToken), ask(17, Allowed)},
	},
	"a key is refused before anybody suspends it": {
		RuleAnswer,
		History{issued, ask(9, InvalidToken), turned(Suspend, 10, 11)},
		History{issued, ask(9, Allowed), turned(Suspend, 10, 11), ask(10.5, InvalidToken)},
	},
	"a key that was created suspended opens": {
		RuleAnswer,
		History{seen(1, 2, off), ask(10, Allowed)},
		History{seen(1, 2, off), ask(10, InvalidToken), turned(Resume, 11, 12), ask(13, Allowed)},
	},
	"a verifier that starts after a suspension lets the key in": {
		RuleAnswer,
		History{issued, turned(Suspend, 10, 11), fault("kill", "verifier-1", 11, 13), Start{"verifier-1", at(12)}, ask(14, Allowed)},
		History{issued, turned(Suspend, 10, 12.5), fault("kill", "verifier-1", 11, 13), Start{"verifier-1", at(12)}, ask(14, Allowed)},
	},
	"a verifier forgets a suspension when another key changes": {
		RuleAnswer,
		History{issued, turned(Suspend, 10, 11), seen(20, 5, off, suspended, kept), ask(30, Allowed)},
		History{issued, turned(Suspend, 10, 11), seen(20, 5, off, suspended, kept), ask(30, InvalidToken)},
	},
	"a suspension keeps the deadline from a key": {
		RuleAnswer,
		History{seen(1, 2, short...), turned(Suspend, 5, 6), turned(Resume, 12, 13), ask(20.5, Allowed)},
		History{seen(1, 2, short...), turned(Suspend, 5, 6), turned(Resume, 12, 13), ask(19, Allowed), ask(20.5, InvalidToken)},
	},
	"a suspended key is not marked as expired": {
		RuleLost,
		History{seen(1, 2, deadline(20), off), turned(Suspend, 5, 6), seen(7, 3, deadline(20), off, suspended), settled()},
		History{
			seen(1, 2, deadline(20), off), turned(Suspend, 5, 6), seen(7, 3, deadline(20), off, suspended),
			seen(21, 4, deadline(20), off, expired), settled(),
		},
	},
	"the Secret of a suspended key outlives the deadline": {
		RuleLeft,
		History{seen(1, 2, short...), secret, turned(Suspend, 5, 6), seen(21, 3, deadline(20), off, expired), settled(secret)},
		History{seen(1, 2, short...), secret, turned(Suspend, 5, 6), seen(21, 3, deadline(20), off, expired), settled()},
	},
	"a suspended key gets another token": {
		RuleMint,
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended, func(k *Key) { k.Digest = "sha256:2" })},
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended)},
	},
	"a suspension is counted as another issue": {
		RuleRewrite,
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended, func(k *Key) { k.Issued = at(7) })},
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended)},
	},
	"the status of a suspended key says Issued": {
		RuleLost,
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off), settled(secret)},
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended), settled(secret)},
	},
	"the status of a resumed key says Suspended": {
		RuleLost,
		History{seen(1, 2, off, suspended), turned(Resume, 5, 6), seen(7, 3, suspended), ask(65, Allowed), settled(secret)},
		History{seen(1, 2, off, suspended), turned(Resume, 5, 6), seen(7, 3), ask(65, Allowed), settled(secret)},
	},
	"a resumed key opens nothing in the end": {
		RuleLost,
		History{seen(1, 2, off, suspended), turned(Resume, 5, 6), seen(7, 3), settled(secret)},
		History{seen(1, 2, off, suspended), turned(Resume, 5, 6), seen(7, 3), ask(65, Allowed), settled(secret)},
	},
	"nobody answers the last edit of a spec": {
		RuleLost,
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended, func(k *Key) { k.Lagging = true }), settled(secret)},
		History{issued, turned(Suspend, 5, 6), seen(7, 3, off, suspended), settled(secret)},
	},
	"the refusal of a suspended key has other bytes than that of an unknown token": {
		RuleTells,
		History{issued, turned(Suspend, 5, 6), unknown, ask(17, InvalidToken, bytes("b"))},
		History{issued, turned(Suspend, 5, 6), unknown, ask(17, InvalidToken, bytes("a"))},
	},
	"the refusal of an expired key has other bytes than that of an unknown token": {
		RuleTells,
		History{seen(1, 2, short...), unknown, ask(21, InvalidToken, bytes("b"))},
		History{seen(1, 2, short...), unknown, ask(21, InvalidToken, bytes("a"))},
	},
	"a suspension brings a revoked key back": {
		RuleBack,
		History{
			issued, turned(Suspend, 5, 6), turned(Resume, 7, 8), ask(14, Allowed), deleted(20, 21), seen(21, 3, gone),
			ask(21.2, InvalidToken), ask(22, Allowed),
		},
		History{
			issued, turned(Suspend, 5, 6), turned(Resume, 7, 8), ask(14, Allowed), deleted(20, 21), seen(21, 3, gone),
			ask(21.2, Allowed), ask(22, InvalidToken),
		},
	},
	"a key that was suspended and resumed is collected before its time": {
		RuleExpiry,
		History{
			seen(1, 2, short...), turned(Suspend, 5, 6), turned(Resume, 7, 8), seen(20, 3, deadline(20), expired),
			seen(30, 4, deadline(20), expired, gone),
		},
		History{
			seen(1, 2, deadline(20), ttl(5*time.Second)), turned(Suspend, 5, 6), turned(Resume, 7, 8),
			seen(20, 3, deadline(20), expired, ttl(5*time.Second)), seen(30, 4, deadline(20), expired, ttl(5*time.Second), gone),
		},
	},
}

func off(k *Key)       { k.Suspended = true }
func suspended(k *Key) { k.Reason = ReasonSuspended }

// turned is an edit of the key's spec.suspend.
func turned(kind string, from, to float64) Operation {
	return Operation{Kind: kind, Subject: "shop/key", UID: uid, Asked: at(from), Answered: at(to)}
}

func bytes(text string) func(*Answer) { return func(a *Answer) { a.Bytes = text } }

// unknown is the refusal of a token that no key ever had.
var unknown = ask(3, InvalidToken, bytes("a"), func(a *Answer) { a.Digest = "sha256:foreign" })
