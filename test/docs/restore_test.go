package docs

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// restorePatience is how long each wait may take on a busy machine.
const restorePatience = 2 * time.Minute

// faults are requests of kubectl apikey restore that fail in turn.
var faults = []struct {
	name string
	fault
	// early: no key is created, and the operators run again. harmless: the command tries again and succeeds. unguarded: the command could not
	// put the policy back.
	early, harmless, unguarded bool
}{
	{name: "reading the keys", fault: fault{method: "GET", path: "/apikeys?"}, early: true},
	{name: "checking that a key can be created", fault: fault{method: "POST", path: "/apikeys?dryRun=All"}, early: true},
	{name: "finding the operators", fault: fault{method: "GET", path: "/deployments?"}, early: true},
	{name: "stopping an operator", fault: fault{method: "PATCH", path: "/deployments/"}, early: true},
	{name: "stopping an operator, which stops", fault: fault{method: "PATCH", path: "/deployments/", done: true}, early: true},
	{name: "looking for pods", fault: fault{method: "GET", path: "/pods?"}, early: true},
	{name: "looking for leases", fault: fault{method: "GET", path: "/leases"}, early: true},
	{name: "finding the policy", fault: fault{method: "GET", path: "/validatingadmissionpolicybindings?"}, early: true},
	{name: "lifting the policy", fault: fault{method: "PATCH", path: "/validatingadmissionpolicybindings/"}},
	{name: "lifting the policy, which is lifted", fault: fault{method: "PATCH", path: "/validatingadmissionpolicybindings/", done: true}},
	{name: "creating a key", fault: fault{method: "POST", path: "/apikeys?field"}},
	{name: "creating a key, which is created", fault: fault{method: "POST", path: "/apikeys?field", done: true}},
	{name: "writing a status", fault: fault{method: "PUT", path: "/status?"}},
	{name: "writing a status, which is written", fault: fault{method: "PUT", path: "/status?", done: true}},
	{name: "writing a status, while the command is interrupted", fault: fault{method: "PUT", path: "/status?", signal: syscall.SIGTERM}},
	{name: "writing a status, while the command is killed", fault: fault{method: "PUT", path: "/status?", signal: syscall.SIGKILL}, unguarded: true},
	{name: "putting the policy back", fault: fault{method: "PATCH", path: "/validatingadmissionpolicybindings/", skip: 1}, harmless: true},
	{name: "starting an operator", fault: fault{method: "PATCH", path: "/deployments/", skip: 2}},
}

// TestRestoreStopsAtWhateverFails checks that, whichever request of a restore fails, no operator mints a token for a restored key, not even an
// operator with another name in another namespace. The policy is in force again, and another run makes every old token valid again.
func TestRestoreStopsAtWhateverFails(t *testing.T) {
	t.Parallel()
	r := startRestore(t)
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			r.lose()
			out, err := r.run(&c.fault)
			if (err == nil) != c.harmless {
				t.Errorf("got %v\n%s", err, out)
			}
			if !c.unguarded {
				r.expectGuarded()
			}
			if c.early {
				r.expectNoKeys()
				r.expectIssuing("early")
			}
			r.restore()
		})
	}

	t.Run("keys that were issued meanwhile are left alone and named", func(t *testing.T) {
		r.t = t
		r.lose()
		again := r.keys[0].DeepCopy()
		again.ObjectMeta = metav1.ObjectMeta{Namespace: again.Namespace, Name: again.Name}
		r.issue(again)
		newer := r.token(again)
		out, err := r.run(nil)
		if err == nil || !strings.Contains(out, again.Namespace+"/"+again.Name+": it was issued meanwhile") {
			t.Errorf("want a failure that names the key, not %v\n%s", err, out)
		}
		r.expectNoKeys(again.Name)
		r.expectAnswer(newer, http.StatusOK)
		r.expectGuarded()
		r.expectIssuing("meanwhile")

		if out, err := r.run(nil, "--keep-existing"); err != nil || !strings.Contains(out, "1 restored, 0 present before, 1 left alone; 1 of 1 verified") {
			t.Errorf("%v\n%s", err, out)
		}
		r.expectAnswer(newer, http.StatusOK)
		r.expectAnswer(r.tokens[r.keys[1].Name], http.StatusOK)

		r.kubectl("-n", again.Namespace, "delete", "apikey", again.Name)
		r.wait("its Secret is gone", func() bool { return !r.hasSecret(again) })
		r.expectAnswer(newer, http.StatusUnauthorized)
		r.forget(again) // the test had it issued again on purpose
		r.restore()
	})

	t.Run("a second run changes nothing", func(t *testing.T) {
		r.t = t
		if out, err := r.run(nil); err != nil || !strings.Contains(out, "0 restored, 2 present before, 0 left alone; 2 of 2 verified") {
			t.Errorf("%v\n%s", err, out)
		}
		r.expectIssuing("again")
	})

	t.Run("nothing is stopped without an answer", func(t *testing.T) {
		r.t = t
		r.lose()
		command := r.command("restore", r.backup)
		if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "add --yes") {
			t.Errorf("%v\n%s", err, out)
		}
		r.expectNoKeys()
		r.expectIssuing("asked")
		r.restore()
	})
}

// fault is a request that fails.
type fault struct {
	method, path string
	// skip is the number of such requests that succeed before.
	skip int
	// done: the API server gets the request, and only the answer is lost. signal: the command gets this signal at the same time.
	done   bool
	signal syscall.Signal
}

// breaker is a proxy to the API server that lets one request fail.
type breaker struct {
	url string

	mu      sync.Mutex
	fault   *fault
	process *os.Process
	hit     bool
}

// startBreaker starts a proxy that acts as an administrator.
func startBreaker(t *testing.T, admin *rest.Config) *breaker {
	t.Helper()
	transport, err := rest.TransportFor(admin)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(admin.Host)
	if err != nil {
		t.Fatal(err)
	}
	b := &breaker{}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = transport
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		f := b.take(request)
		switch {
		case f == nil:
			proxy.ServeHTTP(w, request)
			return
		case f.done:
			proxy.ServeHTTP(httptest.NewRecorder(), request)
		}
		http.Error(w, "broken", http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// take returns the fault if the request is the one that fails.
func (b *breaker) take(request *http.Request) *fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.fault
	if f == nil || request.Method != f.method || !strings.Contains(request.URL.Path+"?"+request.URL.RawQuery, f.path) {
		return nil
	}
	if f.skip > 0 {
		f.skip--
		return nil
	}
	b.fault, b.hit = nil, true
	if f.signal != 0 {
		_ = b.process.Signal(f.signal)
	}
	return f
}

// restoring is a cluster with two installations of the operator, the keys of a backup, and one key that is not in the backup.
type restoring struct {
	t          *testing.T
	ctx        context.Context
	plane      *controlplane.ControlPlane
	client     client.Client
	verifier   string
	folder     string // where the command runs
	breaker    *breaker
	backup     string
	keys       []*v1alpha1.ApiKey
	tokens     map[string]string
	bystander  *v1alpha1.ApiKey
	mu         sync.Mutex
	seen       map[string]map[string]bool // all digests that a key has had, by its name
	bystanders int
}

func startRestore(t *testing.T) *restoring {
	t.Helper()
	log.SetLogger(logr.Discard()) // controller-runtime's client warns without one
	ctx, cancel := context.WithCancel(t.Context())
	plane, err := controlplane.StartInstalled(ctx, controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := &restoring{
		t: t, ctx: ctx, plane: plane, folder: t.TempDir(), tokens: map[string]string{}, seen: map[string]map[string]bool{},
		backup: "backup.json", breaker: startBreaker(t, plane.Admin),
	}
	if r.client, err = client.New(plane.Admin, client.Options{Scheme: harness.Scheme()}); err != nil {
		t.Fatal(err)
	}
	if err := controlplane.WriteKubeconfig(&rest.Config{Host: r.breaker.url}, filepath.Join(r.folder, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	r.watch()
	r.installAnother()
	r.startOperators()

	if err := r.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []*v1alpha1.ApiKey{build.ApiKey("default", "one"), build.ApiKey("team", "two", build.Never())} {
		r.issue(key)
		r.keys = append(r.keys, key)
		r.tokens[key.Name] = r.token(key)
		r.expectAnswer(r.tokens[key.Name], http.StatusOK)
	}
	if out, err := r.command("backup", r.backup).CombinedOutput(); err != nil {
		t.Fatalf("back up: %v\n%s", err, out)
	}
	r.bystander = build.ApiKey("default", "bystander")
	r.issue(r.bystander)
	r.expectIssuing("before")
	for _, key := range r.keys { // two operators race for a new key, and one of them may mint a token that is not delivered
		r.forget(key)
	}
	return r
}

// The second operator has another name and another namespace.
const (
	anotherPrefix    = "keys-"
	anotherNamespace = "keys-system"
)

// installAnother installs the second operator.
func (r *restoring) installAnother() {
	r.t.Helper()
	folder := filepath.Join(repository(r.t), "overlays", "another")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		r.t.Fatal(err)
	}
	const text = "namespace: " + anotherNamespace + "\nnamePrefix: " + anotherPrefix + "\nresources: [../../config/rbac, ../../config/manager]\n"
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.kubectl("apply", "-k", folder)
}

// startOperators starts both operators, which run as long as they have pods, and the verifier.
func (r *restoring) startOperators() {
	r.t.Helper()
	t := r.t // the whole test: these processes outlive its subtests
	at := verifierAddresses(t)
	r.verifier = "http://" + at.HTTP
	operator := func(namespace, account string) func(context.Context) (*controlplane.Process, error) {
		return func(ctx context.Context) (*controlplane.Process, error) {
			operator, err := r.plane.StartOperatorAs(ctx, namespace, account, logOf(t, account))
			if err != nil {
				return nil, err
			}
			return operator.Process, nil
		}
	}
	startNode(r.ctx, t, r.plane, controlplane.Namespace, map[string]func(context.Context) (*controlplane.Process, error){
		controlplane.ServiceAccount: operator(controlplane.Namespace, controlplane.ServiceAccount),
		controlplane.VerifierAccount: func(ctx context.Context) (*controlplane.Process, error) {
			verifier, err := r.plane.StartVerifier(ctx, logOf(t, "apikey-verifier"), at, "--drain-delay=0s")
			if err != nil {
				return nil, err
			}
			return verifier.Process, verifier.WaitHTTP(ctx, verifier.Probes+"/readyz")
		},
	})
	startNode(r.ctx, t, r.plane, anotherNamespace, map[string]func(context.Context) (*controlplane.Process, error){
		controlplane.ServiceAccount: operator(anotherNamespace, anotherPrefix+controlplane.ServiceAccount),
	})
}

// command is kubectl apikey, which reaches the API server through the breaker.
func (r *restoring) command(args ...string) *exec.Cmd {
	command := exec.CommandContext(r.ctx, filepath.Join(r.plane.Root, "bin", "kubectl-apikey"), args...)
	command.Dir = r.folder
	command.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(r.folder, "kubeconfig"))
	return command
}

// run runs a restore with a fault, or without one for nil. It returns the output.
func (r *restoring) run(f *fault, args ...string) (string, error) {
	r.t.Helper()
	command := r.command(append([]string{"restore", r.backup, "--yes"}, args...)...)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	r.breaker.mu.Lock()
	r.breaker.fault, r.breaker.hit = f, false
	err := command.Start()
	r.breaker.process = command.Process
	r.breaker.mu.Unlock()
	if err != nil {
		r.t.Fatal(err)
	}
	err = command.Wait()
	r.breaker.mu.Lock()
	defer r.breaker.mu.Unlock()
	if f != nil && !r.breaker.hit {
		r.t.Errorf("the command sent no request that fails\n%s", out.String())
	}
	r.breaker.fault = nil
	return out.String(), err
}

// lose deletes the keys of the backup, and their Secrets if they still exist.
func (r *restoring) lose() {
	r.t.Helper()
	r.kubectl("delete", "--ignore-not-found", "-f", r.backup)
	for _, key := range r.keys {
		r.wait("the Secret of "+key.Name+" is gone", func() bool { return !r.hasSecret(key) })
	}
}

// expectNoKeys checks that no key of the backup exists, except for some.
func (r *restoring) expectNoKeys(except ...string) {
	r.t.Helper()
	for _, key := range r.keys {
		if slices.Contains(except, key.Name) {
			continue
		}
		if err := r.client.Get(r.ctx, client.ObjectKeyFromObject(key), &v1alpha1.ApiKey{}); !apierrors.IsNotFound(err) {
			r.t.Errorf("key %s: want it deleted: %v", key.Name, err)
		}
	}
}

// restore runs the command without failures. It checks that every old token is valid again, that no new token was minted, and that the rest of
// the cluster is as before.
func (r *restoring) restore() {
	r.t.Helper()
	if out, err := r.run(nil); err != nil {
		r.t.Fatalf("the restore failed: %v\n%s", err, out)
	}
	for _, key := range r.keys {
		r.expectAnswer(r.tokens[key.Name], http.StatusOK)
	}
	r.expectGuarded()
	r.expectIssuing("after")
	for _, key := range r.keys {
		if digests := r.digests(key); digests != 1 {
			r.t.Errorf("key %s has had %d digests since the backup, want 1", key.Name, digests)
		}
		if r.hasSecret(key) {
			r.t.Errorf("key %s has a Secret, so a token was minted", key.Name)
		}
	}
	bystander := &v1alpha1.ApiKey{}
	if err := r.client.Get(r.ctx, client.ObjectKeyFromObject(r.bystander), bystander); err != nil || bystander.UID != r.bystander.UID {
		r.t.Errorf("a key that is not in the backup has changed: %v", err)
	}
}

// watch records all digests that keys have had.
func (r *restoring) watch() {
	r.t.Helper()
	events, err := harness.Watch(r.ctx, r.plane.Admin, &v1alpha1.ApiKeyList{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(events.Stop)
	go func() {
		for event := range events.ResultChan() {
			if key, ok := event.Object.(*v1alpha1.ApiKey); ok && event.Type != watch.Deleted && key.Status.Hash != "" {
				r.mu.Lock()
				if r.seen[key.Name] == nil {
					r.seen[key.Name] = map[string]bool{}
				}
				r.seen[key.Name][key.Status.Hash] = true
				r.mu.Unlock()
			}
		}
	}()
}

// digests returns how many digests a key has had.
func (r *restoring) digests(key *v1alpha1.ApiKey) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen[key.Name])
}

// forget resets the digests of a key.
func (r *restoring) forget(key *v1alpha1.ApiKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, key.Name)
}

// expectIssuing checks that an operator issues a new key. When it returns, the watch has seen everything before that.
func (r *restoring) expectIssuing(name string) {
	r.t.Helper()
	r.bystanders++
	key := build.ApiKey("default", fmt.Sprintf("%s-%d", name, r.bystanders))
	r.issue(key)
	r.wait("the watch has caught up", func() bool { return r.digests(key) > 0 })
	if err := r.client.Delete(r.ctx, key); err != nil {
		r.t.Fatal(err)
	}
}

// issue creates a key and waits until it is issued.
func (r *restoring) issue(key *v1alpha1.ApiKey) {
	r.t.Helper()
	if err := r.client.Create(r.ctx, key); err != nil {
		r.t.Fatal(err)
	}
	r.wait("key "+key.Name+" is issued", func() bool {
		return r.client.Get(r.ctx, client.ObjectKeyFromObject(key), key) == nil && key.Status.IssuedAt != nil
	})
}

// expectGuarded waits until the policy refuses an administrator who writes a status.
func (r *restoring) expectGuarded() {
	r.t.Helper()
	r.wait("the policy refuses", func() bool {
		out, err := r.plane.RunKubectl(r.ctx, "", "patch", "apikey", r.bystander.Name, "--subresource=status", "--type=merge", "--dry-run=server",
			`-p={"status":{"tokenHint":"ak_"}}`)
		return err != nil && strings.Contains(out, "ValidatingAdmissionPolicy 'apikey-operator-status'")
	})
}

// expectAnswer waits until the verifier answers for a token with the status want.
func (r *restoring) expectAnswer(token string, want int) {
	r.t.Helper()
	r.wait(fmt.Sprintf("the verifier answers %d", want), func() bool {
		request, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.verifier+"/auth?role=org.permission.customer.read", nil)
		if err != nil {
			r.t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		return response.Body.Close() == nil && response.StatusCode == want
	})
}

func (r *restoring) token(key *v1alpha1.ApiKey) string {
	r.t.Helper()
	secret := &corev1.Secret{}
	if err := r.client.Get(r.ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, secret); err != nil {
		r.t.Fatal(err)
	}
	return string(secret.Data[key.SecretKey()])
}

func (r *restoring) hasSecret(key *v1alpha1.ApiKey) bool {
	r.t.Helper()
	err := r.client.Get(r.ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.SecretName()}, &corev1.Secret{})
	if client.IgnoreNotFound(err) != nil {
		r.t.Fatal(err)
	}
	return err == nil
}

// kubectl runs kubectl as an administrator in the folder in which the command runs.
func (r *restoring) kubectl(args ...string) {
	r.t.Helper()
	command := exec.CommandContext(r.ctx, r.plane.Kubectl(), args...)
	command.Dir = r.folder
	command.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(r.folder, "kubeconfig"))
	if out, err := command.CombinedOutput(); err != nil {
		r.t.Fatalf("kubectl %v: %v\n%s", args, err, redact(string(out)))
	}
}

func (r *restoring) wait(what string, done func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, restorePatience)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			r.t.Fatalf("waited %s in vain until %s", restorePatience, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
