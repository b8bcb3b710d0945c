// Package monitoring defines the prefixes of all metric names. Nothing else belongs here, and the prefixes must not change,
// because dashboards and alerts of users depend on them.
package monitoring

// Prefixes of metric names, which have the form PREFIX_NAME.
const (
	// Operator is the prefix of the metrics of apikey-operator.
	Operator = "apikey_operator"
	// Verifier is the prefix of the metrics of apikey-verifier, and of package guard inside a service.
	Verifier = "apikey_verifier"
)
