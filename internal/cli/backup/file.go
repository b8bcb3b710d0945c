// Package backup writes ApiKeys with their status to a file, and restores them from it. It must not mint tokens or read Secrets: a restored
// key keeps the digest that it had, so that the token in use goes on working.
package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
)

// Writer writes a List of ApiKeys that kubectl reads, too.
type Writer struct {
	w       io.Writer
	started bool
	count   int
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

const (
	head = `{"apiVersion":"v1","kind":"List","metadata":{},"items":[` + "\n"
	tail = "\n]}\n"
)

// Page writes keys. It leaves out keys that are being deleted, and the metadata that belongs to this cluster.
func (w *Writer) Page(keys []v1alpha1.ApiKey) error {
	for i := range keys {
		if !keys[i].DeletionTimestamp.IsZero() {
			continue
		}
		text, err := json.Marshal(portable(&keys[i]))
		if err != nil {
			return err
		}
		before := ",\n"
		if !w.started {
			before, w.started = head, true
		}
		if _, err := fmt.Fprintf(w.w, "%s%s", before, text); err != nil {
			return err
		}
		w.count++
	}
	return nil
}

// Close ends the List and returns the number of its keys. It does not close the underlying writer.
func (w *Writer) Close() (int, error) {
	text := tail
	if !w.started {
		text = head + tail
	}
	_, err := io.WriteString(w.w, text)
	return w.count, err
}

// portable returns a key without the metadata that belongs to a cluster. An owner would have another UID after a restore, so that the garbage
// collector would delete the key.
func portable(key *v1alpha1.ApiKey) *v1alpha1.ApiKey {
	kept := &v1alpha1.ApiKey{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApiKey"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, Labels: key.Labels, Annotations: key.Annotations, Finalizers: key.Finalizers,
		},
		Spec: key.Spec, Status: key.Status,
	}
	return kept
}

// Read reads a List of ApiKeys, in JSON or YAML. It accepts what [Writer] writes, and what kubectl get apikeys -o json prints.
func Read(r io.Reader) ([]v1alpha1.ApiKey, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	list := &v1alpha1.ApiKeyList{}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		err = json.Unmarshal(text, list)
	} else {
		err = yaml.Unmarshal(text, list)
	}
	if err != nil {
		return nil, fmt.Errorf("the backup is incomplete or damaged: %w", err)
	}
	if list.Kind != "List" && list.Kind != "ApiKeyList" {
		return nil, fmt.Errorf("this is not a backup: its kind is %q, must be List", list.Kind)
	}
	return check(list.Items)
}

func check(items []v1alpha1.ApiKey) ([]v1alpha1.ApiKey, error) {
	var problems []error
	seen := make(map[types.NamespacedName]bool, len(items))
	keys := make([]v1alpha1.ApiKey, 0, len(items))
	for i := range items {
		id := idOf(&items[i])
		switch {
		case items[i].Kind != "ApiKey" || items[i].APIVersion != v1alpha1.GroupVersion.String():
			problems = append(problems, fmt.Errorf("item %d is of the kind %q in %q, must be ApiKey in %q", i+1, items[i].Kind, items[i].APIVersion, v1alpha1.GroupVersion))
		case id.Name == "" || id.Namespace == "":
			problems = append(problems, fmt.Errorf("item %d has no name or no namespace", i+1))
		case seen[id]:
			problems = append(problems, fmt.Errorf("%s occurs twice", id))
		}
		seen[id] = true
		keys = append(keys, *portable(&items[i]))
	}
	return keys, errors.Join(problems...)
}

func idOf(key *v1alpha1.ApiKey) types.NamespacedName {
	return types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
}
