package harness

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Network sits between a client and the API server. It records every request and makes the requests fail that the test chooses.
type Network struct {
	// Fault returns the fault for a request, before it is sent. If Fault is nil, no request fails.
	Fault func(Request) Fault

	mu       sync.Mutex
	requests []Request
}

// Request describes a request to the API server.
type Request struct {
	// Method is the HTTP method: POST, PATCH, DELETE, GET. A list or watch is a GET without a name.
	Method string
	// Namespace is the object's namespace. It is empty for requests that span all namespaces.
	Namespace string
	// Resource is the plural with the subresource, if any: apikeys/status, secrets.
	Resource string
	// Name is the object's name. It is empty for a list, watch or create.
	Name string
	// DryRun is set if the server must not change anything.
	DryRun bool
}

// Writes reports whether the request changes ApiKeys or Secrets.
func (r Request) Writes() bool {
	return r.Method != http.MethodGet && !r.DryRun && (r.Resource == "apikeys/status" || r.Resource == "apikeys" || r.Resource == "secrets")
}

// Fault is what happens to a request.
type Fault int

const (
	// None sends the request.
	None Fault = iota
	// LostRequest fails the request before it reaches the server.
	LostRequest
	// LostAnswer sends the request and loses the answer.
	LostAnswer
	// TooManyRequests answers as an overloaded server does.
	TooManyRequests
	// Conflict answers as if another client had changed the object.
	Conflict
	// BadRequest answers as the server does to a dry run when a webhook with side effects would be called.
	BadRequest
)

var errNetwork = errors.New("network fault made by the test")

// Requests returns all requests so far, in order, without discovery.
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
		if request.Resource != "" { // without a resource, it is discovery
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

// parse reads a path such as /apis/<group>/<version>/namespaces/<namespace>/<resource>/<name>/<subresource>. Paths of the core group start
// with /api/<version>; paths of discovery have no resource.
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
