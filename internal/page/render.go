package page

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

//go:embed templates
var texts embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"exact": exact, "machine": machine, "dict": dict, "dots": dots}).ParseFS(texts, "templates/*.html"))

// shell is what surrounds each view.
type shell struct {
	// Base is the path below which the page is served, and FormToken what the script sends with each change.
	Base, FormToken string
	Context         string
	Title           string
	// View is the name of the template of the view, and Data its data.
	View string
	Data any
	// Version and Watched tell the script from where it follows which namespace. Without a Version it follows nothing.
	Version, Watched string
}

// show renders a view in its shell. With the header X-Part it renders the view alone, for the script.
func (p *page) show(w http.ResponseWriter, r *http.Request, code int, s shell) {
	s.Base, s.FormToken, s.Context = p.gate.Path(), p.gate.FormToken(), p.Context
	name := "shell"
	if r.Header.Get("X-Part") != "" {
		name = "part"
	}
	p.render(w, code, name, s)
}

func (p *page) render(w http.ResponseWriter, code int, name string, data any) {
	var text bytes.Buffer
	if err := templates.ExecuteTemplate(&text, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(text.Bytes())
}

// fragment renders a template as text, for an event.
func fragment(name string, data any) (string, error) {
	var text bytes.Buffer
	err := templates.ExecuteTemplate(&text, name, data)
	return text.String(), err
}

// problem shows that the API server refused something, or did not answer.
func (p *page) problem(w http.ResponseWriter, r *http.Request, title string, err error) {
	p.show(w, r, codeOf(err), shell{Title: title, View: "problem", Data: map[string]string{"Title": title, "Text": p.Explain(err)}})
}

// refuse answers the script with the reason why a change was not made.
func (p *page) refuse(w http.ResponseWriter, err error) {
	http.Error(w, p.Explain(err), codeOf(err))
}

// codeOf returns the status code for an error of the API server.
func codeOf(err error) int {
	switch {
	case apierrors.IsNotFound(err):
		return http.StatusNotFound
	case apierrors.IsForbidden(err):
		return http.StatusForbidden
	case apierrors.IsConflict(err):
		return http.StatusConflict
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return http.StatusUnprocessableEntity
	}
	return http.StatusBadGateway
}

// moment is a time in a template.
type moment struct {
	At       time.Time
	Relative string
}

func momentOf(t, now time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	return &moment{At: t, Relative: relative(t, now)}
}

// dict returns a map of names and values, for templates that take several arguments.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, errors.New("dict needs pairs")
	}
	all := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("%v is not a name", pairs[i])
		}
		all[name] = pairs[i+1]
	}
	return all, nil
}
