package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/torture/model"
)

// plantedDefect is a defect that is built in on purpose, to see that it is found. The product has none of them: they are in this program's
// client, clock, or proxy to the API server.
type plantedDefect string

const (
	noDefect plantedDefect = ""
	// deafVerifier does not receive deletions.
	deafVerifier plantedDefect = "deaf-verifier"
	// lateVerifier takes each deadline for a second later than it is.
	lateVerifier plantedDefect = "late-verifier"
	// generousVerifier takes each suspended key for one that is not.
	generousVerifier plantedDefect = "generous-verifier"
	// hoardingOperator does not delete Secrets.
	hoardingOperator plantedDefect = "hoarding-operator"
	// talkativeOperator logs tokens, in base64.
	talkativeOperator plantedDefect = "talkative-operator"
	// trustingOperator has a clock that is a day ahead, and trusts it, whatever the API server's says.
	trustingOperator plantedDefect = "trusting-operator"
)

// foundBy has the rule that each defect breaks.
var foundBy = map[plantedDefect]string{
	deafVerifier:      model.RuleAnswer,
	lateVerifier:      model.RuleAnswer,
	generousVerifier:  model.RuleAnswer,
	hoardingOperator:  model.RuleLeft,
	talkativeOperator: model.RuleFinding,
	trustingOperator:  model.RuleExpiry,
}

// validate returns an error if there is no such defect.
func (d plantedDefect) validate() error {
	if _, ok := foundBy[d]; d != noDefect && !ok {
		names := make([]string, 0, len(foundBy))
		for name := range foundBy {
			names = append(names, string(name))
		}
		slices.Sort(names)
		return fmt.Errorf("there is no defect %q to plant; there are %s", d, strings.Join(names, ", "))
	}
	return nil
}

// isVerifiers reports whether the defect is in the proxy of verifiers.
func (d plantedDefect) isVerifiers() bool {
	return d == deafVerifier || d == lateVerifier || d == generousVerifier
}

// road starts a proxy between a verifier and the API server. It sends requests as the user of config and alters the responses.
func (d plantedDefect) road(config *rest.Config) (address string, err error) {
	transport, err := rest.TransportFor(config)
	if err != nil {
		return "", err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return "", err
	}
	if address, err = controlplane.FreeAddress(); err != nil {
		return "", err
	}
	server := &http.Server{
		Addr: address, ReadHeaderTimeout: time.Minute,
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Header.Set("Accept-Encoding", "identity") // compressed bodies have no lines
			},
			Transport:     transport,
			FlushInterval: -1,
			ModifyResponse: func(r *http.Response) error {
				if strings.Contains(r.Request.URL.Path, "/apikeys") {
					r.Body = d.alter(r.Body)
					r.ContentLength = -1
					r.Header.Del("Content-Length")
				}
				return nil
			},
		},
	}
	go func() { _ = server.ListenAndServe() }() // until the program ends
	return "http://" + address, nil
}

// alter returns a body with the defect. It works line by line: a watch has one line for each event.
func (d plantedDefect) alter(body io.ReadCloser) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() {
		lines := bufio.NewReader(body)
		for {
			line, err := lines.ReadBytes('\n')
			if len(line) > 0 {
				if _, failed := writer.Write(d.alterLine(line)); failed != nil {
					_ = body.Close()
					return
				}
			}
			if err != nil {
				writer.CloseWithError(err)
				return
			}
		}
	}()
	return struct {
		io.Reader
		io.Closer
	}{reader, closers{reader, body}}
}

var expiresAt = regexp.MustCompile(`"expiresAt":"([^"]+)"`)

func (d plantedDefect) alterLine(line []byte) []byte {
	switch {
	case d == deafVerifier && bytes.HasPrefix(line, []byte(`{"type":"DELETED"`)):
		return nil
	case d == generousVerifier:
		return bytes.ReplaceAll(line, []byte(`"suspend":true`), []byte(`"suspend":false`))
	case d == lateVerifier:
		return expiresAt.ReplaceAllFunc(line, func(found []byte) []byte {
			at, err := time.Parse(time.RFC3339, string(expiresAt.FindSubmatch(found)[1]))
			if err != nil {
				return found
			}
			return fmt.Appendf(nil, `"expiresAt":%q`, at.Add(time.Second).Format(time.RFC3339))
		})
	}
	return line
}

// closers are closed one after the other.
type closers []io.Closer

// Close implements [io.Closer].
func (c closers) Close() error {
	for _, closer := range c {
		_ = closer.Close() // what is read or written afterwards fails
	}
	return nil
}
