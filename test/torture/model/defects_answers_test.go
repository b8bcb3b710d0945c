package model_test

import (
	"net/netip"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

// wrongAnswers are answers that no possible state explains.
var wrongAnswers = map[string]defect{
	"a revoked key is accepted, long after every verifier could know": {
		RuleAnswer,
		History{issued, deleted(10, 11), seen(11, 3, gone), ask(17, Allowed)},
		History{issued, deleted(10, 11), seen(11, 3, gone), ask(15, Allowed), ask(17, InvalidToken)},
	},
	"a revoked key is accepted again, soon after a refusal": {
		RuleBack,
		History{issued, deleted(10, 11), seen(11, 3, gone), ask(9, Allowed), ask(11.2, InvalidToken), ask(12, Allowed)},
		History{issued, deleted(10, 11), seen(11, 3, gone), ask(9, Allowed), ask(11.2, Allowed), ask(12, InvalidToken)},
	},
	"a verifier that starts after a deletion lets the key in": {
		RuleAnswer,
		History{issued, deleted(10, 11), seen(11, 3, gone), fault("kill", "verifier-1", 11, 13), Start{"verifier-1", at(12)}, ask(14, Allowed)},
		History{issued, deleted(10, 11), seen(11, 3, gone), fault("kill", "verifier-1", 10, 13), Start{"verifier-1", at(10.5)}, ask(14, Allowed)},
	},
	"a live key is refused": {
		RuleAnswer,
		History{issued, ask(10, InvalidToken)},
		History{issued, ask(2, InvalidToken), ask(10, Allowed)},
	},
	"a deadline is missed by a second": {
		RuleAnswer,
		History{seen(1, 2, short...), ask(20.95, Allowed, func(a *Answer) { a.End = at(21) })},
		History{seen(1, 2, short...), ask(19.95, Allowed), ask(20, InvalidToken), ask(19.95, InvalidToken)},
	},
	"a key is refused a second before its deadline": {
		RuleAnswer,
		History{seen(1, 2, short...), ask(18.95, InvalidToken)},
		History{seen(1, 2, short...), ask(18.95, Allowed)},
	},
	"a role that was taken away opens on": {
		RuleAnswer,
		History{issued, edit("role/writer", 10, 11, Setting{}), ask(20, Allowed)},
		History{issued, edit("role/writer", 10, 11, Setting{}), ask(12, Allowed), ask(12, RoleMissing), ask(20, RoleMissing)},
	},
	"a role that was added does not open": {
		RuleAnswer,
		History{issued, edit("role/writer", 10, 11, Setting{Includes: []string{"reader", "other"}}), ask(20, RoleMissing, forOther)},
		History{issued, edit("role/writer", 10, 11, Setting{Includes: []string{"reader", "other"}}), ask(20, Allowed, forOther)},
	},
	"a key opens from a foreign network": {
		RuleAnswer,
		History{seen(1, 2, network("10.0.0.0/8")), ask(10, Allowed)},
		History{seen(1, 2, network("192.0.2.0/24")), ask(10, Allowed)},
	},
	"a key opens where nobody knows the address": {
		RuleAnswer,
		History{seen(1, 2, network("0.0.0.0/0")), ask(10, Allowed, func(a *Answer) { a.Protocol, a.Address = TokenReview, netip.Addr{} })},
		History{seen(1, 2, network("0.0.0.0/0")), ask(10, Refused, func(a *Answer) { a.Protocol, a.Address = TokenReview, netip.Addr{} })},
	},
	"a key opens another namespace": {
		RuleAnswer,
		History{issued, ask(10, Allowed, func(a *Answer) { a.Namespace = "bank" })},
		History{issued, ask(10, RoleMissing, func(a *Answer) { a.Namespace = "bank" })},
	},
	"a token opens in the name of another key": {
		RuleIdentity,
		History{issued, ask(10, Allowed, func(a *Answer) { a.UID = "uid-2" })},
		History{issued, ask(10, Allowed)},
	},
	"a foreign token opens": {
		RuleAnswer,
		History{issued, ask(10, Allowed, func(a *Answer) { a.Digest = "sha256:foreign" })},
		History{issued, ask(10, InvalidToken, func(a *Answer) { a.Digest = "sha256:foreign" })},
	},
	"introspection tells a role that the key has not": {
		RuleAnswer,
		History{issued, ask(10, Allowed, func(a *Answer) { a.Protocol, a.Roles = Introspection, []string{"writer", "reader", "other"} })},
		History{issued, ask(10, Allowed, func(a *Answer) { a.Protocol, a.Roles = Introspection, []string{"writer", "reader"} })},
	},
	"a verifier answers from what is too old": {
		RuleAnswer,
		History{issued, fault("pause", APIServer, 20, 60), ask(45, Allowed)},
		History{issued, fault("pause", APIServer, 20, 60), ask(38, Allowed), ask(45, NotReady)},
	},
	"a verifier is not ready without a reason": {
		RuleAnswer,
		History{issued, ask(30, NotReady)},
		History{issued, fault("kill", Etcd, 20, 22), ask(30, NotReady)},
	},
	"a verifier does not answer": {
		RuleAnswer,
		History{issued, ask(30, Unreachable)},
		History{issued, fault("pause", "verifier-1", 29, 31), ask(30, Unreachable)},
	},
}
