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

// publicMirror is where Kubernetes' controller-tools publish the archives that setup-envtest downloads.
const publicMirror = "https://github.com/kubernetes-sigs/controller-tools/releases/download"

// patience is how long a mirror may take to connect, to answer, or for more to come: a mirror that can't be reached must not hold up the
// build, which needs none.
const patience = 5 * time.Second

// archive is one of etcd, kube-apiserver and kubectl for a platform. It has no controllers.
type archive struct {
	release string
	sha512  string
}

// archives are those of envtest-releases.yaml in the repository of controller-tools, by platform. The release is the newest there of the
// minor version that is built from source.
var archives = map[string]archive{
	"linux/amd64": {
		"v1.37.0", "1d1c453633b72c161a5d5a886cde7ac850be1a2ac796a9e1d4ffacacc64868295bdd2d57aa66cd0c158f5ce510f5dfe3fbc61ac21bd3dcfb875bd70658aa663a",
	},
	"linux/arm64": {
		"v1.37.0", "ae6a670502988200b0131c943758cfd3d3a58cf4e6247ef7f0e6a6467f1cd9a333c802e86101f0446b1b92a0e327387224e1e44fe1a4693da0929c6e529cfe9a",
	},
}

// prebuilt are the binaries that an archive has, all of the newest release.
var prebuilt = []string{"etcd", "kube-apiserver", "kubectl"}

// archiveOf is the archive that has a binary, if there is one.
func (m *maker) archiveOf(b binary) (archive, bool) {
	if m.mirror == "" || b.module != newest || !slices.Contains(prebuilt, b.name) {
		return archive{}, false
	}
	a, ok := m.archives[runtime.GOOS+"/"+runtime.GOARCH]
	return a, ok
}

// pin is what a binary of the archive has for a pin.
func (a archive) pin() string { return "archive " + a.release + " sha512:" + a.sha512 }

// url is where a mirror has the archive.
func (a archive) url(mirror string) string {
	return fmt.Sprintf("%s/envtest-%s/envtest-%s-%s-%s.tar.gz", strings.TrimSuffix(mirror, "/"), a.release, a.release, runtime.GOOS, runtime.GOARCH)
}

// errChecksum is a download that is not what was pinned.
var errChecksum = errors.New("wrong checksum")

// download installs those of the binaries that an archive has, and returns their names. What can't be had is left to be built; an archive
// that is not the pinned one is an error.
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
	m.screen.say("Downloading %s of Kubernetes %s from %s (%s=off builds instead).", names(wanted), from.release, url, prebuiltVariable)
	file := filepath.Join(folder, "archive")
	if err := m.fetch(ctx, url, file, from.sha512); err != nil {
		if errors.Is(err, errChecksum) || ctx.Err() != nil {
			return nil, err
		}
		m.screen.say("That could not be had, so it is built: %v", err)
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

// fetch writes what a URL has into a file, and fails with errChecksum if that has another SHA-512.
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

	stalled := time.AfterFunc(m.patience, func() { cancel(fmt.Errorf("nothing came for %s", m.patience)) })
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
		return fmt.Errorf("%w: %s has SHA-512 %s, and %s is pinned in hack/kube/prebuilt.go; nothing of it was kept. "+
			"%s=off builds from source instead", errChecksum, url, got, sum, prebuiltVariable)
	}
	return nil
}

// watched is a reader that puts a timer off whenever something comes.
type watched struct {
	io.Reader
	timer *time.Timer
	by    time.Duration
}

// Read reads from the reader below.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.timer.Reset(w.by)
	}
	return n, err
}

// unpack writes the binaries of a .tar.gz into a folder, and returns their files by name. It is for archives whose checksum was right.
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

// save writes a program to a file.
func save(file string, content io.Reader) error {
	out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close())
}
