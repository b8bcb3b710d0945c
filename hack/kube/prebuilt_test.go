package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// mirror is a server for archives that records the requested paths.
type mirror struct {
	*httptest.Server
	mu    sync.Mutex
	paths []string
}

func newMirror(t *testing.T, answer http.HandlerFunc) *mirror {
	t.Helper()
	m := &mirror{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.paths = append(m.paths, r.URL.Path)
		m.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.paths...)
}

// packed returns an archive as controller-tools publish it, and its SHA-512.
func packed(t *testing.T) (content []byte, sum string) {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl", "README"} {
		text := "this is " + name
		header := &tar.Header{Name: "controller-tools/envtest/" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}
		if err := files.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(files, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum512(out.Bytes())
	return out.Bytes(), hex.EncodeToString(digest[:])
}

// newMaker returns a maker with an empty folder for binaries and an archive with this checksum.
func newMaker(t *testing.T, url, sum string) (*maker, *bytes.Buffer) {
	t.Helper()
	said := &bytes.Buffer{}
	return &maker{
		source: ".", out: t.TempDir(), mirror: url, patience: time.Minute,
		archives: map[string]archive{runtime.GOOS + "/" + runtime.GOARCH: {"v1.99.0", sum}},
		screen:   &screen{out: said, every: time.Hour},
	}, said
}

func files(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := make([]string, len(entries))
	for i, entry := range entries {
		found[i] = entry.Name()
	}
	return found
}

func TestDownloadInstallsWhatTheArchiveHas(t *testing.T) {
	content, sum := packed(t)
	server := newMirror(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	m, _ := newMaker(t, server.URL, sum)
	missing, err := m.missing(controlPlane)
	if err != nil || len(missing) != len(controlPlane) {
		t.Fatalf("missing binaries of an empty folder: %v, error %v", names(missing), err)
	}
	done, err := m.download(t.Context(), missing)
	if err != nil {
		t.Fatal(err)
	}
	if len(done) != 3 {
		t.Errorf("downloaded %v, want etcd, kube-apiserver and kubectl", done)
	}
	want := "/envtest-v1.99.0/envtest-v1.99.0-" + runtime.GOOS + "-" + runtime.GOARCH + ".tar.gz"
	if asked := server.asked(); len(asked) != 1 || asked[0] != want {
		t.Errorf("requested %v, want %s", asked, want)
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		text, err := os.ReadFile(filepath.Join(m.out, name))
		if err != nil || string(text) != "this is "+name {
			t.Errorf("%s has the content %q, error %v", name, text, err)
		}
		if info, err := os.Stat(filepath.Join(m.out, name)); err != nil || info.Mode().Perm()&0o100 == 0 {
			t.Errorf("%s is not executable: %v, error %v", name, info, err)
		}
	}
	if found := files(t, m.out); len(found) != 6 {
		t.Errorf("the folder has %v, want three binaries and their pins", found)
	}

	// Afterwards, only the binary that is not in the archive is missing.
	missing, err = m.missing(controlPlane)
	if err != nil || names(missing) != "controllers" {
		t.Errorf("missing binaries after the download: %q, error %v; want the controllers", names(missing), err)
	}
	// Without a mirror, downloaded binaries must be built from source.
	m.mirror = ""
	missing, err = m.missing(controlPlane)
	if err != nil || len(missing) != len(controlPlane) {
		t.Errorf("missing binaries without a mirror: %q, error %v; want all", names(missing), err)
	}
	// Another archive has another pin.
	m.mirror = server.URL
	m.archives = map[string]archive{runtime.GOOS + "/" + runtime.GOARCH: {"v1.99.1", sum}}
	missing, err = m.missing(controlPlane)
	if err != nil || len(missing) != len(controlPlane) {
		t.Errorf("missing binaries with another archive: %q, error %v; want all", names(missing), err)
	}
}

func TestDownloadIsForTheNewestReleaseOnly(t *testing.T) {
	server := newMirror(t, func(http.ResponseWriter, *http.Request) {})
	m, _ := newMaker(t, server.URL, "")
	done, err := m.download(t.Context(), append(sets["oldest"], sets["node"]...))
	if err != nil || len(done) != 0 || len(server.asked()) != 0 {
		t.Errorf("downloaded %v, error %v, requested %v; want no requests", done, err, server.asked())
	}
}

func TestDownloadRefusesAWrongChecksum(t *testing.T) {
	content, sum := packed(t)
	server := newMirror(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(content, 0)) })
	m, _ := newMaker(t, server.URL, sum)
	err := m.make(t.Context(), controlPlane)
	if !errors.Is(err, errChecksum) {
		t.Fatalf("make: %v, want %v", err, errChecksum)
	}
	for _, part := range []string{server.URL, sum, "the download was deleted", prebuiltVariable + "=off"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not contain %q: %v", part, err)
		}
	}
	if found := files(t, m.out); len(found) != 0 {
		t.Errorf("the folder has %v, want it empty", found)
	}
}

// After a failed download, no files are left and all binaries are built.
func TestDownloadFailureIsNotAnError(t *testing.T) {
	content, sum := packed(t)
	silent := func(r *http.Request) { <-r.Context().Done() } // until the client closes the connection
	half := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"nobody listens":  nil,
		"no such archive": http.NotFound,
		"never answers":   func(_ http.ResponseWriter, r *http.Request) { silent(r) },
		"stalls":          func(w http.ResponseWriter, r *http.Request) { half(w); silent(r) },
		"ends early":      func(w http.ResponseWriter, _ *http.Request) { half(w) },
		"redirects to nowhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+nobody.Addr().String(), http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := "http://" + nobody.Addr().String()
			if answer != nil {
				url = newMirror(t, answer).URL
			}
			m, said := newMaker(t, url, sum)
			m.patience = 100 * time.Millisecond
			done, err := m.download(t.Context(), controlPlane)
			if err != nil || len(done) != 0 {
				t.Errorf("downloaded %v, error %v; want neither", done, err)
			}
			if found := files(t, m.out); len(found) != 0 {
				t.Errorf("the folder has %v, want it empty", found)
			}
			if !strings.Contains(said.String(), "so they are built from source") {
				t.Errorf("the output does not say that the binaries are built: %s", said)
			}
		})
	}
}

// The archives must have the minor version that is built from source. Update both together.
func TestArchivesAreOfTheNewestRelease(t *testing.T) {
	version, err := kubernetesVersion(filepath.Join(newest.folder, newest.file))
	if err != nil {
		t.Fatal(err)
	}
	want, ok := minor(version)
	if !ok || len(archives) == 0 {
		t.Fatalf("version %q is invalid, or there are no archives (%d)", version, len(archives))
	}
	for platform, archive := range archives {
		if got, ok := minor(archive.release); !ok || got != want {
			t.Errorf("%s: the archive has version %s, but the source has %s", platform, archive.release, version)
		}
		if digest, err := hex.DecodeString(archive.sha512); err != nil || len(digest) != sha512.Size {
			t.Errorf("%s: %q is not a SHA-512 digest", platform, archive.sha512)
		}
	}
}
