package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/gateway"
)

// The clients' addresses: 127.0.0.2 is in the networks of the key orders, 127.0.0.3 is not. All of 127.0.0.0/8 is loopback.
const (
	inside  = "127.0.0.2"
	outside = "127.0.0.3"
)

// gate is an API behind a gateway or behind the middleware of package guard.
type gate struct {
	url, name string
	stop      func() error
}

// openGate starts a small API behind nginx with docs/gateways/nginx.conf. If nginx is not installed, it starts examples/orders, which uses
// the middleware of package guard.
func (l *local) openGate(ctx context.Context) (*gate, error) {
	if _, ok := gateway.Find(l.plane.Root, "nginx"); !ok {
		return l.openExample(ctx)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	api := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "orders for %s/%s with the roles %s", r.Header.Get("X-Apikey-Namespace"), r.Header.Get("X-Apikey-Name"), r.Header.Get("X-Apikey-Roles")) //nolint:gosec // text for a terminal
	})}
	go func() { _ = api.Serve(listener) }()
	dir, err := os.MkdirTemp("", "apikey-demo-")
	if err != nil {
		return nil, err
	}
	// nginx's workers run as another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(l.logs, "nginx.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	g, err := gateway.Nginx(ctx, l.plane.Root, dir, gateway.Backends{
		Verifiers: []string{strings.TrimPrefix(l.verifier.HTTP, "http://")}, API: listener.Addr().String(),
	}, log)
	if err != nil {
		return nil, err
	}
	return &gate{url: g.URL + "/orders", name: "nginx, with docs/gateways/nginx.conf", stop: func() error {
		return errors.Join(g.Stop(), api.Close(), os.RemoveAll(dir))
	}}, nil
}

func (l *local) openExample(ctx context.Context) (*gate, error) {
	address, err := controlplane.FreeVerifierAddresses()
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(l.plane.Root, "bin", "local", "orders.kubeconfig")
	if err := l.plane.KubeconfigAs(ctx, controlplane.Namespace, controlplane.VerifierAccount, kubeconfig); err != nil {
		return nil, err
	}
	command := exec.Command(filepath.Join(l.plane.Root, "bin", "orders"), "-kubeconfig", kubeconfig, "-listen", address.HTTP) //nolint:noctx // the caller stops it
	process, err := l.start("orders", func(log io.Writer) (*controlplane.Process, error) { return controlplane.StartProcess(command, log) })
	if err != nil {
		return nil, err
	}
	url := "http://" + address.HTTP
	return &gate{url: url + "/orders", name: "examples/orders, because nginx is not installed", stop: process.Stop}, process.WaitHTTP(ctx, url+"/readyz")
}

// tokenOf returns the token in a Secret.
func (d *player) tokenOf(secret string) string {
	if d.err != nil {
		return ""
	}
	var token string
	token, d.err = d.local.tokenIn(d.ctx, secret)
	return token
}

// tokenIn returns the token in a Secret.
func (l *local) tokenIn(ctx context.Context, secret string) (string, error) {
	clients, err := kubernetes.NewForConfig(l.plane.Admin)
	if err != nil {
		return "", err
	}
	found, err := clients.CoreV1().Secrets("default").Get(ctx, secret, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return string(found.Data["token"]), nil
}

// call calls the API and must get the status want.
func (d *player) call(g *gate, from, token, tokenName string, want int) {
	if d.err != nil {
		return
	}
	header := ""
	if token != "" {
		header = fmt.Sprintf(` -H "Authorization: Bearer $%s"`, tokenName)
	}
	fmt.Printf("$ curl --interface %s%s %s\n", from, header, g.url)
	status, body, err := ask(d.ctx, client(from), g.url, token)
	if err != nil {
		d.err = err
		return
	}
	fmt.Printf("%d %s %s\n", status, http.StatusText(status), body)
	if status != want {
		d.err = fmt.Errorf("%s answered %d, want %d", g.url, status, want)
	}
}

// until calls the API until it answers with the status want, and returns how long that took. After a minute, it fails.
func (d *player) until(g *gate, token string, want int) time.Duration {
	start := time.Now()
	c := client(inside)
	for d.err == nil {
		status, _, err := ask(d.ctx, c, g.url, token)
		if err == nil && status == want {
			break
		}
		if time.Since(start) > time.Minute {
			d.err = fmt.Errorf("%s still answers %d after a minute, want %d", g.url, status, want)
		}
	}
	return time.Since(start)
}

// revoke deletes the key orders and prints for how long its token was still accepted after the API server had answered.
func (d *player) revoke(g *gate, token string) {
	if d.err != nil {
		return
	}
	keys, err := dynamic.NewForConfig(d.local.plane.Admin)
	if err != nil {
		d.err = err
		return
	}
	fmt.Println("$ kubectl delete apikey orders")
	resource := v1alpha1.GroupVersion.WithResource("apikeys")
	if d.err = keys.Resource(resource).Namespace("default").Delete(d.ctx, "orders", metav1.DeleteOptions{}); d.err != nil {
		return
	}
	took := d.until(g, token, http.StatusUnauthorized)
	say("The token was refused %.1f ms after the API server had answered.", took.Seconds()*1000)
}

// client returns a client that calls from an IP address.
func client(from string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
}

func ask(ctx context.Context, c *http.Client, url, token string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		body = nil // a page for people
	}
	return response.StatusCode, string(body), err
}
