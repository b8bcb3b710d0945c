package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apikey-operator/apikey-operator/internal/token"
)

// nobody has no cluster.
var nobody = &person{kubeconfig: "/no/such/file"}

var _ = Describe("scan", func() {
	write := func(folder, name, text string) {
		GinkgoHelper()
		path := filepath.Join(folder, name)
		Expect(os.MkdirAll(filepath.Dir(path), 0o700)).To(Succeed())
		Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	}

	It("finds tokens in files and folders without a cluster, and prints none", func() {
		folder := GinkgoT().TempDir()
		minted := token.Mint("ak").Reveal()
		log.Remember(minted)
		write(folder, "a/config.yaml", "x: 1\nkey: "+minted+"\n")
		write(folder, "b/secret.yaml", "data:\n  token: "+base64.StdEncoding.EncodeToString([]byte(minted))+"\n")
		write(folder, "a/clean.txt", minted[:30]+"\n"+strings.ToUpper(minted))
		write(folder, ".git/objects", minted)
		Expect(os.Symlink(filepath.Join(folder, "nowhere"), filepath.Join(folder, "broken"))).To(Succeed())
		r := nobody.run("scan", folder)
		expectCode(r, 1)
		Expect(r.out).To(Equal(fmt.Sprintf("%[1]s/a/config.yaml:2:6: %[2]s...\n%[1]s/b/secret.yaml:2:10 (base64): %[2]s...\n", folder, minted[:7])))
		Expect(r.err).To(Equal("Found 1 token, in 2 places of 3 texts. The history was not searched: git log -p --all | kubectl apikey scan\n"))
		Expect(strings.Contains(r.out, minted)).To(BeFalse())

		r = nobody.run("scan", filepath.Join(folder, "a", "clean.txt"))
		expectCode(r, 0)
		Expect(r.err).To(Equal("No tokens found in 1 text.\n"))
		expectCode(nobody.feed("x "+minted, "scan"), 1)
		expectCode(nobody.feed("x", "scan", "-"), 0)
		expectCode(nobody.run("scan", "/no/such/folder"), 3)
		expectCode(nobody.onTerminal("scan").end(), 2)
	})

	It("searches what is named, also a link to a folder and a pipe, and refuses to call nothing clean", func() {
		folder := GinkgoT().TempDir()
		minted := token.Mint("ak").Reveal()
		log.Remember(minted)
		write(folder, "real/a.txt", minted)
		link, pipe, empty := filepath.Join(folder, "link"), filepath.Join(folder, "pipe"), filepath.Join(folder, "empty")
		Expect(os.Symlink("real", link)).To(Succeed())
		Expect(os.Mkdir(empty, 0o700)).To(Succeed())
		Expect(syscall.Mkfifo(pipe, 0o600)).To(Succeed())
		r := nobody.run("scan", link)
		expectCode(r, 1)
		Expect(r.out).To(HavePrefix(filepath.Join(link, "a.txt") + ":1:1: "))
		go func() {
			defer GinkgoRecover()
			Expect(os.WriteFile(pipe, []byte(minted), 0o600)).To(Succeed()) // opens once the command reads
		}()
		r = nobody.run("scan", pipe)
		expectCode(r, 1)
		Expect(r.out).To(HavePrefix(pipe + ":1:1: "))
		r = nobody.run("scan", empty)
		expectCode(r, 2)
		Expect(r.err).To(ContainSubstring("nothing was searched: there is no file in " + empty))
	})

	It("looks up what it found although a file can't be read, and shows no control character of its name", func() {
		ns, folder := namespace(), GinkgoT().TempDir()
		write(folder, "a.txt", root.create(ns, "shopper"))
		Expect(os.Symlink("b\x1b[2J", filepath.Join(folder, "b\x1b[2J"))).To(Succeed(), "a link to itself")
		r := root.run("scan", folder, "--find")
		expectCode(r, 3)
		Expect(r.out).To(ContainSubstring("the current token of " + ns + "/shopper, which is Issued"))
		Expect(r.err).To(And(ContainSubstring("not everything was searched"), ContainSubstring("b?[2J"), Not(ContainSubstring("\x1b"))))
	})

	It("ends at the first signal while it waits for a pipe", func() {
		for _, verb := range [][]string{{"scan"}, {"find"}, {"restore", "-"}} {
			read, write, err := os.Pipe()
			Expect(err).NotTo(HaveOccurred())
			command := root.command(verb...)
			var stderr bytes.Buffer
			command.Stdin, command.Stderr = read, &stderr
			Expect(command.Start()).To(Succeed())
			_, err = write.WriteString("x\n")
			Expect(err).NotTo(HaveOccurred())
			Eventually(func() (int, error) { return unix.IoctlGetInt(int(read.Fd()), unix.TIOCINQ) }).Should(BeZero(), "the command reads")
			Expect(command.Process.Signal(syscall.SIGTERM)).To(Succeed())
			_ = command.Wait()
			Expect(command.ProcessState.ExitCode()).To(Equal(130), "%v: %s", verb, stderr.String())
			Expect(errors.Join(read.Close(), write.Close())).To(Succeed())
		}
	})

	It("finds tokens in the history of Git", func() {
		folder := GinkgoT().TempDir()
		git := func(args ...string) string {
			GinkgoHelper()
			command := exec.CommandContext(ctx, "git", append([]string{"-C", folder, "-c", "user.name=Test", "-c", "user.email=test@example.com"}, args...)...)
			command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
			out, err := command.Output()
			Expect(err).NotTo(HaveOccurred())
			return string(out)
		}
		minted := token.Mint("ak").Reveal()
		git("init", "-q")
		write(folder, "config.yaml", "a\nb\nkey: "+minted+"\n")
		git("add", ".")
		git("commit", "-qm", "one")
		first := strings.TrimSpace(git("rev-parse", "HEAD"))
		write(folder, "config.yaml", "a\nb\n")
		git("commit", "-qam", "two")
		second := strings.TrimSpace(git("rev-parse", "HEAD"))
		r := nobody.feed(git("log", "-p"), "scan")
		expectCode(r, 1)
		Expect(r.out).To(Equal(fmt.Sprintf("%s:config.yaml (removed or in the message): %[3]s...\n%[2]s:config.yaml:3:6: %[3]s...\n",
			second[:12], first[:12], minted[:7])))
	})

	It("says with --find whose tokens these are, and fails for one that works", func() {
		ns := namespace()
		live, revoked := root.create(ns, "live"), root.create(ns, "revoked")
		root.must("revoke", "revoked", "-n", ns, "--yes")
		r := root.feed(live+"\n"+revoked+"\n", "scan", "--find")
		expectCode(r, 1)
		Expect(r.out).To(HaveSuffix("standard input:1:1: the current token of " + ns + "/live, which is Issued\n"))
		Expect(r.err).To(ContainSubstring("Of these, 1 can be used."))
		r = root.feed(revoked, "scan", "--find")
		expectCode(r, 0)
		Expect(r.err).To(ContainSubstring("None of them works"))
		root.must("suspend", "live", "-n", ns)
		expectCode(root.feed(live, "scan", "--find"), 1)

		p := having(ns, []rbacv1.PolicyRule{on("apikeys", "list")}, nil)
		setNamespace(p, ns)
		expectCode(p.feed(live, "scan", "--find"), 1)
		r = p.feed(token.Mint("ak").Reveal(), "scan", "--find")
		expectCode(r, 5)
		Expect(r.err).To(ContainSubstring("You may not list the keys of other namespaces"))
	})
})
