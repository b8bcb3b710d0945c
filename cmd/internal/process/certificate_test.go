package process_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"github.com/apikey-operator/apikey-operator/cmd/internal/process"
)

// A client that trusts the certificate can connect, also one whose clock is a little behind, and years later.
func TestSelfSigned(t *testing.T) {
	now := time.Now()
	certificate, err := process.SelfSigned(now)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	for _, at := range []time.Time{now.Add(-time.Minute), now, now.AddDate(9, 0, 0)} {
		client, server := net.Pipe()
		served := make(chan error, 1)
		go func() {
			connection := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
			_, err := connection.Write([]byte("hello"))
			served <- err
			_ = connection.Close()
		}()
		connection := tls.Client(client, &tls.Config{
			RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12, Time: func() time.Time { return at },
		})
		text := make([]byte, len("hello"))
		if _, err := io.ReadFull(connection, text); err != nil || string(text) != "hello" {
			t.Errorf("at %s: %q, %v", at, text, err)
		}
		if err := <-served; err != nil {
			t.Errorf("at %s: %v", at, err)
		}
		_ = client.Close()
	}
}
