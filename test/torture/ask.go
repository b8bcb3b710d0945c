package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

const (
	// askInterval is between two requests over one protocol to one verifier.
	askInterval = 25 * time.Millisecond

	// A running verifier answers much sooner.
	askTimeout = 10 * time.Second
)

// asker asks one verifier.
type asker struct {
	run      *run
	verifier string
	http     *http.Client
	base     string
	envoy    authv3.AuthorizationClient
}

func (r *run) newAsker(verifier string) (*asker, error) {
	at := r.addresses[verifier]
	connection, err := grpc.NewClient("passthrough:///"+at.GRPC,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return nil, err
	}
	return &asker{
		run: r, verifier: verifier, http: &http.Client{Timeout: askTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		base: "http://" + at.HTTP, envoy: authv3.NewAuthorizationClient(connection),
	}, nil
}

// question is a request before it is sent.
type question struct {
	model.Answer
	token string
}

// protocols are how each is asked.
var protocols = map[string]func(*asker, context.Context, *question){
	model.ForwardAuth: (*asker).forwardAuth, model.ExtAuthz: (*asker).extAuthz,
	model.TokenReview: (*asker).tokenReview, model.Introspection: (*asker).introspect,
}

// ask sends a request and records the answer.
func (a *asker) ask(ctx context.Context, q question) model.Answer {
	call, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	q.Verifier, q.Result = a.verifier, model.Unreachable
	if q.Protocol == model.TokenReview {
		q.Address = netip.Addr{}
	}
	if q.Protocol == model.TokenReview || q.Protocol == model.Introspection {
		q.Role, q.Namespace = "", ""
	}
	q.Start = now()
	protocols[q.Protocol](a, call, &q)
	q.End = now()
	if ctx.Err() == nil { // otherwise the request was canceled
		if q.Result == model.Allowed {
			q.Bytes = "" // they differ from key to key
		}
		a.run.note(q.Answer)
	}
	return q.Answer
}

// keepAsking sends random requests until the context ends.
func (a *asker) keepAsking(ctx context.Context, protocol string, random *rand.Rand) {
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		q := a.run.draw(random, protocol)
		if answer := a.ask(ctx, q); answer.Result == model.Unreachable {
			pause(ctx, 10*askInterval)
		}
	}
}

// draw draws a request.
func (r *run) draw(random *rand.Rand, protocol string) question {
	chance := func(percent int) bool { return random.IntN(100) < percent }
	q := question{Answer: model.Answer{Protocol: protocol, Credential: model.Token, Address: netip.MustParseAddr(plan.Inside)}}
	switch {
	case chance(20):
		q.Address = netip.MustParseAddr(plan.Outside)
	case chance(10):
		q.Address = netip.Addr{}
	}
	if chance(90) {
		q.Role = plan.Roles[random.IntN(len(plan.Roles))]
	}
	if chance(20) {
		q.Namespace = plan.Namespaces[random.IntN(len(plan.Namespaces))]
	}
	switch {
	case chance(3) && (protocol == model.ForwardAuth || protocol == model.ExtAuthz):
		q.Credential = model.NoToken
	case chance(4):
		q.Credential, q.token = model.Malformed, "ak_malformed"
	case chance(4):
		foreign := token.Mint("ak")
		q.Digest, q.token = foreign.Digest().String(), foreign.Reveal()
	default:
		q.Digest, q.token = r.drawToken(random)
		if q.token == "" {
			q.Credential, q.token = model.Malformed, "ak_malformed"
		}
	}
	// Envoy always knows an address.
	if protocol == model.ExtAuthz && !q.Address.IsValid() {
		q.Address = netip.MustParseAddr(plan.Outside)
	}
	return q
}

func (a *asker) do(ctx context.Context, method, path, contentType string, body []byte, header http.Header) (int, http.Header, []byte, bool) {
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, false
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, nil, false
	}
	defer response.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer, err == nil
}

func (a *asker) forwardAuth(ctx context.Context, q *question) {
	header := http.Header{}
	if q.Credential != model.NoToken {
		header.Set("Authorization", "Bearer "+q.token)
	}
	if q.Address.IsValid() {
		header.Set("X-Forwarded-For", q.Address.String())
	}
	route := url.Values{}
	if q.Role != "" {
		route.Set("role", q.Role)
	}
	if q.Namespace != "" {
		route.Set("namespace", q.Namespace)
	}
	status, answer, body, ok := a.do(ctx, http.MethodGet, "/auth?"+route.Encode(), "", nil, header)
	if ok {
		q.Bytes = fingerprintHTTP(status, answer, body)
		q.Result, q.UID = resultOf(status, answer.Get("WWW-Authenticate")), answer.Get("X-Apikey-Uid")
	}
}

// fingerprintHTTP identifies everything that a client receives, except for the date.
func fingerprintHTTP(status int, header http.Header, body []byte) string {
	header = header.Clone()
	header.Del("Date")
	var text bytes.Buffer
	_, _ = fmt.Fprintln(&text, status)
	_ = header.Write(&text) // in the order of the names
	text.Write(body)
	return fingerprint(text.Bytes())
}

func fingerprint(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// resultOf returns the result for an HTTP status and a challenge.
func resultOf(status int, challenge string) model.Result {
	switch status {
	case http.StatusOK:
		return model.Allowed
	case http.StatusUnauthorized:
		if strings.Contains(challenge, "invalid_token") {
			return model.InvalidToken
		}
		return model.NoCredential
	case http.StatusForbidden:
		if strings.Contains(challenge, "insufficient_scope") {
			return model.RoleMissing
		}
		return model.Forbidden
	case http.StatusServiceUnavailable:
		return model.NotReady
	}
	return model.Result(http.StatusText(status))
}

func (a *asker) extAuthz(ctx context.Context, q *question) {
	headers := map[string]string{":method": "GET", ":path": "/orders", ":authority": "shop.example"}
	if q.Credential != model.NoToken {
		headers["x-api-key"] = q.token
	}
	extensions := map[string]string{}
	if q.Role != "" {
		extensions["roles"] = q.Role
	}
	if q.Namespace != "" {
		extensions["namespace"] = q.Namespace
	}
	socket := &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: q.Address.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711},
	}}
	response, err := a.envoy.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: socket}},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/orders", Headers: headers}},
		ContextExtensions: extensions,
	}})
	if err != nil {
		return
	}
	told := response.GetDeniedResponse().GetHeaders()
	status := int(response.GetDeniedResponse().GetStatus().GetCode())
	if yes := response.GetOkResponse(); yes != nil {
		told, status = yes.GetHeaders(), http.StatusOK
	}
	values := http.Header{}
	for _, header := range told {
		values.Set(header.GetHeader().GetKey(), header.GetHeader().GetValue()+string(header.GetHeader().GetRawValue()))
	}
	q.Result, q.UID = resultOf(status, values.Get("WWW-Authenticate")), values.Get("X-Apikey-Uid")
	if text, err := (proto.MarshalOptions{Deterministic: true}).Marshal(response); err == nil {
		q.Bytes = fingerprint(text)
	}
}

func (a *asker) tokenReview(ctx context.Context, q *question) {
	review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: q.token}}
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	body, err := json.Marshal(review)
	if err != nil {
		return
	}
	status, told, answer, ok := a.do(ctx, http.MethodPost, "/tokenreview", "application/json", body, nil)
	if !ok {
		return
	}
	q.Bytes = fingerprintHTTP(status, told, answer)
	review = authenticationv1.TokenReview{}
	switch err := json.Unmarshal(answer, &review); {
	case status != http.StatusOK || err != nil:
		q.Result = model.Result(http.StatusText(status))
	case review.Status.Authenticated:
		q.Result, q.UID, q.Roles = model.Allowed, review.Status.User.UID, []string{}
		for _, group := range review.Status.User.Groups {
			if role, ok := strings.CutPrefix(group, "apikey:"); ok {
				q.Roles = append(q.Roles, role)
			}
		}
	case review.Status.Error != "":
		q.Result = model.NotReady
	default:
		q.Result = model.Refused
	}
}

func (a *asker) introspect(ctx context.Context, q *question) {
	form := url.Values{"token": {q.token}}
	if q.Address.IsValid() {
		form.Set("client_address", q.Address.String())
	}
	caller := http.Header{"Authorization": {"Bearer " + a.run.caller}}
	status, told, body, ok := a.do(ctx, http.MethodPost, "/introspect", "application/x-www-form-urlencoded", []byte(form.Encode()), caller)
	if !ok {
		return
	}
	q.Bytes = fingerprintHTTP(status, told, body)
	var answer struct {
		Active bool   `json:"active"`
		Scope  string `json:"scope"`
		ID     string `json:"jti"`
	}
	switch err := json.Unmarshal(body, &answer); {
	case status == http.StatusServiceUnavailable:
		q.Result = model.NotReady
	case status != http.StatusOK || err != nil:
		q.Result = model.Result(http.StatusText(status))
	case answer.Active:
		q.Result, q.UID, q.Roles = model.Allowed, answer.ID, strings.Fields(answer.Scope)
	default:
		q.Result = model.Refused
	}
}
