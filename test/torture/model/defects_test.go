package model_test

import (
	"maps"
	"slices"
	"testing"

	. "github.com/apikey-operator/apikey-operator/test/torture/model"
)

// defect is a history with a defect, and a twin that differs as little as possible and is right.
type defect struct {
	rule         string
	defect, twin History
}

func TestDefects(t *testing.T) {
	for name, c := range allDefects(t) {
		t.Run(name, func(t *testing.T) {
			before := world(70)
			found := Judge(slices.Concat(before, c.defect), promises)
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("the defect is not found, but: %v", found)
			}
			for _, v := range found {
				if v.Rule != c.rule {
					t.Errorf("something else is found: %s", v)
				}
				if v.Who == "" || v.Expected == "" || v.Got == "" {
					t.Errorf("the violation lacks who, expected or got: %+v", v)
				}
			}
			if found := Judge(slices.Concat(before, c.twin), promises); len(found) != 0 {
				t.Errorf("the clean twin is a violation: %v", found)
			}
		})
	}
}

// allDefects are the defects of all tables.
func allDefects(t *testing.T) map[string]defect {
	all := map[string]defect{}
	for _, table := range []map[string]defect{wrongAnswers, wrongLives, wrongEnds, wrongSuspensions, wrongRotations, wrongUses} {
		for name := range table {
			if _, twice := all[name]; twice {
				t.Errorf("two defects have the name %q", name)
			}
		}
		maps.Copy(all, table)
	}
	return all
}
