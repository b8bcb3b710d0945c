package gateways

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// adminPrefix is a second location, which requires roleOther.
const adminPrefix = "/orders/admin"

// withAdmin returns an edit that adds the second location to a documented configuration, as a user would: it copies what /orders has.
func withAdmin(program string) func(site string) string {
	blocks := map[string][][2]string{
		"nginx":   {{"    location /orders {\n", "\n    }\n"}, {"    location = /_apikey_orders {\n", "\n    }\n"}},
		"caddy":   {{"\troute /orders* {\n", "\n\t}\n"}},
		"traefik": {{"# Whoever calls", "\n---\n"}, {"apiVersion: traefik.io/v1alpha1\nkind: IngressRoute\n", "\n---\n"}},
	}[program]
	again := strings.NewReplacer(
		"location /orders ", "location "+adminPrefix+" ", "_apikey_orders", "_apikey_admin",
		"route /orders*", "route "+adminPrefix+"*",
		"PathPrefix(`/orders`)", "PathPrefix(`"+adminPrefix+"`)", "apikey-orders", "apikey-admin", "name: orders, namespace", "name: admin, namespace",
		roleRead, roleOther,
	)
	return func(site string) string {
		GinkgoHelper()
		site += "\n---\n" // marks the end of Traefik's last object
		var more strings.Builder
		for _, block := range blocks {
			_, rest, found := strings.Cut(site, block[0])
			body, _, ended := strings.Cut(rest, block[1])
			Expect(found && ended).To(BeTrue(), "the documented file has no %q", block[0])
			more.WriteString(again.Replace(block[0] + body + block[1]))
		}
		site = strings.TrimSuffix(site, "\n---\n")
		if program == "traefik" {
			return strings.TrimSuffix(site+"\n---\n"+more.String(), "\n---\n")
		}
		end := strings.LastIndex(site, "}") // the end of the server block
		return site[:end] + more.String() + site[end:]
	}
}

// rawAPI is an API that reads only the target of a request, and so also sees targets that other servers correct or refuse.
type rawAPI struct {
	net.Listener

	mu      sync.Mutex
	targets []string
}

func startRawAPI() *rawAPI {
	GinkgoHelper()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	a := &rawAPI{Listener: listener}
	DeferCleanup(listener.Close)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go a.answer(connection)
		}
	}()
	return a
}

func (a *rawAPI) answer(connection net.Conn) {
	defer func() { _ = connection.Close() }()
	reader := bufio.NewReader(connection)
	first, err := reader.ReadString('\n')
	for line := first; err == nil && strings.TrimRight(line, "\r\n") != ""; {
		line, err = reader.ReadString('\n')
	}
	if err != nil {
		return
	}
	_, target, _ := strings.Cut(strings.TrimRight(first, "\r\n"), " ")
	if space := strings.LastIndex(target, " "); space >= 0 {
		target = target[:space]
	}
	a.mu.Lock()
	a.targets = append(a.targets, target)
	a.mu.Unlock()
	_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// taken returns the targets of the requests that reached the API since the last call.
func (a *rawAPI) taken() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	targets := a.targets
	a.targets = nil
	return targets
}

var longPath = "/orders" + strings.Repeat("/a", 3000)

// twoReadings are paths that an API might read differently from the gateway. Each value is what Traefik makes of the path by removing dot
// segments and double slashes, or "" if the path stays ambiguous.
var twoReadings = map[string]string{
	// nginx 1.22 judged these two as /orders, and forwarded them so that the API reads /orders/admin.
	"/orders/admin/../x":     "/orders/x",
	"/orders/admin/%2e%2e/x": "/orders/x",

	"/orders/admin/%2E%2E/x":             "/orders/x",
	"/orders/admin/.%2e/x":               "/orders/x",
	"/orders/admin/%2E./x":               "/orders/x",
	"/orders/admin/..":                   "/orders",
	"/orders/admin/..?next=x":            "/orders?next=x",
	"/orders/x/../admin/y":               "/orders/admin/y",
	"/orders/x/%2e%2e/admin/y":           "/orders/admin/y",
	"/elsewhere/../orders/admin/y":       "/orders/admin/y",
	"/orders/../orders/admin/y":          "/orders/admin/y",
	"/../orders/x":                       "/orders/x",
	"/orders/./admin/y":                  "/orders/admin/y",
	"/orders/%2e/admin/y":                "/orders/admin/y",
	"/./orders/x":                        "/orders/x",
	"/orders/.":                          "/orders",
	"/orders//admin/y":                   "/orders/admin/y",
	"//orders/x":                         "/orders/x",
	"/orders/x//":                        "/orders/x/",
	"http://shop.example/orders/a/../x":  "/orders/x",
	"http://shop.example//orders/x":      "/orders/x",
	"/orders/admin/..\"x/../y":           "/orders/admin/y",
	"/orders/admin/\"/%2e%2e/%2e%2e/x":   "/orders/x",
	longPath + "/..":                     longPath[:len(longPath)-2],
	"/orders/report%2Epdf":               "/orders/report.pdf",
	"/orders/admin/../../elsewhere":      "/elsewhere",
	"/orders/admin/%2e%2e/%2e%2e/orders": "/orders",
	"/orders/admin%00/../x":              "/orders/x",
	"/orders/admin;/../x":                "/orders/x",
	"/orders/admin%3f/../x":              "/orders/x",

	// Encoded and other characters that some servers read as slashes.
	"/orders/admin%2f..%2fx":      "",
	"/orders/admin%2F%2E%2E%2Fx":  "",
	"/orders%2fadmin/y":           "",
	"/orders%2Fadmin":             "",
	"/orders/admin%5c..%5cx":      "",
	"/orders%5Cadmin/y":           "",
	"/orders\\admin\\y":           "",
	"/orders/admin/..\\x":         "",
	"/orders/x\\..\\admin":        "",
	"/orders/admin/%252e%252e/x":  "",
	"/orders%252fadmin":           "",
	"/orders/%25252e%25252e/x":    "",
	"/orders/admin/%c0%ae%C0%AE/": "",
	"/orders%c0%afadmin":          "",
	"/orders/%c1%9cadmin":         "",
	"/orders%e0%80%afadmin":       "",
	"/orders%F0%80%80%AFadmin":    "",
	"/orders\xc0\xafadmin":        "",
	"/orders/%u002e%u002e/x":      "",

	// Characters that end a path, or a segment, for some servers.
	"/orders/admin/..;/x":         "",
	"/orders/admin/..;a=b/x":      "",
	"/orders;x/admin":             "",
	"/orders/;/admin":             "",
	"/orders/admin/..%3b/x":       "",
	"/orders%3Bx/admin":           "",
	"/orders/admin%00":            "",
	"/orders/admin%0a":            "",
	"/orders/admin%0D%0AX-Y:%20z": "",
	"/orders/admin%09":            "",
	"/orders/admin%7f":            "",
	"/orders/admin\x7f":           "",
	"/orders#/admin":              "",
	"/orders/x#/../admin":         "",
	"/orders%23/admin":            "",
	"/orders/admin%3f/x":          "",

	// These are not valid targets.
	"/orders/%":          "",
	"/orders/%zz":        "",
	"/orders/admin x":    "",
	"orders/../x":        "",
	"../orders/x":        "",
	"\\orders\\x":        "",
	"/orders/\x00/admin": "",
}

// oneReading are paths that all servers read alike.
var oneReading = []string{
	"/orders",
	"/orders/",
	"/orders/42",
	"/orders/42?next=//x%2f..%5c%252e/./../%00&q=a.b",
	"/orders?/../admin//",
	"/orders/a.b..c/...",
	"/orders/.well-known/..x/.y",
	"/orders/%C3%BCber%20alles/",
	"/orders/%E3%81%82/%F0%9F%98%80",
	"/orders/a:b@c,d=e!f$g&h'i(j)*k+l~m-n_o",
	"/orders/user%40example.com",
	"/orders/\"{}|^`<>\"",
	"/orders/" + strings.Repeat("a/b.", 1500), // a regular expression must not give up on a long path
}

// paths declares the specs of how a gateway judges the paths of requests. It judges one reading of a path, and the API must not be able to
// read the path differently.
func paths(program string, start starter) {
	Describe(program+", with a second location of another role", Ordered, func() {
		var (
			behind        *rawAPI
			url           string
			reader, admin string
		)
		// ask sends a request as it is, and returns the status and the targets that reached the API.
		ask := func(target, token string) (string, []string) {
			GinkgoHelper()
			behind.taken()
			line := raw(url, "GET "+target+" HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n")
			_, status, _ := strings.Cut(line, " ")
			status, _, _ = strings.Cut(status, " ")
			return status, behind.taken()
		}
		BeforeAll(func() {
			behind = startRawAPI()
			url = startGateway(program, start, verifier, behind.Addr().String(), withAdmin(program))
			ns := namespace()
			_, reader = issue(ns, "reader", build.Roles(roleRead))
			_, admin = issue(ns, "admin", build.Roles(roleOther))
			Eventually(func() string { status, _ := ask("/orders", reader); return status }).Should(Equal("200"))
			Eventually(func() string { status, _ := ask(adminPrefix, admin); return status }).Should(Equal("200"))
		})

		It("judges a path by the location that it is in", func() {
			for _, target := range []string{"/orders/admin", "/orders/admin/x", "/orders/%61dmin/x", "http://shop.example/orders/admin/x", "/orders/admin?x=/../.."} {
				status, taken := ask(target, reader)
				Expect(status).To(Equal("403"), "%s", target)
				Expect(taken).To(BeEmpty(), "%s", target)
				status, taken = ask(target, admin)
				Expect(status).To(Equal("200"), "%s", target)
				Expect(taken).To(HaveLen(1), "%s", target)
			}
			status, taken := ask("/orders/x", admin)
			Expect(status).To(Equal("403"))
			Expect(taken).To(BeEmpty())
		})

		It("forwards a path that all servers read alike, unchanged", func() {
			for _, target := range oneReading {
				status, taken := ask(target, reader)
				Expect(status).To(Equal("200"), "%s", target)
				Expect(taken).To(HaveExactElements(Or(Equal(target), Equal(escaped(target)))), "%s", target)
			}
			status, taken := ask("http://shop.example/orders/42?a=//b", reader)
			Expect(status).To(Equal("200"))
			Expect(taken).To(Equal([]string{"/orders/42?a=//b"}))
		})

		It("lets no path through that the API could read as another", func() {
			for target, cleaned := range twoReadings {
				for _, token := range []string{reader, admin} {
					status, taken := ask(target, token)
					if program != "traefik" {
						Expect(status).To(Equal("400"), "%s", target)
						Expect(taken).To(BeEmpty(), "%s", target)
						continue
					}
					// Traefik removes dot segments and double slashes, then judges and forwards the result.
					want := "404"
					switch inAdmin := strings.HasPrefix(cleaned, adminPrefix); {
					case cleaned == "":
						Expect(status).To(BeElementOf("400", "404"), "%s", target)
						Expect(taken).To(BeEmpty(), "%s", target)
						continue
					case inAdmin && token == admin, !inAdmin && token == reader && strings.HasPrefix(cleaned, "/orders"):
						want = "200"
					case strings.HasPrefix(cleaned, "/orders"):
						want = "403"
					}
					Expect(status).To(Equal(want), "%s", target)
					if want == "200" {
						Expect(taken).To(Equal([]string{cleaned}), "%s", target)
					} else {
						Expect(taken).To(BeEmpty(), "%s", target)
					}
				}
			}
		})
	})
}

// escaped returns a target with the characters escaped that some gateways escape because a path may not contain them.
func escaped(target string) string {
	path, query, found := strings.Cut(target, "?")
	path = strings.NewReplacer("\"", "%22", "{", "%7B", "}", "%7D", "|", "%7C", "^", "%5E", "`", "%60", "<", "%3C", ">", "%3E").Replace(path)
	if found {
		path += "?" + query
	}
	return path
}

// queries declares the specs of a gateway whose configuration has no query for the verifier, by mistake. Some gateways then use the client's.
func queries(program string, start starter) {
	Describe(program+", whose check has no query of its own", Ordered, func() {
		const asks = "/auth?role=" + roleRead
		var (
			behind                *api
			url, documented       string
			near                  *http.Client
			reader, other, master string
		)
		BeforeAll(func() {
			behind, near = startAPI(), httpClient(inside)
			floor := startVerifier(addresses(), "--trusted-proxies="+trustedProxy+"/32", "--default-roles="+roleOther)
			url = startGateway(program, start, floor, behind.address(), func(site string) string {
				Expect(site).To(ContainSubstring(asks))
				return strings.ReplaceAll(site, asks, "/auth")
			})
			documented = startGateway(program, start, verifier, behind.address(), nil)
			ns := namespace()
			_, reader = issue(ns, "reader", build.Roles(roleRead))
			_, other = issue(ns, "other", build.Roles(roleOther))
			_, master = issue(ns, "master", build.Roles(roleRead, roleOther))
			for _, token := range []string{other, master} {
				Eventually(func() int { return statusOf(near, url+"/orders", "X-Api-Key", token) }).Should(Equal(http.StatusOK))
			}
			Eventually(func() int { return statusOf(near, documented+"/orders", "X-Api-Key", reader) }).Should(Equal(http.StatusOK))
		})

		It("still needs --default-roles, whatever the client's query asks for", func() {
			for _, query := range []string{"", "?role=" + roleRead, "?role=" + roleRead + "&role=" + roleRead, "?role=", "?namespace=default", "?roles=x", "?x;y", "?%zz"} {
				before, _ := behind.seen()
				Expect(statusOf(near, url+"/orders"+query, "X-Api-Key", reader)).To(Equal(http.StatusForbidden), "%s", query)
				after, _ := behind.seen()
				Expect(after).To(Equal(before), "the API was called")
			}
			// A client that asks for more than the route requires can only harm itself.
			Expect(statusOf(near, url+"/orders?role="+roleRead, "X-Api-Key", master)).To(Equal(http.StatusOK))
			itself := http.StatusOK
			if program == "caddy" { // Caddy forwards the client's query
				itself = http.StatusForbidden
			}
			for _, query := range []string{"?role=" + roleRead, "?namespace=elsewhere", "?page=2"} {
				Expect(statusOf(near, url+"/orders"+query, "X-Api-Key", other)).To(Equal(itself), "%s", query)
			}
		})

		It("asks by the query of its own where it has one, as in docs/gateways, and never by the client's", func() {
			for _, query := range []string{"", "?role=" + roleOther, "?role=", "?namespace=elsewhere", "?roles=x"} {
				Expect(statusOf(near, documented+"/orders"+query, "X-Api-Key", reader)).To(Equal(http.StatusOK), "%s", query)
				Expect(statusOf(near, documented+"/orders"+query, "X-Api-Key", other)).To(Equal(http.StatusForbidden), "%s", query)
			}
		})
	})
}
