package docs

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// auditEvent is what the test reads of a line of the API server's audit log.
type auditEvent struct {
	Level     string
	Verb      string
	ObjectRef struct{ Resource, Subresource, Name string }
}

// kube-apiserver with docs/audit-policy.yaml logs who did what with keys and Secrets, and no token.
func TestAuditPolicyLogsNoToken(t *testing.T) {
	t.Parallel()
	policy, err := filepath.Abs(filepath.Join("..", "..", "docs", "audit-policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "audit.log")
	plane := startPlane(t, map[string]string{"audit-policy-file": policy, "audit-log-path": log})
	operator, err := plane.StartOperator(t.Context(), logOf(t, "apikey-operator"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = operator.Stop() })
	c, err := client.New(plane.Admin, client.Options{Scheme: harness.Scheme()})
	if err != nil {
		t.Fatal(err)
	}

	key := build.ApiKey("default", "audited")
	if err := c.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	out, err := plane.RunKubectl(t.Context(), "", "wait", "--for=condition=Ready", "apikey/audited", "--timeout=2m")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}

	// The API server writes an event before it answers.
	logged := readAudit(t, log, secret.Data[key.SecretKey()])
	for _, want := range []struct{ verb, resource, subresource, level string }{
		{"create", "apikeys", "", "RequestResponse"},
		{"patch", "apikeys", "status", "RequestResponse"},
		{"delete", "apikeys", "", "RequestResponse"},
		{"create", "secrets", "", "Metadata"},
		{"get", "secrets", "", "Metadata"},
	} {
		var found bool
		for _, e := range logged {
			if e.Verb != want.verb || e.ObjectRef.Name != key.Name && e.ObjectRef.Name != key.SecretName() {
				continue
			}
			if e.ObjectRef.Resource == want.resource && e.ObjectRef.Subresource == want.subresource {
				found = true
				if e.Level != want.level {
					t.Errorf("%s of %s is logged at the level %s, want %s", want.verb, want.resource, e.Level, want.level)
				}
			}
		}
		if !found {
			t.Errorf("the audit log has no %s of %s %s", want.verb, want.resource, want.subresource)
		}
	}
}

// readAudit reads an audit log, which must not contain a token, neither as it is nor as in the data of a Secret.
func readAudit(t *testing.T, path string, token []byte) []auditEvent {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString(token)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var events []auditEvent
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if text := lines.Text(); strings.Contains(text, string(token)) || strings.Contains(text, encoded) {
			t.Error("the audit log has the token")
		}
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		events = append(events, event)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}
