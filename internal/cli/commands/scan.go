package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
	"github.com/apikey-operator/apikey-operator/internal/cli/scan"
	"github.com/apikey-operator/apikey-operator/internal/token"
)

func scanCommand(s *session) *cobra.Command {
	var find bool
	cmd := &cobra.Command{
		Use:   "scan [PATH...]",
		Short: "Find tokens in files, folders or the history of Git",
		Long: `Finds tokens by their form and their checksum, also in base64, and prints where they are. It never prints a token.
Without a path, or for -, it reads standard input; the output of git log -p is understood. Folders are searched in full,
except for .git.

Nothing is sent anywhere unless --find is given: then the keys of the tokens are looked up in the cluster, by their
digests. That needs the right to list apikeys.

The exit code is 1 if a token was found; with --find, if one was found that works or could work again; and 5 if none was,
but you may not list the keys of all namespaces.`,
		Example: `  kubectl apikey scan .

  # The whole history, and which tokens still work
  git log -p --all | kubectl apikey scan --find`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &scanRun{s: s, places: map[token.Digest]string{}}
			incomplete, err := r.all(cmd.Context(), args)
			if err != nil {
				return err
			}
			verdict := r.verdict(cmd.Context(), find)
			if incomplete == nil {
				return verdict
			}
			if exit := (*exitError)(nil); verdict != nil && !errors.As(verdict, &exit) {
				return errors.Join(incomplete, verdict)
			}
			return incomplete
		},
	}
	cmd.Flags().BoolVar(&find, "find", false, "look up in the cluster whose tokens these are, and whether they work")
	return cmd
}

// scanRun collects what was found.
type scanRun struct {
	s        *session
	git      bool // a folder .git was left out
	files    int
	findings int
	places   map[token.Digest]string // the first place of each token
	order    []token.Digest
}

// verdict looks up what was found if find is set, says what was found, and returns an error with the exit code for it.
func (r *scanRun) verdict(ctx context.Context, find bool) error {
	if find && len(r.order) > 0 {
		return r.lookUp(ctx)
	}
	r.s.say("%s", r.summary())
	if len(r.order) > 0 {
		return errNo
	}
	return nil
}

func (r *scanRun) summary() string {
	if r.findings == 0 {
		return fmt.Sprintf("No tokens found in %s.%s", plural(r.files, "text"), r.unsearched())
	}
	return fmt.Sprintf("Found %s, in %s of %s.%s",
		plural(len(r.order), "token"), plural(r.findings, "place"), plural(r.files, "text"), r.unsearched())
}

// unsearched says how to search what was left out.
func (r *scanRun) unsearched() string {
	if !r.git {
		return ""
	}
	return " The history was not searched: git log -p --all | kubectl apikey scan"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// all searches each path. It goes on after a file that can't be read. Then incomplete says what was not searched.
func (r *scanRun) all(ctx context.Context, paths []string) (incomplete, err error) {
	if len(paths) == 0 {
		paths = []string{"-"}
	}
	var failed []error
	for _, path := range paths {
		if path == "-" {
			if isTerminal(r.s.In) {
				return nil, wrong("give a file or a folder, or pipe a text to standard input")
			}
			if err := r.text(ctx, "", r.s.In); err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			continue
		}
		problems, err := r.path(ctx, path)
		if err != nil {
			return nil, err
		}
		failed = append(failed, problems...)
	}
	if len(failed) > 0 {
		return fmt.Errorf("not everything was searched: %w", errors.Join(failed...)), nil
	}
	if r.files == 0 {
		return nil, wrong("nothing was searched: there is no file in %s%s", strings.Join(paths, ", "), r.unsearched())
	}
	return nil, nil
}

// path searches what somebody named: a folder, or anything that can be read, such as a pipe. Links to them are followed. problems are what
// could not be read, and err ends the search.
func (r *scanRun) path(ctx context.Context, root string) (problems []error, err error) {
	info, err := os.Stat(root)
	if err == nil && !info.IsDir() {
		err = r.open(ctx, root)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return []error{err}, nil
	case !info.IsDir():
		return nil, nil
	}
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		path := filepath.Join(root, filepath.FromSlash(name))
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", path, cause(err)))
			return nil
		case entry.IsDir() && entry.Name() == ".git":
			r.git = true
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		if err := r.entry(ctx, path, entry); err != nil {
			problems = append(problems, err)
		}
		return context.Cause(ctx)
	})
	return problems, err
}

// entry searches a file in a folder. What a link leads to is searched only if it is a file.
func (r *scanRun) entry(ctx context.Context, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err == nil && entry.Type()&fs.ModeSymlink != 0 {
		info, err = os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
			return nil // what a link in a folder leads to is searched where it is
		}
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	return r.open(ctx, path)
}

func (r *scanRun) open(ctx context.Context, path string) error {
	file, err := os.Open(path) //nolint:gosec // a path that the user gave
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := r.text(ctx, path, file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// text searches a text. name is empty for standard input.
func (r *scanRun) text(ctx context.Context, name string, text io.Reader) error {
	r.files++
	var failed error
	err := scan.Text(&interruptible{ctx, text}, func(f scan.Finding) {
		place := placeOf(name, f)
		r.findings++
		digest := f.Token.Digest()
		if r.places[digest] == "" {
			r.order = append(r.order, digest)
			r.places[digest] = place
		}
		if err := r.s.println(fmt.Sprintf("%s: %s...", place, f.Token.Hint())); err != nil {
			failed = err
		}
	})
	return errors.Join(err, failed)
}

// shortCommit is the number of digits of a commit that are shown.
const shortCommit = 12

// placeOf says where a token was found, as compilers do.
func placeOf(name string, f scan.Finding) string {
	place := clean(name)
	if f.Commit != "" {
		place = f.Commit[:shortCommit] + ":" + clean(f.Path)
		if f.Line == 0 {
			return place + " (removed or in the message)"
		}
	}
	if place == "" {
		place = "standard input"
	}
	place = fmt.Sprintf("%s:%d:%d", place, f.Line, f.Column)
	if f.Encoded {
		place += " (base64)"
	}
	return place
}

// lookUp finds the keys of the tokens.
func (r *scanRun) lookUp(ctx context.Context) error {
	cluster, namespace, err := r.s.open()
	if err != nil {
		return err
	}
	found, search, err := cluster.Find(ctx, "", namespace, r.order...)
	if err != nil {
		return err
	}
	return r.report(found, search, time.Now())
}

// report says whose the tokens are, and whether they work.
func (r *scanRun) report(found map[token.Digest][]keys.Match, search keys.Search, now time.Time) error {
	live := 0
	for _, digest := range r.order {
		for i := range found[digest] {
			match := &found[digest][i]
			row := keys.RowOf(&match.Key, now)
			if row.Status != string(v1alpha1.ReasonExpired) && row.Status != keys.StatusDeleting {
				live++
			}
			text := fmt.Sprintf("%s: the %s token of %s/%s, which is %s", r.places[digest], match.Kind, row.Namespace, row.Name, row.Status)
			if row.Owner != "" {
				text += ", owner " + clean(row.Owner)
			}
			if err := r.s.println(text); err != nil {
				return err
			}
		}
	}
	r.s.say("%s", r.summary())
	switch {
	case live > 0:
		r.s.say("Of these, %d can be used. End each one with kubectl apikey revoke or rotate --now.", live)
		return errNo
	case search.Narrowed:
		r.s.say("None is of a key of namespace %q. You may not list the keys of other namespaces.", search.Namespace)
		return &exitError{exitUnsure, errNo.err}
	}
	r.s.say("None of them works: their keys were deleted or have expired, or are of another cluster.")
	return nil
}
