package gateways

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	minted "github.com/apikey-operator/apikey-operator/internal/token"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
	"github.com/apikey-operator/apikey-operator/test/kit/harness"
)

// answer is what a client gets for a token.
type answer struct {
	accepted bool
	// text is the whole answer without its date, to compare refusals byte by byte.
	text string
}

// asking is a way to ask a verifier about a token.
type asking struct {
	protocol string
	about    func(token string) answer
	// cached is how long an accepted token may still be accepted without asking the verifier.
	cached time.Duration
}

// protocols returns a way to ask for each protocol of a verifier.
func protocols(v *controlplane.Verifier) []asking {
	GinkgoHelper()
	c, caller, envoy := httpClient(outside), introspector(), authv3.NewAuthorizationClient(dial(v.GRPC))
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Authorization": {"Bearer " + caller}}
	review := http.Header{"Content-Type": {"application/json"}}
	ways := []asking{
		{protocol: "forward-auth", about: func(token string) answer {
			status, text := exchange(c, http.MethodGet, v.HTTP+"/auth?role="+roleRead, http.Header{"Authorization": {"Bearer " + token}}, "")
			return answer{status == http.StatusOK, text}
		}},
		{protocol: "ext_authz", about: func(token string) answer {
			response, err := envoy.Check(ctx, envoyRequest(outside, roleRead, map[string]string{"x-api-key": token}))
			Expect(err).NotTo(HaveOccurred())
			slices.Sort(response.GetOkResponse().GetHeadersToRemove()) // their order is random, and says nothing
			return answer{response.GetOkResponse() != nil, response.String()}
		}},
		{protocol: "introspection", about: func(token string) answer {
			_, text := exchange(c, http.MethodPost, v.HTTP+"/introspect", form, "token="+token)
			return answer{strings.Contains(text, `"active":true`), text}
		}},
		{protocol: "tokenreview", about: func(token string) answer {
			_, text := exchange(c, http.MethodPost, v.HTTP+"/tokenreview", review,
				`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"`+token+`"}}`)
			return answer{strings.Contains(text, `"authenticated":true`), text}
		}},
	}
	_, known := issue(namespace(), "known")
	for _, way := range ways { // the API server grants a new permission some time later
		Eventually(func() bool { return way.about(known).accepted }).Should(BeTrue(), way.protocol)
	}
	return ways
}

// byAPIServer asks kube-apiserver, whose token webhook is the suite's verifier. It remembers an accepted token for ten seconds.
var byAPIServer = asking{protocol: "kube-apiserver", cached: 10 * time.Second, about: func(token string) answer {
	err := as(token).Create(ctx, &authenticationv1.SelfSubjectReview{})
	if err == nil {
		return answer{accepted: true}
	}
	Expect(apierrors.IsUnauthorized(err)).To(BeTrue(), "%v", err)
	return answer{text: err.Error()}
}}

func exchange(c *http.Client, method, url string, header http.Header, body string) (int, string) {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	Expect(err).NotTo(HaveOccurred())
	request.Header = header
	response, err := c.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	response.Header.Del("Date")
	text, err := httputil.DumpResponse(response, true)
	Expect(err).NotTo(HaveOccurred())
	_, err = io.Copy(io.Discard, response.Body)
	Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, string(text)
}

// requestRotation requests a rotation, waits until it is confirmed, and returns the new token. The key is read again.
func requestRotation(key *v1alpha1.ApiKey, request string) string {
	GinkgoHelper()
	before := key.Status.Hash
	annotate := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationRotate, request)
	Expect(admin.Patch(ctx, key, client.RawPatch(types.MergePatchType, []byte(annotate)))).To(Succeed())
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
		g.Expect(key.Status.Hash).NotTo(Equal(before))
	}).Should(Succeed())
	return delivered(key)
}

// writeRotation changes status.rotation as only the operator can.
func writeRotation(key *v1alpha1.ApiKey, rotation string) {
	GinkgoHelper()
	writeStatus(key, `{"rotation":`+rotation+`}`)
}

// writeStatus changes a status as only the operator can.
func writeStatus(key *v1alpha1.ApiKey, status string) {
	GinkgoHelper()
	config, err := plane.As(ctx, controlplane.Namespace, controlplane.ServiceAccount)
	Expect(err).NotTo(HaveOccurred())
	c, err := client.New(config, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	patch := client.RawPatch(types.MergePatchType, []byte(`{"status":`+status+`}`))
	Expect(c.Status().Patch(ctx, key, patch)).To(Succeed())
}

// unknown returns a token that belongs to no key.
func unknown() string {
	text := minted.Mint(minted.DefaultPrefix).Reveal()
	output.Remember(text)
	return text
}

var _ = Describe("A rotation", Label("releases"), func() {
	var ns string
	BeforeEach(func() { ns = namespace() })

	It("leaves the old token valid until retiresAt by the verifier's own clock, and not longer", func() {
		ways := append(protocols(verifier), byAPIServer)
		key, old := issue(ns, "overlap")
		expired := issueExpiring(ns, nil)
		withoutOperator()
		pending := minted.Mint(minted.DefaultPrefix)
		current := pending.Reveal()
		output.Remember(current)
		writeRotation(key, fmt.Sprintf(`{"pending":{"hash":%q,"tokenHint":%q,"overlap":"4s"}}`, pending.Digest(), pending.Hint()))
		for _, way := range ways {
			Eventually(func() bool { return way.about(current).accepted }).Should(BeTrue(), way.protocol)
			Expect(way.about(old).accepted).To(BeTrue(), way.protocol)
		}
		// The overlap begins once everything is warm, so that each way is asked within it.
		retiresAt := time.Now().Add(4 * time.Second).Truncate(time.Second)
		writeStatus(key, fmt.Sprintf(`{"hash":%q,"tokenHint":%q,"rotation":{"pending":null,"count":1,"retiring":{"hash":%q,"tokenHint":%q,"retiresAt":%q}}}`,
			pending.Digest(), pending.Hint(), key.Status.Hash, key.Status.TokenHint, retiresAt.UTC().Format(time.RFC3339)))

		within, late := map[string]bool{}, map[string]time.Duration{}
		for refused := 0; refused < len(ways); {
			for _, way := range ways {
				asked := time.Now()
				got := way.about(old)
				answered := time.Now()
				Expect(way.about(current).accepted).To(BeTrue(), "the current token, by %s", way.protocol)
				if got.accepted {
					within[way.protocol] = true
					Expect(asked).To(BeTemporally("<", retiresAt.Add(way.cached)), "%s accepts the retiring token after its overlap", way.protocol)
					continue
				}
				Expect(answered).To(BeTemporally(">=", retiresAt), "%s refuses the retiring token within its overlap", way.protocol)
				Expect(within).To(HaveKey(way.protocol), "it was accepted before")
				if _, known := late[way.protocol]; !known {
					late[way.protocol] = answered.Sub(retiresAt)
					refused++
				}
			}
		}
		AddReportEntry("refused after retiresAt", late)
		for _, way := range ways {
			Eventually(func() bool { return way.about(expired).accepted }).Should(BeFalse())
			refusal := way.about(old).text
			Expect(refusal == way.about(unknown()).text).To(BeTrue(), "%s answers for the retired token as for an unknown one", way.protocol)
			Expect(refusal == way.about(expired).text).To(BeTrue(), "%s answers for the retired token as for an expired one", way.protocol)
		}
	})

	It("is told by introspection: the retiring token expires at retiresAt, and the current one with the key", func() {
		key, old := issue(ns, "introspected")
		current := requestRotation(key, "1;overlap=1h")
		c, caller := httpClient(outside), introspector()
		for token, expires := range map[string]time.Time{old: key.RetiringToken().RetiresAt.Time, current: key.Status.ExpiresAt.Time} {
			Eventually(func(g Gomega) {
				status, document, err := introspect(c, verifier, caller, url.Values{"token": {token}}.Encode())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(status).To(Equal(http.StatusOK))
				g.Expect(document).To(And(HaveKeyWithValue("active", true), HaveKeyWithValue("exp", BeEquivalentTo(expires.Unix()))))
			}).Should(Succeed())
		}
	})

	It("without an overlap ends the current and the retiring token at once", func() {
		ways := protocols(verifier)
		key, first := issue(ns, "leaked")
		second := requestRotation(key, "1;overlap=1h")
		for _, way := range ways {
			for _, token := range []string{first, second} {
				Eventually(func() bool { return way.about(token).accepted }).Should(BeTrue(), way.protocol)
			}
		}
		// A second request waits for a minute after the last rotation. Let it pass at once.
		writeRotation(key, `{"rotatedAt":"`+key.Status.Rotation.RotatedAt.Add(-time.Minute).UTC().Format(time.RFC3339)+`"}`)
		third := requestRotation(key, "2;overlap=0s")
		for _, way := range ways {
			Eventually(func() bool { return way.about(first).accepted || way.about(second).accepted }, "5s").Should(BeFalse(), way.protocol)
			Expect(way.about(third).accepted).To(BeTrue(), way.protocol)
		}
	})

	It("has a pending token, which is accepted although it is not confirmed, and never again once it is replaced", func() {
		ways := protocols(verifier)
		key, current := issue(ns, "pending")
		withoutOperator()
		pending := minted.Mint(minted.DefaultPrefix)
		output.Remember(pending.Reveal())
		writeRotation(key, fmt.Sprintf(`{"pending":{"hash":%q,"tokenHint":%q,"overlap":"1h"}}`, pending.Digest(), pending.Hint()))
		for _, way := range ways {
			Eventually(func() bool { return way.about(pending.Reveal()).accepted }).Should(BeTrue(), way.protocol)
			Expect(way.about(current).accepted).To(BeTrue(), way.protocol)
		}
		Expect(byAPIServer.about(pending.Reveal()).accepted).To(BeTrue())
		startOperator() // it mints another token, because the Secret doesn't hold this one
		DeferCleanup(func() error { return operator.Stop() })
		Eventually(func() bool { return delivered(key) != current }).Should(BeTrue())
		confirmed := delivered(key)
		for _, way := range ways {
			Eventually(func() bool { return way.about(confirmed).accepted }).Should(BeTrue(), way.protocol)
			Expect(way.about(current).accepted).To(BeTrue(), way.protocol)
			Eventually(func() bool { return way.about(pending.Reveal()).accepted }).Should(BeFalse(), way.protocol)
		}
	})

	// With ROTATION=full, the spec runs for five minutes.
	It("by schedule never lets the newest token blink, and never leaves more than two tokens valid, or none", func() {
		every, overlap, rotations := v1alpha1.Duration("3s"), v1alpha1.Duration("1s"), int32(5)
		if os.Getenv("ROTATION") == "full" {
			every, overlap, rotations = "20s", "5s", 16
		}
		ways := protocols(verifier)
		key, first := issue(ns, "scheduled", build.Rotation(v1alpha1.ApiKeyRotation{Every: every, Overlap: overlap}))
		for _, way := range ways {
			Eventually(func() bool { return way.about(first).accepted }).Should(BeTrue(), way.protocol)
		}
		seen, next := newSequence(first, ways), key.Status.Rotation.NextAt.Time
		var latest time.Duration
		missed := 0
		for key.Status.Rotation.Count < rotations {
			before := key.Status.Rotation.Count
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(key), key)).To(Succeed())
			status := key.Status.Rotation
			switch status.Count - before {
			case 0:
			case 1:
				latest = max(latest, time.Since(next))
			default: // a busy machine: tokens came and went while this spec did not look
				missed += int(status.Count - before)
				asked := seen.asked
				seen = newSequence(delivered(key), ways)
				seen.asked = asked
			}
			next = status.NextAt.Time
			seen.sample(key)
		}
		if missed == 0 {
			Expect(len(seen.tokens)).To(BeEquivalentTo(rotations + 1))
		}
		AddReportEntry("rotations", fmt.Sprintf("%d, %d of them not watched; %d questions; confirmed at most %s after they were due",
			rotations, missed, seen.asked, latest))
	})
})

// sequence is what a client learns that reads a token Secret over and over, and asks about the tokens that were in it.
type sequence struct {
	ways   []asking
	tokens []string // in the order of delivery
	// accepted are the ways by which the newest token was accepted. A verifier learns of a pending token by its watch, so it may refuse
	// a token in the milliseconds after the delivery, but not once it has accepted the token.
	accepted map[string]bool
	asked    int
}

func newSequence(first string, ways []asking) *sequence {
	return &sequence{ways: ways, tokens: []string{first}, accepted: map[string]bool{}}
}

func (s *sequence) learn(key *v1alpha1.ApiKey) (isNew bool) {
	GinkgoHelper()
	found := delivered(key)
	if found == s.tokens[len(s.tokens)-1] {
		return false
	}
	s.tokens, s.accepted = append(s.tokens, found), map[string]bool{}
	return true
}

// sample asks about the last three tokens by each way.
func (s *sequence) sample(key *v1alpha1.ApiKey) {
	GinkgoHelper()
	for _, way := range s.ways {
		s.learn(key)
		newest := len(s.tokens) - 1
		accepts := func(i int) bool {
			if i < 0 {
				return false
			}
			s.asked++
			return way.about(s.tokens[i]).accepted
		}
		if accepts(newest) {
			s.accepted[way.protocol] = true
		} else if s.accepted[way.protocol] {
			Expect(s.learn(key)).To(BeTrue(), "%s refuses the newest token after it has accepted it", way.protocol)
		} else {
			Expect(accepts(newest-1)).To(BeTrue(), "%s accepts no token", way.protocol)
		}
		Expect(accepts(newest-2)).To(BeFalse(), "%s accepts a token from before the retiring one", way.protocol)
	}
}
