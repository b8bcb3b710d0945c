// Package plan draws the steps of a run and their order from a seed. The same seed gives the same steps, however fast they are done. It must
// not know how they are done.
package plan

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/test/torture/model"
)

// Kinds of steps.
const (
	Create   = "create"
	Delete   = "delete"
	Annotate = "annotate"
	Keep     = "keep"
	Suspend  = model.Suspend
	Resume   = model.Resume
	Rotate   = model.Rotate
	Retire   = model.Retire
	Edit     = "edit"
	Quota    = "quota"
	Plant    = "plant"
	Pause    = "pause"
	Kill     = "kill"
	Lease    = "lease"
	Jump     = "jump"
)

// Step is something to do. Fields that mean nothing to its kind are zero.
type Step struct {
	Kind string
	// After is how long after the step before it begins.
	After time.Duration
	// For is how long it lasts, of what is ended again.
	For time.Duration
	// Subject is a key as namespace/name, a setting, a namespace or a process.
	Subject string
	// Spec is that of a key to be created.
	Spec Spec
	// Setting is what a setting is changed to.
	Setting model.Setting
	// Offset is how far a clock jumps.
	Offset time.Duration
	// Overlap is how long the old token is accepted after a rotation. Request is the value of the annotation.
	Overlap time.Duration
	Request string
	// On says that a mark is set and not removed.
	On bool
}

// Spec is what a key asks for.
type Spec struct {
	Roles    []string
	Networks []string
	// Life is zero for a key that never expires.
	Life time.Duration
	TTL  time.Duration
	// Reveal is how long the Secret stays; zero for one that stays as long as the key.
	Reveal time.Duration
	// Suspended says that the key is created suspended.
	Suspended bool
}

// The world that steps are about.
var (
	Namespaces = []string{"shop", "bank", "mill"}
	Roles      = []string{"shop.read", "shop.write", "shop.admin", "shop.audit", "ops.deploy"}
	Operators  = []string{"operator-1", "operator-2"}
	Verifiers  = []string{"verifier-1", "verifier-2"}
	// Inside lies within all networks of keys, except for one.
	Inside  = "192.0.2.7"
	Outside = "198.51.100.9"

	networks = [][]string{nil, nil, nil, {"192.0.2.0/24"}, {"192.0.2.0/24", "2001:db8::/32"}, {"198.51.100.0/24"}}
)

// names is the number of keys' names in a namespace. There are few, so that names are used again.
const names = 8

// Jumping is the operator whose clock can jump.
const Jumping = "operator-2"

// Initial are the settings that a run begins with.
func Initial() map[string]model.Setting {
	settings := map[string]model.Setting{
		"policy/base": {Roles: []string{"*"}},
		"policy/team": {Roles: []string{"shop.*", "ops.*"}, Selects: "ops"},
	}
	for _, role := range Roles {
		settings["role/"+role] = model.Setting{}
	}
	settings["role/shop.write"] = model.Setting{Includes: []string{"shop.read"}}
	settings["role/shop.admin"] = model.Setting{Includes: []string{"shop.write"}}
	for _, namespace := range Namespaces {
		settings["label/"+namespace] = model.Setting{}
	}
	return settings
}

// Plan draws one step after the other.
type Plan struct {
	random *rand.Rand
	// exists and suspended are the keys that are there by now, and those of them that are turned off.
	exists, suspended map[string]bool
	// requests counts the requests of rotations, and of their ends.
	requests int
	// queued are the next steps of the kind that was drawn last.
	queued []Step
}

// New is the plan of a seed.
func New(seed uint64) *Plan {
	return &Plan{random: rand.New(rand.NewPCG(seed, 0)), exists: map[string]bool{}, suspended: map[string]bool{}} //nolint:gosec // chance that can be repeated
}

// kinds are drawn by their weights.
var kinds = []struct {
	weight int
	draw   func(*Plan) []Step
}{
	{40, (*Plan).create},
	{20, (*Plan).delete},
	{8, (*Plan).recreate},
	{6, (*Plan).annotate},
	{3, (*Plan).keep},
	{8, (*Plan).turn},
	{12, (*Plan).rotate},
	{4, (*Plan).retire},
	{8, (*Plan).editRole},
	{5, (*Plan).editPolicy},
	{2, (*Plan).label},
	{2, (*Plan).quota},
	{2, (*Plan).plant},
	// Faults are rare, so that there is calm in between: an answer during a fault proves little.
	{1, (*Plan).disturbVerifier},
	{2, (*Plan).disturbOperator},
	{1, (*Plan).disturbPlane},
	{1, (*Plan).jump},
}

// Next is the next step.
func (p *Plan) Next() Step {
	for len(p.queued) == 0 {
		sum := 0
		for _, kind := range kinds {
			sum += kind.weight
		}
		drawn := p.random.IntN(sum)
		for _, kind := range kinds {
			if drawn -= kind.weight; drawn < 0 {
				p.queued = kind.draw(p)
				break
			}
		}
		if len(p.queued) > 0 {
			p.queued[0].After = p.between(20*time.Millisecond, 350*time.Millisecond)
		}
	}
	step := p.queued[0]
	p.queued = p.queued[1:]
	return step
}

func (p *Plan) between(least, most time.Duration) time.Duration {
	return least + time.Duration(p.random.Int64N(int64(most-least)))
}

func (p *Plan) chance(percent int) bool { return p.random.IntN(100) < percent }

func pick[T any](p *Plan, of []T) T { return of[p.random.IntN(len(of))] }

// slot draws the namespace/name of a key that exists, or does not. It returns "" if there is none.
func (p *Plan) slot(exists bool) string {
	var found []string
	for _, namespace := range Namespaces {
		for i := range names {
			if slot := fmt.Sprintf("%s/key-%d", namespace, i); p.exists[slot] == exists {
				found = append(found, slot)
			}
		}
	}
	if len(found) == 0 {
		return ""
	}
	return pick(p, found)
}

func (p *Plan) create() []Step {
	slot := p.slot(false)
	if slot == "" {
		return nil
	}
	return []Step{p.createAt(slot)}
}

func (p *Plan) createAt(slot string) Step {
	spec := p.spec()
	p.exists[slot], p.suspended[slot] = true, spec.Suspended
	return Step{Kind: Create, Subject: slot, Spec: spec}
}

func (p *Plan) spec() Spec {
	spec := Spec{Networks: pick(p, networks), TTL: time.Hour}
	first := p.random.IntN(len(Roles))
	spec.Roles = []string{Roles[first]}
	if p.chance(30) {
		spec.Roles = append(spec.Roles, Roles[(first+1)%len(Roles)])
	}
	switch {
	case p.chance(45):
		spec.Life = p.between(2*time.Second, 15*time.Second).Truncate(time.Second)
	case p.chance(50):
		spec.Life = time.Hour
	}
	// Longer than this program's watch may be interrupted, so that it sees the mark before the deletion.
	if p.chance(40) {
		spec.TTL = 20 * time.Second
	}
	if p.chance(15) {
		spec.Reveal = p.between(2*time.Second, 10*time.Second).Truncate(time.Second)
	}
	spec.Suspended = p.chance(5)
	return spec
}

func (p *Plan) delete() []Step {
	slot := p.slot(true)
	if slot == "" {
		return nil
	}
	p.exists[slot] = false
	return []Step{{Kind: Delete, Subject: slot}}
}

func (p *Plan) recreate() []Step {
	steps := p.delete()
	if steps == nil {
		return nil
	}
	return append(steps, p.createAt(steps[0].Subject))
}

func (p *Plan) annotate() []Step {
	slot := p.slot(true)
	if slot == "" {
		return nil
	}
	return []Step{{Kind: Annotate, Subject: slot}}
}

func (p *Plan) keep() []Step {
	slot := p.slot(true)
	if slot == "" {
		return nil
	}
	return []Step{{Kind: Keep, Subject: slot, On: p.chance(60)}}
}

// turn suspends or resumes a key, and sometimes does both in a row.
func (p *Plan) turn() []Step {
	slot := p.slot(true)
	if slot == "" {
		return nil
	}
	kinds := []string{Suspend, Resume}
	if p.suspended[slot] {
		kinds = []string{Resume, Suspend}
	}
	if !p.chance(20) {
		kinds = kinds[:1]
		p.suspended[slot] = !p.suspended[slot]
	}
	steps := make([]Step, len(kinds))
	for i, kind := range kinds {
		steps[i] = Step{Kind: kind, Subject: slot}
	}
	return steps
}

// rotate requests a rotation, often with no overlap.
func (p *Plan) rotate() []Step {
	slot := p.slot(true)
	if slot == "" {
		return nil
	}
	p.requests++
	step := Step{Kind: Rotate, Subject: slot}
	if p.chance(70) {
		step.Overlap = p.between(time.Second, 15*time.Second).Truncate(time.Second)
	}
	step.Request = fmt.Sprintf("%d;overlap=%ds", p.requests, int(step.Overlap.Seconds()))
	return []Step{step}
}

// retire requests the end of a retiring token, whether there is one or not.
func (p *Plan) retire() []Step {
	slot := p.slot(true)
	if slot == "" {
		return nil
	}
	p.requests++
	return []Step{{Kind: Retire, Subject: slot, Request: strconv.Itoa(p.requests)}}
}

func (p *Plan) editRole() []Step {
	edit := func(role string, values ...model.Setting) []Step {
		return []Step{{Kind: Edit, Subject: "role/" + role, Setting: pick(p, values)}}
	}
	includes := func(roles ...string) model.Setting { return model.Setting{Includes: roles} }
	switch p.random.IntN(3) {
	case 0:
		return edit("shop.write", includes("shop.read"), includes("shop.read", "shop.audit"), includes())
	case 1:
		return edit("shop.admin", includes("shop.write"), includes("shop.write", "ops.deploy"), includes("shop.audit"))
	default:
		return edit("shop.audit", includes(), includes(), model.Setting{Absent: true})
	}
}

func (p *Plan) editPolicy() []Step {
	roles := pick(p, [][]string{{"*"}, {"*"}, {"shop.*"}, {"shop.read", "shop.write"}})
	return []Step{{Kind: Edit, Subject: "policy/base", Setting: model.Setting{Roles: roles}}}
}

func (p *Plan) label() []Step {
	return []Step{{Kind: Edit, Subject: "label/" + pick(p, Namespaces), Setting: model.Setting{Label: pick(p, []string{"", "ops"})}}}
}

func (p *Plan) quota() []Step {
	return []Step{{Kind: Quota, Subject: pick(p, Namespaces), For: p.between(time.Second, 8*time.Second)}}
}

// plant plants a Secret, and creates the key that needs its name.
func (p *Plan) plant() []Step {
	create := p.create()
	if create == nil {
		return nil
	}
	return append([]Step{{Kind: Plant, Subject: create[0].Subject, For: p.between(time.Second, 8*time.Second)}}, create...)
}

func (p *Plan) disturbVerifier() []Step {
	return []Step{{Kind: pick(p, []string{Pause, Kill}), Subject: pick(p, Verifiers), For: p.between(100*time.Millisecond, 6*time.Second)}}
}

func (p *Plan) disturbOperator() []Step {
	switch kind := pick(p, []string{Pause, Kill, Lease}); kind {
	case Lease:
		return []Step{{Kind: Lease, Subject: "operator"}}
	default:
		return []Step{{Kind: kind, Subject: pick(p, Operators), For: p.between(100*time.Millisecond, 10*time.Second)}}
	}
}

// disturbPlane disturbs the API server or etcd. Sometimes the API server is silent for longer than --max-staleness.
func (p *Plan) disturbPlane() []Step {
	target := pick(p, []string{model.APIServer, model.APIServer, model.Etcd})
	step := Step{Kind: pick(p, []string{Pause, Kill}), Subject: target, For: p.between(200*time.Millisecond, 5*time.Second)}
	if target == model.APIServer && p.chance(20) {
		step.Kind, step.For = Pause, p.between(22*time.Second, 26*time.Second)
	}
	return []Step{step}
}

func (p *Plan) jump() []Step {
	offset := pick(p, []time.Duration{20 * time.Second, 2 * time.Minute, -2 * time.Minute, 10 * time.Minute, 26 * time.Hour, -time.Hour})
	return []Step{{Kind: Jump, Subject: Jumping, Offset: offset, For: p.between(500*time.Millisecond, 8*time.Second)}}
}

// Split is the namespace and the name of a key.
func Split(slot string) (namespace, name string) {
	namespace, name, _ = strings.Cut(slot, "/")
	return namespace, name
}
