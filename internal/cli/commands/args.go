package commands

import (
	"regexp"

	"github.com/spf13/cobra"
)

// oneName accepts one argument, the name of a key.
func oneName(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return wrong("the name of the key is missing: %s", cmd.UseLine())
	case 1:
		return nil
	}
	return wrong("want the name of one key, and not %d arguments: %s", len(args), cmd.UseLine())
}

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
