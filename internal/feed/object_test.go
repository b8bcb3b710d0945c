package feed

import (
	"bytes"
	"encoding/json"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/utils/ptr"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/index"
	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/internal/verify"
)

// whole returns an ApiKey with a value in every field that the index needs and in those that can be large.
func whole() *v1alpha1.ApiKey {
	at := metav1.NewTime(time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC).Local())
	return &v1alpha1.ApiKey{
		TypeMeta: kind("ApiKey"),
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "orders", UID: "6d2c1b2e", ResourceVersion: "42", Generation: 1,
			CreationTimestamp: at, DeletionTimestamp: &at,
			Labels:          map[string]string{"app": "shop"},
			Annotations:     map[string]string{"note": "long"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Shop", Name: "shop"}},
			Finalizers:      []string{"example.com/held"},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "kubectl", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)}},
		},
		Spec: v1alpha1.ApiKeySpec{
			DisplayName: "Orders", Roles: []string{"write", "read"}, CIDRs: []string{"10.0.0.0/8"},
			Expiry: v1alpha1.ApiKeyExpiry{After: "90d", At: "2027-01-31T00:00:00Z", Never: ptr.To(true)},
			Secret: &v1alpha1.ApiKeySecret{Name: "token"}, TTLAfterExpired: "1h",
			Attributes: map[string]v1alpha1.AttributeValue{"owner": "team-shop", "plan": "gold"},
		},
		Status: v1alpha1.ApiKeyStatus{
			Hash: "sha256:" + strings.Repeat("0123abcd", 8), IssuedAt: &at, ExpiresAt: &at, Expires: "2027", SecretName: "token",
			Conditions: []metav1.Condition{{Type: "Ready", Status: "False", Reason: "Expired", LastTransitionTime: at}},
		},
	}
}

func decode(t *testing.T, what any) apiruntime.Object {
	t.Helper()
	text, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	decoded, _, err := serializer.NewCodecFactory(newScheme()).UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// Decoding an object must give the same as decoding the whole ApiKey.
func TestObjectDecodesLikeAnApiKey(t *testing.T) {
	full := whole()
	got, ok := decode(t, full).(*object)
	if !ok {
		t.Fatalf("decoded as %T", decode(t, full))
	}
	want := &v1alpha1.ApiKey{Spec: full.Spec, Status: full.Status, ObjectMeta: metav1.ObjectMeta{
		Namespace: full.Namespace, Name: full.Name, UID: full.UID,
		CreationTimestamp: full.CreationTimestamp, DeletionTimestamp: full.DeletionTimestamp,
	}}
	if key := got.key(); !reflect.DeepEqual(key, want) {
		t.Errorf("got  %+v\nwant %+v", key, want)
	}
	want.ResourceVersion = full.ResourceVersion
	if meta := got.GetObjectMeta(); !reflect.DeepEqual(meta, &want.ObjectMeta) {
		t.Errorf("got  %+v\nwant %+v", meta, want.ObjectMeta)
	}
}

func TestReadPage(t *testing.T) {
	list := &v1alpha1.ApiKeyList{
		TypeMeta: kind("ApiKeyList"),
		ListMeta: metav1.ListMeta{ResourceVersion: "43", Continue: "more", RemainingItemCount: ptr.To[int64](1)},
		Items:    []v1alpha1.ApiKey{*whole(), *whole()},
	}
	list.Items[1].Name, list.Items[1].DeletionTimestamp = "other", nil
	s := &store{source: index.New(time.Now(), index.Options{}).Source()}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	facts, err := s.readPage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(facts.ListMeta, list.ListMeta) || len(facts.Items) != 2 {
		t.Fatalf("readPage returns %+v, want a factList with two items", facts)
	}
	for i, item := range list.Items {
		if got, want := facts.Items[i].object, s.understand(&item); !reflect.DeepEqual(got, want) || got.Name != item.Name {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	if facts.Items[0].object.Indexed() || !facts.Items[1].object.Indexed() {
		t.Error("the key that is being deleted is indexed, or the other one is not")
	}
}

// The schema refuses such attributes. If it is an older one, a value with a line break must not get into a header, and
// nobody is let in without the attributes.
func TestKeyWithUnreadableAttributesIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		attributes map[string]v1alpha1.AttributeValue
		owner      string
		result     verify.Result
	}{
		"none":         {nil, "-", verify.Allowed},
		"an owner":     {map[string]v1alpha1.AttributeValue{"owner": "team-shop"}, "team-shop", verify.Allowed},
		"a line break": {map[string]v1alpha1.AttributeValue{"owner": "team-shop\nX-Apikey-Name: admin"}, "-", verify.AddressDenied},
		"a name":       {map[string]v1alpha1.AttributeValue{"owner": "team-shop", "Plan": "gold"}, "-", verify.AddressDenied},
	} {
		var log strings.Builder
		x := index.New(time.Now(), index.Options{})
		s := &store{source: x.Source(), read: func() {}, replaced: func() {}, logger: funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{})}
		minted := token.Mint(token.DefaultPrefix)
		key := whole()
		key.DeletionTimestamp, key.Spec.CIDRs, key.Spec.Attributes = nil, nil, c.attributes
		key.Spec.Expiry, key.Status.ExpiresAt, key.Status.Hash = v1alpha1.ApiKeyExpiry{Never: ptr.To(true)}, nil, minted.Digest().String()
		key.Status.Conditions = nil
		if err := s.Replace([]any{decode(t, key)}, ""); err != nil {
			t.Fatal(err)
		}
		request := verify.Request{Credential: verify.Reader{Prefixes: []string{token.DefaultPrefix}}.Token(minted.Reveal())}
		decision := verify.Decide(x, &request, time.Now())
		if decision.Result != c.result || decision.Key == nil || decision.Key.Attributes.Get("owner") != c.owner {
			t.Errorf("%s: the result is %s, want %s with the owner %s", name, decision.Result, c.result, c.owner)
		}
		if logged := strings.Contains(log.String(), `"field"="spec.attributes"`); logged != (c.result != verify.Allowed) {
			t.Errorf("%s: logged %q", name, log.String())
		}
	}
}

// Without this annotation, a reflector would wait for the end of the first load without limit.
func TestBookmarkThatEndsTheLoadIsDecoded(t *testing.T) {
	bookmark := &v1alpha1.ApiKey{
		TypeMeta:   kind("ApiKey"),
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}},
	}
	got, ok := decode(t, bookmark).(*object)
	if !ok || got.GetObjectMeta().GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("decoded as %+v, want the annotation of the bookmark", got)
	}
}

// What the index keeps must not keep memory of the ApiKey alive: a reflector collects the objects of all ApiKeys.
func TestObjectDoesNotKeepItsApiKeyAlive(t *testing.T) {
	const mebibyte = 1 << 20
	s := &store{source: index.New(time.Now(), index.Options{}).Source()}
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // frees what the first run left to sweep
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	fat := whole()
	fat.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = strings.Repeat("x", 16*mebibyte)
	fat.DeletionTimestamp = nil
	text, err := json.Marshal(fat)
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	decoded, _, err := serializer.NewCodecFactory(newScheme()).UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.objectOf(decoded)
	if err != nil {
		t.Fatal(err)
	}
	// The text was live before and can be freed now, because nothing below uses it.
	if now := heap(); now+15*mebibyte > before {
		t.Errorf("%d bytes were live before and %d are after, want at least 15 MiB less", before, now)
	}
	if !o.Indexed() || o.Name != fat.Name {
		t.Errorf("the object is %+v, want an indexed key with the name %s", o, fat.Name)
	}
}

// The operator counts keys in the status of each role. That must not make the index resolve all roles again.
func TestStatusOfARoleDoesNotChangeTheCatalogue(t *testing.T) {
	r := &roles{includes: map[string][]string{}}
	role := &v1alpha1.ApiRole{ObjectMeta: metav1.ObjectMeta{Name: "write"}, Spec: v1alpha1.ApiRoleSpec{Includes: []string{"create"}}}
	expectChange := func(want bool) {
		t.Helper()
		if got, err := r.take(role.DeepCopy()); err != nil || got != want {
			t.Errorf("take reports a change: %t, error %v; want %t", got, err, want)
		}
	}
	expectChange(true)
	role.Status.Keys = ptr.To[int32](1)
	expectChange(false)
	role.Spec.Includes = nil
	expectChange(true)
	expectChange(false)
	role.Name = "create"
	expectChange(true)
}
