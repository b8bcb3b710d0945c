package release

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// signingKey is a key for signatures.
type signingKey struct {
	public *ecdsa.PublicKey
	// file has the private key.
	file string
}

func newKey(t *testing.T) signingKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := signingKey{public: &private.PublicKey, file: filepath.Join(t.TempDir(), "key.pem")}
	if err := os.WriteFile(key.file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return key
}

// verify checks a signature as `cosign verify-blob` and `openssl dgst -verify` do.
func (k signingKey) verify(t *testing.T, data []byte, signature string) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(signature)
	digest := sha256.Sum256(data)
	if err != nil || !ecdsa.VerifyASN1(k.public, digest[:], raw) {
		t.Errorf("the signature %q is not valid: %v", signature, err)
	}
	if digest[0] ^= 1; ecdsa.VerifyASN1(k.public, digest[:], raw) {
		t.Error("the signature is also valid for something else")
	}
}

func pushes(t *testing.T, checkout checkout, files map[string][]byte, key signingKey) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	printed := strings.Fields(release(t, checkout, "-platforms=linux/"+runtime.GOARCH, "-registry="+host+"/team", "-signing-key="+key.file, "push"))
	if len(printed) != len(products)+1 {
		t.Fatalf("want the images and the chart, got %v", printed)
	}
	for _, pushed := range printed {
		tagged, digest, _ := strings.Cut(pushed, "@")
		reference, err := name.ParseReference(tagged)
		if err != nil {
			t.Fatal(err)
		}
		found, err := remote.Get(reference, remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if found.Digest.String() != digest {
			t.Errorf("the registry has %s as %s", tagged, found.Digest)
		}
		isSigned(t, reference.Context().Digest(digest), key)
	}
	t.Run("Helm pulls the chart", func(t *testing.T) { helmPulls(t, host, files["apikey-operator-1.9.8.tgz"]) })
}

// isSigned checks the signature of an image as `cosign verify --key` does:
// https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
func isSigned(t *testing.T, image name.Digest, key signingKey) {
	t.Helper()
	signature, err := remote.Image(image.Tag(strings.ReplaceAll(image.DigestStr(), ":", "-")+".sig"), remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := signature.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := signature.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("the signature of %s has %d layers: %v", image, len(layers), err)
	}
	content, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	if got := manifest.Layers[0].MediaType; got != "application/vnd.dev.cosign.simplesigning.v1+json" {
		t.Errorf("the signature of %s has the media type %s", image, got)
	}
	key.verify(t, payload, manifest.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
	var claim struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			}
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			}
			Type string
		}
	}
	if err := json.Unmarshal(payload, &claim); err != nil {
		t.Fatal(err)
	}
	if c := claim.Critical; c.Image.Digest != image.DigestStr() || c.Identity.Reference != image.Context().Name() || c.Type != "cosign container image signature" {
		t.Errorf("what is signed is %s, and not that %s is %s", payload, image.Context(), image.DigestStr())
	}
}

// helmPulls pulls the chart with Helm and renders it.
func helmPulls(t *testing.T, host string, archive []byte) {
	settings, folder := t.TempDir(), t.TempDir()
	tool := exec.CommandContext(t.Context(), "go", "tool", "-n", "helm") // it is built if the build cache doesn't have it
	tool.Dir = filepath.Join(root(t), "test", "install")
	printed, err := tool.Output()
	if err != nil {
		t.Fatal(err)
	}
	program := strings.TrimSpace(string(printed))
	environment := []string{"HELM_CACHE_HOME=" + settings, "HELM_CONFIG_HOME=" + settings, "HELM_DATA_HOME=" + settings}
	helm := func(args ...string) string {
		return run(t, folder, environment, append([]string{program}, args...)...)
	}
	helm("pull", "oci://"+host+"/team/charts/apikey-operator", "--version=1.9.8", "--plain-http")
	pulled, err := os.ReadFile(filepath.Join(folder, "apikey-operator-1.9.8.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pulled, archive) {
		t.Error("Helm pulls another chart than the archive of the release")
	}
	rendered := helm("template", "apikey-operator", "apikey-operator-1.9.8.tgz", "--set=image.registry=registry.example/team")
	for _, want := range []string{"image: registry.example/team/apikey-operator:" + version, "image: registry.example/team/apikey-verifier:" + version, "helm.sh/chart: apikey-operator-1.9.8"} {
		if !strings.Contains(strings.ReplaceAll(rendered, `"`, ""), want) {
			t.Errorf("the chart does not render %q", want)
		}
	}
	helm("lint", "apikey-operator-1.9.8.tgz", "--strict", "--set=image.registry=registry.example/team")
}
