package feed

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// BenchmarkOneRoleChanges measures the time from the event of a role until it counts, with a catalogue of 5,000 roles that include
// others, and 2,000 keys with different roles. One of these includes the whole catalogue.
func BenchmarkOneRoleChanges(b *testing.B) {
	const catalogue, keys = 5_000, 2_000
	name := func(i int) string { return fmt.Sprintf("org.permission.service-%d.act", i) }
	x := index.New(time.Now(), index.Options{})
	source := x.Source()
	store := &roles{catalogue: x.Catalogue(), includes: map[string][]string{}, replaced: func() {}}
	all := make([]any, catalogue)
	for i := range catalogue {
		role := &v1alpha1.ApiRole{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}
		for child := 10*i + 1; child <= 10*i+10 && child < catalogue; child++ {
			role.Spec.Includes = append(role.Spec.Includes, name(child))
		}
		all[i] = role
	}
	if err := store.Replace(all, ""); err != nil {
		b.Fatal(err)
	}
	entries := make([]index.Entry, keys)
	for i := range keys {
		entries[i] = index.Entry{
			ID: index.ID{Namespace: "team", Name: fmt.Sprintf("key-%d", i)}, Roles: []string{name(0), name(i + 1)},
			Credentials: []index.Credential{{Digest: token.Digest{byte(i), byte(i >> 8)}, Deadline: expiry.Never()}},
		}
	}
	source.Replace(entries)
	changed := &v1alpha1.ApiRole{ObjectMeta: metav1.ObjectMeta{Name: name(catalogue - 1)}}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		changed.Spec.Includes = []string{fmt.Sprintf("new-%d", n)}
		if err := store.Update(changed.DeepCopy()); err != nil {
			b.Fatal(err)
		}
		if key, _ := x.Find(token.Digest{}, time.Now()); len(key.Roles.Names()) != catalogue+1 {
			b.Fatalf("a key carries %d roles", len(key.Roles.Names()))
		}
	}
}
