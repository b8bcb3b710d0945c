// Package access has the rules about what a request may do and from where: networks, roles and what they
// include, and which proxies are trusted for the client address. Anything that can't be parsed grants
// nothing. Don't read a clock here, don't handle tokens, and don't judge what may be issued.
package access
