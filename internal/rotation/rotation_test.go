package rotation

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseRequest(t *testing.T) {
	long := strings.Repeat("x", 64)
	for value, want := range map[string]Request{
		"1":                            {ID: "1"},
		"2026-11-25":                   {ID: "2026-11-25"},
		"leaked on 3 May":              {ID: "leaked on 3 May"},
		long:                           {ID: long},
		"2026-11-25;overlap=0s":        {ID: "2026-11-25", HasOverlap: true},
		"a;overlap=1h30m":              {ID: "a", Overlap: 90 * time.Minute, HasOverlap: true},
		"a;overlap=30d":                {ID: "a", Overlap: 30 * 24 * time.Hour, HasOverlap: true},
		long + ";overlap=000000720h0s": {ID: long, Overlap: 30 * 24 * time.Hour, HasOverlap: true},
	} {
		if got, err := ParseRequest(value); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", value, got, err, want)
		}
	}
	for value, says := range map[string]string{
		"":                  "the ID must have 1 to 64 printable ASCII characters",
		";overlap=1h":       "the ID must have",
		long + "x":          "the ID must have",
		"käse":              "the ID must have",
		"a\nb":              "the ID must have",
		"a\x7f":             "the ID must have",
		"a;":                "must be overlap= and a duration",
		"a;overlap":         "must be overlap= and a duration",
		"a; overlap=1h":     "must be overlap= and a duration",
		"a;overlap=":        "overlap: invalid duration",
		"a;overlap=1":       "overlap: invalid duration",
		"a;overlap=-1h":     "overlap: invalid duration",
		"a;overlap=1h;x":    "overlap: invalid duration",
		"a;overlap=30d1s":   "must be at most 30d",
		"a;overlap=999999d": "must be at most 3650d",
	} {
		if got, err := ParseRequest(value); err == nil || !strings.Contains(err.Error(), says) || got != (Request{}) {
			t.Errorf("%q: %+v, %v; want an error with %q", value, got, err, says)
		}
	}
}

func TestErrorsAreShort(t *testing.T) {
	if _, err := ParseRequest(strings.Repeat("ä", 100_000)); err == nil || len(err.Error()) > 500 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

func TestValidateRetirement(t *testing.T) {
	if err := ValidateRetirement("2026-11-25"); err != nil {
		t.Error(err)
	}
	for _, value := range []string{"", "1;overlap=0s", "1;", "\t"} {
		if ValidateRetirement(value) == nil {
			t.Errorf("%q is valid", value)
		}
	}
}

func TestHandled(t *testing.T) {
	var handled []string
	want := make([]string, 0, 20)
	for i := range 20 {
		handled = Handled(handled, strconv.Itoa(i))
		want = append(want, strconv.Itoa(i))
	}
	if !slices.Equal(handled, want[4:]) {
		t.Errorf("got %q, want the last 16 of 20", handled)
	}
	for _, value := range []string{"", "4", "19"} {
		if got := Handled(handled, value); !slices.Equal(got, handled) {
			t.Errorf("%q: got %q, want no change", value, got)
		}
	}
	before := slices.Clone(handled[:8])
	shorter := handled[:8]
	Handled(shorter, "new")
	if !slices.Equal(handled[:8], before) || handled[8] == "new" {
		t.Error("the argument was changed")
	}
}

func TestOverlap(t *testing.T) {
	const none = -1
	for name, c := range map[string]struct{ every, overlap, want time.Duration }{
		"nothing said":          {0, none, 24 * time.Hour},
		"zero":                  {0, 0, 0},
		"said":                  {time.Hour, time.Minute, time.Minute},
		"a long period":         {30 * 24 * time.Hour, none, 24 * time.Hour},
		"a period of two days":  {48 * time.Hour, none, 24 * time.Hour},
		"a shorter period":      {48*time.Hour - 2*time.Second, none, 24*time.Hour - time.Second},
		"an odd period":         {3 * time.Second, none, time.Second},
		"the shortest period":   {time.Second, none, 0},
		"zero, with a schedule": {time.Hour, 0, 0},
	} {
		if got := Overlap(c.every, c.overlap); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestNext(t *testing.T) {
	last := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		seed  [8]byte
		every time.Duration
		want  time.Duration
	}{
		"latest":   {[8]byte{}, 100 * time.Hour, 100 * time.Hour},
		"middle":   {[8]byte{0x80}, 100 * time.Hour, 95 * time.Hour},
		"earliest": {[8]byte{255, 255, 255, 255, 255, 255, 255, 255}, 100 * time.Hour, 90 * time.Hour},
		"short":    {[8]byte{0x80}, 20 * time.Second, 19 * time.Second},
	} {
		if got := Next(last, c.every, c.seed).Sub(last); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
