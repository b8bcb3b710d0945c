package gate

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"strings"
	"time"
)

// policy is the Content-Security-Policy of all answers. Nothing is loaded from elsewhere, nothing is inline, and nothing may frame the page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'"

// maxBody is the maximum size of the body of a request, in bytes.
const maxBody = 64 << 10

// Refusals. A request without the cookie learns only that it needs the link.
const (
	wrongHost   = "This address is not served here."
	noSession   = "This page belongs to one browser. Open it with the link that kubectl apikey ui gave you; if that was used, run the command again."
	wrongOrigin = "This request does not come from the page itself."
	wrongLink   = "This link is not valid, or was used before. A link works once. Run kubectl apikey ui again."
)

// Handler returns a handler that serves next, below [Gate.Path], to the browser of the session, and refuses everything else. quiet reports
// whether a request is one that a page sends by itself, which does not show that somebody uses it. The paths that next sees are without the
// prefix. styles is the style sheet of the page on which the link is opened; now is the clock.
func (g *Gate) Handler(next http.Handler, styles []byte, quiet func(*http.Request) bool, now func() time.Time) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+OpenPath, g.ask)
	mux.HandleFunc("POST "+OpenPath, func(w http.ResponseWriter, r *http.Request) { g.open(w, r, now()) })
	mux.HandleFunc("GET "+OpenPath+"/style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(styles)
	})
	inside := http.StripPrefix(strings.TrimSuffix(g.path, "/"), next)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if refusal := g.refuse(r, now(), !quiet(r)); refusal != "" {
			fail(w, refusal)
			return
		}
		inside.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		// A page whose name was made to resolve to this address sends its own name. A proxy's request has a host of its own, too.
		if r.Host != g.host || r.URL.IsAbs() {
			fail(w, wrongHost)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// protect sets the headers of all answers.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// refuse returns why a request is not served, or "". It checks more than [http.CrossOriginProtection], which lets requests pass that say
// nothing about where they come from.
func (g *Gate) refuse(r *http.Request, now time.Time, touch bool) string {
	site := r.Header.Get("Sec-Fetch-Site")
	reads := r.Method == http.MethodGet
	switch {
	case !strings.HasPrefix(r.URL.Path, g.path):
		return noSession
	case len(r.Header.Values("Sec-Fetch-Site")) > 1 || len(r.Header.Values("Origin")) > 1:
		return wrongOrigin
	case reads && site != "" && site != "same-origin" && site != "none": // none: typed in or reloaded
		return wrongOrigin
	case reads && (r.Header.Get("Sec-Fetch-Dest") == "iframe" || r.Header.Get("Sec-Fetch-Dest") == "frame"):
		return wrongOrigin
	case !reads && (r.Header.Get("Origin") != g.Origin() || site != "same-origin"):
		return wrongOrigin
	case !reads && !g.form.is(r.Header.Get(formHeader)):
		return wrongOrigin
	}
	cookies := r.CookiesNamed(cookieName)
	if len(cookies) != 1 || !g.admits(cookies[0].Value, now, touch) {
		return noSession
	}
	return ""
}

//go:embed open.html
var openText string

var openPages = template.Must(template.New("open").Parse(openText))

// ask shows the button that uses the one-time token. It uses nothing up, since some browsers fetch a link before anybody asks for it.
func (g *Gate) ask(w http.ResponseWriter, r *http.Request) {
	render(w, http.StatusOK, map[string]any{"Token": r.URL.Query().Get("token")})
}

// open exchanges the one-time token for the cookie. The request may come from a file, whose origin is null.
func (g *Gate) open(w http.ResponseWriter, r *http.Request, now time.Time) {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "null" && origin != g.Origin() {
		fail(w, wrongOrigin)
		return
	}
	cookie, ok := g.redeem(r.PostFormValue("token"), now)
	if !ok {
		fail(w, wrongLink)
		return
	}
	// Not Secure: some browsers keep such a cookie from http://127.0.0.1.
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: cookie, Path: g.path, HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // see above
	// A redirect would not carry the cookie, because the navigation began at another site: in a file.
	render(w, http.StatusOK, map[string]any{"Path": g.path})
}

// fail refuses a request with a sentence.
func fail(w http.ResponseWriter, text string) {
	render(w, http.StatusForbidden, map[string]any{"Refusal": text})
}

func render(w http.ResponseWriter, code int, data any) {
	var page bytes.Buffer
	if err := openPages.Execute(&page, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(page.Bytes())
}
