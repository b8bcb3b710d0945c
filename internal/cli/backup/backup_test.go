package backup

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

func key(name string, changes ...func(*v1alpha1.ApiKey)) v1alpha1.ApiKey {
	k := v1alpha1.ApiKey{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apikey-operator.io/v1alpha1", Kind: "ApiKey"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1alpha1.ApiKeySpec{Roles: []string{"a"}, Expiry: v1alpha1.ApiKeyExpiry{After: "90d"}},
	}
	for _, change := range changes {
		change(&k)
	}
	return k
}

func hash(digest string) func(*v1alpha1.ApiKey) {
	return func(k *v1alpha1.ApiKey) { k.Status.Hash = digest }
}

func roles(names ...string) func(*v1alpha1.ApiKey) {
	return func(k *v1alpha1.ApiKey) { k.Spec.Roles = names }
}

func suspended(k *v1alpha1.ApiKey) { k.Spec.Suspend = ptr.To(true) }

func expired(k *v1alpha1.ApiKey) {
	k.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: string(v1alpha1.ReasonExpired)}}
}

func TestPlan(t *testing.T) {
	const create, complete, done, conflict = "create", "complete", "done", "conflict"
	for name, c := range map[string]struct {
		backup v1alpha1.ApiKey
		live   []v1alpha1.ApiKey
		want   string
	}{
		"gone":                                {key("k", hash("1")), nil, create},
		"gone, was waiting":                   {key("k"), nil, create},
		"created by an interrupted restore":   {key("k", hash("1")), []v1alpha1.ApiKey{key("k")}, complete},
		"restored":                            {key("k", hash("1")), []v1alpha1.ApiKey{key("k", hash("1"))}, done},
		"never lost, and suspended meanwhile": {key("k", hash("1")), []v1alpha1.ApiKey{key("k", hash("1"), suspended)}, done},
		"issued again":                        {key("k", hash("1")), []v1alpha1.ApiKey{key("k", hash("2"))}, conflict},
		"created again with other roles":      {key("k", hash("1")), []v1alpha1.ApiKey{key("k", roles("b"))}, conflict},
		"was waiting, and was issued":         {key("k"), []v1alpha1.ApiKey{key("k", hash("1"))}, done},
		"was waiting, and has other roles":    {key("k"), []v1alpha1.ApiKey{key("k", roles("b"))}, conflict},
		"expired before it was issued":        {key("k", expired), []v1alpha1.ApiKey{key("k")}, complete},
		"expired, and is marked":              {key("k", expired), []v1alpha1.ApiKey{key("k", expired)}, done},
		"another key of that name elsewhere": {key("k", hash("1")), []v1alpha1.ApiKey{key("k", hash("2"), func(k *v1alpha1.ApiKey) {
			k.Namespace = "other"
		})}, create},
	} {
		live := map[types.NamespacedName]*v1alpha1.ApiKey{}
		for i := range c.live {
			live[idOf(&c.live[i])] = &c.live[i]
		}
		p := NewPlan([]v1alpha1.ApiKey{c.backup}, live)
		got := map[string]int{create: len(p.Create), complete: len(p.Complete), done: len(p.Done), conflict: len(p.Conflicts)}
		for what, n := range got {
			if (n == 1) != (what == c.want) {
				t.Errorf("%s: got %v, want %s", name, got, c.want)
				break
			}
		}
	}
}

func TestFileHoldsWhatARestoreNeeds(t *testing.T) {
	full := key("k", hash("sha256:"+strings.Repeat("0", 64)), suspended)
	full.UID, full.ResourceVersion, full.Generation, full.CreationTimestamp = "uid", "7", 3, metav1.Now()
	full.Labels, full.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
	full.OwnerReferences = []metav1.OwnerReference{{UID: "other"}}
	full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
	leaving := key("leaving")
	leaving.DeletionTimestamp = ptr.To(metav1.Now())

	var text strings.Builder
	w := NewWriter(&text)
	for _, page := range [][]v1alpha1.ApiKey{{full}, {leaving, key("two")}} {
		if err := w.Page(page); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.Close(); n != 2 || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	read, err := Read(strings.NewReader(text.String()))
	if err != nil || len(read) != 2 {
		t.Fatalf("read %d, %v", len(read), err)
	}
	k := read[0]
	if k.UID != "" || k.ResourceVersion != "" || k.Generation != 0 || len(k.OwnerReferences)+len(k.ManagedFields) > 0 || !k.CreationTimestamp.IsZero() {
		t.Errorf("the file has metadata of the cluster: %+v", k.ObjectMeta)
	}
	if k.Status.Hash != full.Status.Hash || !k.IsSuspended() || k.Labels["a"] != "b" || k.Annotations["c"] != "d" || !sameSpec(&k, &full) {
		t.Errorf("the file lacks something: %+v", k)
	}
}

func TestReadRefuses(t *testing.T) {
	const item = `{"apiVersion":"apikey-operator.io/v1alpha1","kind":"ApiKey","metadata":{"name":"k","namespace":"n"}}`
	for text, want := range map[string]string{
		"": "its kind is", "{": "incomplete or damaged", `{"kind":"Pod"}`: `its kind is "Pod"`,
		`{"kind":"List","items":[` + item:                                                        "incomplete or damaged",
		`{"kind":"List","items":[{"kind":"Secret"}]}`:                                            `item 1 is of the kind "Secret"`,
		`{"kind":"List","items":[` + item + `,` + item + `]}`:                                    "n/k occurs twice",
		strings.Replace(`{"kind":"List","items":[`+item+`]}`, `"namespace":"n"`, `"uid":"u"`, 1): "has no name or no namespace",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{`{"kind":"List","items":[` + item + `]}`, "kind: List\nitems:\n- " + item, `{"kind":"ApiKeyList","items":[` + item + `]}`} {
		if keys, err := Read(strings.NewReader(text)); err != nil || len(keys) != 1 {
			t.Errorf("%s: %d keys, %v", text, len(keys), err)
		}
	}
}
