package integration

import (
	"context"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	lua "github.com/yuin/gopher-lua"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// health is what Argo CD shows for a resource.
type health struct {
	Status, Message string
}

// argoHealth runs a health script as Argo CD does: with Lua's base, package and table libraries, and the object in the variable obj.
func argoHealth(script string, object *unstructured.Unstructured) health {
	GinkgoHelper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	state.SetContext(limited)
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		Expect(state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name))).To(Succeed())
	}
	state.SetGlobal("obj", luaValue(state, object.Object))
	Expect(state.DoString(script)).To(Succeed())
	result, ok := state.Get(-1).(*lua.LTable)
	Expect(ok).To(BeTrue(), "the script returns a table")
	return health{Status: result.RawGetString("status").String(), Message: result.RawGetString("message").String()}
}

func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for name, member := range value {
			table.RawSetString(name, luaValue(state, member))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, member := range value {
			table.Append(luaValue(state, member))
		}
		return table
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	}
	return lua.LNil
}

// Argo CD determines health with a script in its ConfigMap. Flux, Helm, kpt and others use kstatus. Both must agree in every state in
// which the operator leaves a key.
var _ = Describe("The health of a key", func() {
	const healthEntry = "resource.customizations.health.apikey-operator.io_ApiKey"
	var script string
	var o harness.Options
	var ns string
	var skew time.Duration
	clock := fakeClock()

	BeforeEach(func() {
		source, err := os.ReadFile(filepath.Join(plane.Root, "config", "argocd", "health.lua"))
		Expect(err).NotTo(HaveOccurred())
		script = string(source)
		clock.SetTime(fakeClock().Now())
		skew = 0
		o = options()
		o.Clock = clock
		o.Skew = func(context.Context) (time.Duration, error) { return skew, nil }
		ns = governed()
	})

	live := func(key *v1alpha1.ApiKey) *unstructured.Unstructured {
		GinkgoHelper()
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKey"))
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), object)).To(Succeed())
		return object
	}
	// expect checks both kinds of health, and that Argo CD's message contains the given parts.
	expect := func(object *unstructured.Unstructured, argo string, kstatus status.Status, parts ...string) {
		GinkgoHelper()
		result, err := status.Compute(object)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.Status).To(Equal(kstatus), "kstatus: %s", result.Message)
		got := argoHealth(script, object)
		Expect(got.Status).To(Equal(argo), got.Message)
		for _, part := range parts {
			Expect(got.Message).To(ContainSubstring(part))
		}
	}
	message := func(key *v1alpha1.ApiKey, conditionType string) string {
		GinkgoHelper()
		found := condition(key, conditionType)
		Expect(found).NotTo(BeNil(), conditionType)
		Expect(found.Message).NotTo(BeEmpty())
		return found.Message
	}
	pass := func(key *v1alpha1.ApiKey) {
		GinkgoHelper()
		_, err := controllers(o).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
	}
	made := func(name string, options ...build.Option) *v1alpha1.ApiKey {
		GinkgoHelper()
		key := build.ApiKey(ns, name, options...)
		create(key)
		pass(key)
		return key
	}

	It("is in progress until an operator has seen the key, and while the key is being issued", func() {
		key := build.ApiKey(ns, "unseen")
		create(key)
		expect(live(key), "Progressing", status.InProgressStatus, "the operator has not processed this key yet")

		quota(ns, 0)
		_, err := controllers(o).Pass(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonDeliveryRefused))
		expect(live(key), "Progressing", status.InProgressStatus, message(key, v1alpha1.ConditionReady))
	})

	It("is good for an issued key, and says what its users should know", func() {
		key := made("issued", build.After("10d"))
		expect(live(key), "Healthy", status.CurrentStatus, message(key, v1alpha1.ConditionReady))

		clock.Step(9 * 24 * time.Hour)
		pass(key)
		expect(live(key), "Healthy", status.CurrentStatus, message(key, v1alpha1.ConditionReady), message(key, v1alpha1.ConditionExpiring))

		rule(build.Policy("health", []string{"test.none"}))
		pass(key)
		expect(live(key), "Healthy", status.CurrentStatus, message(key, v1alpha1.ConditionExpiring), message(key, v1alpha1.ConditionOutOfPolicy))

		annotate(key, v1alpha1.AnnotationRotate, "1")
		pass(key)
		expect(live(key), "Healthy", status.CurrentStatus, message(key, v1alpha1.ConditionRotationBlocked))

		skew = -time.Hour
		clock.Step(24 * time.Hour)
		pass(key)
		expect(live(key), "Healthy", status.CurrentStatus, message(key, v1alpha1.ConditionClockSkewed))
	})

	It("is bad for a key that needs somebody to act, and good once they have", func() {
		blocked := build.ApiKey(ns, "blocked")
		foreign := secretOf(blocked)
		create(foreign)
		create(blocked)
		pass(blocked)
		Expect(reason(reread(blocked))).To(Equal(v1alpha1.ReasonSecretConflict))
		expect(live(blocked), "Degraded", status.FailedStatus, message(blocked, v1alpha1.ConditionReady))
		Expect(admin.Delete(ctx, foreign)).To(Succeed())
		pass(blocked)
		expect(live(blocked), "Healthy", status.CurrentStatus)

		catalogue := build.ApiRole("org.other")
		rule(catalogue)
		stranger := made("stranger")
		Expect(reason(reread(stranger))).To(Equal(v1alpha1.ReasonUnknownRole))
		expect(live(stranger), "Degraded", status.FailedStatus, message(stranger, v1alpha1.ConditionReady))
		Expect(admin.Delete(ctx, catalogue)).To(Succeed())

		rule(build.Policy("health", []string{"test.none"}))
		refused := made("refused")
		Expect(reason(reread(refused))).To(Equal(v1alpha1.ReasonNotAllowed))
		expect(live(refused), "Degraded", status.FailedStatus, message(refused, v1alpha1.ConditionReady))
	})

	It("is bad for an expired key, and for one that is kept because Git has it", func() {
		mark := build.Annotation("argocd.argoproj.io/tracking-id", "keys:apikey-operator.io/ApiKey:"+ns+"/tombstone")
		expired, tombstone := made("expired", build.After("1h")), made("tombstone", build.After("1h"), mark)
		clock.Step(time.Hour)
		for _, key := range []*v1alpha1.ApiKey{expired, tombstone} {
			pass(key)
			expect(live(key), "Degraded", status.FailedStatus, message(key, v1alpha1.ConditionReady))
		}
		Expect(message(tombstone, v1alpha1.ConditionReady)).To(ContainSubstring("kept because of Argo CD"))
	})

	It("is in progress for a new key while the operator's clock is wrong", func() {
		skew = time.Hour
		key := made("skewed")
		expect(live(key), "Progressing", status.InProgressStatus, message(key, v1alpha1.ConditionReady))
	})

	It("is in progress for a key that is being deleted, and while the status is of an older generation", func() {
		key := made("deleted")
		stale := live(key)
		stale.SetGeneration(stale.GetGeneration() + 1) // as an edit of spec.suspend does
		expect(stale, "Progressing", status.InProgressStatus)

		hold := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":["test.example/hold"]}}`))
		Expect(admin.Patch(ctx, key, hold)).To(Succeed())
		Expect(admin.Delete(ctx, key)).To(Succeed())
		expect(live(key), "Progressing", status.TerminatingStatus, "being deleted")
		release := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		Expect(admin.Patch(ctx, key, release)).To(Succeed())
	})

	It("is good for a suspended key, which says so, and needs nothing from Flux, Argo CD or Helm", func() {
		key := made("suspended")
		suspend := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`))
		Expect(admin.Patch(ctx, key, suspend)).To(Succeed())
		expect(live(key), "Progressing", status.InProgressStatus)
		pass(key)
		Expect(reason(reread(key))).To(Equal(v1alpha1.ReasonSuspended))
		expect(live(key), "Healthy", status.CurrentStatus, "the key is suspended")
	})

	It("needs no script for roles and policies, which are always current", func() {
		for _, object := range []client.Object{build.ApiRole("org.health"), build.Policy("health", []string{"*"})} {
			rule(object)
			gvk, err := admin.GroupVersionKindFor(object)
			Expect(err).NotTo(HaveOccurred())
			found := &unstructured.Unstructured{}
			found.SetGroupVersionKind(gvk)
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), found)).To(Succeed())
			result, err := status.Compute(found)
			Expect(err).NotTo(HaveOccurred())
			Expect(result.Status).To(Equal(status.CurrentStatus))
		}
	})

	It("shows no drift: the operator changes nothing that a tool applied", func() {
		manifest := "{apiVersion: apikey-operator.io/v1alpha1, kind: ApiKey, metadata: {name: declared, namespace: " + ns + "}, " +
			"spec: {roles: [test.any], expiry: {after: 90d}, secret: {name: delivered}}}"
		for _, side := range []string{"--server-side=false", "--server-side=true"} {
			out, err := plane.RunKubectl(ctx, manifest, "apply", side, "-f", "-")
			Expect(err).NotTo(HaveOccurred(), out)
			key := build.ApiKey(ns, "declared")
			settle(controllers(o), key)
			expectIssued(key)
			out, err = plane.RunKubectl(ctx, manifest, "diff", side, "-f", "-")
			Expect(err).NotTo(HaveOccurred(), out)
			Expect(out).To(BeEmpty())
		}
	})

	It("is installed in Argo CD by config/argocd, which keeps the rest of argocd-cm", func() {
		folder := GinkgoT().TempDir()
		component, err := filepath.Rel(folder, filepath.Join(plane.Root, "config", "argocd"))
		Expect(err).NotTo(HaveOccurred())
		for name, text := range map[string]string{
			"kustomization.yaml": "namespace: argocd\nresources: [argocd-cm.yaml]\ncomponents: [" + component + "]\n",
			"argocd-cm.yaml":     "{apiVersion: v1, kind: ConfigMap, metadata: {name: argocd-cm}, data: {url: https://cd.example}}\n",
		} {
			Expect(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600)).To(Succeed())
		}
		out, err := kubectl("kustomize", folder)
		Expect(err).NotTo(HaveOccurred(), out)
		built := &corev1.ConfigMap{}
		Expect(yaml.UnmarshalStrict([]byte(out), built)).To(Succeed())
		Expect(built.Name).To(Equal("argocd-cm"))
		Expect(built.Data).To(Equal(map[string]string{"url": "https://cd.example", healthEntry: script}))
	})
})
