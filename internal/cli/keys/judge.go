package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/grant"
	"github.com/apikey-operator/apikey-operator/internal/rulebook"
)

// Judgement is what the role catalogue and the policies say about a key that does not exist yet.
type Judgement struct {
	// Verdict is the operator's own. Its cure speaks of a key that exists already.
	Verdict grant.Verdict
	// Unread lists the kinds that the user may not read, such as apikeypolicies. They are not part of the verdict, and only the operator
	// can judge by them.
	Unread []string
	// NoRoles says that the role catalogue is empty. The operator then issues a key with any roles, unless it runs with
	// --require-catalogue.
	NoRoles bool
}

// Refused reports whether the operator would not issue the key now.
func (j Judgement) Refused() bool {
	return j.Verdict.Outcome == grant.UnknownRole || j.Verdict.Outcome == grant.NotAllowed
}

// Judge judges a key as the operator does, in the operator's words, by what the user may read. It can't know the operator's flags
// --require-catalogue and --require-policy, so it allows every key in a cluster without roles and policies.
func (c *Cluster) Judge(ctx context.Context, key *v1alpha1.ApiKey, now time.Time) (Judgement, error) {
	reader := &partialReader{Reader: c.client}
	verdict, err := rulebook.NewLive(reader, rulebook.Options{}).Judge(ctx, key, now)
	switch {
	case err == nil:
	case errors.Is(err, errUnlabelled):
		// Policies select namespaces by label, so that without labels only the catalogue can be asked.
		reader.unread = append(reader.unread, "namespaces")
		reader.blind = true
		if verdict, err = rulebook.NewLive(reader, rulebook.Options{}).Judge(ctx, key, now); err != nil {
			return Judgement{}, err
		}
	default:
		return Judgement{}, err
	}
	slices.Sort(reader.unread)
	return Judgement{Verdict: verdict, Unread: slices.Compact(reader.unread), NoRoles: reader.noRoles}, nil
}

// errUnlabelled says that the labels of the key's namespace can't be read.
var errUnlabelled = errors.New("the labels of the namespace can't be read")

// partialReader reads roles, policies and namespaces. A kind that the user may not list has no objects, and is noted in unread.
type partialReader struct {
	client.Reader

	// blind hides the policies.
	blind   bool
	unread  []string
	noRoles bool // the catalogue was read, and is empty
}

// List implements [client.Reader].
func (r *partialReader) List(ctx context.Context, list client.ObjectList, _ ...client.ListOption) error {
	plural := "apiroles"
	if _, ok := list.(*v1alpha1.ApiKeyPolicyList); ok {
		plural = "apikeypolicies"
		if r.blind {
			return nil
		}
	}
	err := r.Reader.List(ctx, list)
	if apierrors.IsForbidden(err) {
		r.unread = append(r.unread, plural)
		return nil
	}
	if roles, ok := list.(*v1alpha1.ApiRoleList); ok && err == nil {
		r.noRoles = len(roles.Items) == 0
	}
	return err
}

// Get implements [client.Reader].
func (r *partialReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	err := r.Reader.Get(ctx, key, object, options...)
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w: %w", errUnlabelled, err)
	}
	return err
}

// DryRun has the API server check a key as if it was created, by schema and admission, and returns what the server would store.
func (c *Cluster) DryRun(ctx context.Context, key *v1alpha1.ApiKey) (*v1alpha1.ApiKey, error) {
	tried := key.DeepCopy()
	err := c.client.Create(ctx, tried, client.DryRunAll)
	return withKind(tried), err
}

// Create creates a key.
func (c *Cluster) Create(ctx context.Context, key *v1alpha1.ApiKey) (*v1alpha1.ApiKey, error) {
	created := key.DeepCopy()
	err := c.client.Create(ctx, created)
	return withKind(created), err
}

// withKind sets the kind, which the client removes.
func withKind(key *v1alpha1.ApiKey) *v1alpha1.ApiKey {
	key.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKey"))
	return key
}

// Problem is what is wrong with one field of an object.
type Problem struct {
	// Field is the path of the field, such as spec.roles, or empty if the problem is not about a single field.
	Field   string
	Message string
}

// Problems returns what the API server said about each field, if err is a refusal of an object.
func Problems(err error) []Problem {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	var problems []Problem
	for _, cause := range status.Status().Details.Causes {
		if cause.Type != metav1.CauseTypeUnexpectedServerResponse {
			problems = append(problems, Problem{Field: cause.Field, Message: cause.Message})
		}
	}
	return problems
}
