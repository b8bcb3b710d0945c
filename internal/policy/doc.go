// Package policy asks pure questions about an address, a role list or a policy, and fails closed on what it can't parse.
package policy
