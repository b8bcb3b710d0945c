package index

import "slices"

// claim tracks the objects that have had the same digest. Digests don't collide by chance, so all of these
// objects but one are copies: of a backup, or of the status by someone who should not be able to write it.
// While several objects have the digest, none is accepted. Deleting the original must not make a copy valid,
// so the last one left is accepted only if it is the oldest of all that ever had the digest.
type claim struct {
	holders []*entry
	oldest  *entry // nil if two are of the same age
}

func newClaim(first *entry) *claim { return &claim{holders: []*entry{first}, oldest: first} }

func (c *claim) add(e *entry) {
	c.holders = append(c.holders, e)
	switch {
	case c.oldest != nil && c.oldest.key.UID == e.key.UID:
		c.oldest = e // it was removed, for example by a label selector, and is back
	case c.oldest == nil || e.created == c.oldest.created:
		c.oldest = nil // creation times are whole seconds
	case e.created < c.oldest.created:
		c.oldest = e
	}
}

func (c *claim) drop(e *entry) {
	c.holders = slices.DeleteFunc(c.holders, func(h *entry) bool { return h == e })
}

// replace updates an object that still has the digest.
func (c *claim) replace(old, e *entry) {
	c.holders[slices.Index(c.holders, old)] = e
	if c.oldest == old {
		c.oldest = e
	}
}

// winner returns the entry that is accepted, or nil. over is true once no object is left that lost the claim.
func (c *claim) winner() (winner *entry, over bool) {
	switch {
	case len(c.holders) == 0:
		return nil, true
	case len(c.holders) == 1 && c.holders[0] == c.oldest:
		return c.oldest, true
	default:
		return nil, false
	}
}
