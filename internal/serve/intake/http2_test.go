package intake

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

var testStreams = Streams{Concurrent: 4, Head: 1000, Message: 10_000}

// script returns the client preface and the frames that write writes.
func script(t testing.TB, write func(f *http2.Framer)) []byte {
	t.Helper()
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&wire, nil)
	framer.AllowIllegalWrites = true
	write(framer)
	return wire.Bytes()
}

func headers(f *http2.Framer, id uint32, endStream, endHeaders bool) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte("block"), EndStream: endStream, EndHeaders: endHeaders})
}

// The result must not depend on how the bytes are split into reads.
func TestFollower(t *testing.T) {
	for name, c := range map[string]struct {
		write     func(f *http2.Framer)
		held      int64
		completed bool
	}{
		"nothing": {func(*http2.Framer) {}, 0, false},
		"settings, pings and windows": {func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
			_ = f.WritePing(false, [8]byte{})
			_ = f.WriteWindowUpdate(0, 1)
			_ = f.WriteData(0, true, []byte("of no stream"))
		}, 0, false},
		"headers":                {func(f *http2.Framer) { headers(f, 1, false, true) }, 1000, false},
		"headers that end it":    {func(f *http2.Framer) { headers(f, 1, true, true) }, 0, true},
		"unfinished headers":     {func(f *http2.Framer) { headers(f, 1, true, false) }, 1000, false},
		"headers, continued":     {func(f *http2.Framer) { headers(f, 1, true, false); _ = f.WriteContinuation(1, true, []byte("b")) }, 0, true},
		"headers, not yet ended": {func(f *http2.Framer) { headers(f, 1, true, false); _ = f.WriteContinuation(1, false, []byte("b")) }, 1000, false},
		"a message":              {func(f *http2.Framer) { headers(f, 1, false, true); _ = f.WriteData(1, false, make([]byte, 100)) }, 1000 + 100 + 128, false},
		"a whole message":        {func(f *http2.Framer) { headers(f, 1, false, true); _ = f.WriteData(1, true, make([]byte, 100)) }, 0, true},
		"a message, then its end": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			_ = f.WriteData(1, false, make([]byte, 9))
			_ = f.WriteData(1, true, nil)
		}, 0, true},
		"a message, then trailers": {func(f *http2.Framer) { headers(f, 1, false, true); headers(f, 1, true, true) }, 0, true},
		"a message, then a reset":  {func(f *http2.Framer) { headers(f, 1, false, true); _ = f.WriteRSTStream(1, http2.ErrCodeCancel) }, 0, false},
		"a padded message": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			_ = f.WriteDataPadded(1, false, make([]byte, 100), make([]byte, 19))
		}, 1000 + 120 + 128, false},
		"pieces that grpc-go keeps in larger buffers": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			_ = f.WriteData(1, false, make([]byte, 1025))
			_ = f.WriteData(1, false, make([]byte, 4097))
		}, 1000 + 4096 + 128 + 16384 + 128, false},
		"a message of many tiny pieces": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			for range 50 {
				_ = f.WriteData(1, false, []byte{0})
			}
		}, 1000 + 50*129, false},
		"a message beyond the limit": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			for range 100 {
				_ = f.WriteData(1, false, make([]byte, 1000))
			}
		}, 1000 + 11*1128, false},
		"a frame counts in full from its header on": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			_ = f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 16384))
		}, 1000 + 16384 + 128, false},
		"data after the end of the stream": {func(f *http2.Framer) { headers(f, 1, true, true); _ = f.WriteData(1, false, make([]byte, 9)) }, 0, true},
		"several streams": {func(f *http2.Framer) {
			headers(f, 1, false, true)
			headers(f, 3, false, true)
			headers(f, 5, false, true)
			_ = f.WriteData(3, true, make([]byte, 9))
			_ = f.WriteData(5, false, make([]byte, 9))
		}, 1000 + 1000 + 9 + 128, true},
	} {
		wire := script(t, c.write)
		for _, portion := range []int{1, 2, 8, 9, 10, 100, len(wire)} {
			f := follower{limits: testStreams}
			completed := false
			for rest := wire; len(rest) > 0; {
				n := min(portion, len(rest))
				done, sound := f.follow(rest[:n])
				if !sound {
					t.Errorf("%s: follow reports too many streams", name)
				}
				completed = completed || done
				rest = rest[n:]
			}
			if f.held != c.held || completed != c.completed {
				t.Errorf("%s, %d bytes at a time: holds %d bytes and completed is %t, want %d and %t", name, portion, f.held, completed, c.held, c.completed)
			}
		}
	}
}

func TestTooManyStreamsAreReported(t *testing.T) {
	for n, want := range map[int]bool{2 * testStreams.Concurrent: true, 2*testStreams.Concurrent + 1: false} {
		f := follower{limits: testStreams}
		_, sound := f.follow(script(t, func(f *http2.Framer) {
			for i := range n {
				headers(f, uint32(2*i+1), false, true)
			}
		}))
		if sound != want {
			t.Errorf("%d streams: sound is %t, want %t", n, sound, want)
		}
	}
}

// The bytes held must equal the sum over the streams, and 0 after all streams end, for any input in any
// portions.
func FuzzFollower(f *testing.F) {
	f.Add(script(f, func(f *http2.Framer) { headers(f, 1, false, true); _ = f.WriteData(1, false, []byte("abc")) })[len(http2.ClientPreface):], uint8(3))
	f.Add(script(f, func(f *http2.Framer) { headers(f, 3, true, false); _ = f.WriteContinuation(3, true, nil) })[len(http2.ClientPreface):], uint8(1))
	f.Fuzz(func(t *testing.T, wire []byte, portion uint8) {
		wire = append([]byte(http2.ClientPreface), wire...)
		limits := Streams{Concurrent: 1 << 20, Head: 1000, Message: 10_000}
		whole, parts := follower{limits: limits}, follower{limits: limits}
		whole.follow(wire)
		for rest := wire; len(rest) > 0; {
			n := min(int(portion)+1, len(rest))
			parts.follow(rest[:n])
			rest = rest[n:]
		}
		if whole.held != parts.held || len(whole.streams) != len(parts.streams) {
			t.Fatalf("holds %d bytes of %d streams if read at once, but %d of %d if read in portions", whole.held, len(whole.streams), parts.held, len(parts.streams))
		}
		var sum int64
		last := int64(-1)
		for _, s := range whole.streams {
			if sum += s.held; int64(s.id) <= last {
				t.Fatal("streams are not sorted by ID")
			}
			last = int64(s.id)
		}
		if sum != whole.held {
			t.Fatalf("holds %d bytes, but the streams hold %d", whole.held, sum)
		}
		for len(whole.streams) > 0 {
			whole.end(whole.streams[0].id)
		}
		if whole.held != 0 {
			t.Fatalf("holds %d bytes without streams", whole.held)
		}
	})
}

func BenchmarkFollow(b *testing.B) {
	call := script(b, func(f *http2.Framer) {
		headers(f, 1, false, true)
		_ = f.WriteData(1, true, make([]byte, 1200))
		_ = f.WriteWindowUpdate(0, 1200)
	})
	f := follower{limits: testStreams}
	b.ReportAllocs()
	for b.Loop() {
		f.preface = 0
		f.follow(call)
	}
}
