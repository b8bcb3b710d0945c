package scan

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/text/encoding/unicode"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// place is where a token was found. It names the token by its number, so that a failure shows none.
type place struct {
	token        int
	commit, path string
	line, column int
	encoded      bool
}

func places(t *testing.T, r io.Reader, minted []token.Token) (all []place) {
	t.Helper()
	if err := Text(r, func(f Finding) {
		p := place{token: -1, commit: f.Commit, path: f.Path, line: f.Line, column: f.Column, encoded: f.Encoded}
		for i := range minted {
			if f.Token.Reveal() == minted[i].Reveal() {
				p.token = i
			}
		}
		all = append(all, p)
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// utf16 encodes a text with a byte order mark.
func utf16(t *testing.T, order unicode.Endianness, text string) string {
	t.Helper()
	encoded, err := unicode.UTF16(order, unicode.UseBOM).NewEncoder().String(text)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func TestText(t *testing.T) {
	minted := []token.Token{token.Mint("ak"), token.Mint("org1"), token.Mint("abcdefghijklmnop")}
	text := make([]string, len(minted))
	for i := range minted {
		text[i] = minted[i].Reveal()
	}
	broken := text[0][:len(text[0])-1] + "!"
	wrong := []byte(text[0])
	wrong[10] ^= 1 // most digits stay digits
	if wrong[10] == '_' || wrong[10] < '0' {
		wrong[10] = '0'
	}
	b64 := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct {
		input string
		want  []place
	}{
		"nothing":                   {"", nil},
		"alone":                     {text[0], []place{{line: 1, column: 1}}},
		"on the third line":         {"a\n\n  " + text[1] + "\n", []place{{token: 1, line: 3, column: 3}}},
		"the longest prefix":        {text[2], []place{{token: 2, line: 1, column: 1}}},
		"two on a line":             {text[0] + "," + text[1], []place{{line: 1, column: 1}, {token: 1, line: 1, column: 54}}},
		"quoted":                    {`key: "` + text[0] + `"`, []place{{line: 1, column: 7}}},
		"after an escape":           {"Bearer%20" + text[0], []place{{line: 1, column: 10}}},
		"after a word":              {"token" + text[0], []place{{line: 1, column: 6}}},
		"before more digits":        {text[0] + "abc", []place{{line: 1, column: 1}}},
		"between underscores":       {"a_" + text[0] + "_b", []place{{line: 1, column: 3}}},
		"in base64":                 {"  token: " + b64([]byte(text[0])), []place{{line: 1, column: 10, encoded: true}}},
		"in the middle of base64":   {b64([]byte("a: " + text[0] + "\n")), []place{{line: 1, column: 1, encoded: true}}},
		"one byte off in base64":    {b64([]byte("a" + text[0] + "zz")), []place{{line: 1, column: 1, encoded: true}}},
		"cut off":                   {text[0][:len(text[0])-1], nil},
		"with a wrong digit":        {string(wrong), nil},
		"with a wrong last one":     {broken, nil},
		"with another prefix":       {"xk" + text[0][2:], nil},
		"in capitals":               {strings.ToUpper(text[0]), nil},
		"over two lines":            {text[0][:20] + "\n" + text[0][20:], nil},
		"after a very long line":    {strings.Repeat("x", 3*bufferSize) + "\n" + text[0], []place{{line: 2, column: 1}}},
		"over the end of a part":    {strings.Repeat(" ", bufferSize-20) + text[0], []place{{line: 1, column: bufferSize - 19}}},
		"at the end of a part":      {strings.Repeat(" ", bufferSize-52) + text[0] + " x", []place{{line: 1, column: bufferSize - 51}}},
		"just before a part's end":  {strings.Repeat(" ", bufferSize-60) + text[0] + strings.Repeat("-", 90), []place{{line: 1, column: bufferSize - 59}}},
		"in a binary":               {"\x00\x01" + text[0] + "\xff", []place{{line: 1, column: 3}}},
		"with Windows' line ends":   {"a\r\n" + text[0] + "\r\n", []place{{line: 2, column: 1}}},
		"in UTF-16":                 {utf16(t, unicode.LittleEndian, "a\r\n "+text[0]), []place{{line: 2, column: 2}}},
		"in UTF-16, big-endian":     {utf16(t, unicode.BigEndian, text[0]), []place{{line: 1, column: 1}}},
		"after a byte order mark":   {"\xef\xbb\xbf" + text[0], []place{{line: 1, column: 1}}},
		"a text that names commits": {"x\ncommit " + strings.Repeat("a", 40) + "\n" + text[0], []place{{line: 3, column: 1}}},
	} {
		for kind, r := range map[string]io.Reader{"": strings.NewReader(c.input), ", byte by byte": iotest.OneByteReader(strings.NewReader(c.input))} {
			if got := places(t, r, minted); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s%s: got %+v, want %+v", name, kind, got, c.want)
			}
		}
	}
}

func TestPatch(t *testing.T) {
	minted := []token.Token{token.Mint("ak"), token.Mint("ak"), token.Mint("ak")}
	first, second := strings.Repeat("a", 40), strings.Repeat("b", 40)
	input := "commit " + first + " (HEAD -> main)\nAuthor: A <a@example.com>\n\n    message " + minted[2].Reveal() + "\n\n" +
		"diff --git a/x/config.yaml b/x/config.yaml\nindex 1..2 100644\n--- a/x/config.yaml\n+++ b/x/config.yaml\n" +
		"@@ -10,2 +20,3 @@ func\n context\n-old: " + minted[1].Reveal() + "\n+new: " + minted[0].Reveal() + "\n+++ b/" + minted[0].Reveal() + "\n" +
		"diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-" + minted[1].Reveal() + "\n" +
		"\ncommit " + second + "\n\ndiff --git a/q b/q\n--- a/q\n+++ b/q\n@@ -1 +1 @@\n+x\n"
	want := []place{
		{token: 2, commit: first, line: 0, column: 12},
		{token: 1, commit: first, path: "x/config.yaml", line: 0, column: 6},
		{token: 0, commit: first, path: "x/config.yaml", line: 21, column: 6},
		{token: 0, commit: first, path: "x/config.yaml", line: 22, column: 6},
		{token: 1, commit: first, path: "gone", line: 0, column: 1},
	}
	if got := places(t, strings.NewReader(input), minted); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

func FuzzText(f *testing.F) {
	const digits = "0123456789012345678901234567890123456789012345678"
	f.Add("ak_"+digits, uint16(0))
	f.Add("commit "+strings.Repeat("a", 40)+"\n@@ -1 +1 @@\n+", uint16(3))
	minted := token.Mint("ak")
	f.Fuzz(func(t *testing.T, around string, at uint16) {
		cut := int(at) % (len(around) + 1)
		text := around[:cut] + minted.Reveal() + around[cut:]
		n := 0
		if err := Text(strings.NewReader(text), func(f Finding) {
			if f.Token.Digest() == minted.Digest() {
				n++
			}
		}); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Error("the token was not found")
		}
	})
}
