package model

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// minInterval is the least time between two rotations on request.
const minInterval = time.Minute

// wronging records a breach of a rule.
type wronging func(rule string, at time.Time, expected, got string)

// judgeTokens judges how the tokens of an issued key changed from one status to the next.
func (w *world) judgeTokens(before, now Key, wrong wronging) {
	// Statuses in between may be unseen if this program may have lost its watch.
	unseen := w.disturbed("", before.At, now.At, APIServer, Etcd, Machine)
	rotations := now.Rotations - before.Rotations
	requested := w.requested(now.UID, Rotate, now.At)
	switch {
	case rotations < 0 || rotations > 1 && !unseen:
		wrong(RuleRewrite, now.At, fmt.Sprintf("%d rotations, or one more", before.Rotations), strconv.Itoa(now.Rotations))
		return
	case (rotations > 0) != (now.Digest != before.Digest):
		wrong(RuleMint, now.At, "the digest "+short(before.Digest)+", and another one after a rotation", "the digest "+short(now.Digest))
	case rotations == 0:
	case now.Rotations > len(requested):
		wrong(RuleMint, now.At, fmt.Sprintf("at most %d rotations, as requested", len(requested)), strconv.Itoa(now.Rotations))
		return
	case before.Pending != now.Digest && !unseen:
		wrong(RuleMint, now.At, "the digest that was pending, "+short(before.Pending), "the digest "+short(now.Digest))
	}
	if now.Reason == ReasonExpired {
		return // no token counts any more
	}
	if rotations > 0 && !unseen {
		judgeOverlap(before, now, requested, wrong)
	}
	w.judgeRetiring(before, now, requested, wrong)
}

// judgeOverlap judges which token retires after a rotation, and when.
func judgeOverlap(before, now Key, requested []Operation, wrong wronging) {
	overlap := time.Duration(0)
	if now.Retiring != "" {
		overlap = now.RetiresAt.Sub(now.RotatedAt)
	}
	// Both times are whole seconds.
	if !slices.ContainsFunc(requested, func(o Operation) bool { return (o.Overlap - overlap).Abs() < 2*time.Second }) {
		wrong(RuleExpiry, now.At, "an overlap that was requested", overlap.String())
	}
	if now.Retiring != "" && now.Retiring != before.Digest {
		wrong(RuleRewrite, now.At, "that the digest before, "+short(before.Digest)+", retires", "that "+short(now.Retiring)+" retires")
	}
}

// judgeRetiring judges the end of a retiring token.
func (w *world) judgeRetiring(before, now Key, requested []Operation, wrong wronging) {
	if before.Retiring == "" {
		return
	}
	atOnce := now.Rotations > before.Rotations && slices.ContainsFunc(requested, func(o Operation) bool { return o.Overlap == 0 })
	// A request that was handled before the token retired does not end it.
	since := w.horizon(operators, w.tokens[before.Retiring].retiring)
	ends := slices.ContainsFunc(w.requested(now.UID, Retire, now.At), func(o Operation) bool { return orNever(o.Answered).After(since) })
	first := before.RetiresAt.Add(-w.ahead(now.At))
	switch {
	case now.Retiring == before.Retiring && !now.RetiresAt.Equal(before.RetiresAt):
		wrong(RuleRewrite, now.At, "retiresAt "+face(before.RetiresAt), "retiresAt "+face(now.RetiresAt))
	case now.Retiring != before.Retiring && now.At.Before(first) && !ends && !atOnce:
		wrong(RuleExpiry, now.At, "that the retiring token stays until "+face(first), "its end")
	}
}

// requested returns the requests of a kind for a key by a moment.
func (w *world) requested(uid, kind string, at time.Time) []Operation {
	return slices.DeleteFunc(slices.Clone(w.requests[uid]), func(o Operation) bool { return o.Kind != kind || o.Asked.After(at) })
}

// judgeLastRotation judges the rotation of an issued key that exists at the end.
func (w *world) judgeLastRotation(last Key, end Settled, wrong func(who, expected, got string)) {
	switch {
	case last.Retiring != "" && last.RetiresAt.Before(end.At):
		wrong("the operators", "no retiring token, since its overlap ended at "+face(last.RetiresAt), "the digest "+short(last.Retiring))
	case last.Waiting && last.Retiring == "" && last.RotatedAt.Add(minInterval).Before(end.At):
		wrong("the operators", "that the requested rotation is done, or said to be blocked", "neither")
	}
}
