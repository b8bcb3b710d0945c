package script

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/verify"
)

func resultOf(name string) verify.Result {
	for result := range verify.Result(verify.Results) {
		if result.String() == name {
			return result
		}
	}
	panic("unknown result " + name)
}

func (r *runner) parse(t *testing.T, args []string) Ask {
	t.Helper()
	ask := Ask{From: netip.MustParseAddr("192.0.2.1")}
	r.Now = start
	for _, arg := range args {
		option, value, _ := strings.Cut(arg, "=")
		switch option {
		case "at":
			r.Now = start.Add(duration(t, value))
		case "from":
			ask.From, _ = netip.ParseAddr(value) // "nowhere" results in the zero address
		case "xff":
			ask.ForwardedFor = append(ask.ForwardedFor, value)
		case "authorization":
			ask.Authorization = append(ask.Authorization, r.reveal(t, value))
		case "apikey":
			ask.APIKey = append(ask.APIKey, r.reveal(t, value))
		case "role":
			ask.Roles = append(ask.Roles, value)
		case "namespace":
			ask.Namespaces = append(ask.Namespaces, value)
		case "param":
			name, value, _ := strings.Cut(value, ":")
			ask.Params = append(ask.Params, [2]string{name, value})
		default:
			t.Fatalf("line %d: unknown option %q of a request", r.line, option)
		}
	}
	return ask
}

// reveal replaces the names of tokens by tokens.
func (r *runner) reveal(t *testing.T, line string) string {
	t.Helper()
	for name, minted := range r.tokens {
		text := minted.Reveal()
		wrong := text[:len(text)-1] + string("01"[strings.IndexByte("0", text[len(text)-1])+1])
		line = strings.NewReplacer("<"+name+">", text, "<"+name+"!>", wrong).Replace(line)
	}
	if strings.ContainsAny(line, "<>") {
		t.Fatalf("line %d: unknown token name", r.line)
	}
	return line
}

// results returns how often each result was decided so far.
func (r *runner) results(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "apikey_verifier_decisions_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "result" {
					counts[label.GetValue()] = metric.GetCounter().GetValue()
				}
			}
		}
	}
	return counts
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// split splits a line into words at unquoted spaces and drops comments.
func split(line string) ([]string, error) {
	var words []string
	for rest := strings.TrimLeft(line, " \t"); rest != "" && rest[0] != '#'; rest = strings.TrimLeft(rest, " \t") {
		var word strings.Builder
		for rest != "" && rest[0] != ' ' {
			if rest[0] != '"' {
				word.WriteByte(rest[0])
				rest = rest[1:]
				continue
			}
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", rest, err)
			}
			text, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, err
			}
			word.WriteString(text)
			rest = rest[len(quoted):]
		}
		words = append(words, word.String())
	}
	return words, nil
}
