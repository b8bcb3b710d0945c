package callers

import (
	"context"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/util/webhook"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
)

// reviewTimeout bounds all that is asked about one caller.
const reviewTimeout = 10 * time.Second

// reviewer is who is asked. An error tells that there is no answer; a no is none.
type reviewer interface {
	authenticate(ctx context.Context, token string) (caller authenticationv1.UserInfo, ok bool, err error)
	authorize(ctx context.Context, caller authenticationv1.UserInfo, verb, path string) (bool, error)
}

// reviews are those of the API server. apiserver's own delegating authenticator would do but for one thing: it tells a token that is none
// by the same kind of error as a review that could not be made.
type reviews struct {
	tokens authenticationclient.TokenReviewInterface
	access authorizationclient.SubjectAccessReviewInterface
}

func newReviews(config *rest.Config) (*reviews, error) {
	config = rest.CopyConfig(config)
	// The gate is what limits reviews. A limiter behind it would make known callers wait for strangers.
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

// retrying tries a review again that failed in passing, within about a second.
func retrying(ctx context.Context, review func() error) error {
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 4}
	return webhook.WithExponentialBackoff(ctx, backoff, review, webhook.DefaultShouldRetry)
}

func (r *reviews) authenticate(ctx context.Context, token string) (caller authenticationv1.UserInfo, ok bool, err error) {
	var answer *authenticationv1.TokenReview
	err = retrying(ctx, func() error {
		var err error
		answer, err = r.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return authenticationv1.UserInfo{}, false, fmt.Errorf("review a token: %w", err)
	}
	// status.error is no more than the reason of the no: the API server has it for every token that is none.
	caller = answer.Status.User
	if !slices.Contains(caller.Groups, user.AllAuthenticated) {
		caller.Groups = append(caller.Groups, user.AllAuthenticated)
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
	err := retrying(ctx, func() error {
		var err error
		answer, err = r.access.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("review %s: %w", caller.Username, err)
	}
	return answer.Status.Allowed && !answer.Status.Denied, nil
}
