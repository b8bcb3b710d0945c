package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// loadConnections is the number of connections. Each sends one request after another.
const loadConnections = 8

// openConnections is the number of connections of a load with a fixed rate. It is the most requests that can be open at once.
const openConnections = 64

// asker sends one request with a token and reports whether it was allowed.
type asker func(ctx context.Context, token string) (bool, error)

// connector opens a connection. The function that it returns besides closes it.
type connector func() (asker, func(), error)

// load sends requests on several connections until the context ends, and returns the number of answers. A refusal is an error.
func load(ctx context.Context, tokens []seeded, connect connector) (int64, error) {
	var answers atomic.Int64
	failed := make(chan error, loadConnections)
	var group sync.WaitGroup
	for i := range loadConnections {
		ask, closeConnection, err := connect()
		if err != nil {
			return 0, err
		}
		group.Go(func() {
			defer closeConnection()
			for n := i; ctx.Err() == nil; n += loadConnections {
				// Let the last request finish after the context has ended.
				ok, err := ask(context.WithoutCancel(ctx), tokens[n%len(tokens)].token)
				if err == nil && !ok {
					err = errors.New("the token of an issued key was refused")
				}
				if err != nil {
					failed <- err
					return
				}
				answers.Add(1)
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return answers.Load(), nil
	}
}

// envoyHeaders are the headers of a request of ordinary size, as Envoy passes them.
var envoyHeaders = map[string]string{
	":method": "GET", ":path": "/v1/customers/4711?expand=orders", ":authority": "api.shop.example", ":scheme": "https",
	"user-agent": "shop-sync/2.4 (linux; go1.26)", "accept": "application/json", "accept-encoding": "gzip, deflate, br",
	"x-request-id": "5a6d9c0e-7b1b-4c53-9b0e-9d1d4f0c2e31", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7",
	"content-type": "application/json", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

func connectGRPC(address string) connector {
	return func() (asker, func(), error) {
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, nil, err
		}
		envoy := authv3.NewAuthorizationClient(connection)
		return func(ctx context.Context, token string) (bool, error) {
			headers := make(map[string]string, len(envoyHeaders)+1)
			for name, value := range envoyHeaders {
				headers[name] = value
			}
			headers["authorization"] = "Bearer " + token
			answer, err := envoy.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
				Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
					SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711}},
				}}},
				Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Headers: headers}},
				ContextExtensions: map[string]string{"roles": seedRole},
			}})
			return answer.GetOkResponse() != nil, err
		}, func() { _ = connection.Close() }, nil
	}
}

// connectHTTP connects to forward-auth, with the headers of an ordinary request.
func connectHTTP(base string) connector {
	headers := http.Header{}
	for name, value := range envoyHeaders {
		if !strings.HasPrefix(name, ":") {
			headers.Set(name, value)
		}
	}
	return connectURL(base+"/auth?role="+seedRole, headers)
}

// connectURL connects to a URL that answers 200 to a token that is accepted.
func connectURL(url string, headers http.Header) connector {
	return func() (asker, func(), error) {
		transport := &http.Transport{MaxIdleConnsPerHost: 1}
		c := &http.Client{Transport: transport}
		return func(ctx context.Context, token string) (bool, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return false, err
			}
			maps.Copy(request.Header, headers)
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := c.Do(request)
			if err != nil {
				return false, err
			}
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			return response.StatusCode == http.StatusOK, err
		}, transport.CloseIdleConnections, nil
	}
}

// openLoad sends requests at a fixed rate, whether or not earlier ones are answered, and returns how long each took. The time counts from
// when a request was due, so that a server that stands still can't hide the requests that it delayed (coordinated omission).
func openLoad(ctx context.Context, tokens []seeded, connect connector, rate int, during time.Duration) ([]time.Duration, error) {
	total := int(during.Seconds() * float64(rate))
	took := make([]time.Duration, total)
	var next atomic.Int64
	var group errgroup.Group
	begun := time.Now().Add(100 * time.Millisecond)
	for range openConnections {
		ask, closeConnection, err := connect()
		if err != nil {
			return nil, err
		}
		group.Go(func() error {
			defer closeConnection()
			for {
				i := int(next.Add(1)) - 1
				if i >= total || ctx.Err() != nil {
					return ctx.Err()
				}
				due := begun.Add(time.Duration(i) * time.Second / time.Duration(rate))
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Until(due)):
				}
				ok, err := ask(ctx, tokens[i%len(tokens)].token)
				if err == nil && !ok {
					err = errors.New("the token of an issued key was refused")
				}
				if err != nil {
					return err
				}
				took[i] = time.Since(due)
			}
		})
	}
	return took, group.Wait()
}

// cost returns a server's processor time per request. It first warms up for a fifth of the duration.
func cost(ctx context.Context, pid int, tokens []seeded, connect connector, during time.Duration) (time.Duration, error) {
	warm, cancel := context.WithTimeout(ctx, during/5)
	_, err := load(warm, tokens, connect)
	cancel()
	if err != nil {
		return 0, err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	limit, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	n, err := load(limit, tokens, connect)
	if err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%d answers: %w", n, err)
	}
	return (after - before) / time.Duration(n), nil
}
