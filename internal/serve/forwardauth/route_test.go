package forwardauth

import (
	"slices"
	"testing"
)

// A query must mean the same whether net/url reads it or not.
func FuzzRoute(f *testing.F) {
	for _, query := range []string{
		"role=a", "role=a&role=b&namespace=shop", "&&role=a&", "role", "role=", "role==", "=a", "role=a=b", "role=a&namespace", "namespace=a&namespace=b",
		"role=%61", "r%6fle=a", "role=a+b", "role=a;role=b", "role=%zz", "rol=a", "ROLE=a", "role=a&x", "role=\x00", "role=\xff", "?role=a",
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, want := route(query), parsed(query)
		if !slices.Equal(got.Roles, want.Roles) || got.Namespace != want.Namespace || (got.Problem == "") != (want.Problem == "") {
			t.Errorf("the query %q is the route %+v, want %+v", query, got, want)
		}
	})
}

// The queries that gateways send don't need net/url.
func TestUsualQueriesArePlain(t *testing.T) {
	for query, want := range map[string]bool{
		"role=org.permission.customer.read&role=b&namespace=shop": true,
		"role=a&role=%62": false,
		"role=a&x=b":      false,
	} {
		if _, _, ok := plain(query); ok != want {
			t.Errorf("the query %q is plain: %t, want %t", query, ok, want)
		}
	}
}
