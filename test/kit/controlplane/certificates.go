package controlplane

import (
	"net"
	"os"
	"path/filepath"

	certutil "k8s.io/client-go/util/cert"
)

// writeCertificates writes the API server's certificate and the key pair that signs service account tokens, under the names that envtest
// uses. The certificate is valid for the address and for the Service kubernetes, unlike envtest's own. writeCertificates returns the
// certificate of the authority.
func writeCertificates(folder, address string) ([]byte, error) {
	// 10.0.0.1 is the first address of envtest's service-cluster-ip-range.
	ips := []net.IP{net.ParseIP(address), net.IPv4(10, 0, 0, 1)}
	serving, key, err := certutil.GenerateSelfSignedCertKey("localhost", ips, []string{"kubernetes.default.svc"})
	if err != nil {
		return nil, err
	}
	signer, signerKey, err := certutil.GenerateSelfSignedCertKey("sa-signer", nil, nil)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"apiserver.crt": serving, "apiserver.key": key, "sa-signer.crt": signer, "sa-signer.key": signerKey,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	chain, err := certutil.ParseCertsPEM(serving)
	if err != nil {
		return nil, err
	}
	return certutil.EncodeCertificates(chain[len(chain)-1])
}
