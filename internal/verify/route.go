package verify

import (
	"fmt"
	"slices"

	"github.com/apikey-operator/apikey-operator/internal/access"
)

// MaxRoles is how many roles a route may ask for: as many as a key can carry.
const MaxRoles = 256

// Route is what a gateway asks for on behalf of one of its routes. The zero value asks for nothing: any live key will do.
type Route struct {
	// Roles are all needed.
	Roles []string
	// Namespace is the one that the key must be of; "" means any.
	Namespace string
	// Problem says what can't be understood of the route; "" means nothing. Such a route is open to nobody.
	Problem string
}

// Bad is a route that can't be understood.
func Bad(format string, args ...any) Route { return Route{Problem: fmt.Sprintf(format, args...)} }

// NewRoute is the route of these parameters. One that can't be understood makes the route bad: an empty or misspelt role, more
// than MaxRoles, more than one namespace.
func NewRoute(roles, namespaces []string) Route {
	if len(roles) > MaxRoles {
		return Bad("%d roles: at most %d", len(roles), MaxRoles)
	}
	for _, role := range roles {
		if err := access.ValidateRole(role); err != nil {
			return Bad("role: %v", err)
		}
	}
	route := Route{Roles: roles}
	switch len(namespaces) {
	case 0:
	case 1:
		if err := access.ValidateNamespace(namespaces[0]); err != nil {
			return Bad("namespace: %v", err)
		}
		route.Namespace = namespaces[0]
	default:
		return Bad("%d namespaces: at most one", len(namespaces))
	}
	return route
}

// Defaults are what holds for every route. A request can add to them and take nothing away: some gateways hand on what a client
// wrote into the check's own query.
type Defaults struct {
	// Roles are needed beside those that a route asks for.
	Roles []string
	// RequireScope makes a route that asks neither for a role nor for a namespace, where there are no Roles either, a bad one.
	RequireScope bool
}

// Apply is the route with the defaults: its own roles first, then those of the defaults that it lacks.
func (d Defaults) Apply(route Route) Route {
	if route.Problem != "" {
		return route
	}
	route.Roles = union(route.Roles, d.Roles)
	if d.RequireScope && len(route.Roles) == 0 && route.Namespace == "" {
		return Bad("it asks for no role and pins no namespace, and --require-scope is set: add a role")
	}
	return route
}

// union is first and what of second is not in it. It is one of the two wherever that will do, and else a copy: second belongs to all
// requests.
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
