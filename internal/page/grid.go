package page

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

// maxRows is the number of keys that the grid shows. Above it, browsers become slow.
const maxRows = 2000

// firstRows is the number of rows that are visible at first. Further ones follow when the end of the table comes into view: browsers take long
// to lay out a table of a thousand rows, at each change again.
const firstRows = 50

// everywhere is the value of the parameter namespace that means all namespaces. No namespace has this name.
const everywhere = "*"

// grid is the data of the grid.
type grid struct {
	// Namespace is what is shown: a namespace, or [everywhere].
	Namespace string
	// Namespaces are those to choose from. It is nil if the user may not list them.
	Namespaces []string
	All        bool
	Rows       []row
	// First is the number of rows that are visible at first.
	First int
	// Left is the number of keys that are not shown.
	Left int64
	// MayNot says why the user can't add a key, or is empty.
	MayNot string
}

// row is a key in the grid.
type row struct {
	Base, ID                 string
	Namespace, Name, Purpose string
	Owner                    string
	Roles                    []string
	MoreRoles                int
	AllRoles                 string
	Never                    bool
	Expires                  *moment
	// Lasts is how long a key lives from its issue, if it has not been issued yet.
	Lasts string
	// Used is the last use that is on record, or nil if none was seen.
	Used     *moment
	Soon     bool
	Networks []string
	Status   string
	// Tone is the color of the status: good, wait, warn, bad or off.
	Tone, Message string
	// Later says that the row is not visible at first.
	Later bool
	// Order and UsedOrder are the times of the expiry and of the last use for sorting.
	Order, UsedOrder int64
}

func (p *page) rowOf(key *v1alpha1.ApiKey, now time.Time) row {
	k := keys.RowOf(key, now)
	r := row{
		Base: p.gate.Path(), ID: rowID(k.Namespace, k.Name), Namespace: k.Namespace, Name: k.Name, Purpose: k.DisplayName, Owner: k.Owner,
		Roles: k.Roles, AllRoles: strings.Join(k.Roles, ", "), Never: k.Never, Expires: momentOf(k.ExpiresAt, now),
		Networks: k.CIDRs, Status: spaced(k.Status), Tone: tone(k.Status), Order: 1 << 53, // the largest that a script tells apart
		Used: momentOf(k.Used, now),
	}
	if r.Used != nil {
		r.UsedOrder = k.Used.Unix()
	}
	if len(r.Roles) > 2 {
		r.Roles, r.MoreRoles = r.Roles[:2], len(r.Roles)-2
	}
	if r.Expires != nil {
		r.Order = k.ExpiresAt.Unix()
		r.Soon = k.Status == string(v1alpha1.ReasonIssued) && (key.Condition(v1alpha1.ConditionExpiring) != nil || k.ExpiresAt.Sub(now) < soon)
	} else if !k.Never {
		r.Lasts = inWords(key.Spec.Expiry.After)
	}
	if ready := key.Condition(v1alpha1.ConditionReady); ready != nil && k.Status == ready.Reason {
		r.Message = ready.Message
	} else if k.Status == keys.StatusPending {
		r.Message = keys.WaitsFor(key)
	}
	return r
}

// soon is the time before its expiry from which a key stands out.
const soon = 7 * 24 * time.Hour

func rowID(namespace, name string) string { return "key-" + namespace + "." + name }

func tone(status string) string {
	switch status {
	case string(v1alpha1.ReasonIssued):
		return "good"
	case string(v1alpha1.ReasonSuspended):
		return "warn"
	case string(v1alpha1.ReasonExpired), keys.StatusDeleting:
		return "off"
	case keys.StatusPending, string(v1alpha1.ReasonIssuing):
		return "wait"
	}
	return "bad"
}

// scope returns the namespace that a request asks for, or "" for all. Where it names none, that is the one that the user chose, or all if the
// user may list their keys, else the namespace of the context.
func (p *page) scope(ctx context.Context, r *http.Request) (string, error) {
	switch wanted := strings.TrimSpace(r.FormValue("namespace")); wanted {
	case everywhere:
		return "", nil
	case "":
	default:
		return wanted, nil
	}
	if p.Chosen {
		return p.Namespace, nil
	}
	lacking, err := p.Cluster.Lacking(ctx, keys.OnKeys("", "list", "watch")...)
	if err != nil || len(lacking) > 0 {
		return p.Namespace, err
	}
	return "", nil
}

func (p *page) showGrid(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	namespace, err := p.scope(ctx, r)
	if err != nil {
		p.problem(w, r, "Your keys can't be listed", err)
		return
	}
	g := grid{Namespace: namespace, All: namespace == "", First: firstRows}
	if g.All {
		g.Namespace = everywhere
	}
	s := shell{Title: "API keys", View: "grid", Data: &g, Watched: g.Namespace}
	g.Namespaces, err = p.Cluster.Namespaces(ctx)
	if err != nil && !apierrors.IsForbidden(err) {
		p.problem(w, r, "Your keys can't be listed", err)
		return
	}
	slices.Sort(g.Namespaces)
	if !g.All && len(g.Namespaces) > 0 && !slices.Contains(g.Namespaces, namespace) {
		g.Namespaces = append(g.Namespaces, namespace)
	}
	found, err := p.Cluster.Snapshot(ctx, namespace, maxRows)
	if err != nil {
		p.show(w, r, codeOf(err), shell{Title: "API keys", View: "refused", Data: map[string]any{"Grid": g, "Text": p.Explain(err)}})
		return
	}
	s.Version, g.Left = found.Version, found.Left
	now := p.now()
	for i := range found.Keys {
		r := p.rowOf(&found.Keys[i], now)
		r.Later = i >= firstRows
		g.Rows = append(g.Rows, r)
	}
	if !g.All {
		lacking, err := p.Cluster.Lacking(ctx, keys.OnKeys(namespace, "create")...)
		if err != nil {
			p.problem(w, r, "Your keys can't be listed", err)
			return
		}
		if len(lacking) > 0 {
			g.MayNot = "You may not " + keys.Enumerate(lacking) + ". Ask whoever manages RBAC in this cluster for the ClusterRole apikey-admin."
		}
	}
	p.show(w, r, http.StatusOK, s)
}
