package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"

	"github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

const (
	// many is the number of keys, and pageSize how many the command asks for at once.
	many     = 10_000
	pageSize = 500
	// mostMemory bounds the resident memory of the command: that of the program itself, and of a few pages. Measured are 41 to 48 MiB.
	mostMemory = 80 << 20
)

var _ = Describe("10,000 keys of a namespace", Ordered, func() {
	var (
		ns, last string // last is the token of the last key
		proxy    *pager
		p        *person
	)

	BeforeAll(func() {
		ns = namespace()
		last = fill(ns)
		proxy = newPager()
		kubeconfig := file("")
		Expect(controlplane.WriteKubeconfig(&rest.Config{Host: proxy.url}, kubeconfig)).To(Succeed())
		p = &person{kubeconfig: kubeconfig}
	})

	BeforeEach(func() { proxy.reset() })

	It("are listed page by page, and the first line is there before the last page", func() {
		command := p.command("list", "-n", ns)
		out, err := command.StdoutPipe()
		Expect(err).NotTo(HaveOccurred())
		// No further page comes before the first line has been read.
		early := proxy.hold(2)
		Expect(command.Start()).To(Succeed())
		lines := bufio.NewScanner(out)
		Expect(lines.Scan()).To(BeTrue())
		Expect(lines.Text()).To(HavePrefix("NAME "))
		end := proxy.hold(many/pageSize - 1)
		early.release()
		count := 0
		go func() {
			defer GinkgoRecover()
			expectLittleMemory(command, end)
		}()
		for lines.Scan() {
			count++
		}
		Expect(command.Wait()).To(Succeed())
		Expect(count).To(Equal(many))
		proxy.expectPages()
	})

	It("are sorted within the same memory, without keeping the objects", func() {
		out := proxy.measure(p.command("list", "-n", ns, "--sort", "expires"))
		Expect(strings.Count(out, "\n")).To(Equal(many + 1))
	})

	It("are all named when they are sorted", func() {
		Expect(cells(p.must("list", "-n", ns, "--sort", "age", "-o", "name"))).To(HaveLen(many))
		proxy.expectPages()
	})

	It("are searched for a token page by page", func() {
		out := proxy.measure(p.command("find", "-n", ns, "-o", "name", file(last+"\n")))
		Expect(out).To(Equal(fmt.Sprintf("apikey.apikey-operator.io/many-%05d\n", many-1)))
	})
})

// measure runs a command that lists all keys, checks how much memory it needs and how it lists, and returns its output.
func (p *pager) measure(command *exec.Cmd) string {
	GinkgoHelper()
	var out bytes.Buffer
	command.Stdout = &out
	end := p.hold(many/pageSize - 1)
	Expect(command.Start()).To(Succeed())
	expectLittleMemory(command, end)
	Expect(command.Wait()).To(Succeed())
	p.expectPages()
	return out.String()
}

// expectLittleMemory checks the peak memory of a command when it asks for the last page. The usage that the kernel reports at the end is of no use:
// it is at least that of the process that started the command.
func expectLittleMemory(command *exec.Cmd, end *hold) {
	GinkgoHelper()
	defer end.release()
	Eventually(end.reached).Should(BeClosed())
	_, peak, err := controlplane.MemoryOf(command.Process.Pid)
	Expect(err).NotTo(HaveOccurred())
	AddReportEntry("resident memory", fmt.Sprintf("%d MiB", peak>>20))
	Expect(peak).To(BeNumerically("<", mostMemory), "resident memory in bytes, at most")
}

// fill puts copies of an issued key directly into etcd, because issuing them all takes minutes. It returns the token of the last one.
func fill(ns string) (last string) {
	GinkgoHelper()
	pattern := issue(ns, "template")
	etcd := harness.Etcd(plane.Etcd())
	template, err := etcd.Get(ctx, harness.RegistryKey(ns, "template"))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error {
		return etcd.Delete(ctx, harness.RegistryKey(ns, "many-"), harness.RegistryKey(ns, "many-~"))
	})
	values := map[string]string{}
	for i := range many {
		minted := token.Mint("ak")
		name := fmt.Sprintf("many-%05d", i)
		values[harness.RegistryKey(ns, name)] = strings.NewReplacer(
			string(pattern.UID), string(uuid.NewUUID()), pattern.Status.Hash, minted.Digest().String(), `"template"`, `"`+name+`"`,
		).Replace(string(template))
		if last = minted.Reveal(); len(values) == 100 || i == many-1 {
			Expect(etcd.Put(ctx, values)).To(Succeed())
			clear(values)
		}
	}
	Expect(admin.Delete(ctx, pattern)).To(Succeed())
	log.Remember(last)
	return last
}

// pager is a proxy of the API server that remembers how ApiKeys were listed.
type pager struct {
	url string

	mu    sync.Mutex
	lists []url.Values
	held  *hold
}

// hold makes requests wait after so many lists.
type hold struct {
	after int
	// reached is closed when a request waits.
	reached  chan struct{}
	released chan struct{}
	once     sync.Once
}

func (h *hold) release() { close(h.released) }

func newPager() *pager {
	GinkgoHelper()
	target, err := url.Parse(plane.Admin.Host)
	Expect(err).NotTo(HaveOccurred())
	transport, err := rest.TransportFor(plane.Admin)
	Expect(err).NotTo(HaveOccurred())
	p := &pager{}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			p.wait(r.In)
			r.SetURL(target)
		},
		// The API server may ask to try again, while it takes in so many keys.
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusOK && strings.HasSuffix(r.Request.URL.Path, "/apikeys") {
				p.note(r.Request.URL.Query())
			}
			return nil
		},
	})
	DeferCleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *pager) note(list url.Values) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists = append(p.lists, list)
}

// wait waits if requests are held.
func (p *pager) wait(r *http.Request) {
	p.mu.Lock()
	held := p.held
	if held != nil && len(p.lists) < held.after {
		held = nil
	}
	p.mu.Unlock()
	if held == nil {
		return
	}
	held.once.Do(func() { close(held.reached) })
	select {
	case <-held.released:
	case <-r.Context().Done():
	}
}

func (p *pager) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists, p.held = nil, nil
}

// hold makes requests wait after so many lists, until the hold is released.
func (p *pager) hold(after int) *hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = &hold{after: after, reached: make(chan struct{}), released: make(chan struct{})}
	return p.held
}

// expectPages checks that all keys were asked for in pages, and once.
func (p *pager) expectPages() {
	GinkgoHelper()
	p.mu.Lock()
	defer p.mu.Unlock()
	Expect(len(p.lists)).To(Equal(many/pageSize), "%d pages", len(p.lists))
	for i, list := range p.lists {
		Expect(list.Get("limit")).To(Equal(strconv.Itoa(pageSize)), "page %d", i)
		Expect(list.Has("continue")).To(Equal(i > 0), "page %d", i)
	}
}
