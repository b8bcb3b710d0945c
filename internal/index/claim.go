package index

import "slices"

// claim tells who of several objects with one digest may have it. No two keys have a digest in common by chance, so one of
// them is a copy: of a status that somebody may write who should not, or of a backup. While there are two, neither is
// accepted. A copy must not come to life when the original is deleted, so the last one left is accepted only if it is the
// eldest of all that there have been.
type claim struct {
	holders []*entry
	eldest  *entry // nil if nobody can tell
}

func newClaim(first *entry) *claim { return &claim{holders: []*entry{first}, eldest: first} }

func (c *claim) add(e *entry) {
	c.holders = append(c.holders, e)
	switch {
	case c.eldest != nil && c.eldest.key.UID == e.key.UID:
		c.eldest = e // it was gone from view, as by a label, and is back
	case c.eldest == nil || e.created == c.eldest.created:
		c.eldest = nil // times are whole seconds: there is no telling
	case e.created < c.eldest.created:
		c.eldest = e
	}
}

func (c *claim) drop(e *entry) {
	c.holders = slices.DeleteFunc(c.holders, func(h *entry) bool { return h == e })
}

// replace follows an object that has changed in another way than its digest.
func (c *claim) replace(old, e *entry) {
	c.holders[slices.Index(c.holders, old)] = e
	if c.eldest == old {
		c.eldest = e
	}
}

// winner is the entry that is accepted, nil for none. The claim is over once nobody is left who lost it.
func (c *claim) winner() (winner *entry, over bool) {
	switch {
	case len(c.holders) == 0:
		return nil, true
	case len(c.holders) == 1 && c.holders[0] == c.eldest:
		return c.eldest, true
	default:
		return nil, false
	}
}
