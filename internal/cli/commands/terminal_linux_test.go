package commands

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// What is pasted in the very moment of the question is not shown, and the terminal is afterwards as it was.
func TestTokenOnTerminal(t *testing.T) {
	text := token.Mint("ak").Reveal()
	for name, test := range map[string]struct {
		typed       string
		want        string
		interrupted bool
	}{
		"Enter":     {typed: text + "\r", want: text},
		"newline":   {typed: text + "\n", want: text},
		"backspace": {typed: text + "x\x7f\r", want: text},
		"Ctrl-C":    {typed: text + "\x03", interrupted: true},
		"Ctrl-D":    {typed: "\x04", interrupted: true},
	} {
		t.Run(name, func(t *testing.T) {
			person, keyboard, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = keyboard.Close() }()
			screen := &screen{File: keyboard, seen: func() error {
				if echoes(t, keyboard) {
					t.Error("the terminal echoes when it asks")
				}
				_, err := io.WriteString(person, test.typed)
				return err
			}}
			shown := make(chan string)
			go func() {
				var all bytes.Buffer
				_, _ = io.Copy(&all, person) // ends with an error when the keyboard is closed
				shown <- all.String()
			}()
			s := &session{IOStreams: genericiooptions.IOStreams{In: keyboard, ErrOut: screen}}
			got, err := s.typeSecret(context.Background())
			if got != test.want || errors.As(err, new(Interruption)) != test.interrupted || err != nil != test.interrupted {
				t.Errorf("%d characters and error %v, want %d and interrupted %v", len(got), err, len(test.want), test.interrupted)
			}
			if !echoes(t, keyboard) {
				t.Error("the terminal does not echo after the end")
			}
			_ = keyboard.Close()
			if all := <-shown; strings.Contains(all, text[3:]) || !strings.HasPrefix(all, question) || !strings.HasSuffix(all, "\r\n") {
				t.Errorf("the terminal shows something else than the question and a new line: %d characters", len(all))
			}
			_ = person.Close()
		})
	}
}

// echoes reports whether a terminal shows what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Error(err)
		return false
	}
	return settings.Lflag&unix.ECHO != 0
}

// screen is a terminal that calls a function after it has written the question.
type screen struct {
	*os.File
	seen func() error
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	if err == nil && bytes.Contains(p, []byte(question)) {
		err = s.seen()
	}
	return n, err
}
