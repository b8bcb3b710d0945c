package model_test

import . "github.com/apikey-operator/apikey-operator/test/torture/model"

// used is the last use on record.
func used(second float64) func(*Key) { return func(k *Key) { k.Used = at(second) } }

// wrongUses are defects in what is recorded about the use of keys.
var wrongUses = map[string]defect{
	"a use is recorded that was none": {
		RuleUse,
		History{issued, ask(10, Allowed), seen(12, 3, used(20)), ask(26, Allowed)},
		History{issued, ask(10, Allowed), seen(12, 3, used(10)), ask(26, Allowed)},
	},
	"a use is recorded later than any delay of its report explains": {
		RuleUse,
		History{issued, ask(10, Allowed), fault("pause", APIServer, 12, 17), seen(21, 3, used(20)), ask(60, Allowed)},
		History{issued, ask(10, Allowed), fault("pause", APIServer, 12, 17), seen(18, 3, used(15)), ask(60, Allowed)},
	},
	"a use is recorded late although nothing stood still": {
		RuleUse,
		History{issued, ask(10, Allowed), seen(18, 3, used(15)), ask(60, Allowed)},
		History{issued, ask(10, Allowed), fault("pause", "verifier-1", 12, 17), seen(18, 3, used(15)), ask(60, Allowed)},
	},
	"a refusal is recorded as a use": {
		RuleUse,
		History{issued, ask(10, RoleMissing, forOther), seen(12, 3, used(10))},
		History{issued, ask(10, Allowed), seen(12, 3, used(10))},
	},
	"the use of another key is recorded": {
		RuleUse,
		History{issued, ask(10, InvalidToken, ofSecond), seen(12, 3, used(10))},
		History{issued, fault("pause", "verifier-1", 9, 11), ask(10, Unreachable), seen(12, 3, used(10))},
	},
	"the last use moves back": {
		RuleUse,
		History{issued, ask(10, Allowed), ask(20, Allowed), seen(21, 3, used(20)), seen(22, 4, used(10))},
		History{issued, ask(10, Allowed), ask(20, Allowed), seen(21, 3, used(10)), seen(22, 4, used(20))},
	},
	"the last use is forgotten": {
		RuleUse,
		History{issued, ask(10, Allowed), seen(12, 3, used(10)), seen(13, 4)},
		History{issued, ask(10, Allowed), seen(12, 3, used(10)), seen(13, 4, used(10))},
	},
	"a use is recorded before the issue": {
		RuleUse,
		History{seen(60, 2, issuedLate), ask(61, Allowed), seen(62, 3, issuedLate, used(1))},
		History{seen(1, 2, issuedLate), ask(2, Allowed), seen(3, 3, issuedLate, used(60))}, // by a clock that was ahead
	},
}

func issuedLate(k *Key) { k.Issued = at(60) }
