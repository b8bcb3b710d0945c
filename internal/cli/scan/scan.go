// Package scan finds tokens in texts by their form and their checksum. It needs no cluster, and must not print or keep a text.
package scan

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"strconv"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// Finding is a token in a text.
type Finding struct {
	Token token.Token
	// Commit and Path say where a patch that git log -p printed has the token. Both are empty for other texts.
	Commit, Path string
	// Line and Column count from 1. In a patch, Line is that of the file after the commit, or 0 in a line that the commit removed.
	Line, Column int
	// Encoded says that the token is encoded in base64, as in the manifest of a Secret. Column is then where the encoding begins.
	Encoded bool
}

const (
	// bufferSize is the longest line that is searched at once. Longer lines are searched in parts that overlap.
	bufferSize = 64 << 10
	// digits is the number of digits after the underscore.
	digits    = 49
	maxPrefix = token.MaxLength - digits - 1
	// overlap is long enough for a token, and for a token in base64.
	overlap = 2 * token.MaxLength
)

// Unicode returns a reader of a text as UTF-8, without its byte order mark. Only a text that begins with such a mark is taken for UTF-16, as
// Windows PowerShell writes it.
func Unicode(r io.Reader) io.Reader {
	// transform reads 4 KiB at a time, which is slow from a reader such as a file.
	return transform.NewReader(bufio.NewReaderSize(r, bufferSize), unicode.BOMOverride(transform.Nop))
}

// Text calls found with each token in a text. It reads the text in parts, so that its size doesn't matter.
func Text(r io.Reader, found func(Finding)) error {
	lines := bufio.NewReaderSize(Unicode(r), bufferSize)
	var where patch
	line, column := 1, 1
	var carried []byte // the end of what came before in the same line
	for {
		part, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		isStart, isEnd := column == 1, err == nil
		if isStart {
			where.next(part, line == 1)
		}
		text := part
		if len(carried) > 0 {
			text = append(carried, part...)
		}
		before := len(text) - len(part)
		search(text, func(f Finding, end int) {
			if end <= before {
				return // found in the part before
			}
			f.Column += column - before
			f.Commit, f.Path, f.Line = where.commit, where.path, line
			if where.on {
				f.Line = where.line
				f.Column--
			}
			found(f)
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if isEnd {
			line, column, carried = line+1, 1, nil
			continue
		}
		column += len(part)
		carried = bytes.Clone(text[max(0, len(text)-overlap):])
	}
}

// search calls found with each token in a part of a line, with the offset of its end. Columns count from 0.
func search(text []byte, found func(f Finding, end int)) {
	tokens(text, func(start, end int, t token.Token) { found(Finding{Token: t, Column: start}, end) })
	for _, run := range encoded.FindAllIndex(text, -1) {
		decode(text[run[0]:run[1]], func(t token.Token) { found(Finding{Token: t, Column: run[0], Encoded: true}, run[1]) })
	}
}

// tokens calls found with each token in a text. The text before and after a token doesn't matter: the checksum covers the prefix.
func tokens(text []byte, found func(start, end int, t token.Token)) {
	for from := 0; ; {
		at := bytes.IndexByte(text[from:], '_')
		if at < 0 {
			return
		}
		at += from
		from = at + 1
		end := at + 1 + digits
		if end > len(text) {
			return
		}
		if !allDigits(text[at+1 : end]) {
			continue
		}
		for start := at - 1; start >= 0 && start >= at-maxPrefix && isPrefix(text[start]); start-- {
			// Parse gets a copy, which it keeps.
			if t, err := token.Parse(string(text[start:end])); err == nil {
				found(start, end, t)
				from = end
				break
			}
		}
	}
}

func allDigits(text []byte) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func isPrefix(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// encoded matches what may be a token in base64, and whatever it is part of.
var encoded = regexp.MustCompile(`[0-9A-Za-z+/]{68,}`)

// decode calls found with each token in a text in base64. The token may be in the middle of what is encoded, so each way to divide the text
// into groups of four is tried.
func decode(text []byte, found func(token.Token)) {
	for shift := range 4 {
		group := text[shift:]
		if len(group)%4 == 1 {
			group = group[:len(group)-1]
		}
		clear := make([]byte, base64.RawStdEncoding.DecodedLen(len(group)))
		n, _ := base64.RawStdEncoding.Decode(clear, group) // can't fail: the characters and the length are right
		tokens(clear[:n], func(_, _ int, t token.Token) { found(t) })
	}
}

// patch follows the output of git log -p.
type patch struct {
	on           bool
	commit, path string
	// line is the line of the file that the current line is, or 0, and following the next one.
	line, following int
	inHunk          bool
}

var (
	commitLine = regexp.MustCompile(`^commit ([0-9a-f]{40,64})\b`)
	hunkLine   = regexp.MustCompile(`^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@`)
)

// next looks at the start of a line. Only a text whose first line names a commit is a patch.
func (p *patch) next(start []byte, isFirst bool) {
	if match := commitLine.FindSubmatch(start); match != nil && (isFirst || p.on) {
		*p = patch{on: true, commit: string(match[1])}
		return
	}
	if !p.on {
		return
	}
	p.line = 0
	switch {
	case bytes.HasPrefix(start, []byte("diff --git ")):
		p.inHunk, p.path = false, ""
	case !p.inHunk && bytes.HasPrefix(start, []byte("+++ b/")), !p.inHunk && p.path == "" && bytes.HasPrefix(start, []byte("--- a/")):
		p.path = string(bytes.TrimRight(start[len("+++ b/"):], "\r\n\t"))
	case hunkLine.Match(start):
		p.inHunk = true
		p.following, _ = strconv.Atoi(string(hunkLine.FindSubmatch(start)[1])) // digits
	case p.inHunk && (bytes.HasPrefix(start, []byte("+")) || bytes.HasPrefix(start, []byte(" "))):
		p.line = p.following
		p.following++
	}
}
