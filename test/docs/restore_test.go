package docs

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// restorePatience is how long each wait may take on a busy machine.
const restorePatience = 2 * time.Minute

// steps of docs/backup.md's restore that fail in turn, by the arguments of kubectl, as patterns of a shell.
var restoreSteps = []struct {
	name, pattern string
	// early: the step comes before any key is created. done: kubectl does it and then fails. killed: kubectl also kills the shell that called it.
	early, done, killed bool
}{
	{name: "checking that all keys can be created", pattern: "create --dry-run*", early: true},
	{name: "finding the operators", pattern: "get deployments*", early: true},
	{name: "stopping the operators", pattern: "scale * --replicas=0 *", early: true},
	{name: "stopping the operators, which stop", pattern: "scale * --replicas=0 *", early: true, done: true},
	{name: "looking for their pods", pattern: "get pods*", early: true},
	{name: "finding the policy", pattern: "get validatingadmissionpolicybindings*", early: true},
	{name: "suspending the policy", pattern: "patch *Audit*", early: true},
	{name: "creating the keys", pattern: "create -f*"},
	{name: "creating the keys, which are created", pattern: "create -f*", done: true},
	{name: "writing their status", pattern: "replace*"},
	{name: "writing their status, while the shell is killed", pattern: "replace*", killed: true},
	{name: "starting the operators", pattern: "scale * --replicas=1"},
	{name: "restoring the policy", pattern: "patch *Deny*"},
}

// TestRestoreStopsAtWhateverFails checks that, whichever step of a restore fails, no operator mints a token for a restored key, not even an
// operator with another name in another namespace. The policy is in force again, and another run makes every old token valid again.
func TestRestoreStopsAtWhateverFails(t *testing.T) {
	t.Parallel()
	r := startRestore(t)
	for _, step := range restoreSteps {
		t.Run(step.name, func(t *testing.T) {
			r.t = t
			r.lose()
			out, status := r.run(map[string]string{"BREAK": step.pattern, "DONE": flag(step.done), "KILLED": flag(step.killed)})
			if status == 0 {
				t.Errorf("the block succeeded\n%s", out)
			}
			if step.pattern != "patch *Deny*" {
				r.expectGuarded()
			}
			if step.early { // the next step starts from what this one leaves
				r.expectNoKeys()
				return
			}
			r.kubectl("delete", "--ignore-not-found", "-f", r.backup) // as the page says
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
		out, status := r.run(nil)
		if status == 0 || !strings.Contains(out, "AlreadyExists") || !strings.Contains(out, again.Name) {
			t.Errorf("want a failure that names the key, not %d\n%s", status, out)
		}
		r.expectAnswer(newer, http.StatusOK)
		r.expectGuarded()
		r.expectIssuing("meanwhile")

		r.kubectl("-n", again.Namespace, "delete", "apikey", again.Name)
		r.wait("its Secret is gone", func() bool { return !r.hasSecret(again) })
		r.expectAnswer(newer, http.StatusUnauthorized)
		r.forget(again) // the test had it issued again on purpose
		r.restore()
	})
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return ""
}

// restoring is a cluster with two installations of the operator, the keys of a backup, and one key that is not in the backup.
type restoring struct {
	t          *testing.T
	ctx        context.Context
	plane      *controlplane.ControlPlane
	client     client.Client
	verifier   string
	folder     string // where the block runs
	tools      string // contains a kubectl that can be made to fail
	backup     string
	script     string
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
	plane, err := controlplane.Start(ctx, controlplane.Options{Logs: os.Getenv("CONTROLPLANE_LOGS")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := plane.Install(ctx); err != nil {
		t.Fatal(err)
	}
	r := &restoring{
		t: t, ctx: ctx, plane: plane, folder: t.TempDir(), tools: t.TempDir(), tokens: map[string]string{}, seen: map[string]map[string]bool{},
		backup: "backup.json", script: backupBlock(t, "kubectl create -f backup.json"),
	}
	if r.client, err = client.New(plane.Admin, client.Options{Scheme: harness.Scheme()}); err != nil {
		t.Fatal(err)
	}
	r.watch()
	r.prepareKubectl()
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
	if out, status := r.shell(backupBlock(t, "> backup.json"), nil); status != 0 {
		t.Fatalf("back up: %d\n%s", status, out)
	}
	r.bystander = build.ApiKey("default", "bystander")
	r.issue(r.bystander)
	r.expectIssuing("before")
	for _, key := range r.keys { // two operators race for a new key, and one of them may mint a token that is not delivered
		r.forget(key)
	}
	return r
}

// backupBlock returns the block of commands in docs/backup.md that contains a text.
func backupBlock(t *testing.T, text string) string {
	t.Helper()
	const path = "docs/backup.md"
	all, _ := blocks(t, path)
	for _, b := range all {
		if b.language == "sh" && strings.Contains(b.text, text) {
			return b.text
		}
	}
	t.Fatalf("%s has no block with %q", path, text)
	return ""
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

// prepareKubectl writes a kubectl that fails for the arguments that match $BREAK.
func (r *restoring) prepareKubectl() {
	r.t.Helper()
	kubeconfig := filepath.Join(r.tools, "kubeconfig")
	if err := r.plane.AdminKubeconfig(kubeconfig); err != nil {
		r.t.Fatal(err)
	}
	text := `#!/bin/sh
case "$*" in
${BREAK:-nothing})
	echo "broken: kubectl $*" >&2
	[ -z "${KILLED:-}" ] || kill -TERM $PPID
	[ -z "${DONE:-}" ] || ` + r.plane.Kubectl() + ` "$@"
	exit 1
esac
exec ` + r.plane.Kubectl() + ` "$@"
`
	if err := os.WriteFile(filepath.Join(r.tools, "kubectl"), []byte(text), 0o700); err != nil {
		r.t.Fatal(err)
	}
}

// shell lets a bash read a script from its standard input, as if somebody pasted it into a terminal. It returns the output and the status of
// the last command. The bash itself must survive.
func (r *restoring) shell(script string, env map[string]string) (string, int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, restorePatience)
	defer cancel()
	command := exec.CommandContext(ctx, "bash")
	// In a process group of its own, a block that hangs can be killed completely.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.Dir = r.folder
	command.Stdin = strings.NewReader(script + "\necho status=$?\n")
	command.Env = append(os.Environ(), "PATH="+r.tools+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(r.tools, "kubeconfig"))
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	out, err := command.CombinedOutput()
	text := redact(string(out))
	before, status, found := strings.Cut(text, "status=")
	var code int
	if _, scanErr := fmt.Sscan(status, &code); err != nil || !found || scanErr != nil {
		r.t.Fatalf("the shell did not survive: %v\n%s", err, text)
	}
	return before, code
}

func (r *restoring) run(env map[string]string) (string, int) {
	r.t.Helper()
	return r.shell(r.script, env)
}

// lose deletes the keys of the backup, and their Secrets if they still exist.
func (r *restoring) lose() {
	r.t.Helper()
	r.kubectl("delete", "--ignore-not-found", "-f", r.backup)
	for _, key := range r.keys {
		r.wait("the Secret of "+key.Name+" is gone", func() bool { return !r.hasSecret(key) })
	}
}

// expectNoKeys checks that no key of the backup exists.
func (r *restoring) expectNoKeys() {
	r.t.Helper()
	for _, key := range r.keys {
		if err := r.client.Get(r.ctx, client.ObjectKeyFromObject(key), &v1alpha1.ApiKey{}); !apierrors.IsNotFound(err) {
			r.t.Errorf("key %s: want it deleted: %v", key.Name, err)
		}
	}
}

// restore runs the block without failures. It checks that every old token is valid again, that no new token was minted, and that the rest of
// the cluster is as before.
func (r *restoring) restore() {
	r.t.Helper()
	if out, status := r.run(nil); status != 0 {
		r.t.Fatalf("the restore failed: %d\n%s", status, out)
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

// kubectl runs kubectl as an administrator in the folder in which the block runs.
func (r *restoring) kubectl(args ...string) {
	r.t.Helper()
	command := exec.CommandContext(r.ctx, r.plane.Kubectl(), args...)
	command.Dir = r.folder
	command.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(r.tools, "kubeconfig"))
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
