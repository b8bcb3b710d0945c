package gate

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const host = "127.0.0.1:41234"

var start = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

// site is a gate with what lies behind it, at a time that tests set.
type site struct {
	*Gate
	t       *testing.T
	handler http.Handler
	now     time.Time
	// reached is the path that the handler behind the gate saw last.
	reached string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Gate: New(host, start), t: t, now: start}
	inside := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { s.reached = r.URL.Path })
	quiet := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/events") }
	s.handler = s.Handler(inside, []byte("body{}"), quiet, func() time.Time { return s.now })
	return s
}

// do sends a request with changes, and reports whether it came through the gate.
func (s *site) do(method, path string, body url.Values, changes ...func(*http.Request)) (passed bool, got answer) {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body.Encode()))
	r.Host = host
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, change := range changes {
		change(r)
	}
	s.reached = ""
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if s.reached == "" && strings.HasPrefix(path, s.Path()) && w.Code != http.StatusForbidden {
		s.t.Fatalf("a request that did not come through was answered with %d", w.Code)
	}
	result := w.Result()
	defer func() { _ = result.Body.Close() }()
	return s.reached != "", answer{result.StatusCode, result.Header, result.Cookies()}
}

// answer is what tests look at in a response.
type answer struct {
	StatusCode int
	Header     http.Header
	cookies    []*http.Cookie
}

// Cookies returns the cookies that the response sets.
func (a answer) Cookies() []*http.Cookie { return a.cookies }

// login uses the one-time token as the page with the button does, and returns the cookie.
func (s *site) login() *http.Cookie {
	s.t.Helper()
	_, answer := s.do(http.MethodPost, OpenPath, url.Values{"token": {s.onceToken()}}, header("Origin", "null"))
	if answer.StatusCode != http.StatusOK || len(answer.Cookies()) != 1 {
		s.t.Fatalf("the one-time token opens nothing: %d", answer.StatusCode)
	}
	return answer.Cookies()[0]
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func without(name string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Del(name) }
}

// own makes a request one of the page itself, in the browser of the session.
func (s *site) own(cookie *http.Cookie) func(*http.Request) {
	return func(r *http.Request) {
		r.AddCookie(cookie)
		r.Header.Set("Origin", s.Origin())
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set(formHeader, s.FormToken())
	}
}

func TestTheBrowserOfTheSessionComesIn(t *testing.T) {
	s := newSite(t)
	cookie := s.login()
	if passed, _ := s.do(http.MethodGet, s.Path()+"keys", nil, s.own(cookie)); !passed || s.reached != "/keys" {
		t.Errorf("a page of the session is refused, or reached as %q", s.reached)
	}
	if passed, _ := s.do(http.MethodPost, s.Path()+"new", nil, s.own(cookie)); !passed {
		t.Error("a change by the page itself is refused")
	}
	reload := func(r *http.Request) { r.AddCookie(cookie); r.Header.Set("Sec-Fetch-Site", "none") }
	if passed, _ := s.do(http.MethodGet, s.Path(), nil, reload); !passed {
		t.Error("a reload is refused")
	}
}

// TestAttacks sends requests that differ in one thing from those of the page itself.
func TestAttacks(t *testing.T) {
	const get, post = http.MethodGet, http.MethodPost
	for name, c := range map[string]struct {
		method string
		change func(*http.Request)
	}{
		"a name that resolves to this address":      {get, func(r *http.Request) { r.Host = "evil.example:41234" }},
		"a change by such a name":                   {post, func(r *http.Request) { r.Host = "evil.example:41234" }},
		"localhost, which may resolve to another":   {get, func(r *http.Request) { r.Host = "localhost:41234" }},
		"this address without the port":             {get, func(r *http.Request) { r.Host = "127.0.0.1" }},
		"another port":                              {get, func(r *http.Request) { r.Host = "127.0.0.1:80" }},
		"no host":                                   {get, func(r *http.Request) { r.Host = "" }},
		"a request to a proxy":                      {get, func(r *http.Request) { r.URL.Scheme, r.URL.Host = "http", host }},
		"another user of the machine, to read":      {get, without("Cookie")},
		"another user of the machine, to change":    {post, without("Cookie")},
		"a wrong cookie":                            {get, header("Cookie", cookieName+"="+strings.Repeat("0", 64))},
		"an empty cookie":                           {get, header("Cookie", cookieName+"=")},
		"two cookies":                               {get, func(r *http.Request) { r.Header.Set("Cookie", r.Header.Get("Cookie")+"; "+cookieName+"=x") }},
		"another origin":                            {post, header("Origin", "https://evil.example")},
		"a page on another port":                    {post, header("Origin", "http://127.0.0.1:80")},
		"https in place of http":                    {post, header("Origin", "https://"+host)},
		"an origin that begins like ours":           {post, header("Origin", "http://"+host+".evil.example")},
		"a null origin, as sandboxed frames have":   {post, header("Origin", "null")},
		"no origin":                                 {post, without("Origin")},
		"two origins":                               {post, func(r *http.Request) { r.Header.Add("Origin", "https://evil.example") }},
		"a cross-site change":                       {post, header("Sec-Fetch-Site", "cross-site")},
		"a change by a page on another port":        {post, header("Sec-Fetch-Site", "same-site")},
		"a change that somebody typed in":           {post, header("Sec-Fetch-Site", "none")},
		"a change without Sec-Fetch-Site":           {post, without("Sec-Fetch-Site")},
		"a link of another site":                    {get, header("Sec-Fetch-Site", "cross-site")},
		"a link or image of a page on another port": {get, header("Sec-Fetch-Site", "same-site")},
		"a frame":                                    {get, header("Sec-Fetch-Dest", "iframe")},
		"a change without the form token":            {post, without(formHeader)},
		"a change with an empty form token":          {post, header(formHeader, "")},
		"a change with another form token":           {post, header(formHeader, strings.Repeat("0", 64))},
		"a change by a method that is not known":     {"PUT", without(formHeader)},
		"a HEAD request, which our page never sends": {http.MethodHead, without(formHeader)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			cookie := s.login()
			if passed, _ := s.do(c.method, s.Path()+"events", nil, s.own(cookie)); !passed {
				t.Fatal("the request is refused without the attack, so this test can't fail")
			}
			passed, answer := s.do(c.method, s.Path()+"events", nil, s.own(cookie), c.change)
			if passed || answer.StatusCode != http.StatusForbidden {
				t.Errorf("came through with %d", answer.StatusCode)
			}
			if passed, _ := s.do(c.method, s.Path()+"events", nil, s.own(cookie)); !passed {
				t.Error("the attack ended the session")
			}
		})
	}
}

func TestTheCookieAlreadyGivenOpensNoOtherPath(t *testing.T) {
	s := newSite(t)
	cookie := s.login()
	for _, path := range []string{"/", "/keys", "/" + strings.Repeat("0", 32) + "/", strings.TrimSuffix(s.Path(), "/"), "//" + s.Path()} {
		if passed, answer := s.do(http.MethodGet, path, nil, s.own(cookie)); passed || answer.StatusCode == http.StatusOK {
			t.Errorf("%s came through", path)
		}
	}
}

func TestTheCookieIsForThisPathAndNoScript(t *testing.T) {
	s := newSite(t)
	cookie := s.login()
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != s.Path() || cookie.Domain != "" || cookie.MaxAge != 0 {
		t.Errorf("cookie %s: HttpOnly %t, SameSite %v, Path %q, Domain %q", cookie.Name, cookie.HttpOnly, cookie.SameSite, cookie.Path, cookie.Domain)
	}
	if !regexp.MustCompile(`^/[0-9a-f]{32}/$`).MatchString(s.Path()) || New(host, start).Path() == s.Path() {
		t.Errorf("the path %s does not have 128 random bits", s.Path())
	}
}

func TestFetchingTheLinkUsesNothingUp(t *testing.T) {
	s := newSite(t)
	link := strings.TrimPrefix(s.Link(), s.Origin())
	for range 3 {
		if _, answer := s.do(http.MethodGet, link, nil); answer.StatusCode != http.StatusOK || len(answer.Cookies()) > 0 {
			t.Fatalf("the link is answered with %d and %d cookies", answer.StatusCode, len(answer.Cookies()))
		}
	}
	s.login()
}

func TestASecondUseOfTheLinkEndsTheSession(t *testing.T) {
	s := newSite(t)
	cookie := s.login()
	_, answer := s.do(http.MethodPost, OpenPath, url.Values{"token": {s.onceToken()}})
	if answer.StatusCode != http.StatusForbidden || len(answer.Cookies()) > 0 {
		t.Errorf("an old link is answered with %d and %d cookies", answer.StatusCode, len(answer.Cookies()))
	}
	if passed, _ := s.do(http.MethodGet, s.Path(), nil, s.own(cookie)); passed {
		t.Error("the first browser goes on, although somebody else has the link")
	}
	select {
	case <-s.Ended():
	default:
		t.Error("the session goes on")
	}
	if s.Why() != UsedTwice {
		t.Errorf("it ended because %q", s.Why())
	}
}

func TestAGuessEndsNothing(t *testing.T) {
	s := newSite(t)
	for _, guess := range []string{"", strings.Repeat("0", 64), s.onceToken()[1:], s.onceToken() + "0"} {
		if _, answer := s.do(http.MethodPost, OpenPath, url.Values{"token": {guess}}); answer.StatusCode != http.StatusForbidden {
			t.Errorf("a guess of %d characters is answered with %d", len(guess), answer.StatusCode)
		}
	}
	// The token in a URL is not enough: it must be posted.
	if _, answer := s.do(http.MethodPost, OpenPath+"?token="+s.onceToken(), nil); answer.StatusCode != http.StatusForbidden {
		t.Errorf("a token in the URL is answered with %d", answer.StatusCode)
	}
	if s.Why() != "" {
		t.Errorf("the session ended because %q", s.Why())
	}
	s.login()
}

func TestAnotherSiteCantUseTheLink(t *testing.T) {
	s := newSite(t)
	_, answer := s.do(http.MethodPost, OpenPath, url.Values{"token": {s.onceToken()}}, header("Origin", "https://evil.example"))
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("answered with %d", answer.StatusCode)
	}
	s.login()
}

func TestTheSessionEndsWhenIdle(t *testing.T) {
	s := newSite(t)
	cookie := s.login()
	at := func(after time.Duration) { s.now = start.Add(after); s.Age(s.now) }
	at(idleTime - 1)
	if passed, _ := s.do(http.MethodGet, s.Path(), nil, s.own(cookie)); !passed {
		t.Fatal("refused before an hour was over")
	}
	// Its user was there a moment before the hour was over. What a page does by itself does not count.
	at(2*idleTime - 2)
	if passed, _ := s.do(http.MethodPost, s.Path()+"events", nil, s.own(cookie)); !passed {
		t.Fatal("refused an hour later")
	}
	at(2*idleTime - 1)
	if passed, _ := s.do(http.MethodGet, s.Path(), nil, s.own(cookie)); passed || s.Why() != Idle {
		t.Errorf("an idle session goes on: %q", s.Why())
	}
}

func TestALinkThatNobodyUsesEnds(t *testing.T) {
	s := newSite(t)
	s.Age(start.Add(idleTime))
	if _, answer := s.do(http.MethodPost, OpenPath, url.Values{"token": {s.onceToken()}}); answer.StatusCode != http.StatusForbidden {
		t.Errorf("answered with %d", answer.StatusCode)
	}
}

func TestEveryAnswerIsProtected(t *testing.T) {
	s := newSite(t)
	cookie := s.login()
	for name, path := range map[string]string{"inside": s.Path(), "the link": OpenPath, "its styles": OpenPath + "/style.css", "refused": "/", "absent": "/x"} {
		_, answer := s.do(http.MethodGet, path, nil, s.own(cookie))
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := answer.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		csp := answer.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self';"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", name, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || answer.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: too much is allowed", name)
		}
	}
}

func TestTheLinkShowsNoHTML(t *testing.T) {
	s := newSite(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, OpenPath+"?token="+url.QueryEscape(`"><script>alert(1)</script>`), nil)
	r.Host = host
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if strings.Contains(w.Body.String(), "<script>") {
		t.Error("the token of the URL is part of the page as HTML")
	}
}

func TestTheLauncherIsOnlyForItsOwner(t *testing.T) {
	s := newSite(t)
	path, remove, err := s.Launcher()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	text, err := os.ReadFile(path) //nolint:gosec // the file that the test is about
	if err != nil || !strings.Contains(string(text), s.onceToken()) || !strings.Contains(string(text), s.Origin()+OpenPath) {
		t.Errorf("the file does not post the token to the page (%v)", err)
	}
	if strings.Contains(path, s.onceToken()) {
		t.Error("the name of the file holds the token")
	}
	remove()
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
}
