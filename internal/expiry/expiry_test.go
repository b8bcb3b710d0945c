package expiry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

const day = 24 * time.Hour

func TestParseDurationAccepts(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s":                0,
		"00d":               0,
		"0d0h0m0s":          0,
		"1s":                time.Second,
		"90d":               90 * day,
		"12h30m":            12*time.Hour + 30*time.Minute,
		"1d2h3m4s":          26*time.Hour + 3*time.Minute + 4*time.Second,
		"1d1s":              day + time.Second,
		"90m":               90 * time.Minute,
		"000000001d":        day, // nine digits
		"3649d23h59m59s":    3650*day - time.Second,
		"3650d":             3650 * day,
		"3650d0h0m0s":       3650 * day,
		"3649d24h":          3650 * day,
		"3649d23h59m60s":    3650 * day,
		"87600h":            3650 * day,
		"5256000m":          3650 * day,
		"315360000s":        3650 * day,
		"000003650d000000h": 3650 * day,
	} {
		if got, err := expiry.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseDurationRefuses(t *testing.T) {
	for name, texts := range map[string][]string{
		"too long":       {"3650d1s", "3651d", "87600h1s", "87601h", "5256001m", "315360001s", "3649d24h1s", "999999999d"},
		"most of all":    {"999999999d999999999h999999999m999999999s"},
		"ten digits":     {"0000000001d", "0000000000s", "1000000000s", "1d0000000001s"},
		"twenty digits":  {"18446744073709551617s"},
		"nothing":        {"", "d", "dhms", "1dh"},
		"order":          {"30m12h", "1h1d", "1s1m", "4s3m2h1d"},
		"unit twice":     {"1d1d", "1s1s", "1d1h1h"},
		"no unit":        {"0", "90", "1d2", "2 1d"},
		"sign":           {"-1d", "+1d", "1d-1h", "1d+1h", "−1d"},
		"fraction":       {"1.5h", "1,5h", ".5h", "1.d", "1e3s"},
		"space":          {" ", " 1d", "1d ", "1 d", "1d 2h", "1d\n", "\n1d", "1d\n2h", "\t1d", "1d\u00a0"},
		"other unit":     {"1w", "1y", "1M", "1ms", "1us", "1µs", "1ns", "1D", "1H", "1S", "1day"},
		"other notation": {"P1D", "PT1H", "1:30", "0x1d", "1_000s", "never", "1d;2h", "1d\x00", "(1d)"},
		"other digits":   {"１d", "١d", "²s"},
	} {
		for _, text := range texts {
			if got, err := expiry.ParseDuration(text); err == nil || got != 0 {
				t.Errorf("%s: %q: %v, %v; want 0 and an error", name, text, got, err)
			}
		}
	}
}

// seconds reads a duration without a regular expression; false means that there is none.
func seconds(text string) (sum int64, ok bool) {
	units, worth := "dhms", map[byte]int64{'d': 86400, 'h': 3600, 'm': 60, 's': 1}
	for rest := text; rest != ""; {
		number := strings.TrimLeft(rest, "0123456789")
		width := len(rest) - len(number)
		if width < 1 || width > 9 || number == "" {
			return 0, false
		}
		_, later, known := strings.Cut(units, number[:1])
		if !known {
			return 0, false
		}
		var n int64
		for _, digit := range rest[:width] {
			n = 10*n + int64(digit-'0')
		}
		sum += n * worth[number[0]]
		units, rest = later, number[1:]
	}
	return sum, text != "" && sum <= 10*365*86400
}

func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"", "00d", "1d2h3m4s", "3650d", "3650d1s", "999999999d", "0000000001s", "1h1d", "1d1d", "-1d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, ok := seconds(text)
		got, err := expiry.ParseDuration(text)
		if ok != (err == nil) || ok && got != time.Duration(want)*time.Second || !ok && got != 0 {
			t.Errorf("%q: %v, %v; want %d s, accepted %t", text, got, err, want, ok)
		}
	})
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "1s": time.Second, "59m59s": time.Hour - time.Second, "1d": 24 * time.Hour, "3650d": expiry.MaxDuration,
		"1d2h3m4s": 26*time.Hour + 3*time.Minute + 4*time.Second, "5m": 5*time.Minute + time.Second - 1,
	} {
		got := expiry.FormatDuration(d)
		if back, err := expiry.ParseDuration(got); got != want || err != nil || back != d.Truncate(time.Second) {
			t.Errorf("%s: %q, which is %s, %v; want %q", d, got, back, err, want)
		}
	}
}

func TestParseMoment(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2027-01-31T00:00:00Z":                time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
		"2027-01-31T00:00:00+00:00":           time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
		"2027-01-31T00:00:00+01:00":           time.Date(2027, 1, 30, 23, 0, 0, 0, time.UTC),
		"2027-12-31T23:59:59-05:30":           time.Date(2028, 1, 1, 5, 29, 59, 0, time.UTC),
		"2000-01-01T00:00:00+23:59":           time.Date(1999, 12, 31, 0, 1, 0, 0, time.UTC),
		"2027-01-31T12:30:15.000000001Z":      time.Date(2027, 1, 31, 12, 30, 15, 0, time.UTC),
		"2027-01-31T12:30:15.999999999+00:01": time.Date(2027, 1, 31, 12, 29, 15, 0, time.UTC),
		"2028-02-29T00:00:00Z":                time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC),
		"9998-12-31T23:59:59-23:59":           time.Date(9999, 1, 1, 23, 58, 59, 0, time.UTC),
	} {
		got, err := expiry.ParseMoment(text)
		if err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"date only":     "2027-01-31",
		"no zone":       "2027-01-31T00:00:00",
		"no seconds":    "2027-01-31T00:00Z",
		"no T":          "2027-01-31 00:00:00Z",
		"lower case":    "2027-01-31t00:00:00z",
		"no such day":   "2027-02-29T00:00:00Z",
		"no such month": "2027-13-01T00:00:00Z",
		"no such hour":  "2027-01-31T24:00:00Z",
		"leap second":   "2016-12-31T23:59:60Z",
		"named zone":    "2027-01-31T00:00:00 UTC",
		"space before":  " 2027-01-31T00:00:00Z",
		"newline after": "2027-01-31T00:00:00Z\n",
		"Unix time":     "1801353600",
		"a duration":    "90d",
	} {
		if got, err := expiry.ParseMoment(text); err == nil || !got.IsZero() {
			t.Errorf("%s: %v, %v; want the zero time and an error", name, got, err)
		}
	}
}

var (
	noon  = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	tokyo = time.FixedZone("Tokyo", 9*3600)
	ages  = []time.Time{{}, time.Unix(0, 0), noon, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
)

func TestPassed(t *testing.T) {
	for name, deadline := range map[string]expiry.Deadline{
		"whole second":     expiry.At(noon),
		"with a fraction":  expiry.At(noon.Add(time.Second - 1)),
		"in another place": expiry.At(noon.In(tokyo)),
	} {
		if at, ok := deadline.Time(); !ok || !at.Equal(noon) || at.Location() != time.UTC {
			t.Errorf("%s: at %v, %t; want %v", name, at, ok, noon)
		}
		for offset, want := range map[time.Duration]bool{-10 * 365 * day: false, -1: false, 0: true, 1: true, 10 * 365 * day: true} {
			for _, now := range []time.Time{noon.Add(offset), noon.Add(offset).In(tokyo)} {
				if deadline.Passed(now) != want {
					t.Errorf("%s: passed %t at %v", name, !want, offset)
				}
			}
		}
	}
}

func TestNeverAndNotSet(t *testing.T) {
	never, notSet := expiry.Never(), expiry.Deadline{}
	for _, now := range ages {
		if never.Passed(now) {
			t.Errorf("never passed at %v", now)
		}
		if !notSet.Passed(now) {
			t.Errorf("the zero deadline has not passed at %v", now)
		}
	}
	if _, ok := never.Time(); ok {
		t.Error("never has a moment")
	}
	if _, ok := notSet.Time(); !ok {
		t.Error("the zero deadline is never")
	}
	if _, ok := never.WarnFrom(noon); ok {
		t.Error("never is warned of")
	}
}

func TestWarnFrom(t *testing.T) {
	for name, c := range map[string]struct {
		start   time.Time
		warning time.Duration
	}{
		"ten years":             {noon.Add(-3650 * day), 14 * day},
		"90d":                   {noon.Add(-90 * day), 14 * day},
		"just over the cap":     {noon.Add(-70*day - 5*time.Second), 14 * day},
		"just the cap":          {noon.Add(-70 * day), 14 * day},
		"just under the cap":    {noon.Add(-70*day + 5*time.Second), 14*day - time.Second},
		"10h":                   {noon.Add(-10 * time.Hour), 2 * time.Hour},
		"10h from another zone": {noon.Add(-10 * time.Hour).In(tokyo), 2 * time.Hour},
		"5s":                    {noon.Add(-5 * time.Second), time.Second},
		"at the deadline":       {noon, 0},
		"after the deadline":    {noon.Add(time.Hour), 0},
		"never born":            {time.Time{}, 14 * day},
	} {
		if got, ok := expiry.At(noon).WarnFrom(c.start); !ok || !got.Equal(noon.Add(-c.warning)) {
			t.Errorf("%s: %v before, %t; want %v", name, noon.Sub(got), ok, c.warning)
		}
	}
	// A fifth of these isn't a whole number of seconds.
	for _, life := range []time.Duration{1, time.Second, 7 * time.Second, time.Hour + 1, 10*time.Hour - time.Millisecond, 69*day + 1} {
		got, ok := expiry.At(noon).WarnFrom(noon.Add(-life))
		if late := got.Sub(noon.Add(-life / 5)); !ok || got.Nanosecond() != 0 || late > 0 || late <= -time.Second {
			t.Errorf("a life of %v: %v, %t; want the whole second at or before the last fifth", life, got, ok)
		}
	}
}

func TestCollectAt(t *testing.T) {
	for name, c := range map[string]struct {
		deadline, marked time.Time
		ttl              time.Duration
		want             time.Time
	}{
		"marked at the deadline":     {noon, noon, day, noon.Add(day)},
		"marked late":                {noon, noon.Add(time.Hour), day, noon.Add(25 * time.Hour)},
		"born dead":                  {noon.Add(-3650 * day), noon, day, noon.Add(day)},
		"marked by a clock behind":   {noon, noon.Add(-time.Hour), day, noon.Add(day)},
		"at once":                    {noon, noon, 0, noon},
		"marked late, at once":       {noon, noon.Add(time.Hour), 0, noon.Add(time.Hour)},
		"never marked":               {noon, time.Time{}, day, noon.Add(day)},
		"marked within a second":     {noon, noon.Add(time.Second - 1), day, noon.Add(day)},
		"deadline within a second":   {noon.Add(time.Second - 1), noon, day, noon.Add(day)},
		"marked in another place":    {noon, noon.Add(time.Hour).In(tokyo), day, noon.Add(25 * time.Hour)},
		"deadline in another place":  {noon.In(tokyo), noon, day, noon.Add(day)},
		"the longest that one waits": {noon, noon, expiry.MaxDuration, noon.Add(3650 * day)},
	} {
		got := expiry.CollectAt(c.deadline, c.marked, c.ttl)
		if !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
