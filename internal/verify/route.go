package verify

import (
	"fmt"
	"slices"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// MaxRoles is the maximum number of roles that a route may require. It is also the maximum for an ApiKey.
const MaxRoles = 256

// Route is the scope of a route: what it requires of a key. The zero value requires nothing, so every key
// passes that is issued and not expired.
type Route struct {
	// Roles that the key must carry, all of them.
	Roles []string
	// Namespace that the key must be in. Empty means any.
	Namespace string
	// Problem says what is invalid in the scope, or is empty. An invalid route refuses every key.
	Problem string
}

// Bad returns an invalid [Route] with the formatted text as its Problem.
func Bad(format string, args ...any) Route { return Route{Problem: fmt.Sprintf(format, args...)} }

// NewRoute returns the [Route] with these parameters. It is invalid if a role is empty or isn't a valid name,
// or if there are more than [MaxRoles] roles or more than one namespace.
func NewRoute(roles, namespaces []string) Route {
	if len(roles) > MaxRoles {
		return Bad("too many roles: %d, must be at most %d", len(roles), MaxRoles)
	}
	for _, role := range roles {
		if err := access.ValidateRole(role); err != nil {
			return Bad("invalid role: %v", err)
		}
	}
	route := Route{Roles: roles}
	switch len(namespaces) {
	case 0:
	case 1:
		if err := access.ValidateNamespace(namespaces[0]); err != nil {
			return Bad("invalid namespace: %v", err)
		}
		route.Namespace = namespaces[0]
	default:
		return Bad("too many namespaces: %d, must be at most one", len(namespaces))
	}
	return route
}

// Defaults apply to every route. A request can only add to them: some gateways let clients write to the query
// with the scope.
type Defaults struct {
	// Roles that every route requires in addition to its own.
	Roles []string
	// RequireScope makes a route invalid if it requires neither a role nor a namespace, and Roles are empty,
	// too.
	RequireScope bool
}

// Apply returns the route with the defaults: first its own roles, then the roles of the defaults that it
// lacks.
func (d Defaults) Apply(route Route) Route {
	if route.Problem != "" {
		return route
	}
	route.Roles = union(route.Roles, d.Roles)
	if d.RequireScope && len(route.Roles) == 0 && route.Namespace == "" {
		return Bad("the route requires neither a role nor a namespace: add a role to the route, or accept every valid key with --require-scope=false")
	}
	return route
}

// union returns first, followed by the elements of second that it lacks. It returns one of its arguments
// where possible and otherwise a copy, because all requests share second.
func union(first, second []string) []string {
	if len(first) == 0 {
		return second
	}
	all := slices.Clip(first)
	for _, role := range second {
		if !slices.Contains(all, role) {
			all = append(all, role)
		}
	}
	return all
}
