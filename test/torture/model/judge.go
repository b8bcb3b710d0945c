package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Violation is an event that no possible state explains.
type Violation struct {
	// Rule is the broken rule. Subject is the digest, the UID or the namespace/name that it is about, if any.
	Rule, Subject string
	// Cause says why an answer was wrong, without times, so that violations can be compared; "" for other rules.
	Cause string
	At    time.Time
	// Who is the process, Expected what it should have done, and Got what it did.
	Who, Expected, Got string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s (%s): expected of %s: %s; got: %s", face(v.At), v.Rule, v.Subject, v.Who, v.Expected, v.Got)
}

// rules are all rules.
var rules = []func(*world) []Violation{
	(*world).judgeAnswers, (*world).judgeReturns, (*world).judgeBytes, (*world).judgeLives, (*world).judgeGrants, (*world).judgeSecrets, (*world).judgeUse,
	(*world).judgeEnd, (*world).judgeFindings,
}

// Judge returns all violations of a history, in the order of time.
func Judge(h History, p Promises) []Violation {
	w := newWorld(h, p)
	found := make([]Violation, 0, len(rules))
	for _, rule := range rules {
		found = append(found, rule(w)...)
	}
	slices.SortStableFunc(found, func(a, b Violation) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Subject, b.Subject))
	})
	return found
}

// Certain counts the answers that only one result explains. The others were given while something changed, and prove less.
func Certain(h History, p Promises) int {
	w := newWorld(h, p)
	certain := 0
	for _, a := range w.answers {
		results, _, _ := w.results(a)
		slices.Sort(results)
		if len(slices.Compact(results)) == 1 {
			certain++
		}
	}
	return certain
}

// The names of rules.
const (
	RuleAnswer   = "an answer that no possible state explains"
	RuleIdentity = "a token that opens in the name of another key"
	RuleBack     = "a token that was refused permanently is accepted again"
	RuleTells    = "a refusal tells more than that of an unknown token"
	RuleMint     = "a key has a second token"
	RuleRewrite  = "a status is rewritten"
	RuleExpiry   = "an operator's act at the wrong time"
	RuleVanished = "a key that nobody deleted has gone"
	RuleGrant    = "a key was issued that roles or policies refuse"
	RuleUse      = "a last use on record that was none"
	RuleLost     = "a key is lost"
	RuleLeft     = "a Secret is left behind"
	RuleUnseen   = "this program's own watch is blind"
	RuleFinding  = "another check found something"
)

// judgeLives compares what operators wrote about each key with what they may write.
func (w *world) judgeLives() []Violation {
	var found []Violation
	for uid, k := range w.keys {
		wrong := func(rule string, at time.Time, expected, got string) {
			found = append(found, Violation{Rule: rule, Subject: uid, At: at, Who: "the operators", Expected: expected, Got: got})
		}
		before := k.seen[0]
		if before.Gone {
			continue
		}
		for _, now := range k.seen[1:] {
			switch {
			case now.Gone:
				w.judgeGone(before, now, wrong)
			case !before.Issued.IsZero() && !now.Issued.Equal(before.Issued):
				wrong(RuleRewrite, now.At, "issuedAt "+face(before.Issued), "issuedAt "+face(now.Issued))
			case !before.Deadline.IsZero() && !now.Deadline.Equal(before.Deadline):
				wrong(RuleRewrite, now.At, "expiresAt "+face(before.Deadline), "expiresAt "+face(now.Deadline))
			case before.Reason == ReasonExpired && now.Reason != ReasonExpired:
				wrong(RuleRewrite, now.At, "the reason Expired, permanently", "the reason "+now.Reason)
			case !before.Issued.IsZero():
				w.judgeTokens(before, now, wrong)
			}
			if now.Reason == ReasonExpired && before.Reason != ReasonExpired {
				if first := orNever(now.Deadline).Add(-w.ahead(now.At)); now.At.Before(first) {
					wrong(RuleExpiry, now.At, "no mark as Expired before "+face(first), "marked as Expired")
				}
			}
			if now.Gone {
				break
			}
			before = now
		}
	}
	return found
}

// judgeGone judges the disappearance of a key. before is the key as it was last seen.
func (w *world) judgeGone(before, now Key, wrong func(rule string, at time.Time, expected, got string)) {
	if _, asked := w.deletes[now.UID]; asked {
		return
	}
	switch first := orNever(before.Deadline).Add(before.TTL - w.ahead(now.At)); {
	case before.Reason != ReasonExpired:
		wrong(RuleVanished, now.At, "that the key stays, since nobody deleted it", "deleted with the reason "+before.Reason)
	case before.Kept:
		wrong(RuleVanished, now.At, "that the key stays, since it is to be kept", "deleted")
	case now.At.Before(first):
		wrong(RuleExpiry, now.At, "no deletion before "+face(first), "deleted")
	}
}

// judgeGrants finds keys that got a digest, or one that is pending, at a moment when no possible state of roles and policies allowed it.
func (w *world) judgeGrants() []Violation {
	var found []Violation
	for uid, k := range w.keys {
		for i, seen := range k.seen {
			var before Key
			if i > 0 {
				before = k.seen[i-1]
			}
			if (seen.Digest == "" || before.Digest != "") && (seen.Pending == "" || before.Pending == seen.Pending) {
				continue
			}
			if may, _ := w.grants(seen, w.horizon(operators, seen.At), seen.At); !may {
				found = append(found, Violation{
					Rule: RuleGrant, Subject: uid, At: seen.At, Who: "the operators",
					Expected: "no token, since catalogue and policies did not allow it", Got: "a digest in the status",
				})
			}
		}
	}
	return found
}

// judgeSecrets finds tokens that were delivered to issued keys that already had another one.
func (w *world) judgeSecrets() []Violation {
	var found []Violation
	for _, s := range w.secrets {
		k := w.keys[s.Owner]
		if k == nil || s.Digest == "" {
			continue
		}
		if t := w.tokens[s.Digest]; t != nil && t.key == k && t.counted {
			continue // of a rotation
		}
		// The status of a requested rotation may be unseen if this program has no watch when it sees the Secret. The request may be older: an
		// operator that was disturbed serves it later.
		if len(w.requested(s.Owner, Rotate, s.At)) > 0 && w.watchLost(s.At, s.At) {
			continue
		}
		for _, seen := range k.seen {
			if !seen.Issued.IsZero() && !seen.Gone && seen.At.Before(s.At) && seen.Digest != s.Digest {
				found = append(found, Violation{
					Rule: RuleMint, Subject: s.Owner, At: s.At, Who: "the operators",
					Expected: "no Secret but that of " + short(seen.Digest), Got: "a Secret with " + short(s.Digest),
				})
				break
			}
		}
	}
	return found
}

func (w *world) judgeFindings() []Violation {
	found := make([]Violation, 0, len(w.findings))
	for _, f := range w.findings {
		found = append(found, Violation{Rule: RuleFinding, At: f.At, Who: "all processes", Expected: "nothing of this kind", Got: f.Text})
	}
	return found
}
