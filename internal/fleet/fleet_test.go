package fleet

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// stateOf is a key in a state, that was created some time before noon.
func stateOf(reason v1alpha1.Reason, age time.Duration) *v1alpha1.ApiKey {
	key := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon.Add(-age))}}
	if reason != "" {
		key.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: string(reason)}}
	}
	return key
}

func TestLongestWait(t *testing.T) {
	deleted := stateOf(v1alpha1.ReasonNotAllowed, 9*time.Hour)
	deleted.DeletionTimestamp = ptr.To(metav1.NewTime(noon))
	census := newCensus()
	for _, key := range []*v1alpha1.ApiKey{
		stateOf("", time.Minute),
		stateOf(v1alpha1.ReasonIssuing, time.Hour), stateOf(v1alpha1.ReasonIssuing, 3*time.Hour), stateOf(v1alpha1.ReasonIssuing, 2*time.Hour),
		stateOf(v1alpha1.ReasonIssued, 90*day), stateOf(v1alpha1.ReasonExpired, 90*day),
		deleted,
	} {
		census.count(key, noon)
	}
	want := map[string]time.Duration{"Unseen": time.Minute, "Issuing": 3 * time.Hour, "SecretConflict": 0, "UnknownRole": 0, "NotAllowed": 0,
		"DeliveryRefused": 0}
	if len(census.longestWait) != len(want) {
		t.Errorf("states that wait: %v", census.longestWait)
	}
	for state, wait := range want {
		if got, there := census.longestWait[state]; !there || got != wait {
			t.Errorf("%s: %s, want %s", state, got, wait)
		}
	}
	if census.states["Issuing"] != 3 || census.states["NotAllowed"] != 1 || census.states["Issued"] != 1 {
		t.Errorf("states: %v", census.states)
	}
}

func TestKeysExpiring(t *testing.T) {
	for name, c := range map[string]struct {
		life, left           time.Duration
		unwarned             bool
		inDay, inWeek, inTwo int
	}{
		"two weeks left":                           {life: 90 * day, left: 14 * day, inTwo: 1},
		"a week and a moment left":                 {life: 90 * day, left: 7*day + 1, inTwo: 1},
		"a week left":                              {life: 90 * day, left: 7 * day, inWeek: 1, inTwo: 1},
		"a day and a moment left":                  {life: 90 * day, left: day + 1, inWeek: 1, inTwo: 1},
		"a day left":                               {life: 90 * day, left: day, inDay: 1, inWeek: 1, inTwo: 1},
		"past its deadline, and not marked yet":    {life: 90 * day, left: -time.Minute, inDay: 1, inWeek: 1, inTwo: 1},
		"without the condition":                    {life: 90 * day, left: day, unwarned: true},
		"of the shortest life that people look at": {life: 5 * day, left: day, inDay: 1, inWeek: 1, inTwo: 1},
		"of a shorter life":                        {life: 5*day - 1, left: time.Hour},
	} {
		key := stateOf(v1alpha1.ReasonIssued, c.life-c.left)
		key.Status.IssuedAt = ptr.To(metav1.NewTime(noon.Add(c.left - c.life)))
		key.Status.ExpiresAt = ptr.To(metav1.NewTime(noon.Add(c.left)))
		if !c.unwarned {
			key.Status.Conditions = append(key.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionExpiring})
		}
		census := newCensus()
		census.count(key, noon)
		if got := census.expiring; len(got) != 3 || got["1d"] != c.inDay || got["7d"] != c.inWeek || got["14d"] != c.inTwo {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRotation(t *testing.T) {
	retiring := func(left time.Duration) *v1alpha1.ApiKey {
		key := stateOf(v1alpha1.ReasonIssued, 90*day)
		key.Status.Rotation = &v1alpha1.ApiKeyRotationStatus{Retiring: &v1alpha1.ApiKeyRetiringToken{RetiresAt: metav1.NewTime(noon.Add(left))}}
		return key
	}
	blocked := retiring(time.Hour)
	blocked.Status.Conditions = append(blocked.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionRotationBlocked, Reason: string(v1alpha1.ReasonSecretTaken),
	})
	deleted := blocked.DeepCopy()
	deleted.DeletionTimestamp = ptr.To(metav1.NewTime(noon))
	census := newCensus()
	for _, key := range []*v1alpha1.ApiKey{stateOf(v1alpha1.ReasonIssued, day), retiring(time.Minute), retiring(0), retiring(-time.Minute), blocked, deleted} {
		census.count(key, noon)
	}
	if census.retiring != 2 || census.longestOverlap != time.Hour {
		t.Errorf("%d retiring, for %s at most; want 2 and 1h", census.retiring, census.longestOverlap)
	}
	if census.rotationBlocked["SecretTaken"] != 1 || len(census.rotationBlocked) != 7 {
		t.Errorf("blocked: %v", census.rotationBlocked)
	}
}

// A label of an attribute can't make the metric grow: there is one series for each key, and its length is limited.
func TestOwner(t *testing.T) {
	longest := v1alpha1.AttributeValue(strings.Repeat("x", 256))
	for name, c := range map[string]struct {
		attributes map[string]v1alpha1.AttributeValue
		want       string
	}{
		"none":         {nil, ""},
		"others":       {map[string]v1alpha1.AttributeValue{"plan": "gold"}, ""},
		"an owner":     {map[string]v1alpha1.AttributeValue{"owner": "team-shop", "plan": "gold"}, "team-shop"},
		"the longest":  {map[string]v1alpha1.AttributeValue{"owner": longest}, string(longest)},
		"a longer one": {map[string]v1alpha1.AttributeValue{"owner": longest + "x"}, ""},
	} {
		if got := owner(&v1alpha1.ApiKey{Spec: v1alpha1.ApiKeySpec{Attributes: c.attributes}}); got != c.want {
			t.Errorf("%s: the owner is %q, want %q", name, got, c.want)
		}
	}
}

func TestKeysByLastUse(t *testing.T) {
	for name, c := range map[string]struct {
		issued, used time.Duration // before noon; 0 for no use
		state        v1alpha1.Reason
		within       string
		in30, in90   int
	}{
		"just now":                           {issued: 200 * day, used: time.Second, within: "1d"},
		"less than a day ago":                {issued: 200 * day, used: day - time.Second, within: "1d"},
		"a day ago":                          {issued: 200 * day, used: day, within: "7d"},
		"a month ago":                        {issued: 200 * day, used: 30 * day, within: "90d", in30: 1},
		"almost 90 days ago":                 {issued: 200 * day, used: 90*day - time.Second, within: "90d", in30: 1},
		"90 days ago":                        {issued: 200 * day, used: 90 * day, within: "longer", in30: 1, in90: 1},
		"not seen, and new":                  {issued: day, within: "NotSeen"},
		"not seen, and issued 90 days ago":   {issued: 90 * day, within: "NotSeen", in30: 1, in90: 1},
		"suspended keys count":               {issued: 200 * day, used: 90 * day, state: v1alpha1.ReasonSuspended, within: "longer", in30: 1, in90: 1},
		"expired keys don't":                 {issued: 200 * day, used: 90 * day, state: v1alpha1.ReasonExpired},
		"keys that are not issued yet don't": {issued: 200 * day, state: v1alpha1.ReasonIssuing},
	} {
		if c.state == "" {
			c.state = v1alpha1.ReasonIssued
		}
		key := stateOf(c.state, c.issued)
		key.Status.IssuedAt = ptr.To(metav1.NewTime(noon.Add(-c.issued)))
		if c.state != v1alpha1.ReasonExpired && c.state != v1alpha1.ReasonIssuing {
			key.Status.Conditions[0].Status = metav1.ConditionTrue
		}
		if c.used != 0 {
			key.Status.LastUsedAt = ptr.To(metav1.NewTime(noon.Add(-c.used)))
		}
		census := newCensus()
		census.count(key, noon)
		for within, n := range census.lastUsed {
			if want := map[bool]int{true: 1}[within == c.within]; n != want {
				t.Errorf("%s: %d keys %s, want %d", name, n, within, want)
			}
		}
		if len(census.lastUsed) != 6 || len(census.unused) != 2 || census.unused["30d"] != c.in30 || census.unused["90d"] != c.in90 {
			t.Errorf("%s: %v and %v", name, census.lastUsed, census.unused)
		}
	}
}

func TestUseOfRetiringTokens(t *testing.T) {
	const overlap = 10 * time.Hour // noon is an hour before its end
	for name, c := range map[string]struct {
		used              time.Duration // before noon
		unrotated, unused bool
		left              time.Duration
		want, late        int
	}{
		"not used":                       {unused: true, left: time.Hour},
		"used before the rotation":       {used: 9*time.Hour + time.Second, left: time.Hour},
		"used when it was rotated":       {used: 9 * time.Hour, left: time.Hour},
		"used since":                     {used: time.Second, left: time.Hour, want: 1},
		"used late":                      {used: 0, left: time.Hour, want: 1, late: 1},
		"retired meanwhile":              {used: 0, left: 0},
		"without a time of the rotation": {unrotated: true, left: time.Hour},
	} {
		key := stateOf(v1alpha1.ReasonIssued, 90*day)
		key.Status.Rotation = &v1alpha1.ApiKeyRotationStatus{Retiring: &v1alpha1.ApiKeyRetiringToken{RetiresAt: metav1.NewTime(noon.Add(c.left))}}
		if !c.unused {
			key.Status.Rotation.Retiring.LastUsedAt = ptr.To(metav1.NewTime(noon.Add(-c.used)))
		}
		if !c.unrotated {
			key.Status.Rotation.RotatedAt = ptr.To(metav1.NewTime(noon.Add(c.left - overlap)))
		}
		census := newCensus()
		census.count(key, noon)
		if census.retiringUsed != c.want || census.retiringUsedLate != c.late {
			t.Errorf("%s: %d used, %d of them late; want %d and %d", name, census.retiringUsed, census.retiringUsedLate, c.want, c.late)
		}
	}
}
