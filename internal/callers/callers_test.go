package callers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
)

const (
	tokenReviews = "/apis/authentication.k8s.io/v1/tokenreviews"
	accessReview = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

	path = "/introspect"
	home = "10.0.0.1:4711"
)

// apiServer answers reviews. A token is good if it begins with "good-", and the rest of it is the name of its user.
type apiServer struct {
	*httptest.Server

	mu      sync.Mutex
	denied  map[string]bool // users who may not
	gone    map[string]bool // tokens that are good no more
	reviews map[string]int  // by path
	// intercept is asked before each review, which it answers by itself if it returns true.
	intercept func(w http.ResponseWriter, path, token string) bool
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{denied: map[string]bool{}, gone: map[string]bool{}, reviews: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	var document any
	token := ""
	switch r.URL.Path {
	case tokenReviews:
		review := &authenticationv1.TokenReview{}
		if json.NewDecoder(r.Body).Decode(review) != nil {
			http.Error(w, "no TokenReview", http.StatusBadRequest)
			return
		}
		token = review.Spec.Token
		name, good := strings.CutPrefix(token, "good-")
		s.mu.Lock()
		good = good && !s.gone[token]
		s.mu.Unlock()
		review.Status = authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}
		if good {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: name}}
		}
		document = review
	case accessReview:
		review := &authorizationv1.SubjectAccessReview{}
		if json.NewDecoder(r.Body).Decode(review) != nil {
			http.Error(w, "no SubjectAccessReview", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		allowed := !s.denied[review.Spec.User]
		s.mu.Unlock()
		attributes := review.Spec.NonResourceAttributes
		review.Status.Allowed = allowed && attributes != nil && attributes.Path == path && attributes.Verb == "post" &&
			len(review.Spec.Groups) == 1 && review.Spec.Groups[0] == "system:authenticated"
		document = review
	}
	s.mu.Lock()
	s.reviews[r.URL.Path]++
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r.URL.Path, token) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document)
}

func (s *apiServer) set(intercept func(w http.ResponseWriter, path, token string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = intercept
}

func (s *apiServer) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reviews[path]
}

// plenty are limits that nobody comes up against.
var plenty = limits{address: rates{rate.Inf, 1}, all: rates{rate.Inf, 1}, patience: time.Minute, reviews: 100, knownFor: time.Hour}

type world struct {
	guard   *Guard
	clock   *clocktesting.FakePassiveClock
	handler http.Handler
	t       *testing.T
}

func newWorld(t *testing.T, reviewer reviewer, limits limits) *world {
	t.Helper()
	clock := clocktesting.NewFakePassiveClock(time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC))
	guard := newGuard(reviewer, Options{Logger: logr.Discard(), PutOff: NewPutOff(prometheus.NewRegistry(), "test").WithLabelValues("test")}, limits, clock)
	inner := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Let-In", "yes") })
	return &world{guard: guard, clock: clock, handler: guard.Protect(inner), t: t}
}

func (s *apiServer) world(t *testing.T, limits limits) *world {
	t.Helper()
	reviews, err := newReviews(&rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, reviews, limits)
}

func (w *world) pass(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }

func (w *world) ask(from string, authorization ...string) int {
	w.t.Helper()
	request := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, strings.NewReader("token=x"))
	request.RemoteAddr = from
	request.Header["Authorization"] = authorization
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, request)
	status := recorder.Code
	if (recorder.Header().Get("Let-In") != "") != (status == http.StatusOK) {
		w.t.Errorf("the handler was reached with %d", status)
	}
	if (recorder.Header().Get("WWW-Authenticate") != "") != (status == http.StatusUnauthorized) {
		w.t.Errorf("%d with the challenge %q", status, recorder.Header().Get("WWW-Authenticate"))
	}
	if (recorder.Header().Get("Retry-After") != "") != (status == http.StatusServiceUnavailable) {
		w.t.Errorf("%d with Retry-After %q", status, recorder.Header().Get("Retry-After"))
	}
	return status
}

func (w *world) expect(want int, from string, authorization ...string) {
	w.t.Helper()
	if status := w.ask(from, authorization...); status != want {
		w.t.Errorf("%d, want %d", status, want)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	server := newAPIServer(t)
	server.denied["stranger"] = true
	world := server.world(t, plenty)
	for name, c := range map[string]struct {
		authorization []string
		status        int
	}{
		"one who may":         {[]string{"Bearer good-orders"}, http.StatusOK},
		"in another case":     {[]string{"bearer  good-orders "}, http.StatusOK},
		"one who may not":     {[]string{"Bearer good-stranger"}, http.StatusForbidden},
		"garbage":             {[]string{"Bearer garbage"}, http.StatusUnauthorized},
		"nobody":              {nil, http.StatusUnauthorized},
		"an empty header":     {[]string{""}, http.StatusUnauthorized},
		"a scheme alone":      {[]string{"Bearer "}, http.StatusUnauthorized},
		"another scheme":      {[]string{"Basic good-orders"}, http.StatusUnauthorized},
		"no scheme":           {[]string{"good-orders"}, http.StatusUnauthorized},
		"a header twice":      {[]string{"Bearer good-orders", "Bearer good-orders"}, http.StatusUnauthorized},
		"a token with spaces": {[]string{"Bearer x good-orders"}, http.StatusUnauthorized},
	} {
		if status := world.ask(home, c.authorization...); status != c.status {
			t.Errorf("%s: %d, want %d", name, status, c.status)
		}
	}
}

func TestIsTransient(t *testing.T) {
	resource := schema.GroupResource{Resource: "tokenreviews"}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{apierrors.NewInternalError(io.ErrUnexpectedEOF), true},
		{apierrors.NewTooManyRequests("slow down", 0), true},
		{apierrors.NewTimeoutError("too late", 0), true},
		{apierrors.NewServerTimeout(resource, "create", 1), true},
		{syscall.ECONNRESET, true},
		{&url.Error{Op: "Post", URL: "x", Err: errors.New("http2: client connection lost")}, true},
		{apierrors.NewForbidden(resource, "", nil), false},
		{apierrors.NewUnauthorized("who are you"), false},
		{io.EOF, false},
		{syscall.ECONNREFUSED, false},
		{context.DeadlineExceeded, false},
	} {
		if got := isTransient(c.err); got != c.want {
			t.Errorf("%v: %t, want %t", c.err, got, c.want)
		}
	}
}

// A review is tried again after a failure that soon passes, but not for long, and not after one that stays.
func TestReviewsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code, failures int
		reason         string
		want, reviews  int
	}{
		{http.StatusTooManyRequests, 1, "TooManyRequests", http.StatusOK, 2},
		{http.StatusInternalServerError, 3, "InternalError", http.StatusOK, 4},
		{http.StatusInternalServerError, 100, "InternalError", http.StatusServiceUnavailable, 4},
		{http.StatusForbidden, 1, "Forbidden", http.StatusServiceUnavailable, 1},
	} {
		for _, review := range []string{tokenReviews, accessReview} {
			server := newAPIServer(t)
			asked := 0
			server.set(func(w http.ResponseWriter, path, _ string) bool {
				if path != review {
					return false
				}
				if asked++; asked > c.failures {
					return false
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.code)
				_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, c.reason, c.code)
				return true
			})
			if status := server.world(t, plenty).ask(home, "Bearer good-orders"); status != c.want {
				t.Errorf("after %d times %s of %s: %d, want %d", c.failures, c.reason, review, status, c.want)
			}
			if asked != c.reviews {
				t.Errorf("after %d times %s of %s: %d reviews, want %d", c.failures, c.reason, review, asked, c.reviews)
			}
		}
	}
}

// Only a review that was made can say no.
func TestNoAnswerIsNoRefusal(t *testing.T) {
	status := func(code int, reason string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"x","reason":%q,"code":%d}`, reason, code)
		}
	}
	faults := map[string]func(http.ResponseWriter){
		"may not ask":      status(http.StatusForbidden, "Forbidden"),
		"not known itself": status(http.StatusUnauthorized, "Unauthorized"),
		"too many asked":   status(http.StatusTooManyRequests, "TooManyRequests"),
		"not well":         status(http.StatusInternalServerError, "InternalError"),
		"not there":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"another server":   func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>welcome")) },
		"hangs up":         func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	}
	for _, review := range []string{tokenReviews, accessReview} {
		for name, fault := range faults {
			t.Run(review+" "+name, func(t *testing.T) {
				t.Parallel()
				server := newAPIServer(t)
				world := server.world(t, plenty)
				server.set(func(w http.ResponseWriter, path, _ string) bool {
					if path == review {
						fault(w)
					}
					return path == review
				})
				world.expect(http.StatusServiceUnavailable, home, "Bearer good-orders")
				if review == tokenReviews {
					world.expect(http.StatusServiceUnavailable, home, "Bearer garbage")
				}
				server.set(nil)
				world.expect(http.StatusOK, home, "Bearer good-orders")
				world.expect(http.StatusUnauthorized, home, "Bearer garbage")
			})
		}
	}
	t.Run("nobody listens", func(t *testing.T) {
		server := newAPIServer(t)
		world := server.world(t, plenty)
		server.Close()
		world.expect(http.StatusServiceUnavailable, home, "Bearer good-orders")
	})
	t.Run("any other error", func(t *testing.T) {
		world := newWorld(t, brokenReviewer{errors.New("client rate limiter Wait returned an error")}, plenty)
		world.expect(http.StatusServiceUnavailable, home, "Bearer good-orders")
	})
}

// brokenReviewer fails, by a panic if there is no error.
type brokenReviewer struct{ err error }

func (r brokenReviewer) authenticate(context.Context, string) (authenticationv1.UserInfo, bool, error) {
	if r.err == nil {
		panic("a defect")
	}
	return authenticationv1.UserInfo{}, false, r.err
}

func (r brokenReviewer) authorize(context.Context, authenticationv1.UserInfo, string, string) (bool, error) {
	return false, r.err
}

// A defect must reach who recovers from those of a request, and not end the process.
func TestADefectIsTheRequests(t *testing.T) {
	world := newWorld(t, brokenReviewer{}, plenty)
	defer func() {
		if recovered := fmt.Sprint(recover()); !strings.Contains(recovered, "a defect") || !strings.Contains(recovered, "authenticate") {
			t.Errorf("recovered %s", recovered)
		}
	}()
	world.ask(home, "Bearer good-orders")
	t.Error("no panic")
}

func TestHowLongAnswersAreBelieved(t *testing.T) {
	server := newAPIServer(t)
	world := server.world(t, plenty)
	reviews := func(want int) {
		t.Helper()
		if got := server.count(tokenReviews); got != want {
			t.Errorf("%d reviews, want %d", got, want)
		}
	}
	const caller, other = "Bearer good-orders", "Bearer good-billing"
	world.expect(http.StatusOK, home, caller)
	server.gone["good-orders"] = true
	world.pass(allowedFor)
	world.expect(http.StatusOK, home, caller)
	reviews(1)
	world.pass(time.Nanosecond)
	world.expect(http.StatusUnauthorized, home, caller)
	reviews(2)

	server.denied["billing"] = true
	world.expect(http.StatusForbidden, home, other)
	server.denied["billing"], server.gone["good-orders"] = false, false
	world.pass(deniedFor)
	world.expect(http.StatusUnauthorized, home, caller)
	world.expect(http.StatusForbidden, home, other)
	reviews(3)
	world.pass(time.Nanosecond)
	world.expect(http.StatusOK, home, caller)
	world.expect(http.StatusOK, home, other)
	reviews(5)
}

// However many strangers ask: nobody is told no who was not reviewed, the API server is asked at the rate of strangers, and callers that
// have been let in before are let in, with a renewed token, too.
func TestAFloodOfStrangers(t *testing.T) {
	server := newAPIServer(t)
	// Rates at which nothing more comes while the test runs, so that the bursts are all there is.
	const never = rate.Limit(1e-9)
	world := server.world(t, limits{
		address: rates{never, 2}, all: rates{never, 4}, patience: time.Second, reviews: 100, knownFor: time.Hour,
	})
	const known, renewed = "Bearer good-orders", "Bearer good-orders-renewed"
	world.expect(http.StatusOK, home, known)

	garbage := 0
	flood := func(from string, n int) map[int]int {
		statuses := map[int]int{}
		for range n {
			garbage++
			statuses[world.ask(from, fmt.Sprintf("Bearer garbage-%d", garbage))]++
		}
		return statuses
	}
	addresses := world.addresses(8)
	statuses := flood(addresses[0], 1000)
	if statuses[http.StatusUnauthorized] != 2 || statuses[http.StatusServiceUnavailable] != 998 {
		t.Errorf("one address: %v", statuses)
	}
	world.expect(http.StatusOK, addresses[1], "Bearer good-new") // one address takes nothing of what others share
	for _, from := range addresses[2:] {
		if statuses := flood(from, 100); statuses[http.StatusServiceUnavailable] != 100 {
			t.Errorf("%v", statuses)
		}
	}
	if got := server.count(tokenReviews); got != 4 {
		t.Errorf("%d reviews, want 4", got)
	}
	world.expect(http.StatusServiceUnavailable, addresses[7], "Bearer good-newer")

	world.expect(http.StatusOK, home, known) // it is believed
	for range 5 {
		world.pass(allowedFor + 1)
		world.expect(http.StatusOK, home, known)
	}
	world.expect(http.StatusOK, home, renewed)
	world.expect(http.StatusOK, addresses[1], renewed) // it is the token that is known, wherever it comes from
	var putOff dto.Metric
	if err := world.guard.putOff.Write(&putOff); err != nil || putOff.GetCounter().GetValue() != 998+600+1 {
		t.Errorf("%v were counted as put off, %v", &putOff, err)
	}
	world.pass(time.Hour + 1)
	world.expect(http.StatusServiceUnavailable, home, known) // it has not asked for longer than is remembered
}

// addresses are some that share no bucket, nor one with home.
func (w *world) addresses(n int) []string {
	taken := map[uint64]bool{w.guard.gate.bucket(netip.MustParseAddrPort(home).Addr()): true}
	var found []string
	for i := 1; len(found) < n; i++ {
		address := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		if bucket := w.guard.gate.bucket(address); !taken[bucket] {
			taken[bucket] = true
			found = append(found, netip.AddrPortFrom(address, 1).String())
		}
	}
	return found
}

// An API server that is slow for strangers is asked about few of them at a time, and still about known callers.
func TestReviewsAtATime(t *testing.T) {
	server := newAPIServer(t)
	limits := plenty
	limits.reviews = 2
	world := server.world(t, limits)
	const known, renewed = "Bearer good-orders", "Bearer good-orders-renewed"
	world.expect(http.StatusOK, home, known)
	world.pass(allowedFor + 1)

	arrived, release := make(chan struct{}), make(chan struct{})
	server.set(func(_ http.ResponseWriter, _, token string) bool {
		if strings.HasPrefix(token, "garbage") {
			arrived <- struct{}{}
			<-release
		}
		return false
	})
	var asking sync.WaitGroup
	for i := range limits.reviews {
		asking.Go(func() { world.expect(http.StatusUnauthorized, "192.0.2.1:1", fmt.Sprintf("Bearer garbage-%d", i)) })
	}
	answered := make(chan struct{})
	go func() {
		asking.Wait()
		close(answered)
	}()
	for range limits.reviews {
		select {
		case <-arrived:
		case <-answered:
			t.Fatal("answered without a review")
		}
	}
	world.guard.gate.limits.patience = time.Millisecond
	world.expect(http.StatusServiceUnavailable, "192.0.2.1:1", "Bearer garbage-more")
	world.guard.gate.limits.patience = plenty.patience
	world.expect(http.StatusOK, home, known)
	world.expect(http.StatusOK, home, renewed)
	close(release)
	<-answered
}

func TestOneReviewForManyRequests(t *testing.T) {
	server := newAPIServer(t)
	world := server.world(t, plenty)
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() { world.expect(http.StatusOK, home, "Bearer good-orders") })
	}
	asking.Wait()
	if tokens, access := server.count(tokenReviews), server.count(accessReview); tokens != 1 || access != 1 {
		t.Errorf("%d and %d reviews", tokens, access)
	}
}
