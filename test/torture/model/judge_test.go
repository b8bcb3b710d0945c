package model_test

import (
	"slices"
	"strings"
	"testing"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

// Faults make a verifier late, and no more than that.
func TestFaultsExcuse(t *testing.T) {
	revoked := History{seen(1, 2), deleted(10, 11), seen(11, 3, gone)}
	late := ask(20, Allowed)
	for name, c := range map[string]struct {
		faults  History
		answer  Answer
		excused bool
	}{
		"nothing":                                 {nil, late, false},
		"the verifier stands still":               {History{fault("pause", "verifier-1", 10, 19)}, late, true},
		"the verifier stood still before":         {History{fault("pause", "verifier-1", 10, 14)}, late, false},
		"another verifier stands still":           {History{fault("pause", "verifier-2", 10, 19)}, late, false},
		"an operator stands still":                {History{fault("pause", "operator-1", 10, 19)}, late, false},
		"the API server is gone":                  {History{fault("kill", APIServer, 10.5, 19)}, late, true},
		"one fault after the other":               {History{fault("kill", Etcd, 10, 13), fault("kill", APIServer, 15, 19)}, late, true},
		"the machine stands still":                {History{fault("stall", Machine, 11, 19)}, late, true},
		"a pause does not excuse a missed expiry": {History{fault("pause", "verifier-1", 10, 19)}, ask(51, Allowed), false},
	} {
		t.Run(name, func(t *testing.T) {
			found := Judge(slices.Concat(world(60), revoked, c.faults, History{c.answer}), promises)
			if (len(found) == 0) != c.excused {
				t.Errorf("%v", found)
			}
		})
	}
}

func TestShrinkKeepsWhatMatters(t *testing.T) {
	h := slices.Concat(world(60), History{
		Operation{Kind: "create", Subject: "shop/other", UID: "uid-2", Asked: at(1), Answered: at(2)},
		seen(2, 9, func(k *Key) { k.UID, k.Name, k.Digest = "uid-2", "other", "sha256:2" }),
		seen(1, 2), ask(5, Allowed), fault("pause", "operator-1", 3, 5), deleted(10, 11), seen(11, 3, gone),
		ask(20, Allowed), ask(21, InvalidToken), ask(30, Allowed, func(a *Answer) { a.Digest, a.UID = "sha256:2", "uid-2" }),
	})
	found := Judge(h, promises)
	if len(found) != 1 || found[0].Rule != RuleAnswer {
		t.Fatalf("%v", found)
	}
	short := Shrink(h, found[0], promises, 10_000)
	lines := make([]string, 0, len(short))
	for _, event := range short {
		lines = append(lines, event.String())
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"digest \"1\"", "gone", "verifier-1 over forward-auth"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in:\n%s", want, text)
		}
	}
	if len(short) > 5 {
		t.Errorf("%d events are left:\n%s", len(short), text)
	}
	if again := Judge(short, promises); len(again) == 0 {
		t.Error("what is left shows nothing")
	}
}

func TestCertain(t *testing.T) {
	calm := slices.Concat(world(60), History{seen(1, 2), ask(10, Allowed), ask(11, InvalidToken, func(a *Answer) { a.Digest = "foreign" })})
	if got := Certain(calm, promises); got != 2 {
		t.Errorf("%d answers are certain while nothing happens, want 2", got)
	}
	if got := Certain(append(calm, fault("pause", "verifier-1", 9, 12)), promises); got != 0 {
		t.Errorf("%d answers of a verifier that stands still are certain", got)
	}
}
