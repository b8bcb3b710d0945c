package harness

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Network stands between a client and the API server. It sees every request, and decides which fail.
type Network struct {
	// Fault is asked before each request: for none, one that never reaches the server, or one whose answer is lost.
	Fault func(Request) Fault

	mu       sync.Mutex
	requests []Request
}

// Request is what a network sees of a call.
type Request struct {
	// Method is HTTP's: POST, PATCH, DELETE, GET. A list or watch is GET without a name.
	Method string
	// Namespace is the object's; "" for what spans all of them.
	Namespace string
	// Resource is the plural, with the subresource where there is one: apikeys/status, secrets.
	Resource string
	// Name is that of the object; "" for a list, watch or create.
	Name string
	// DryRun says that the server is only asked, and changes nothing.
	DryRun bool
}

// Writes tells whether the request changes ApiKeys or Secrets.
func (r Request) Writes() bool {
	return r.Method != http.MethodGet && !r.DryRun && (r.Resource == "apikeys/status" || r.Resource == "apikeys" || r.Resource == "secrets")
}

// Fault is what becomes of a request.
type Fault int

const (
	// None lets it through.
	None Fault = iota
	// LostRequest fails it before it reaches the server.
	LostRequest
	// LostAnswer lets it through and loses the answer.
	LostAnswer
	// TooManyRequests is the server's answer under load.
	TooManyRequests
	// Conflict is the server's answer to one who was overtaken.
	Conflict
	// BadRequest is the server's answer to a dry run that a webhook with side effects would see.
	BadRequest
)

var errNetwork = errors.New("network fault made by the test")

// Requests are all that were sent, in their order.
func (n *Network) Requests() []Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.requests)
}

func (n *Network) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		request := parse(r)
		fault := None
		if n.Fault != nil {
			fault = n.Fault(request)
		}
		if request.Resource != "" { // else discovery, once a client
			n.mu.Lock()
			n.requests = append(n.requests, request)
			n.mu.Unlock()
		}
		switch fault {
		case LostRequest:
			return nil, errNetwork
		case TooManyRequests:
			return answer(r, http.StatusTooManyRequests, "TooManyRequests"), nil
		case Conflict:
			return answer(r, http.StatusConflict, "Conflict"), nil
		case BadRequest:
			return answer(r, http.StatusBadRequest, "BadRequest"), nil
		default:
		}
		response, err := next.RoundTrip(r)
		if fault == LostAnswer && err == nil {
			_ = response.Body.Close()
			return nil, errNetwork
		}
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(r *http.Request, code int, reason string) *http.Response {
	body := `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"made by the test","reason":"` + reason + `"}`
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   readCloser{strings.NewReader(body)},
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// parse reads a path such as /apis/<group>/<version>/namespaces/<namespace>/<resource>/<name>/<subresource>; the core group has
// /api/<version> in front, and discovery nothing behind it.
func parse(r *http.Request) Request {
	request := Request{Method: r.Method, DryRun: r.URL.Query().Has("dryRun")}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	prefix := map[string]int{"api": 2, "apis": 3}[parts[0]]
	if prefix == 0 || len(parts) <= prefix {
		return request
	}
	parts = parts[prefix:]
	if parts[0] == "namespaces" && len(parts) > 2 {
		request.Namespace, parts = parts[1], parts[2:]
	}
	request.Resource = parts[0]
	if len(parts) > 1 {
		request.Name = parts[1]
	}
	if len(parts) > 2 {
		request.Resource += "/" + parts[2]
	}
	return request
}
