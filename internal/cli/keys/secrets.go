package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

// maxSecret is the maximum size of an answer about a Secret. A Secret has at most 1 MiB of data.
const maxSecret = 4 << 20

// secretClient reads and deletes Secrets with plain HTTP. The clients of client-go log the bodies of answers at -v=8, which would
// contain the token.
type secretClient struct {
	http *http.Client
	base *url.URL
}

// Delivery is a token with the Secret that it was read from.
type Delivery struct {
	Token token.Token
	// Secret is the name of the Secret, and UID its UID.
	Secret string
	UID    types.UID
}

// ErrNoDelivery says that a Secret holds no token of the key.
var ErrNoDelivery = errors.New("the Secret does not hold the token of this key")

// Token reads the token of an issued key from its Secret. It returns [ErrNoDelivery] if the Secret does not belong to the key, or holds
// something other than the token whose digest is in the status.
func (c *Cluster) Token(ctx context.Context, key *v1alpha1.ApiKey) (Delivery, error) {
	name := key.SecretName()
	secret := &corev1.Secret{}
	if err := c.secret.do(ctx, http.MethodGet, key.Namespace, name, nil, secret); err != nil {
		return Delivery{}, err
	}
	found, err := token.Parse(string(secret.Data[key.SecretKey()]))
	if err != nil || !metav1.IsControlledBy(secret, key) || found.Digest().String() != key.Status.Hash {
		return Delivery{}, fmt.Errorf("%w: secrets %q", ErrNoDelivery, name)
	}
	return Delivery{Token: found, Secret: name, UID: secret.UID}, nil
}

// TakeAway deletes the Secret that a token was read from, unless it was replaced since. It is not an error if the Secret is gone.
func (c *Cluster) TakeAway(ctx context.Context, namespace string, d Delivery) error {
	options := metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &d.UID},
	}
	err := c.secret.do(ctx, http.MethodDelete, namespace, d.Secret, options, nil)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// do sends a request about a Secret and decodes the answer into answer, unless that is nil.
func (c secretClient) do(ctx context.Context, method, namespace, name string, body, answer any) error {
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(text)
	}
	to := c.base.JoinPath("api/v1/namespaces", namespace, "secrets", name).String()
	request, err := http.NewRequestWithContext(ctx, method, to, send)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("%s secrets %q: %w", strings.ToLower(method), name, err)
	}
	defer func() { _ = response.Body.Close() }()
	read, err := io.ReadAll(io.LimitReader(response.Body, maxSecret))
	if err != nil {
		return fmt.Errorf("%s secrets %q: %w", strings.ToLower(method), name, err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return failure(response.StatusCode, method, name, read)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(read, answer); err != nil {
		// Without the cause, which may quote the answer.
		return fmt.Errorf("%s secrets %q: the answer is not a Secret", strings.ToLower(method), name)
	}
	return nil
}

// failure returns the error that an answer describes.
func failure(code int, method, name string, body []byte) error {
	status := &metav1.Status{}
	if err := json.Unmarshal(body, status); err == nil && status.Kind == "Status" && status.Status == metav1.StatusFailure {
		return &apierrors.StatusError{ErrStatus: *status}
	}
	return apierrors.NewGenericServerResponse(code, method, corev1.Resource("secrets"), name, "", 0, true)
}
