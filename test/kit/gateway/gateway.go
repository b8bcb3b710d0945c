// Package gateway runs real gateways on loopback with the configuration files in docs/gateways. The demo, the tests and the benchmarks
// use it; the product never does.
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// The addresses in the files of docs/gateways.
const (
	documentedVerifier = "apikey-verifier.apikey-operator-system:8080"
	documentedAPI      = "orders.shop:8000"
)

const loopback = "127.0.0.1"

// Backends are the addresses of what runs behind a gateway, as host:port.
type Backends struct {
	// Verifiers must hold at least one address. The gateway uses all of them if it can, otherwise the first.
	Verifiers []string
	API       string
	// Edit changes the text of the documented file, as a user who copies it might, before the addresses are replaced. It may be nil.
	Edit func(site string) string
}

// Gateway is a running gateway.
type Gateway struct {
	*controlplane.Process
	// URL is the base URL for clients.
	URL string
}

// Find returns the path of a gateway's program, in PATH, /usr/sbin or the repository's bin/. It returns false if there is none.
func Find(root, name string) (string, bool) {
	for _, path := range []string{name, "/usr/sbin/" + name, filepath.Join(root, "bin", name)} {
		if found, err := exec.LookPath(path); err == nil {
			return found, true
		}
	}
	return "", false
}

// Nginx runs nginx with docs/gateways/nginx.conf until it is stopped. dir must be an empty folder that exists as long as nginx runs.
func Nginx(ctx context.Context, root, dir string, behind Backends, out io.Writer) (*Gateway, error) {
	address, err := controlplane.FreeAddress()
	if err != nil {
		return nil, err
	}
	servers := make([]string, len(behind.Verifiers))
	for i, verifier := range behind.Verifiers {
		servers[i] = "server " + verifier + ";"
	}
	site, err := documented(root, "nginx.conf", behind.Edit, map[string]string{
		"server " + documentedVerifier + ";": strings.Join(servers, " "),
		documentedAPI:                        behind.API,
		"listen 8080;":                       "listen " + address + ";",
	})
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	// The settings around conf.d/ in Debian's nginx.conf, with all files in one folder.
	main := fmt.Sprintf(`daemon off; %s worker_processes 1; pid %[2]s/nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[2]s; proxy_temp_path %[2]s; fastcgi_temp_path %[2]s; uwsgi_temp_path %[2]s; scgi_temp_path %[2]s;
  include %[2]s/site.conf;
}
`, user, dir)
	for name, text := range map[string]string{"site.conf": site, "nginx.conf": main} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	path, ok := Find(root, "nginx")
	if !ok {
		return nil, errors.New("nginx is not installed: apt-get install nginx-light")
	}
	command := exec.Command(path, "-p", dir, "-c", filepath.Join(dir, "nginx.conf")) //nolint:noctx // stopped by Stop
	return start(ctx, command, address, out)
}

// Caddy runs Caddy with docs/gateways/Caddyfile until it is stopped. dir must be an empty folder that exists as long as Caddy runs.
func Caddy(ctx context.Context, root, dir string, behind Backends, out io.Writer) (*Gateway, error) {
	address, err := controlplane.FreeAddress()
	if err != nil {
		return nil, err
	}
	site, err := documented(root, "Caddyfile", behind.Edit, map[string]string{
		documentedVerifier: strings.Join(behind.Verifiers, " "),
		documentedAPI:      behind.API,
		"\n:8080 {":        "\n" + strings.TrimPrefix(address, loopback) + " {\n\tbind " + loopback,
	})
	if err != nil {
		return nil, err
	}
	global := "{\n\tadmin off\n\tauto_https off\n}\n"
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(global+site), 0o600); err != nil {
		return nil, err
	}
	path, ok := Find(root, "caddy")
	if !ok {
		return nil, errors.New("caddy is not installed: apt-get install caddy")
	}
	command := exec.Command(path, "run", "--config", file) //nolint:noctx // stopped by Stop
	command.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	return start(ctx, command, address, out)
}

// Traefik runs Traefik with docs/gateways/traefik-static.yaml and the objects of docs/gateways/traefik.yaml until it is stopped. dir must be
// an empty folder that exists as long as Traefik runs. No cluster is needed: Traefik's file provider takes the same middlewares and rules
// as the objects.
func Traefik(ctx context.Context, root, dir string, behind Backends, out io.Writer) (*Gateway, error) {
	address, err := controlplane.FreeAddress()
	if err != nil {
		return nil, err
	}
	site, err := documented(root, "traefik.yaml", behind.Edit, map[string]string{documentedVerifier: behind.Verifiers[0]})
	if err != nil {
		return nil, err
	}
	dynamic, err := traefikConfiguration(site, "http://"+behind.API)
	if err != nil {
		return nil, fmt.Errorf("docs/gateways/traefik.yaml: %w", err)
	}
	dynamicFile, staticFile := filepath.Join(dir, "dynamic.yaml"), filepath.Join(dir, "static.yaml")
	static, err := documented(root, "traefik-static.yaml", nil, map[string]string{"address: :8080": "address: " + address})
	if err != nil {
		return nil, err
	}
	static += fmt.Sprintf(`
providers: {file: {filename: %q}}
ping: {manualRouting: true}
global: {checkNewVersion: false, sendAnonymousUsage: false}
`, dynamicFile)
	for name, text := range map[string]string{dynamicFile: string(dynamic), staticFile: static} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	path, ok := Find(root, "traefik")
	if !ok {
		return nil, errors.New("traefik is not built: make traefik")
	}
	command := exec.Command(path, "--configFile="+staticFile) //nolint:noctx // stopped by Stop
	g, err := start(ctx, command, address, out)
	if err != nil {
		return nil, err
	}
	// Traefik listens before it has read the dynamic file.
	return g, g.WaitHTTP(ctx, g.URL+"/ping")
}

// traefikConfiguration converts the objects of a manifest to a file for Traefik's file provider. api is the URL of the API.
func traefikConfiguration(manifest, api string) ([]byte, error) {
	type reference struct {
		Name string `json:"name"`
	}
	routers := map[string]any{"ping": map[string]any{"rule": "Path(`/ping`)", "entryPoints": []string{"web"}, "service": "ping@internal"}}
	middlewares := map[string]any{}
	for document := range strings.SplitSeq(manifest, "\n---\n") {
		var object struct {
			Kind     string    `json:"kind"`
			Metadata reference `json:"metadata"`
			Spec     json.RawMessage
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			return nil, err
		}
		switch object.Kind {
		case "Middleware":
			middlewares[object.Metadata.Name] = object.Spec
		case "IngressRoute":
			var route struct {
				EntryPoints []string `json:"entryPoints"`
				Routes      []struct {
					Match       string      `json:"match"`
					Middlewares []reference `json:"middlewares"`
				} `json:"routes"`
			}
			if err := json.Unmarshal(object.Spec, &route); err != nil {
				return nil, err
			}
			for i, r := range route.Routes {
				names := make([]string, len(r.Middlewares))
				for j, middleware := range r.Middlewares {
					names[j] = middleware.Name
				}
				routers[fmt.Sprintf("%s-%d", object.Metadata.Name, i)] = map[string]any{
					"rule": r.Match, "entryPoints": route.EntryPoints, "middlewares": names, "service": "api",
				}
			}
		default:
			return nil, fmt.Errorf("unexpected kind %q", object.Kind)
		}
	}
	return yaml.Marshal(map[string]any{"http": map[string]any{
		"routers": routers, "middlewares": middlewares,
		"services": map[string]any{"api": map[string]any{"loadBalancer": map[string]any{"servers": []any{map[string]string{"url": api}}}}},
	}})
}

func start(ctx context.Context, command *exec.Cmd, address string, out io.Writer) (*Gateway, error) {
	process, err := controlplane.StartProcess(command, out)
	if err != nil {
		return nil, err
	}
	g := &Gateway{Process: process, URL: "http://" + address}
	return g, process.WaitListening(ctx, "tcp", address)
}

// documented returns a file of docs/gateways after edit, with each key of replacements replaced by its value. It fails if the file lacks
// one of the keys.
func documented(root, name string, edit func(string) string, replacements map[string]string) (string, error) {
	content, err := os.ReadFile(filepath.Join(root, "docs", "gateways", name))
	if err != nil {
		return "", err
	}
	text := string(content)
	if edit != nil {
		text = edit(text)
	}
	for old, replacement := range replacements {
		if !strings.Contains(text, old) {
			return "", fmt.Errorf("docs/gateways/%s does not contain %q", name, old)
		}
		text = strings.ReplaceAll(text, old, replacement)
	}
	return text, nil
}
