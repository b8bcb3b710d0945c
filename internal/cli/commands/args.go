package commands

import (
	"regexp"
)

// tokenLike matches what looks like a token, also one that was cut off at its end. No name of a key, role or namespace has an underscore.
var tokenLike = regexp.MustCompile(`(^|[^0-9A-Za-z])[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{20,}($|[^0-9A-Za-z_.-])`)

// refuseTokens refuses arguments that look like a token. Other users of the machine can read arguments, and shells write them to a file.
// The message does not repeat the argument.
func refuseTokens(args []string) error {
	for i, arg := range args {
		if tokenLike.MatchString(arg) {
			return wrong("argument %d looks like a token. Other users of this machine can read arguments, and your shell keeps them in its "+
				"history: remove it there, and consider the token leaked. Pass a token in a file, or to standard input (-); "+
				"to end its key, run: kubectl apikey revoke --token FILE", i+1)
		}
	}
	return nil
}
