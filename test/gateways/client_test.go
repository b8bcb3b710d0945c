package gateways

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// httpClient returns a client that calls from a loopback address and follows no redirects.
func httpClient(from string) *http.Client {
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	DeferCleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get calls a URL with headers, given as names and values in turn, and returns the status and the headers of the answer.
func get(c *http.Client, url string, headers ...string) (int, http.Header) {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	Expect(err).NotTo(HaveOccurred())
	for i := 0; i < len(headers); i += 2 {
		request.Header[headers[i]] = append(request.Header[headers[i]], headers[i+1])
	}
	response, err := c.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, response.Header
}

func statusOf(c *http.Client, url string, headers ...string) int {
	GinkgoHelper()
	status, _ := get(c, url, headers...)
	return status
}

// raw sends bytes and returns the status line of the answer. It returns "" if the connection is closed without an answer.
func raw(address, text string) string {
	GinkgoHelper()
	return sendRaw(address, text, func(*net.TCPConn) error { return nil })
}

// rawToTheEnd is like raw, but closes its side of the connection after sending.
func rawToTheEnd(address, text string) string {
	GinkgoHelper()
	return sendRaw(address, text, (*net.TCPConn).CloseWrite)
}

func sendRaw(address, text string, sent func(*net.TCPConn) error) string {
	GinkgoHelper()
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(address, "http://"))
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = connection.Close() }()
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stop := context.AfterFunc(limit, func() { _ = connection.Close() })
	defer stop()
	// The other side may close the connection meanwhile.
	_, _ = io.WriteString(connection, text)
	_ = sent(connection.(*net.TCPConn))
	// Some gateways keep the connection open after their answer.
	line, _ := bufio.NewReader(connection).ReadString('\n')
	return strings.TrimRight(line, "\r\n")
}

// api is the protected API. It remembers the headers of the last request that reached it.
type api struct {
	*httptest.Server

	mu    sync.Mutex
	calls int
	last  http.Header
}

func startAPI() *api {
	a := &api{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.calls++
		a.last = r.Header.Clone()
	}))
	DeferCleanup(a.Close)
	return a
}

func (a *api) address() string { return strings.TrimPrefix(a.URL, "http://") }

func (a *api) seen() (int, http.Header) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls, a.last
}
