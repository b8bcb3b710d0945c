package model

import (
	"slices"
	"strings"
	"time"
)

// possible returns the values that a setting may have had at some moment of an interval.
func (w *world) possible(name string, from, to time.Time) []Setting {
	var values []Setting
	for _, write := range slices.Backward(w.settings[name]) {
		if !write.Asked.After(to) {
			values = append(values, *write.Value)
		}
		if !orNever(write.Answered).After(from) {
			break // it has overwritten what was before
		}
	}
	return values
}

// roles returns the roles that a key with the named roles may have, and must have, during an interval.
func (w *world) roles(named []string, from, to time.Time) (may, must map[string]bool) {
	return w.closure(named, from, to, false), w.closure(named, from, to, true)
}

func (w *world) closure(named []string, from, to time.Time, sure bool) map[string]bool {
	carried := map[string]bool{}
	queue := slices.Clone(named)
	for len(queue) > 0 {
		role := queue[0]
		queue = queue[1:]
		if carried[role] {
			continue
		}
		carried[role] = true
		values := w.possible("role/"+role, from, to)
		for _, value := range values {
			for _, included := range value.Includes {
				everywhere := !slices.ContainsFunc(values, func(v Setting) bool { return v.Absent || !slices.Contains(v.Includes, included) })
				if !value.Absent && (!sure || everywhere) {
					queue = append(queue, included)
				}
			}
		}
	}
	return carried
}

// grants reports whether roles and policies may allow a key at some moment of an interval, and whether they must allow it all the time.
func (w *world) grants(k Key, from, to time.Time) (may, must bool) {
	may, must = true, true
	absent := func(v Setting) bool { return v.Absent }
	for _, role := range k.Roles {
		values := w.possible("role/"+role, from, to)
		may = may && len(values) > 0 && !allOf(values, absent)
		must = must && len(values) > 0 && !slices.ContainsFunc(values, absent)
	}
	mayPolicies, mustPolicies := w.policies(k, from, to)
	return may && mayPolicies, must && mustPolicies
}

// policies is the part of [world.grants] for policies. A policy must allow at least the roles that the key must have.
func (w *world) policies(k Key, from, to time.Time) (may, must bool) {
	mayCarry, mustCarry := w.roles(k.Roles, from, to)
	labels := w.possible("label/"+k.Namespace, from, to)
	for name := range w.settings {
		if !strings.HasPrefix(name, "policy/") {
			continue
		}
		values := w.possible(name, from, to)
		may = may || slices.ContainsFunc(values, func(v Setting) bool {
			selects := v.Selects == "" || slices.ContainsFunc(labels, func(l Setting) bool { return l.Label == v.Selects })
			return !v.Absent && selects && allowsAll(v.Roles, mustCarry)
		})
		must = must || len(values) > 0 && allOf(values, func(v Setting) bool {
			selects := v.Selects == "" || len(labels) > 0 && allOf(labels, func(l Setting) bool { return l.Label == v.Selects })
			return !v.Absent && selects && allowsAll(v.Roles, mayCarry)
		})
	}
	return may, must
}

func allOf(values []Setting, holds func(Setting) bool) bool {
	return !slices.ContainsFunc(values, func(v Setting) bool { return !holds(v) })
}

func allowsAll(patterns []string, roles map[string]bool) bool {
	for role := range roles {
		if !slices.ContainsFunc(patterns, func(pattern string) bool {
			prefix, isPrefix := strings.CutSuffix(pattern, ".*")
			return pattern == "*" || pattern == role || isPrefix && strings.HasPrefix(role, prefix+".")
		}) {
			return false
		}
	}
	return true
}

// suspension is the name of the setting that says whether a key is suspended.
func suspension(uid string) string { return "suspend/" + uid }

// suspended reports whether a key may have been suspended at some moment of an interval, and whether it must have been all the time.
func (w *world) suspended(k *key, from, to time.Time) (may, must bool) {
	name := suspension(k.last().UID)
	values := w.possible(name, from, to)
	// Until the first edit is answered, the value at the creation is possible.
	if writes := w.settings[name]; len(writes) == 0 || orNever(writes[0].Answered).After(from) {
		values = append(values, Setting{Suspended: k.seen[0].Suspended})
	}
	is := func(v Setting) bool { return v.Suspended }
	return slices.ContainsFunc(values, is), allOf(values, is)
}
