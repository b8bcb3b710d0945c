package plan_test

import (
	"reflect"
	"testing"

	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

func draw(seed uint64) []plan.Step {
	const steps = 5000
	p := plan.New(seed)
	drawn := make([]plan.Step, steps)
	for i := range drawn {
		drawn[i] = p.Next()
	}
	return drawn
}

func TestASeedRepeatsItsSteps(t *testing.T) {
	first := draw(42)
	if !reflect.DeepEqual(first, draw(42)) {
		t.Error("the same seed gives other steps")
	}
	if reflect.DeepEqual(first, draw(43)) {
		t.Error("another seed gives the same steps")
	}
}

// Each kind comes, no key is created twice or deleted before it is there.
func TestStepsMakeSense(t *testing.T) {
	exists, suspended, kinds := map[string]bool{}, map[string]bool{}, map[string]int{}
	for i, step := range draw(7) {
		kinds[step.Kind]++
		switch step.Kind {
		case plan.Create:
			if exists[step.Subject] {
				t.Fatalf("step %d creates %s, which exists", i, step.Subject)
			}
			exists[step.Subject], suspended[step.Subject] = true, step.Spec.Suspended
		case plan.Delete:
			if !exists[step.Subject] {
				t.Fatalf("step %d deletes %s, which does not exist", i, step.Subject)
			}
			exists[step.Subject] = false
		case plan.Suspend, plan.Resume:
			if off := step.Kind == plan.Suspend; !exists[step.Subject] || suspended[step.Subject] == off {
				t.Fatalf("step %d is %s of %s, which exists: %t, and is suspended: %t", i, step.Kind, step.Subject, exists[step.Subject], !off)
			}
			suspended[step.Subject] = step.Kind == plan.Suspend
		}
	}
	for _, kind := range []string{
		plan.Create, plan.Delete, plan.Annotate, plan.Keep, plan.Suspend, plan.Resume, plan.Rotate, plan.Retire, plan.Edit, plan.Quota, plan.Plant, plan.Pause, plan.Kill, plan.Lease, plan.Jump,
	} {
		if kinds[kind] == 0 {
			t.Errorf("no step is of kind %s", kind)
		}
	}
}
