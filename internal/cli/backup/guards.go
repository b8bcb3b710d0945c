package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// guardLabel is the label of the bindings that let only the operator write a status.
	guardLabel, guardValue = "apikey-operator.io/guards", "status"
	// guardedBefore is the annotation that records on a binding what it did before a restore.
	guardedBefore = "apikey-operator.io/validation-actions-before-restore"

	// cleanupPatience is how long a restore tries to put back what it has changed, also after an interruption.
	cleanupPatience = time.Minute
	// guardPatience is how long the API server may take until it follows a change of a binding. Usually that takes a second.
	guardPatience = time.Minute
	retryEvery    = 200 * time.Millisecond
)

// guards are the admission policies on the status, while they may be lifted.
type guards struct {
	client client.Client
	lifted []types.NamespacedName
}

func (g *guards) list(ctx context.Context) ([]admissionv1.ValidatingAdmissionPolicyBinding, error) {
	list := &admissionv1.ValidatingAdmissionPolicyBindingList{}
	err := g.client.List(ctx, list, client.MatchingLabels{guardLabel: guardValue})
	return list.Items, err
}

// remember finds the bindings that an earlier restore has lifted, so that they are put back in any case.
func (g *guards) remember(ctx context.Context) error {
	bindings, err := g.list(ctx)
	for i := range bindings {
		if _, was := bindings[i].Annotations[guardedBefore]; was {
			g.lifted = append(g.lifted, client.ObjectKeyFromObject(&bindings[i]))
		}
	}
	return err
}

// lift makes the bindings audit what they would deny. Each records first, in the same write, what it did before.
func (g *guards) lift(ctx context.Context) error {
	bindings, err := g.list(ctx)
	if err != nil {
		return err
	}
	for i := range bindings {
		binding := &bindings[i]
		if _, was := binding.Annotations[guardedBefore]; was {
			continue
		}
		before, err := json.Marshal(binding.Spec.ValidationActions)
		if err != nil {
			return err
		}
		changed := binding.DeepCopy()
		if changed.Annotations == nil {
			changed.Annotations = map[string]string{}
		}
		changed.Annotations[guardedBefore] = string(before)
		changed.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
		// Before the write: its answer may be lost.
		g.lifted = append(g.lifted, client.ObjectKeyFromObject(binding))
		if err := g.client.Patch(ctx, changed, client.MergeFromWithOptions(binding, client.MergeFromWithOptimisticLock{})); err != nil {
			return fmt.Errorf("lift the admission policy %s: %w", binding.Name, err)
		}
	}
	return nil
}

// putBack restores what the bindings did before. It tries for a minute, even if ctx is done.
func (g *guards) putBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupPatience)
	defer cancel()
	var problems []error
	for _, name := range g.lifted {
		var last error
		err := wait.PollUntilContextCancel(ctx, retryEvery, true, func(ctx context.Context) (bool, error) {
			last = g.putOneBack(ctx, name)
			return client.IgnoreNotFound(last) == nil, nil
		})
		if err != nil {
			problems = append(problems, fmt.Errorf("THE ADMISSION POLICY IS STILL LIFTED (%w): run this command again, or\n"+
				"kubectl patch validatingadmissionpolicybinding %s --type=merge -p '{\"spec\":{\"validationActions\":[\"Deny\"]}}'", last, name.Name))
		}
	}
	return errors.Join(problems...)
}

func (g *guards) putOneBack(ctx context.Context, name types.NamespacedName) error {
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
	if err := g.client.Get(ctx, name, binding); err != nil {
		return err
	}
	text, lifted := binding.Annotations[guardedBefore]
	if !lifted {
		return nil
	}
	changed := binding.DeepCopy()
	if json.Unmarshal([]byte(text), &changed.Spec.ValidationActions) != nil || len(changed.Spec.ValidationActions) == 0 {
		changed.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Deny}
	}
	delete(changed.Annotations, guardedBefore)
	return g.client.Patch(ctx, changed, client.MergeFromWithOptions(binding, client.MergeFromWithOptimisticLock{}))
}
