package model_test

import (
	"time"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

// wrongLives are lives of keys that operators may not lead them through.
var wrongLives = map[string]defect{
	"a second mint": {
		RuleMint,
		History{issued, seen(5, 3, func(k *Key) { k.Digest = "sha256:2" })},
		History{seen(1, 2, func(k *Key) { k.Issued, k.Reason = time.Time{}, "Issuing" }), seen(5, 3, func(k *Key) { k.Digest = "sha256:2" })},
	},
	"a second token is delivered": {
		RuleMint,
		History{issued, secret, Secret{At: at(9), Namespace: "shop", Name: "key", Owner: uid, Digest: "sha256:2"}},
		History{Secret{At: at(0.5), Namespace: "shop", Name: "key", Owner: uid, Digest: "sha256:2"}, issued, secret},
	},
	"an expired key comes back": {
		RuleRewrite,
		History{seen(1, 2, short...), seen(21, 3, deadline(20), expired), seen(30, 4, short...)},
		History{seen(1, 2, short...), seen(21, 3, deadline(20), expired), seen(30, 4, deadline(20), expired, kept)},
	},
	"a deadline is moved": {
		RuleRewrite,
		History{seen(1, 2, short...), seen(5, 3, deadline(40))},
		History{seen(1, 2, short...), seen(5, 3, short...)},
	},
	"a key is marked as expired too early": {
		RuleExpiry,
		History{seen(1, 2, short...), seen(15, 3, deadline(20), expired), ask(17, InvalidToken)},
		History{
			Fault{Kind: "jump", Target: "operator-1", From: at(10), Back: at(14), To: at(14), Offset: 10 * time.Second},
			seen(1, 2, short...), seen(15, 3, deadline(20), expired), ask(17, InvalidToken),
		},
	},
	"a clock that is hours ahead expires a key": {
		RuleExpiry,
		History{
			Fault{Kind: "jump", Target: "operator-1", From: at(10), Back: at(14), To: at(14), Offset: 2 * time.Hour},
			seen(1, 2, deadline(1000)), seen(13, 3, deadline(1000), expired),
		},
		History{
			Fault{Kind: "jump", Target: "operator-1", From: at(10), Back: at(14), To: at(14), Offset: 2 * time.Hour},
			seen(1, 2, deadline(1000)), seen(1001, 3, deadline(1000), expired),
		},
	},
	"an expired key is deleted before its time": {
		RuleExpiry,
		History{seen(1, 2, short...), seen(20, 3, deadline(20), expired), seen(30, 4, deadline(20), expired, gone)},
		History{
			seen(1, 2, deadline(20), ttl(5*time.Second)), seen(20, 3, deadline(20), expired, ttl(5*time.Second)),
			seen(30, 4, deadline(20), expired, ttl(5*time.Second), gone),
		},
	},
	"a tombstone is deleted": {
		RuleVanished,
		History{
			seen(1, 2, deadline(20), ttl(0), kept), seen(20, 3, deadline(20), ttl(0), expired, kept), seen(30, 4, deadline(20), ttl(0), expired, kept, gone),
		},
		History{
			seen(1, 2, deadline(20), ttl(0), kept), seen(20, 3, deadline(20), ttl(0), expired, kept), deleted(29, 30),
			seen(30, 4, deadline(20), ttl(0), expired, kept, gone),
		},
	},
	"a live key vanishes": {
		RuleVanished,
		History{issued, seen(9, 3, gone)},
		History{issued, deleted(8, 9), seen(9, 3, gone)},
	},
	"a key is issued against the policy": {
		RuleGrant,
		History{edit("policy/base", 0, 1, Setting{Roles: []string{"nothing"}}), seen(20, 2)},
		History{edit("policy/base", 0, 19, Setting{Roles: []string{"nothing"}}), seen(20, 2)},
	},
	"a key is issued though the catalogue lacks its role": {
		RuleGrant,
		History{edit("role/writer", 0, 1, Setting{Absent: true}), seen(20, 2)},
		History{edit("role/writer", 0, 1, Setting{Absent: true}), edit("role/writer", 18, 19, Setting{}), seen(20, 2)},
	},
}
