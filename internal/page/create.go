package page

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// Fields of the form, as the templates name them. A problem of no single field is at fieldForm.
const (
	fieldForm      = "form"
	fieldNamespace = "namespace"
	fieldName      = "name"
	fieldPurpose   = "purpose"
	fieldRoles     = "roles"
	fieldExpires   = "expires"
	fieldNetworks  = "networks"
	fieldDelivery  = "delivery"
	fieldOwner     = "owner"
)

// lifetimes are the durations to choose from, in days.
var lifetimes = []string{"7", "30", "60", "90"}

// Choices of the expiry besides lifetimes.
const (
	onDate = "date"
	never  = keys.Never
)

// form is what the dialog shows: what the user filled in, what there is to choose from, and what was refused.
type form struct {
	Base       string
	Namespaces []string
	// Catalogue is the role catalogue. If it is empty or can't be read, roles are typed in.
	Catalogue []choice
	// CatalogueUnread says that the user may not list apiroles.
	CatalogueUnread bool

	Namespace, Name, Purpose string
	Owner                    string
	Roles                    []string
	// Expires is a number of days, date or never; Date is the date.
	Expires, Date string
	Networks      string
	Workload      bool
	Lifetimes     []string

	// Refusals are the refusals by field.
	Refusals map[string][]string
}

// choice is a role that can be chosen.
type choice struct {
	keys.RoleLine

	Chosen bool
}

// refuse notes a refusal at a field.
func (f *form) refuse(field, text string) {
	if f.Refusals == nil {
		f.Refusals = map[string][]string{}
	}
	if !slices.Contains(f.Refusals[field], text) {
		f.Refusals[field] = append(f.Refusals[field], text)
	}
}

// Typed returns the roles that are not in the catalogue, as they were typed in.
func (f *form) Typed() string { return strings.Join(f.Roles, "\n") }

// read reads what the user filled in.
func (f *form) read(values url.Values) {
	text := func(name string) string { return strings.TrimSpace(values.Get(name)) }
	f.Namespace, f.Name, f.Purpose = text("namespace"), text("name"), text("purpose")
	f.Owner = text("owner")
	for _, typed := range values["roles"] {
		f.Roles = append(f.Roles, list(typed)...)
	}
	f.Expires, f.Date, f.Networks = text("expires"), text("date"), text("networks")
	f.Workload = text("delivery") == "workload"
}

// list splits a text at commas, spaces and line ends.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

// key returns the ApiKey that the form asks for, or nil if it refused a field.
func (f *form) key() *v1alpha1.ApiKey {
	if f.Namespace == "" {
		f.refuse(fieldNamespace, "Choose the namespace that the key is for.")
	}
	if f.Name == "" {
		f.refuse(fieldName, "A key needs a name, such as web-shop.")
	}
	if len(f.Roles) == 0 {
		f.refuse(fieldRoles, "Choose at least one role. A key without roles could do nothing.")
	}
	var attributes []string
	if f.Owner != "" {
		attributes = append(attributes, keys.AttributeOwner+"="+f.Owner)
	}
	key, err := keys.Form{
		Namespace: f.Namespace, Name: f.Name, DisplayName: f.Purpose, Roles: f.Roles, Expires: f.expiry(), CIDRs: list(f.Networks), Keep: f.Workload,
		Attributes: attributes,
	}.Key()
	switch {
	case f.Expires == onDate && f.Date == "":
		f.refuse(fieldExpires, "Choose the date on which the key expires.")
	case err != nil:
		f.refuse(fieldExpires, err.Error())
	}
	if len(f.Refusals) > 0 {
		return nil
	}
	return key
}

// expiry returns the expiry as package keys parses it.
func (f *form) expiry() string {
	switch {
	case f.Expires == onDate:
		return f.Date
	case slices.Contains(lifetimes, f.Expires):
		return f.Expires + "d"
	}
	return f.Expires
}

// fieldOf returns the field of the form for the path of a field of an ApiKey.
func fieldOf(path string) string {
	for prefix, field := range map[string]string{
		"metadata.namespace": fieldNamespace, "metadata.name": fieldName, "spec.displayName": fieldPurpose, "spec.roles": fieldRoles,
		"spec.expiry": fieldExpires, "spec.cidrs": fieldNetworks, "spec.secret": fieldDelivery, "spec.attributes": fieldOwner,
	} {
		if path == prefix || strings.HasPrefix(path, prefix+".") || strings.HasPrefix(path, prefix+"[") {
			return field
		}
	}
	return fieldForm
}

// fieldOfVerdict returns the field that the words of the catalogue or of a policy are about, or the form if they are about several.
func fieldOfVerdict(message string) string {
	var about []string
	for _, c := range []struct {
		field string
		words []string
	}{
		{fieldExpires, []string{"expiry."}}, {fieldNetworks, []string{"the network ", "a key without cidrs"}}, {fieldRoles, []string{"the role ", "spec.roles"}},
		{fieldOwner, []string{"the attribute ", "the attributes "}},
	} {
		if slices.ContainsFunc(c.words, func(word string) bool { return strings.Contains(message, word) }) {
			about = append(about, c.field)
		}
	}
	if len(about) == 1 {
		return about[0]
	}
	return fieldForm
}

// fill adds what there is to choose from.
func (p *page) fill(ctx context.Context, f *form) error {
	f.Base, f.Lifetimes = p.gate.Path(), lifetimes
	var err error
	if f.Namespaces, err = p.Cluster.Namespaces(ctx); err != nil && !apierrors.IsForbidden(err) {
		return err
	}
	slices.Sort(f.Namespaces)
	roles, err := p.Cluster.Roles(ctx)
	if f.CatalogueUnread = apierrors.IsForbidden(err); err != nil && !f.CatalogueUnread {
		return err
	}
	for _, line := range keys.CatalogueLines(roles) {
		f.Catalogue = append(f.Catalogue, choice{line, slices.Contains(f.Roles, line.Name)})
	}
	return nil
}

func (p *page) showForm(w http.ResponseWriter, r *http.Request) {
	f := &form{Namespace: r.FormValue("namespace"), Expires: "90"}
	if f.Namespace == "" || f.Namespace == everywhere {
		f.Namespace = p.Namespace
	}
	if err := p.fill(r.Context(), f); err != nil {
		p.refuse(w, err)
		return
	}
	p.render(w, http.StatusOK, "form", f)
}

// create creates a key, or shows the form again with what was refused.
func (p *page) create(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "The form is too large.", http.StatusRequestEntityTooLarge)
		return
	}
	f := &form{}
	f.read(r.PostForm)
	created, err := p.tryCreate(r.Context(), f)
	if err == nil && created == nil {
		err = p.fill(r.Context(), f)
		if err == nil {
			p.render(w, http.StatusUnprocessableEntity, "form", f)
			return
		}
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	id := p.receipts.add(receipt{key: created, workload: f.Workload})
	p.goTo(w, "keys/"+created.Namespace+"/"+created.Name+"/token/"+id)
}

// goTo tells the script which view to show next.
func (p *page) goTo(w http.ResponseWriter, view string) {
	w.Header().Set("Location", p.gate.Path()+view)
	w.WriteHeader(http.StatusNoContent)
}

// tryCreate creates a key, unless it would not be issued or its token could not be shown. It returns nil if the form says why.
func (p *page) tryCreate(ctx context.Context, f *form) (*v1alpha1.ApiKey, error) {
	key := f.key()
	if key == nil {
		return nil, nil
	}
	if err := p.checkRights(ctx, f, key); err != nil || len(f.Refusals) > 0 {
		return nil, err
	}
	stored, err := p.Cluster.DryRun(ctx, key)
	if err != nil {
		return nil, p.place(f, err)
	}
	judged, err := p.Cluster.Judge(ctx, stored, p.now())
	if err != nil {
		return nil, err
	}
	if judged.Refused() {
		f.refuse(fieldOfVerdict(judged.Verdict.Message), judged.Verdict.Message)
		return nil, nil
	}
	// Whoever closes the browser now must not cut off the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keys.Timeout)
	defer cancel()
	created, err := p.Cluster.Create(ctx, key)
	if err != nil {
		return nil, p.place(f, err)
	}
	return created, nil
}

// checkRights refuses a key that the user may not create, or whose token the page could not show.
func (p *page) checkRights(ctx context.Context, f *form, key *v1alpha1.ApiKey) error {
	lacking, err := p.Cluster.Lacking(ctx, keys.OnKeys(key.Namespace, "create", "list", "watch")...)
	if err != nil {
		return err
	}
	if len(lacking) > 0 {
		f.refuse(fieldNamespace, "You may not "+keys.Enumerate(lacking)+". Ask whoever manages RBAC in this cluster for the ClusterRole apikey-admin.")
	}
	if f.Workload {
		return nil
	}
	lacking, err = p.Cluster.Lacking(ctx, keys.OnSecret(key.Namespace, key.SecretName(), "get")...)
	if err != nil {
		return err
	}
	if len(lacking) > 0 {
		f.refuse(fieldDelivery, "You may not "+keys.Enumerate(lacking)+", so this page can't show you the token. A key for a workload needs no such right.")
	}
	return nil
}

// place puts a refusal of the API server at the fields that it speaks of. It returns all other errors.
func (p *page) place(f *form, err error) error {
	problems := keys.Problems(err)
	switch {
	case apierrors.IsAlreadyExists(err):
		f.refuse(fieldName, "This namespace has a key of this name. A key can't be changed: choose another name, or delete the other key first.")
	case apierrors.IsInvalid(err) && len(problems) > 0:
		for _, problem := range problems {
			f.refuse(fieldOf(problem.Field), problem.Message)
		}
	case apierrors.IsNotFound(err):
		f.refuse(fieldNamespace, p.Explain(err))
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		f.refuse(fieldForm, p.Explain(err))
	default:
		return err
	}
	return nil
}

// waitTime is how long a request waits for a key to be issued, before the browser asks again.
const waitTime = 25 * time.Second
