package backup

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Plan says what a restore has to do with each key of a backup.
type Plan struct {
	// Create are keys that do not exist.
	Create []*v1alpha1.ApiKey
	// Complete are keys that exist without a status, as an interrupted restore leaves them.
	Complete []*v1alpha1.ApiKey
	// Done are keys that exist with the digest of the backup, and keys that had none and exist.
	Done []*v1alpha1.ApiKey
	// Conflicts say which keys exist with another token or another spec.
	Conflicts []Conflict
}

// Conflict is a key that a restore must not change.
type Conflict struct {
	types.NamespacedName

	// Why says how the key differs.
	Why string
}

// String names the key and says how it differs.
func (c Conflict) String() string { return fmt.Sprintf("%s: %s", c.NamespacedName, c.Why) }

// Writes reports whether the plan changes anything.
func (p *Plan) Writes() bool { return len(p.Create)+len(p.Complete) > 0 }

// NewPlan compares a backup with the keys that exist.
func NewPlan(backup []v1alpha1.ApiKey, live map[types.NamespacedName]*v1alpha1.ApiKey) *Plan {
	p := &Plan{}
	for i := range backup {
		key := &backup[i]
		now := live[idOf(key)]
		switch {
		case now == nil:
			p.Create = append(p.Create, key)
		case now.Status.Hash != "" && now.Status.Hash == key.Status.Hash:
			p.Done = append(p.Done, key)
		case !sameSpec(now, key):
			p.conflict(key, "it exists with another spec")
		case !hasStatus(key):
			p.Done = append(p.Done, key)
		case now.Status.Hash != "":
			p.conflict(key, "it was issued meanwhile, or got a new token after the backup")
		case now.IsExpired() && key.IsExpired():
			p.Done = append(p.Done, key)
		default:
			p.Complete = append(p.Complete, key)
		}
	}
	return p
}

func (p *Plan) conflict(key *v1alpha1.ApiKey, why string) {
	p.Conflicts = append(p.Conflicts, Conflict{NamespacedName: idOf(key), Why: why})
}

// hasStatus reports whether a restore must write the status of a key. A key that was waiting needs none: the operator decides again.
func hasStatus(key *v1alpha1.ApiKey) bool { return key.Status.Hash != "" || key.IsExpired() }

// sameSpec compares what can't be edited.
func sameSpec(a, b *v1alpha1.ApiKey) bool {
	first, second := a.Spec.DeepCopy(), b.Spec.DeepCopy()
	first.Suspend, second.Suspend = nil, nil
	return equality.Semantic.DeepEqual(first, second)
}
