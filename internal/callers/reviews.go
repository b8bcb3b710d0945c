package callers

import (
	"context"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
)

// reviewTimeout limits the time for all reviews of one caller.
const reviewTimeout = 10 * time.Second

// reviewer authenticates and authorizes callers. An error means that there is no answer; a negative answer is not an error.
type reviewer interface {
	authenticate(ctx context.Context, token string) (caller authenticationv1.UserInfo, ok bool, err error)
	authorize(ctx context.Context, caller authenticationv1.UserInfo, verb, path string) (bool, error)
}

// authenticated is the group of all users that the API server knows:
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/
const authenticated = "system:authenticated"

// reviews asks the API server. The delegating authenticator of k8s.io/apiserver is not used because it reports an invalid
// token with the same kind of error as a failed review, and because it adds 20 MB to the operator.
type reviews struct {
	tokens authenticationclient.TokenReviewInterface
	access authorizationclient.SubjectAccessReviewInterface
}

func newReviews(config *rest.Config) (*reviews, error) {
	config = rest.CopyConfig(config)
	// The gate limits reviews. A client-side limiter behind it would make known callers wait for unknown ones.
	config.QPS, config.RateLimiter = -1, nil
	authentication, err := authenticationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for TokenReviews: %w", err)
	}
	authorization, err := authorizationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for SubjectAccessReviews: %w", err)
	}
	return &reviews{tokens: authentication.TokenReviews(), access: authorization.SubjectAccessReviews()}, nil
}

// retrying retries a review after transient failures, for about a second.
func retrying(ctx context.Context, review func(context.Context) error) error {
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 4}
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		last = review(ctx)
		if isTransient(last) {
			return false, nil
		}
		return true, last
	})
	if wait.Interrupted(err) && last != nil {
		return last
	}
	return err
}

// isTransient reports whether a request that failed may succeed soon.
func isTransient(err error) bool {
	_, later := apierrors.SuggestsClientDelay(err)
	return later || utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err) ||
		apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err)
}

func (r *reviews) authenticate(ctx context.Context, token string) (caller authenticationv1.UserInfo, ok bool, err error) {
	var answer *authenticationv1.TokenReview
	err = retrying(ctx, func(ctx context.Context) error {
		var err error
		answer, err = r.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return authenticationv1.UserInfo{}, false, fmt.Errorf("create TokenReview: %w", err)
	}
	// status.error is not a failure of the review: the API server sets it for every invalid token.
	caller = answer.Status.User
	if !slices.Contains(caller.Groups, authenticated) {
		caller.Groups = append(caller.Groups, authenticated)
	}
	return caller, answer.Status.Authenticated, nil
}

func (r *reviews) authorize(ctx context.Context, caller authenticationv1.UserInfo, verb, path string) (bool, error) {
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: caller.Username, UID: caller.UID, Groups: caller.Groups,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: verb, Path: path},
	}
	if len(caller.Extra) > 0 {
		spec.Extra = make(map[string]authorizationv1.ExtraValue, len(caller.Extra))
		for name, values := range caller.Extra {
			spec.Extra[name] = authorizationv1.ExtraValue(values)
		}
	}
	var answer *authorizationv1.SubjectAccessReview
	err := retrying(ctx, func(ctx context.Context) error {
		var err error
		answer, err = r.access.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("create SubjectAccessReview for %s: %w", caller.Username, err)
	}
	return answer.Status.Allowed && !answer.Status.Denied, nil
}
