package v1alpha1_test

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// A program declares a key by its roles, its expiry and the networks it may be used from.
func ExampleApiKey() {
	key := v1alpha1.ApiKey{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApiKey"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"},
		Spec: v1alpha1.ApiKeySpec{
			Roles:  []string{"org.permission.order.read"},
			Expiry: v1alpha1.ApiKeyExpiry{After: "90d"},
			CIDRs:  []string{"10.20.0.0/16"},
		},
	}
	manifest, err := json.MarshalIndent(key, "", "  ")
	if err != nil {
		panic(err)
	}
	fmt.Println(string(manifest))
	// Output:
	// {
	//   "kind": "ApiKey",
	//   "apiVersion": "apikey-operator.io/v1alpha1",
	//   "metadata": {
	//     "name": "orders",
	//     "namespace": "shop"
	//   },
	//   "spec": {
	//     "roles": [
	//       "org.permission.order.read"
	//     ],
	//     "expiry": {
	//       "after": "90d"
	//     },
	//     "cidrs": [
	//       "10.20.0.0/16"
	//     ]
	//   }
	// }
}

// A program that waits for a token reads where it is delivered, or why it is not.
func ExampleApiKey_IsReady() {
	describe := func(key *v1alpha1.ApiKey) {
		if key.IsReady() {
			fmt.Printf("%s: the token is in Secret %s, key %s\n", key.Name, key.SecretName(), key.SecretKey())
			return
		}
		ready := key.Condition(v1alpha1.ConditionReady)
		if ready == nil {
			fmt.Printf("%s: no operator has seen the key\n", key.Name)
			return
		}
		fmt.Printf("%s: %s: %s\n", key.Name, key.ReadyReason(), ready.Message)
	}

	key := &v1alpha1.ApiKey{ObjectMeta: metav1.ObjectMeta{Name: "orders"}}
	describe(key)
	key.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(v1alpha1.ReasonUnknownRole),
		Message: "the catalogue lacks the role org.permission.order.reed",
	}}
	describe(key)
	key.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonIssued),
	}}
	describe(key)
	// Output:
	// orders: no operator has seen the key
	// orders: UnknownRole: the catalogue lacks the role org.permission.order.reed
	// orders: the token is in Secret orders, key token
}
