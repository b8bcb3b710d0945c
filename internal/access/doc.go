// Package access says what a request may do and from where: networks, roles with what they include, and whose word on a client's address
// counts. Nothing here may read a clock, know a token or judge what may be issued, and what can't be parsed opens nothing.
package access
