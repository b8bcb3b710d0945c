package harness

import (
	"bytes"
	"slices"
	"sync"
)

// Record is what processes wrote where no token may be, such as logs. The zero value is empty and ready to use.
type Record struct {
	mu     sync.Mutex
	text   bytes.Buffer
	tokens []string
}

// Write implements [io.Writer].
func (r *Record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

// Remember adds a token that must not be in the record.
func (r *Record) Remember(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.tokens, token) {
		r.tokens = append(r.tokens, token)
	}
}

// Leaks returns the number of tokens that are remembered, and of their traces in the record; see [Traces].
func (r *Record) Leaks() (tokens, leaks int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tokens), Traces(r.text.Bytes(), r.tokens...)
}

// Contains reports whether the record contains a text.
func (r *Record) Contains(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.text.Bytes(), []byte(text))
}
