// Package sign makes signatures that `cosign verify` and `cosign verify-blob` accept with the public key. It sends nothing to a log or to a
// registry. The same key and content always result in the same signature: https://www.rfc-editor.org/rfc/rfc6979
package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// How cosign stores the signature of an image: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
const (
	payloadType = types.MediaType("application/vnd.dev.cosign.simplesigning.v1+json")
	annotation  = "dev.cosignproject.cosign/signature"
)

// Key is a private key.
type Key struct{ private *ecdsa.PrivateKey }

// Load reads a private key for ECDSA in PEM, such as those of `cosign generate-key-pair` and of openssl. The password decrypts it, if it is
// encrypted.
func Load(text []byte, password string) (*Key, error) {
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(text, cryptoutils.StaticPasswordFunc([]byte(password)))
	if err != nil {
		return nil, fmt.Errorf("not a private key in PEM, or the password is wrong: %w", err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("must be a private key for ECDSA, such as one of cosign generate-key-pair")
	}
	return &Key{private: private}, nil
}

// Blob returns the signature of data in base64.
func (k *Key) Blob(data []byte) (string, error) {
	digest := sha256.Sum256(data)
	// Without a source of random numbers, the signature is deterministic.
	signature, err := k.private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return base64.StdEncoding.EncodeToString(signature), nil
}

// Image returns the signature of an image as an image, and the tag under which clients look for it.
func (k *Key) Image(image name.Digest) (name.Tag, v1.Image, error) {
	tag := image.Tag(strings.ReplaceAll(image.DigestStr(), ":", "-") + ".sig")
	text, err := payload.Cosign{Image: image}.MarshalJSON()
	if err != nil {
		return tag, nil, err
	}
	signature, err := k.Blob(text)
	if err != nil {
		return tag, nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	signed, err := mutate.Append(base, mutate.Addendum{
		Layer: static.NewLayer(text, payloadType), MediaType: payloadType, Annotations: map[string]string{annotation: signature},
	})
	return tag, signed, err
}
