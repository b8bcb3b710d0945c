// Package source shows that comments and strings are read. It keeps a key for
// ever.
package source

// Text is a string that is no token, in a comment.
const Text = "a string that is no credential"
