// Package policy is the old name of internal/access and internal/grant, for those who have not moved yet; nothing may be added here.
package policy

import (
	"github.com/apikey-operator/apikey-operator/internal/access"
	"github.com/apikey-operator/apikey-operator/internal/grant"
)

// The types of internal/access.
type (
	Catalogue = access.Catalogue
	Networks  = access.Networks
	Proxies   = access.Proxies
	Role      = access.Role
	Roles     = access.Roles
)

// The functions of internal/access.
var (
	AnyNetwork        = access.AnyNetwork
	NewCatalogue      = access.NewCatalogue
	NewRoles          = access.NewRoles
	ParseNetworks     = access.ParseNetworks
	ParseProxies      = access.ParseProxies
	ValidateNamespace = access.ValidateNamespace
	ValidateRole      = access.ValidateRole
)

// The types of internal/grant.
type (
	Outcome = grant.Outcome
	Request = grant.Request
	Rules   = grant.Rules
	Terms   = grant.Terms
	Verdict = grant.Verdict
)

// The values of internal/grant.
const (
	Allowed     = grant.Allowed
	MaxMessage  = grant.MaxMessage
	NotAllowed  = grant.NotAllowed
	Unjudged    = grant.Unjudged
	UnknownRole = grant.UnknownRole
)

// NewRules is that of internal/grant.
var NewRules = grant.NewRules
