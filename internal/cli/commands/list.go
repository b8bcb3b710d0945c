package commands

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
)

// listOptions are the flags of list.
type listOptions struct {
	all      bool
	selector string
	output   string
	sort     string
	expiring string
	unused   string
	role     string
	owner    string
}

func listCommand(s *session) *cobra.Command {
	o := &listOptions{}
	cmd := &cobra.Command{
		Use:        "list",
		Aliases:    []string{"ls"},
		SuggestFor: []string{"get"},
		Short:      "List keys: status, when they expire, when they were last used, owner, roles",
		Long: `Lists the API keys of a namespace, or of all.

LAST USED may be an hour behind, because it is recorded once an hour. Who used a key is not recorded.

It needs the right to list apikeys. Large lists are read in pages and printed as they come, unless they are sorted.`,
		Example: `  # The keys of the namespace
  kubectl apikey list

  # What expires within two weeks in any namespace, the next one first
  kubectl apikey list -A --expiring 14d --sort expires

  # Keys that nobody was seen to use for 90 days
  kubectl apikey list -A --unused 90d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd, s) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.all, "all-namespaces", "A", false, "list the keys of all namespaces")
	flags.StringVarP(&o.selector, "selector", "l", "", "list keys with these labels only, such as team=shop")
	flags.StringVar(&o.sort, "sort", "", "sort by "+strings.Join(orders(), ", ")+"; absent means as the API server lists them, which is by name")
	flags.StringVar(&o.expiring, "expiring", "", "list keys only that work and expire within this time, such as 14d")
	flags.StringVar(&o.unused, "unused", "", "list issued keys only without a recorded use within this time, such as 90d")
	flags.StringVar(&o.role, "role", "", "list keys only that name this role in their spec")
	flags.StringVar(&o.owner, "owner", "", "list keys only with this attribute owner")
	addOutput(cmd, &o.output, formatJSON, formatYAML, formatName, formatWide)
	_ = cmd.RegisterFlagCompletionFunc("owner", s.completeOwners)
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(orders(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("role", s.completeRoles)
	return cmd
}

func orders() []string { return slices.Sorted(maps.Keys(keys.Orders)) }

func (o *listOptions) run(cmd *cobra.Command, s *session) error {
	filter := keys.Filter{Role: o.role, Owner: o.owner}
	if o.expiring != "" {
		within, err := expiry.ParseDuration(o.expiring)
		if err != nil || within == 0 {
			return wrong("--expiring=%s: must be a duration such as 14d or 12h", o.expiring)
		}
		filter.ExpiringWithin = within
	}
	if o.unused != "" {
		unused, err := expiry.ParseDuration(o.unused)
		if err != nil || unused == 0 {
			return wrong("--unused=%s: must be a duration such as 90d or 12h", o.unused)
		}
		filter.UnusedFor = unused
	}
	order := keys.Orders[o.sort]
	if o.sort != "" && order == nil {
		return wrong("--sort=%s: must be one of %s", o.sort, strings.Join(orders(), ", "))
	}
	cluster, namespace, err := s.open()
	if err != nil {
		return err
	}
	if o.all {
		namespace = ""
	}
	now := time.Now()
	l := &lister{table: newTable(s.Out, o.all, o.output == formatWide, now), now: now, filter: filter, order: order}
	if o.output != "" && o.output != formatWide {
		l.objects = &objects{w: s.Out, format: o.output}
	}
	if err := cluster.EachPage(cmd.Context(), namespace, o.selector, l.page); err != nil {
		return err
	}
	count, err := l.end()
	if err == nil && count == 0 && l.objects == nil {
		where := "in any namespace"
		if namespace != "" {
			where = fmt.Sprintf("in namespace %q", namespace)
		}
		what := "API keys"
		if filter != (keys.Filter{}) || o.selector != "" {
			what = "matching API keys"
		}
		s.say("No %s found %s.", what, where)
	}
	return err
}

// lister prints keys page by page, or all at the end if they are to be sorted.
type lister struct {
	table   *table
	objects *objects // nil for a table
	now     time.Time
	filter  keys.Filter
	order   func(a, b keys.Row) int

	count int
	held  []heldKey
}

// heldKey is a key that waits to be sorted. For a table, the object is not kept.
type heldKey struct {
	row keys.Row
	key *v1alpha1.ApiKey
}

func (l *lister) page(page []v1alpha1.ApiKey) error {
	for i := range page {
		h := heldKey{row: keys.RowOf(&page[i], l.now)}
		if !l.filter.Shows(h.row, l.now) {
			continue
		}
		if l.objects != nil {
			h.key = page[i].DeepCopy()
			h.key.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKey"))
		}
		l.count++
		if l.order != nil {
			l.held = append(l.held, h)
			continue
		}
		if err := l.print(h); err != nil {
			return err
		}
	}
	return l.table.flush()
}

func (l *lister) print(h heldKey) error {
	if l.objects != nil {
		return l.objects.add(h.key)
	}
	return l.table.add(h.row, "")
}

func (l *lister) end() (int, error) {
	if l.order != nil {
		slices.SortStableFunc(l.held, func(a, b heldKey) int { return l.order(a.row, b.row) })
		for _, h := range l.held {
			if err := l.print(h); err != nil {
				return 0, err
			}
		}
	}
	if l.objects != nil {
		return l.count, l.objects.end()
	}
	return l.count, l.table.flush()
}

// table prints rows of keys with aligned columns.
type table struct {
	w       writeFlusher
	spaces  bool // a column for the namespace
	wide    bool
	now     time.Time
	started bool
}

type writeFlusher interface {
	io.Writer
	Flush() error
}

func newTable(w io.Writer, namespaces, wide bool, now time.Time) *table {
	return &table{w: printers.GetNewTabWriter(w), spaces: namespaces, wide: wide, now: now}
}

func (t *table) line(cells []string) error {
	_, err := fmt.Fprintln(t.w, strings.Join(cells, "\t"))
	return err
}

// add adds a row. kind says which of the key's tokens the table is about, or is empty.
func (t *table) add(r keys.Row, kind keys.Kind) error {
	head := []string{"NAME", "STATUS", "EXPIRES", "LAST USED", "AGE", "OWNER", "ROLES"}
	cells := []string{r.Name, r.Status, r.Expires(t.now), r.LastUsed(t.now), r.Age(t.now), orUnknown(clean(r.Owner)), few(r.Roles, t.wide)}
	if t.spaces {
		head, cells = append([]string{"NAMESPACE"}, head...), append([]string{r.Namespace}, cells...)
	}
	if kind != "" {
		head, cells = append(head, "TOKEN"), append(cells, string(kind))
	}
	if t.wide {
		networks := "any"
		if len(r.CIDRs) > 0 {
			networks = strings.Join(r.CIDRs, ",")
		}
		head = append(head, "NETWORKS", "HINT", "ROTATED", "PURPOSE")
		cells = append(cells, networks, orUnknown(r.Hint), r.Rotates(t.now), orUnknown(clean(r.DisplayName)))
	}
	if !t.started {
		t.started = true
		if err := t.line(head); err != nil {
			return err
		}
	}
	return t.line(cells)
}

func (t *table) flush() error { return t.w.Flush() }

// maxListedRoles is how many roles a row names unless it is wide.
const maxListedRoles = 2

func few(names []string, all bool) string {
	if all || len(names) <= maxListedRoles {
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("%s,+%d more", strings.Join(names[:maxListedRoles], ","), len(names)-maxListedRoles)
}

func orUnknown(text string) string {
	if text == "" {
		return keys.Unknown
	}
	return text
}

// cleanLines is like [clean], but keeps the ends of lines.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// clean replaces control characters, so that a text that somebody else wrote can't change the terminal or the columns.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, text)
}
