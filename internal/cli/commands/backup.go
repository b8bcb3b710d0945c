package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/cli/backup"
	"github.com/apikey-operator/apikey-operator/internal/cli/keys"
)

func backupCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all keys with their status to a file",
		Long: `Writes the ApiKeys of all namespaces to a file, with the digests of their tokens. Nobody can use a token by means of
the file, but whoever can change it decides which tokens are valid after a restore. For -, it writes to standard output.

It needs the right to list apikeys in all namespaces.`,
		Example: "  kubectl apikey backup backup.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := s.cluster()
			if err != nil {
				return err
			}
			count := 0
			save := func(w io.Writer) error {
				writer := backup.NewWriter(w)
				if err := cluster.EachPage(cmd.Context(), "", "", writer.Page); err != nil {
					return err
				}
				count, err = writer.Close()
				return err
			}
			if args[0] == "-" {
				err = save(s.Out)
			} else {
				err = s.replaceFile(cmd.Context(), args[0], save)
			}
			if err != nil {
				return err
			}
			s.say("Wrote %s.", plural(count, "key"))
			return nil
		},
	}
	s.addYes(cmd)
	return cmd
}

// replaceFile writes a file that only its owner can read. It is complete or not there, and an existing one is replaced after a question.
func (s *session) replaceFile(ctx context.Context, path string, write func(io.Writer) error) (err error) {
	if _, err := os.Stat(path); err == nil {
		if err := s.confirm(ctx, path+" exists. Replace it?"); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".apikey-backup-")
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return wrong("%s can't be written: %w", path, failed.Err) // without the name of the temporary file
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if err := write(file); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func restoreCommand(s *session) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore keys with their status, so that tokens in use go on working",
		Long: `Restores the keys of a backup, with their digests and expiry times. No token is minted: those in use go on working.
Keys that were deleted after the backup work again, so delete them from the file first.

It stops the operators of the cluster and proves that none runs, lifts the admission policy on the status, writes the
keys, puts the policy back, reads the keys again, and starts the operators. It changes nothing if a key of the backup was
issued meanwhile, and says which. If it is interrupted, it puts the policy back, and the same command continues.

Before it, pause the tools that deploy from Git. It needs the rights of a cluster administrator; see docs/backup.md.`,
		Example: "  kubectl apikey restore backup.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := s.readBackup(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			cluster, err := s.cluster()
			if err != nil {
				return err
			}
			lacking, err := cluster.Lacking(cmd.Context(), restoreRights...)
			if err != nil {
				return err
			}
			if len(lacking) > 0 {
				return wrong("nothing was restored: you may not %s", keys.Enumerate(lacking))
			}
			restore := &backup.Restore{
				Client: cluster.Client(), Keys: all, KeepExisting: keep, Say: s.say,
				Confirm: func(question string) error { return s.confirm(cmd.Context(), question) },
			}
			result, err := restore.Run(cmd.Context())
			if err != nil {
				return err
			}
			return s.println(fmt.Sprintf("%d restored, %d present before, %d left alone; %d of %d verified",
				result.Restored, result.Present, result.Kept, result.Verified, len(all)-result.Kept))
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-existing", false, "leave keys alone that exist with another token or spec, and restore the others")
	s.addYes(cmd)
	return cmd
}

// restoreRights are the rights that a restore needs, all of them in the whole cluster.
var restoreRights = []keys.Right{
	{Verb: "list", Group: v1alpha1.GroupVersion.Group, Resource: "apikeys"},
	{Verb: "get", Group: v1alpha1.GroupVersion.Group, Resource: "apikeys"},
	{Verb: "create", Group: v1alpha1.GroupVersion.Group, Resource: "apikeys"},
	{Verb: "update", Group: v1alpha1.GroupVersion.Group, Resource: "apikeys", Subresource: "status"},
	{Verb: "list", Resource: "pods"},
	{Verb: "list", Group: "coordination.k8s.io", Resource: "leases"},
	{Verb: "list", Group: "apps", Resource: "deployments"},
	{Verb: "get", Group: "apps", Resource: "deployments"},
	{Verb: "patch", Group: "apps", Resource: "deployments"},
	{Verb: "list", Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicybindings"},
	{Verb: "get", Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicybindings"},
	{Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicybindings"},
}

func (s *session) readBackup(ctx context.Context, path string) ([]v1alpha1.ApiKey, error) {
	in := s.In
	if path != "-" {
		file, err := os.Open(path) //nolint:gosec // a path that the user gave
		if err != nil {
			return nil, wrong("read the backup: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	all, err := backup.Read(&interruptible{ctx, in})
	if err != nil {
		return nil, wrong("%s: %w", path, err)
	}
	return all, nil
}
