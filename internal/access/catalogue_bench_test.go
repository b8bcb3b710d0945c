package access_test

import (
	"fmt"
	"testing"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// tree returns a catalogue of n roles, in which each role includes up to ten others: a role of each hundred includes ten that
// include ten.
func tree(n int) []access.Role {
	roles := make([]access.Role, n)
	name := func(i int) string { return fmt.Sprintf("org.permission.service-%d.act", i) }
	for i := range roles {
		roles[i].Name = name(i)
		for child := 10*i + 1; child <= 10*i+10 && child < n; child++ {
			roles[i].Includes = append(roles[i].Includes, name(child))
		}
	}
	return roles
}

// BenchmarkCatalogue measures what a change of the catalogue costs until it counts: the catalogue, and what 2,000 different sets
// of three roles include.
func BenchmarkCatalogue(b *testing.B) {
	roles := tree(5_000)
	sets := make([]*access.Roles, 2_000)
	for i := range sets {
		sets[i] = access.NewRoles(roles[i%500].Name, roles[i].Name, roles[2*i].Name)
	}
	b.Run("catalogue", func(b *testing.B) {
		for b.Loop() {
			access.NewCatalogue(roles)
		}
	})
	b.Run("sets", func(b *testing.B) {
		for b.Loop() {
			catalogue := access.NewCatalogue(roles)
			resolver := catalogue.Resolver()
			for _, set := range sets {
				resolver.Include(set)
			}
		}
	})
	b.Run("sets with everything", func(b *testing.B) {
		all := make([]*access.Roles, len(sets))
		for i := range all {
			all[i] = access.NewRoles(roles[0].Name, roles[i].Name)
		}
		for b.Loop() {
			catalogue := access.NewCatalogue(roles)
			resolver := catalogue.Resolver()
			for _, set := range all {
				resolver.Include(set)
			}
		}
	})
}
