package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// publicMirror has the archives that setup-envtest downloads. Kubernetes' controller-tools publish them.
const publicMirror = "https://github.com/kubernetes-sigs/controller-tools/releases/download"

// patience is the timeout to connect, for the answer, and between data. An unreachable mirror must not delay
// the build, which works without one.
const patience = 5 * time.Second

// archive has etcd, kube-apiserver and kubectl for one platform. It doesn't have the controllers.
type archive struct {
	release string
	sha512  string
}

// archives are copied from envtest-releases.yaml in the repository of controller-tools, by platform. The
// release is the newest there with the same minor version as the source.
var archives = map[string]archive{
	"linux/amd64": {
		"v1.37.0", "1d1c453633b72c161a5d5a886cde7ac850be1a2ac796a9e1d4ffacacc64868295bdd2d57aa66cd0c158f5ce510f5dfe3fbc61ac21bd3dcfb875bd70658aa663a",
	},
	"linux/arm64": {
		"v1.37.0", "ae6a670502988200b0131c943758cfd3d3a58cf4e6247ef7f0e6a6467f1cd9a333c802e86101f0446b1b92a0e327387224e1e44fe1a4693da0929c6e529cfe9a",
	},
}

// prebuilt are the binaries in an archive. All are of the newest release.
var prebuilt = []string{"etcd", "kube-apiserver", "kubectl"}

// archiveOf returns the archive that has a binary, if any.
func (m *maker) archiveOf(b binary) (archive, bool) {
	if m.mirror == "" || b.module != newest || !slices.Contains(prebuilt, b.name) {
		return archive{}, false
	}
	a, ok := m.archives[runtime.GOOS+"/"+runtime.GOARCH]
	return a, ok
}

// pin returns the pin of binaries from the archive.
func (a archive) pin() string { return "archive " + a.release + " sha512:" + a.sha512 }

// url returns the URL of the archive on a mirror.
func (a archive) url(mirror string) string {
	return fmt.Sprintf("%s/envtest-%s/envtest-%s-%s-%s.tar.gz", strings.TrimSuffix(mirror, "/"), a.release, a.release, runtime.GOOS, runtime.GOARCH)
}

// errChecksum means that a download has another checksum than its pin.
var errChecksum = errors.New("wrong checksum")

// download installs the binaries that an archive has and returns their names. It returns none if the download
// fails, so that they are built. A wrong checksum is an error.
func (m *maker) download(ctx context.Context, missing []binary) (map[string]bool, error) {
	var from archive
	var wanted []binary
	for _, b := range missing {
		if a, ok := m.archiveOf(b); ok {
			from = a
			wanted = append(wanted, b)
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	folder, err := os.MkdirTemp(m.out, ".download-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()

	url := from.url(m.mirror)
	m.screen.say("Downloading %s of Kubernetes %s from %s (%s=off builds them instead).", names(wanted), from.release, url, prebuiltVariable)
	file := filepath.Join(folder, "archive")
	if err := m.fetch(ctx, url, file, from.sha512); err != nil {
		if errors.Is(err, errChecksum) || ctx.Err() != nil {
			return nil, err
		}
		m.screen.say("The download failed, so they are built from source: %v", err)
		return nil, nil
	}
	found, err := unpack(file, folder, wanted)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	done := map[string]bool{}
	for _, b := range wanted {
		if found[b.name] == "" {
			continue
		}
		if err := m.install(b, found[b.name], from.pin()); err != nil {
			return nil, err
		}
		done[b.name] = true
	}
	return done, nil
}

// fetch downloads a URL to a file. It returns errChecksum if the SHA-512 is not sum.
func (m *maker) fetch(ctx context.Context, url, file, sum string) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: m.patience}).DialContext,
		TLSHandshakeTimeout:   m.patience,
		ResponseHeaderTimeout: m.patience,
	}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()

	stalled := time.AfterFunc(m.patience, func() { cancel(fmt.Errorf("no data for %s", m.patience)) })
	defer stalled.Stop()
	digest := sha512.New()
	received := &counter{}
	show := m.screen.follow(func(time.Duration) string { return received.text(response.ContentLength) })
	defer show()
	if _, err := io.Copy(io.MultiWriter(out, digest, received), &watched{response.Body, stalled, m.patience}); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("%s: %w", url, err)
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != sum {
		return fmt.Errorf("%w: %s has SHA-512 %s, but hack/kube/prebuilt.go pins %s; the download was deleted. "+
			"Set %s=off to build from source instead", errChecksum, url, got, sum, prebuiltVariable)
	}
	return nil
}

// watched is a reader that resets a timer when data arrives.
type watched struct {
	io.Reader
	timer *time.Timer
	by    time.Duration
}

// Read implements [io.Reader].
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.timer.Reset(w.by)
	}
	return n, err
}

// unpack extracts the wanted binaries from a .tar.gz to a folder and returns their files by name. It trusts
// the archive, so check its checksum first.
func unpack(file, folder string, wanted []binary) (map[string]string, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	plain, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	entries := tar.NewReader(plain)
	found := map[string]string{}
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Base(entry.Name)
		if entry.Typeflag != tar.TypeReg || !slices.ContainsFunc(wanted, func(b binary) bool { return b.name == name }) {
			continue
		}
		target := filepath.Join(folder, name)
		if err := save(target, entries); err != nil {
			return nil, err
		}
		found[name] = target
	}
}

// save writes an executable file.
func save(file string, content io.Reader) error {
	out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close())
}
