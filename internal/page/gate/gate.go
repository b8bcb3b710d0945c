// Package gate decides who may use a page that is served on a loopback address: one browser, which a one-time token let in. It knows HTTP, but
// neither keys nor the cluster.
//
// Other programs on the machine can connect to the port, and other pages in the same browser can send requests to it. Three secrets keep them
// out: the one-time token, the cookie that a browser gets for it, and the form token in the page, which whatever changes something must send.
package gate

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"sync"
	"time"
)

// OpenPath is where a browser posts the one-time token.
const OpenPath = "/open"

// cookieName is the name of the cookie.
const cookieName = "apikey-ui"

// formHeader holds the form token. A form of another site can't set a header.
const formHeader = "X-Form-Token"

// Ending says why a session ended.
type Ending string

// Why a session ends by itself.
const (
	// UsedTwice says that a second browser or program had the one-time token.
	UsedTwice Ending = "its one-time link was used a second time, so that somebody else may have it"
	// Idle says that nobody used the page for a while.
	Idle Ending = "nobody used the page for an hour"
)

// idleTime is how long a session lasts without a request of its user. Streams of events don't count.
const idleTime = time.Hour

// secret is 256 random bits, written as text.
type secret struct{ text string }

func newSecret() secret {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // it never returns an error
	return secret{hex.EncodeToString(bits[:])}
}

// is compares a text with the secret in a time that tells nothing about it. The zero secret equals nothing.
func (s secret) is(text string) bool {
	a, b := sha256.Sum256([]byte(s.text)), sha256.Sum256([]byte(text))
	return s.text != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Gate holds the secrets of one session. It is safe for concurrent use.
type Gate struct {
	// host is the only value of Host that is served, such as 127.0.0.1:41234.
	host string
	// path starts and ends with a slash and contains 128 random bits. Cookies don't know ports, so a server on another port would get the
	// cookie if it knew the path.
	path string
	form secret

	mu       sync.Mutex
	once     secret
	used     bool
	cookie   secret
	lastUsed time.Time
	ending   Ending
	ended    chan struct{}
}

// New returns the gate of a page that is served at host, such as 127.0.0.1:41234. now is the time of its start.
func New(host string, now time.Time) *Gate {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // it never returns an error
	return &Gate{
		host: host, path: "/" + hex.EncodeToString(bits[:]) + "/", form: newSecret(), once: newSecret(), lastUsed: wall(now),
		ended: make(chan struct{}),
	}
}

// wall removes the monotonic reading, which stands still while a laptop sleeps.
func wall(t time.Time) time.Time { return t.Round(0) }

// Origin returns the origin of the page.
func (g *Gate) Origin() string { return "http://" + g.host }

// Path returns the path below which the page is served.
func (g *Gate) Path() string { return g.path }

// FormToken returns the token that the page itself must send with whatever changes something.
func (g *Gate) FormToken() string { return g.form.text }

// Link returns the URL with the one-time token. It shows a button and uses the token only if somebody presses it.
func (g *Gate) Link() string { return g.Origin() + OpenPath + "?token=" + g.onceToken() }

func (g *Gate) onceToken() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.once.text
}

// Ended is closed when the session has ended. [Gate.Why] then says why.
func (g *Gate) Ended() <-chan struct{} { return g.ended }

// Why returns why the session ended, or "" while it goes on.
func (g *Gate) Why() Ending {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ending
}

// Age ends the session if it was idle for too long at the time now.
func (g *Gate) Age(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wall(now).Sub(g.lastUsed) >= idleTime {
		g.end(Idle)
	}
}

// end ends the session: nothing opens the gate again. The caller holds the lock.
func (g *Gate) end(why Ending) {
	if g.ending != "" {
		return
	}
	g.ending, g.cookie = why, secret{}
	close(g.ended)
}

// redeem exchanges the one-time token for the value of the cookie. It reports whether it did.
func (g *Gate) redeem(token string, now time.Time) (cookie string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending != "" || !g.once.is(token) {
		return "", false
	}
	if g.used {
		g.end(UsedTwice)
		return "", false
	}
	g.used, g.cookie, g.lastUsed = true, newSecret(), wall(now)
	return g.cookie.text, true
}

// admits reports whether a cookie is that of the session. touch says that the request shows that somebody uses the page.
func (g *Gate) admits(cookie string, now time.Time, touch bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending != "" || !g.cookie.is(cookie) {
		return false
	}
	if touch {
		g.lastUsed = wall(now)
	}
	return true
}
