package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// No failure message here may print a token: positions, lengths and booleans have to do.

// The vectors were made with Python 3, by token(prefix, secret) and hashlib.sha256:
//
//	A = string.digits + string.ascii_uppercase + string.ascii_lowercase
//	def b(n, w): return (b(n // 62, w - 1) if w > 1 else "") + A[n % 62]
//	def token(p, n): t = p + "_" + b(n, 43); return t + b(zlib.crc32(t.encode()), 6)
var vectors = []struct {
	name, prefix, secret, text, digest, hint string
}{
	{
		"all zero", "ak", "0000000000000000000000000000000000000000000000000000000000000000",
		"ak_00000000000000000000000000000000000000000002PL60u",
		"7092b420732ba8f770a1b21351f8ffa00510246536f0145f1c75100785d6355f", "ak_0000",
	},
	{
		"all 0xff", "ak", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"ak_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp10jSArQ",
		"0a457fa1209c97a614f9f4f26e19df43fa06fd3a440d66db5238e88e97bd39bf", "ak_yhjs",
	},
	{
		"counting up", "ak", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
		"ak_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf3CBj32",
		"4872a00719c71246ea9daa57dd6bebb1895f5681c1b35960c712acf6c216c62e", "ak_003a",
	},
	{
		"zeros lead the checksum", "ak", "0000000000000000000000000000000000000000000000000000000000000516",
		"ak_00000000000000000000000000000000000000000L0003lI2",
		"6e051c240a7d86d67e185dc07f17544902506ce204112fb1034b59baadc5fb21", "ak_0000",
	},
	{
		"top bit", "k8", "8000000000000000000000000000000000000000000000000000000000000000",
		"k8_ULrwNTJa3CHVaAVmO8lHlO4Afd3drtx651MXvhT4GuW4AFkrZ",
		"51d529c1521e5adc9fdd1c0f99663f9ef591a066fa0edd39ec7b7beb3275c8ef", "k8_ULrw",
	},
	{
		"longest prefix", "abcdefghijklmno9", "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0",
		"abcdefghijklmno9_yhgIGB9quGfHP8Y83EcC2im5kZukTeYkpb69aekqK3M0NfDGw",
		"ca4ce97840b80d63b4b48e3c772da3d62efa2de23311f7027c805251ef693cfa", "abcdefghijklmno9_yhgI",
	},
}

// valid is the vector that most tests bend: its prefix is the default, and its digits are many.
const valid = "ak_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf3CBj32"

const digitOrder = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// serial and its helpers are the format told a second time, by long division.
func serial(prefix string, secret []byte) string {
	return sealed(prefix + "_" + digits(new(big.Int).SetBytes(secret), 43))
}

func sealed(body string) string {
	return body + digits(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), 6)
}

func digits(n *big.Int, width int) string {
	out, digit := make([]byte, width), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n, digit = new(big.Int).DivMod(n, big.NewInt(62), digit)
		out[i] = digitOrder[digit.Int64()]
	}
	return string(out)
}

func secretOf(t *testing.T, text string) (secret [32]byte) {
	t.Helper()
	if n, err := hex.Decode(secret[:], []byte(text)); err != nil || n != len(secret) {
		t.Fatalf("a vector's secret is not 32 bytes: %d, %v", n, err)
	}
	return secret
}

func mustParse(t *testing.T, text string) Token {
	t.Helper()
	tok, err := Parse(text)
	if err != nil {
		t.Fatal("a valid token was refused")
	}
	return tok
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			secret := secretOf(t, v.secret)
			if serial(v.prefix, secret[:]) != v.text {
				t.Error("the test's own reading of the format is wrong")
			}
			if compose(v.prefix, secret).Reveal() != v.text {
				t.Error("compose disagrees")
			}
			tok := mustParse(t, v.text)
			if tok.IsZero() || tok.Reveal() != v.text {
				t.Error("Parse changed the token")
			}
			if got := tok.Digest().String(); got != "sha256:"+v.digest {
				t.Errorf("digest %s, want sha256:%s", got, v.digest)
			}
			if got := tok.Hint(); got != v.hint {
				t.Errorf("another hint, of %d bytes", len(got))
			}
		})
	}
}

func TestComposeAgainstLongDivision(t *testing.T) {
	random := rand.NewChaCha8([32]byte{})
	for i := range 256 {
		var secret [32]byte
		// Never fails.
		_, _ = random.Read(secret[i%len(secret):])
		if compose("ak", secret).Reveal() != serial("ak", secret[:]) {
			t.Errorf("round %d differs", i)
		}
	}
}

func TestMint(t *testing.T) {
	for _, prefix := range []string{DefaultPrefix, "k8", "abcdefghijklmno9"} {
		t.Run(prefix, func(t *testing.T) {
			minted := Mint(prefix)
			text := minted.Reveal()
			if !regexp.MustCompile("^" + prefix + "_[0-9A-Za-z]{49}$").MatchString(text) {
				t.Errorf("%d bytes of another shape", len(text))
			}
			parsed := mustParse(t, text)
			if parsed.Reveal() != text {
				t.Error("Parse changed the token")
			}
			if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))); minted.Digest().String() != want || parsed.Digest().String() != want {
				t.Error("the digest is not SHA-256 of the whole token")
			}
			if Mint(prefix).Reveal() == text {
				t.Error("two mints are the same token")
			}
		})
	}
}

func TestZeroToken(t *testing.T) {
	var zero Token
	if !zero.IsZero() || zero.Reveal() != "" || zero.Hint() != "" || zero.Redact("as it is") != "as it is" {
		t.Error("the zero token is not nothing")
	}
}

func TestValidatePrefix(t *testing.T) {
	for _, prefix := range []string{"ak", "k8", "a0", "zz", "abcdefghijklmno9"} {
		if err := ValidatePrefix(prefix); err != nil {
			t.Error(err)
		}
	}
	for _, prefix := range wrongPrefixes {
		if ValidatePrefix(prefix) == nil {
			t.Errorf("%q was accepted", prefix)
		}
	}
}

var wrongPrefixes = []string{
	"", "a", "abcdefghijklmno90", "Ak", "aK", "8k", "_k", "a_k", "ak_", "a-k", "a.k",
	" ak", "ak ", "a k", "ak\n", "\nak", "aé", "аk", "a\x00",
}

func refused(t *testing.T, text, format string, args ...any) {
	t.Helper()
	tok, err := Parse(text)
	same := err == ErrMalformed //nolint:errorlint // an error that wraps it might tell of the input
	if !same || !tok.IsZero() {
		t.Errorf("%s, %d bytes: accepted %t, malformed %t", fmt.Sprintf(format, args...), len(text), err == nil, same)
	}
}

func TestParseRefusesEverySubstitution(t *testing.T) {
	for i := range len(valid) {
		for _, digit := range []byte(digitOrder + "_") {
			if valid[i] != digit {
				refused(t, valid[:i]+string(digit)+valid[i+1:], "another digit at %d", i)
			}
		}
	}
}

func TestParseRefusesOtherLengths(t *testing.T) {
	for i := range len(valid) {
		refused(t, valid[:i], "cut after %d", i)
		refused(t, valid[i+1:], "cut before %d", i+1)
		refused(t, valid[:i]+valid[i+1:], "without the byte at %d", i)
	}
	for _, digit := range []byte(digitOrder) {
		refused(t, valid+string(digit), "a digit more")
		refused(t, string(digit)+valid, "a digit before")
	}
	refused(t, sealed("ak_"+valid[4:46]), "a digit fewer, with a right checksum")
	refused(t, sealed("ak_0"+valid[3:46]), "a digit more, with a right checksum")
}

// The checksum is right in all of these, so that nothing but the grammar can refuse them.
func TestParseRefusesOtherGrammar(t *testing.T) {
	secret := secretOf(t, vectors[2].secret)
	for _, prefix := range wrongPrefixes {
		refused(t, serial(prefix, secret[:]), "prefix %q", prefix)
	}
	for _, odd := range []string{"_", "-", "+", "/", "=", ".", " ", "\n", "\x00", "\x7f", "\xff", "é", "０", "ⅷ"} {
		for _, at := range []int{3, 20, 46 - len(odd)} {
			refused(t, sealed(valid[:at]+odd+valid[at+len(odd):46]), "%q at %d", odd, at)
		}
	}
}

func TestParseRefusesLookAlikes(t *testing.T) {
	for name, text := range map[string]string{
		"empty":               "",
		"only a prefix":       "ak",
		"only an underscore":  "_",
		"no digits":           "ak_",
		"no underscore":       strings.Replace(valid, "_", "", 1),
		"two underscores":     strings.Replace(valid, "_", "__", 1),
		"underscore first":    "_" + valid,
		"underscore last":     valid + "_",
		"underscore moved":    "a_k" + valid[3:],
		"hyphen":              strings.Replace(valid, "_", "-", 1),
		"wide underscore":     strings.Replace(valid, "_", "＿", 1),
		"escaped underscore":  strings.Replace(valid, "_", "%5F", 1),
		"upper case":          strings.ToUpper(valid),
		"lower case":          strings.ToLower(valid),
		"space before":        " " + valid,
		"space after":         valid + " ",
		"tab after":           valid + "\t",
		"newline after":       valid + "\n",
		"carriage return":     valid + "\r\n",
		"space inside":        valid[:20] + " " + valid[20:],
		"space for a digit":   valid[:20] + " " + valid[21:],
		"no-break space":      valid + "\u00a0",
		"byte order mark":     "\ufeff" + valid,
		"NUL after":           valid + "\x00",
		"accent for a digit":  valid[:20] + "é" + valid[22:],
		"invalid UTF-8":       valid[:20] + "\xff" + valid[21:],
		"zero checksum":       valid[:46] + "000000",
		"another's checksum":  valid[:46] + vectors[0].text[46:],
		"another's prefix":    "k8" + valid[2:],
		"Bearer":              "Bearer " + valid,
		"quoted":              `"` + valid + `"`,
		"twice":               valid + valid,
		"twice, with a comma": valid + "," + valid,
	} {
		refused(t, text, "%s", name)
	}
}

func TestRedact(t *testing.T) {
	tok := mustParse(t, valid)
	plain := []byte(valid)
	inBase64, inHex := base64.StdEncoding.EncodeToString(plain), hex.EncodeToString(plain)
	for name, c := range map[string]struct{ text, want string }{
		"clear":      {"refused: " + valid + "!", "refused: [redacted]!"},
		"base64":     {`{"data":{"token":"` + inBase64 + `"}}`, `{"data":{"token":"[redacted]"}}`},
		"hex":        {"0x" + inHex, "0x[redacted]"},
		"everywhere": {valid + inHex + inBase64 + valid, "[redacted][redacted][redacted][redacted]"},
		"another":    {vectors[1].text, vectors[1].text},
		"only hint":  {"key " + tok.Hint(), "key ak_003a"},
		"nothing":    {"", ""},
	} {
		if got := tok.Redact(c.text); got != c.want {
			t.Errorf("%s: another text, of %d bytes", name, len(got))
		}
	}
}

// leaks looks for the first twelve digits of the secret of valid, so that it finds a token that was cut as well: as plain text, in base64
// at each of the three offsets that a token can have in it, in hex, and as decimal bytes.
func leaks(text string) bool {
	secret := valid[3:15]
	squeeze := strings.NewReplacer(" ", "", ",", "", "0x", "", "0X", "", "[", "", "]", "").Replace
	squeezed := strings.ToLower(squeeze(text))
	found := strings.Contains(text, secret) ||
		strings.Contains(squeezed, hex.EncodeToString([]byte(secret))) ||
		strings.Contains(squeezed, squeeze(fmt.Sprintf("%d", []byte(secret))))
	for skip := range 3 {
		aligned := secret[skip : skip+9]
		found = found || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(aligned)))
	}
	return found
}

// Else the test below could not fail.
func TestLeaksFindsLeaks(t *testing.T) {
	for _, verb := range []string{"%s", "%v", "%q", "%x", "%X", "% x", "%# X", "%.20s", "%d"} {
		if !leaks(fmt.Sprintf(verb, []byte(valid))) {
			t.Errorf("not found in %s", verb)
		}
	}
	for offset := range 3 {
		if !leaks(base64.URLEncoding.EncodeToString([]byte("..."[:offset] + valid))) {
			t.Errorf("not found in base64 at offset %d", offset)
		}
	}
	if leaks("[redacted] ak_003a") {
		t.Error("found where there is none")
	}
}

type closed struct{ hidden Token }

type open struct{ Shown Token }

func TestNothingShowsAToken(t *testing.T) {
	tok := mustParse(t, valid)
	values := map[string]any{
		"token":             tok,
		"pointer":           &tok,
		"unexported field":  closed{tok},
		"pointer to closed": &closed{tok},
		"nested closed":     struct{ inner *closed }{&closed{tok}},
		"exported field":    open{tok},
		"pointer to open":   &open{tok},
		"slice":             []Token{tok},
		"slice of closed":   []closed{{tok}},
		"slice of pointers": []*Token{&tok},
		"slice of any":      []any{tok, closed{tok}},
		"array":             [1]Token{tok},
		"map":               map[string]Token{"k": tok},
		"map of closed":     map[string]closed{"k": {tok}},
		"map key":           map[Token]string{tok: "v"},
		"closed map key":    map[closed]string{{tok}: "v"},
	}
	outcome := func(out []byte, err error) string { return fmt.Sprintf("%s %v", out, err) }
	printers := map[string]func(any) string{
		"Sprint":        func(v any) string { return fmt.Sprint(v) },
		"Sprintln":      func(v any) string { return fmt.Sprintln(v) },
		"Errorf":        func(v any) string { return fmt.Errorf("failed: %v", v).Error() },
		"JSON":          func(v any) string { return outcome(json.Marshal(v)) },
		"indented JSON": func(v any) string { return outcome(json.MarshalIndent(v, "", " ")) },
		"XML":           func(v any) string { return outcome(xml.Marshal(v)) },
		"gob": func(v any) string {
			var out bytes.Buffer
			err := gob.NewEncoder(&out).Encode(v)
			return outcome(out.Bytes(), err)
		},
		"slog text": func(v any) string {
			var out strings.Builder
			slog.New(slog.NewTextHandler(&out, nil)).With("with", v).Info("m", "v", v, slog.Group("g", "v", v))
			return out.String()
		},
		"slog JSON": func(v any) string {
			var out strings.Builder
			slog.New(slog.NewJSONHandler(&out, nil)).With("with", v).Info("m", "v", v, slog.Group("g", "v", v))
			return out.String()
		},
	}
	// The last two have no place for a value, and fmt still shows it.
	formats := "%v %+v %#v %s %q %#q %+q %x %X %#x %d %p %t %b %o %O %c %U %e %f %g %T %w %z %.99s %99v %-99v %099d %*d none"
	for format := range strings.FieldsSeq(formats) {
		printers[format] = func(v any) string { return fmt.Sprintf(format, v) }
	}
	for printed, show := range printers {
		for held, value := range values {
			if leaks(show(value)) {
				t.Errorf("%s of %s shows the token", printed, held)
			}
		}
	}

	// Nothing at all would not leak either.
	for _, printed := range []string{"Sprint", "JSON", "XML", "slog text", "slog JSON", "%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, held := range []string{"token", "pointer", "exported field", "slice", "map"} {
			if printed == "XML" && held == "map" {
				continue // has no form in XML
			}
			if !strings.Contains(printers[printed](values[held]), "[redacted]") {
				t.Errorf("%s of %s does not say that it is redacted", printed, held)
			}
		}
	}
	text, err := tok.MarshalText()
	if err != nil || string(text) != "[redacted]" || tok.String() != "[redacted]" || tok.GoString() != "[redacted]" ||
		tok.LogValue().String() != "[redacted]" {
		t.Error("a method shows something else than [redacted]")
	}
}

func FuzzParse(f *testing.F) {
	for i, v := range vectors {
		f.Add(v.text, uint(i*9), byte(1)<<i)
		f.Add(v.text[i:], uint(0), byte(0xff))
	}
	f.Fuzz(func(t *testing.T, text string, at uint, flip byte) {
		tok, err := Parse(text)
		if err != nil {
			refused(t, text, "as given")
			return
		}
		prefix, _, _ := strings.Cut(text, "_")
		if tok.Reveal() != text || ValidatePrefix(prefix) != nil || len(text) != len(prefix)+50 || sealed(text[:len(text)-6]) != text {
			t.Errorf("%d bytes that are not a token were accepted", len(text))
		}
		if flip == 0 {
			return
		}
		other := []byte(text)
		at %= uint(len(other))
		other[at] ^= flip
		refused(t, string(other), "flipped at %d", at)
	})
}
