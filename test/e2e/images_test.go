//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/hack/release/image"
	"github.com/apikey-operator/apikey-operator/test/kit/node"
)

// pushImages pushes all images that the tests run to a registry. It returns their references by the names that the manifests
// use.
func pushImages(registry *node.Registry) map[string]string {
	GinkgoHelper()
	pushed := map[string]string{}
	run(nil, "bin/release", "-version="+imageTag, "-registry="+registry.Address, "-platforms="+node.Platform().String(), "push")
	for _, product := range []string{"apikey-operator", "apikey-verifier", "kubectl-apikey"} {
		pushed[product] = registry.Address + "/" + product + ":" + imageTag
	}
	var err error
	pushed["caller"], err = registry.PushBinary("caller:"+imageTag, filepath.Join(root, "bin", "caller"))
	Expect(err).NotTo(HaveOccurred())
	nginx, err := image.New(
		image.Description{Platform: node.Platform(), Entrypoint: []string{"/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"}},
		append(image.User(), debianNginx()...),
	)
	Expect(err).NotTo(HaveOccurred())
	pushed[nginxName], err = registry.Push(nginxName+":"+imageTag, nginx)
	Expect(err).NotTo(HaveOccurred())
	return pushed
}

// nginxConf corresponds to that of nginxinc/nginx-unprivileged: nginx runs without root and writes only below /tmp.
const nginxConf = `
worker_processes 1;
pid /tmp/nginx.pid;
events {}
http {
	include /etc/nginx/mime.types;
	access_log /dev/stdout;
	client_body_temp_path /tmp/client; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
	include /etc/nginx/conf.d/*.conf;
}
`

// debianNginx returns this machine's nginx, curl and shell with their libraries. They replace the image nginxinc/nginx-unprivileged, which
// can't be pulled here.
func debianNginx() []image.File {
	GinkgoHelper()
	mimeTypes, err := os.ReadFile("/etc/nginx/mime.types")
	Expect(err).NotTo(HaveOccurred(), "apt-get install nginx-light")
	library := regexp.MustCompile(`(?m)(/\S+) \(0x`)
	paths := map[string]bool{}
	for program, debian := range map[string]string{
		"/usr/sbin/nginx": "nginx-light", "/usr/bin/curl": "curl", "/bin/sh": "dash", "/bin/cat": "coreutils", "/bin/sleep": "coreutils",
	} {
		out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "apt-get install %s\n%s", debian, out)
		Expect(bytes.Contains(out, []byte("not found"))).To(BeFalse(), "%s\n%s", program, out)
		paths[program] = true
		for _, match := range library.FindAllSubmatch(out, -1) {
			paths[string(match[1])] = true
		}
	}
	files := make([]image.File, 0, 2+len(paths))
	files = append(files,
		image.File{Path: "/etc/nginx/nginx.conf", Mode: 0o444, Data: []byte(nginxConf)},
		image.File{Path: "/etc/nginx/mime.types", Mode: 0o444, Data: mimeTypes})
	for path := range paths {
		data, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		files = append(files, image.File{Path: path, Mode: 0o555, Data: data})
	}
	return files
}
