// Package monitoring holds the words that the names of all metrics begin with; dashboards and alerts of users go by them, so that none may
// change, and nothing else belongs here.
package monitoring

// The first words of the metrics' names, which are written PREFIX_NAME.
const (
	// Operator is that of apikey-operator.
	Operator = "apikey_operator"
	// Verifier is that of apikey-verifier, and of a guard inside a service.
	Verifier = "apikey_verifier"
)
