package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// StartInstalled is [Start] followed by [ControlPlane.Install], in half of the time: etcd starts with a copy of the data that an earlier
// control plane left behind after its installation. Everything else is new, such as the certificates and the keys that sign tokens.
//
// The data is in bin/kube/installed. It is made again after a change of config/ or of the programs in bin/kube.
func StartInstalled(ctx context.Context, options Options) (*ControlPlane, error) {
	data, err := installedData(ctx)
	if err != nil {
		return nil, fmt.Errorf("data of a control plane with config/default: %w", err)
	}
	options.data = data
	c, err := Start(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := c.WaitGuarded(ctx, Namespace, ServiceAccount); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// installedData returns the folder with etcd's data after an installation, and makes it if there is none for the files of now. If
// several processes need it at the same time, one makes it, and the others wait.
func installedData(ctx context.Context) (string, error) {
	c := &ControlPlane{}
	var err error
	if c.Root, err = RepositoryRoot(); err != nil {
		return "", err
	}
	version, err := c.installedVersion()
	if err != nil {
		return "", err
	}
	all := filepath.Join(c.Root, "bin", "kube", "installed")
	if err := os.MkdirAll(all, 0o700); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(all, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // which unlocks it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	data := filepath.Join(all, version)
	now := time.Now()
	if err := os.Chtimes(data, now, now); err == nil || !errors.Is(err, fs.ErrNotExist) { // in use: see keptFor
		return data, err
	}
	made, err := makeInstalledData(ctx, all)
	if err != nil {
		return "", err
	}
	return data, errors.Join(os.Rename(made, data), removeUnused(all))
}

// keptFor is how long data stays that nobody uses, such as that of another branch.
const keptFor = 7 * 24 * time.Hour

// removeUnused removes data that was last used long ago.
func removeUnused(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && entry.IsDir() && time.Since(info.ModTime()) > keptFor {
			errs = append(errs, os.RemoveAll(filepath.Join(folder, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// makeInstalledData starts a control plane, installs, stops it, and returns a new folder in the given one with etcd's data.
func makeInstalledData(ctx context.Context, folder string) (_ string, err error) {
	made, err := os.MkdirTemp(folder, "new-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	c, err := Start(ctx, Options{})
	if err != nil {
		return "", err
	}
	if err := c.Install(ctx); err != nil {
		return "", errors.Join(err, c.Stop())
	}
	data := c.plane.Etcd.DataDir
	// etcd has written everything once it has ended.
	return made, errors.Join(c.stopProcesses(), copyData(ctx, data, made), c.Stop())
}

// copyData copies the content of a folder. etcd reserves 64 MB for each of its logs. Most of that is empty, and takes no time to copy.
func copyData(ctx context.Context, from, to string) error {
	command := exec.CommandContext(ctx, "cp", "--recursive", "--sparse=always", from+"/.", to)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s to %s: %w\n%s", from, to, err, out)
	}
	return nil
}

// installedLayout changes with what this package does for an installation.
const installedLayout = 1

// installedVersion returns a hash of all that determines the data after an installation: the files of config/, and the programs.
func (c *ControlPlane) installedVersion() (string, error) {
	hash := sha256.New()
	_, _ = fmt.Fprintln(hash, installedLayout)
	for _, program := range []string{c.Binary("etcd"), c.Binary("kube-apiserver"), c.Binary(controllers), c.Kubectl()} {
		info, err := os.Stat(program)
		if err != nil {
			return "", fmt.Errorf("%w (did you run `make kube`?)", err)
		}
		_, _ = fmt.Fprintln(hash, program, info.Size(), info.ModTime().UnixNano())
	}
	err := filepath.WalkDir(filepath.Join(c.Root, "config"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		_, _ = fmt.Fprintln(hash, strings.TrimPrefix(path, c.Root), len(text))
		_, _ = hash.Write(text)
		return err
	})
	return hex.EncodeToString(hash.Sum(nil))[:16], err
}
