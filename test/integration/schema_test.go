package integration

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apikey-operator/apikey-operator/api/v1alpha1"
	"github.com/apikey-operator/apikey-operator/internal/expiry"
	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// attributes sets attributes, as pairs of name and value.
func attributes(pairs ...string) build.Option {
	return func(key *v1alpha1.ApiKey) {
		for i := 0; i < len(pairs); i += 2 {
			build.Attribute(pairs[i], v1alpha1.AttributeValue(pairs[i+1]))(key)
		}
	}
}

// numbered sets n attributes. Each has size characters, including its name.
func numbered(n, size int) build.Option {
	return func(key *v1alpha1.ApiKey) {
		for i := range n {
			build.Attribute(fmt.Sprintf("name-%02d", i), v1alpha1.AttributeValue(strings.Repeat("v", size-len("name-00"))))(key)
		}
	}
}

var _ = Describe("The schema of an ApiKey", Label("releases"), func() {
	dryRun := func(key *v1alpha1.ApiKey) error {
		return admin.Create(ctx, key, client.DryRunAll)
	}
	many := func(n int, format string) []string {
		texts := make([]string, n)
		for i := range texts {
			texts[i] = fmt.Sprintf(format, i)
		}
		return texts
	}

	DescribeTable("accepts",
		func(option build.Option) {
			Expect(dryRun(build.ApiKey("default", "accepted", option))).To(Succeed())
		},
		Entry("never", build.Never()),
		Entry("a moment with an offset and a fraction", build.At("2030-12-31T23:59:59.5+01:00")),
		Entry("a moment in the past", build.At("2001-01-01T00:00:00Z")),
		Entry("256 roles", build.Roles(many(256, "org.role-%d")...)),
		Entry("16 KiB of roles", build.Roles(many(256, "%064d")...)),
		Entry("a role of 253 characters", build.Roles(strings.Repeat("a.", 126)+"a")),
		Entry("64 networks", build.CIDRs(many(64, "10.%d.0.0/16")...)),
		Entry("every address, and one", build.CIDRs("0.0.0.0/0", "::/0", "192.0.2.1/32", "2001:db8::1/128")),
		Entry("a ttl of zero", build.TTL("0s")),
		Entry("a rotation by schedule", build.Rotation(v1alpha1.ApiKeyRotation{Every: "30d", Overlap: "29d23h59m59s"})),
		Entry("a rotation without an overlap", build.Rotation(v1alpha1.ApiKeyRotation{Every: "1s", Overlap: "0s"})),
		Entry("an overlap for rotations on request", build.Rotation(v1alpha1.ApiKeyRotation{Overlap: "30d"})),
		Entry("an owner", build.Attribute("owner", "team-shop")),
		Entry("attributes at every limit", attributes("a"+strings.Repeat("z", 62), strings.Repeat("~", 256), "b-0-", "!", "c", "a \"value\", with = and spaces")),
		Entry("16 attributes of 2 KiB", numbered(16, 128)),
		Entry("a Secret's name, key and time", build.Secret(v1alpha1.ApiKeySecret{Name: "a.b", Key: "API_KEY.txt", RevealFor: "15m"})),
	)

	DescribeTable("refuses, naming the field and what would be right",
		func(option build.Option, field, cure string) {
			err := dryRun(build.ApiKey("default", "refused", option))
			Expect(err).To(MatchError(And(ContainSubstring(field+": "), ContainSubstring(cure))))
		},
		Entry("no roles", build.Roles(), "spec.roles", "Required value"),
		Entry("257 roles", build.Roles(many(257, "r%d")...), "spec.roles", "at most 256"),
		Entry("more than 16 KiB of roles", build.Roles(append(many(255, "%064d"), strings.Repeat("a", 65))...),
			"spec.roles", "may have at most 16384 characters in total, but these have 16385; use one ApiRole that includes them, or create several"),
		Entry("256 roles of 253 characters", build.Roles(many(256, "%0253d")...), "spec.roles", "these have 64768; use one"),
		Entry("a role twice", build.Roles("a", "a"), "spec.roles[1]", `Duplicate value: "a"`),
		Entry("a role in upper case", build.Roles("Admin"), "spec.roles[0]", "must be a DNS subdomain: lower-case"),
		Entry("a role with a wildcard", build.Roles("org.*"), "spec.roles[0]", "must be a DNS subdomain"),
		Entry("an empty role", build.Roles(""), "spec.roles[0]", "at least 1"),
		Entry("no expiry", build.After(""), "spec.expiry", "Required value"),
		Entry("two expiries", func(key *v1alpha1.ApiKey) { key.Spec.Expiry.At = "2030-01-01T00:00:00Z" },
			"spec.expiry", "exactly one of after, at and never must be set, but these are set: after at"),
		Entry("never: false", func(key *v1alpha1.ApiKey) { key.Spec.Expiry = v1alpha1.ApiKeyExpiry{Never: new(bool)} },
			"spec.expiry.never", "never must be true"),
		Entry("a life of zero", build.After("0d0s"), "spec.expiry.after", "must be more than zero"),
		Entry("a life of more than ten years", build.After("3650d1s"), "spec.expiry.after", "at most 3650d"),
		Entry("a date without a time", build.At("2030-01-01"), "spec.expiry.at", "must be a time in RFC 3339"),
		Entry("a time without an offset", build.At("2030-01-01T00:00:00"), "spec.expiry.at", "such as 2027-01-31T00:00:00Z"),
		Entry("a day that does not exist", build.At("2030-02-30T00:00:00Z"), "spec.expiry.at", "RFC 3339"),
		Entry("an hour that does not exist", build.At("2030-02-03T24:00:00Z"), "spec.expiry.at", "RFC 3339"),
		Entry("the zero time, which JSON can't carry", build.At("0001-01-01T00:00:00Z"), "spec.expiry.at", "the years 2000 to 9998"),
		Entry("a year that UTC could push past 9999", build.At("9999-12-31T23:59:59-23:59"), "spec.expiry.at", "the years 2000 to 9998"),
		Entry("host bits", build.CIDRs("10.0.0.1/8"), "spec.cidrs[0]", "10.0.0.1/8 has host bits; the network is 10.0.0.0/8"),
		Entry("IPv6 host bits", build.CIDRs("2001:db8::1/32"), "spec.cidrs[0]", "the network is 2001:db8::/32"),
		Entry("IPv4 mapped into IPv6", build.CIDRs("::ffff:10.0.0.0/104"), "spec.cidrs[0]", "IPv4-mapped IPv6 addresses are not allowed"),
		Entry("an address for a network", build.CIDRs("10.0.0.1"), "spec.cidrs[0]", "such as 10.20.0.0/16"),
		Entry("a prefix too long", build.CIDRs("10.0.0.0/33"), "spec.cidrs[0]", "such as 10.20.0.0/16"),
		Entry("a network twice", build.CIDRs("10.0.0.0/8", "10.0.0.0/8"), "spec.cidrs[1]", "Duplicate value"),
		Entry("65 networks", build.CIDRs(many(65, "10.%d.0.0/16")...), "spec.cidrs", "at most 64"),
		Entry("a ttl in weeks", build.TTL("1w"), "spec.ttlAfterExpired", "such as 90d or 12h30m"),
		Entry("a Secret's name", build.Secret(v1alpha1.ApiKeySecret{Name: "My_Secret"}), "spec.secret.name", "must be a DNS subdomain"),
		Entry("a Secret's key", build.Secret(v1alpha1.ApiKeySecret{Key: "../x"}), "spec.secret.key", "must be a file name"),
		Entry("a reveal of zero", build.Secret(v1alpha1.ApiKeySecret{RevealFor: "0s"}), "spec.secret.revealFor", "more than zero"),
		Entry("a rotation without a field", build.Rotation(v1alpha1.ApiKeyRotation{}), "spec.rotation", "at least 1 propert"),
		Entry("a period of zero", build.Rotation(v1alpha1.ApiKeyRotation{Every: "0s"}), "spec.rotation.every", "must be more than zero, such as 30d"),
		Entry("a period in weeks", build.Rotation(v1alpha1.ApiKeyRotation{Every: "4w"}), "spec.rotation.every", "such as 90d or 12h30m"),
		Entry("an overlap of more than 30 days", build.Rotation(v1alpha1.ApiKeyRotation{Overlap: "30d1s"}), "spec.rotation.overlap", "must be at most 30d"),
		Entry("an overlap as long as the period", build.Rotation(v1alpha1.ApiKeyRotation{Every: "1h", Overlap: "60m"}),
			"spec.rotation.overlap", "overlap (60m) must be less than every (1h), because at most two tokens are valid at the same time"),
		Entry("a schedule with revealFor", func(key *v1alpha1.ApiKey) {
			key.Spec.Rotation = &v1alpha1.ApiKeyRotation{Every: "30d"}
			key.Spec.Secret = &v1alpha1.ApiKeySecret{RevealFor: "15m"}
		}, "spec.rotation.every", "can't be combined with secret.revealFor"),
		Entry("an attribute without a name", func(key *v1alpha1.ApiKey) { key.Spec.Attributes = map[string]v1alpha1.AttributeValue{"": "x"} },
			"spec.attributes", `"" is not a name of an attribute`),
		Entry("17 attributes", numbered(17, 20), "spec.attributes", "at most 16"),
		Entry("attributes of more than 2 KiB", attributes("a", strings.Repeat("x", 256), "b", strings.Repeat("x", 256), "c", strings.Repeat("x", 256),
			"d", strings.Repeat("x", 256), "e", strings.Repeat("x", 256), "f", strings.Repeat("x", 256), "g", strings.Repeat("x", 256), "h", strings.Repeat("x", 249)),
			"spec.attributes", "may have at most 2048 characters in total, but these have 2049; shorten or remove some"),
		Entry("an attribute in upper case", build.Attribute("Owner", "x"), "spec.attributes",
			`"Owner" is not a name of an attribute: must be a lower-case letter, followed by`),
		Entry("an attribute with an underscore", build.Attribute("cost_center", "x"), "spec.attributes", `"cost_center" is not a name of an attribute`),
		Entry("an attribute that begins with a digit", build.Attribute("2nd", "x"), "spec.attributes", `"2nd" is not a name of an attribute`),
		Entry("an attribute of 64 characters", build.Attribute(strings.Repeat("a", 64), "x"), "spec.attributes", "at most 62 lower-case letters"),
		Entry("a megabyte of an attribute's name", build.Attribute(strings.Repeat("a", 1_000_000), "x"), "spec.attributes", "is not a name of an attribute"),
		Entry("an attribute's value that stands for none", build.Attribute("owner", "-"), "spec.attributes[owner]",
			"must not be -, which stands for a missing attribute; remove the attribute instead"),
		Entry("an attribute without a value", build.Attribute("owner", ""), "spec.attributes[owner]", "at least 1 chars"),
		Entry("an attribute of 257 characters", build.Attribute("owner", v1alpha1.AttributeValue(strings.Repeat("x", 257))), "spec.attributes.owner", "256"),
		Entry("an attribute with a line break", build.Attribute("owner", "a\nX-Apikey-Name: admin"), "spec.attributes[owner]",
			"must be printable ASCII characters that neither start nor end with a space, such as team-shop"),
		Entry("an attribute that ends with a line break", build.Attribute("owner", "a\n"), "spec.attributes[owner]", "must be printable ASCII"),
		Entry("an attribute with a control character", build.Attribute("owner", "a\x01b"), "spec.attributes[owner]", "must be printable ASCII"),
		Entry("an attribute with a tab", build.Attribute("owner", "a\tb"), "spec.attributes[owner]", "must be printable ASCII"),
		Entry("an attribute with DEL", build.Attribute("owner", "a\x7f"), "spec.attributes[owner]", "must be printable ASCII"),
		Entry("an attribute beyond ASCII", build.Attribute("owner", "Jürgen"), "spec.attributes[owner]", "must be printable ASCII"),
		Entry("an attribute with a space before", build.Attribute("owner", " a"), "spec.attributes[owner]", "neither start nor end with a space"),
		Entry("an attribute with a space after", build.Attribute("owner", "a "), "spec.attributes[owner]", "neither start nor end with a space"),
		Entry("a display name too long", func(key *v1alpha1.ApiKey) { key.Spec.DisplayName = strings.Repeat("é", 257) },
			"spec.displayName", "256"),
	)

	DescribeTable("names the value that it refuses",
		func(option build.Option, value, cure string) {
			Expect(dryRun(build.ApiKey("default", "refused", option))).To(MatchError(ContainSubstring("Invalid value: " + refusal(value, "string", cure))))
		},
		Entry("a role in upper case", build.Roles("Admin"), `"Admin"`, "must be a DNS subdomain: lower-case"),
		Entry("a date without a time", build.At("2030-01-01"), `"2030-01-01"`, "must be a time in RFC 3339"),
		Entry("an attribute with a control character", build.Attribute("owner", "a\x01b"), `"a\x01b"`, "must be printable ASCII"),
	)

	It("keeps attributes as they were, all of them", func() {
		key := build.ApiKey(namespace(), "owned", build.Attribute("owner", "team-a"), build.Attribute("plan", "gold"))
		create(key)
		for _, edit := range []string{`{"owner":"team-b"}`, `{"owner":null}`, `{"tier":"1"}`, `null`} {
			Expect(admin.Patch(ctx, key.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"attributes":`+edit+`}}`)))).
				To(MatchError(ContainSubstring("(changed: spec.attributes)")), edit)
		}
	})

	It("refuses an empty expiry, which the Go type can't express", func() {
		key := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
			"roles": []any{"org.permission.customer.read"}, "expiry": map[string]any{},
		}}}
		key.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ApiKey"))
		key.SetNamespace("default")
		key.SetName("empty")
		Expect(admin.Create(ctx, key, client.DryRunAll)).To(MatchError(
			ContainSubstring("spec.expiry: Invalid value: " + refusal("", "object", "exactly one of after, at and never must be set, such as after: 90d"))))
	})

	It("leaves a key alone that is older than a limit of the schema: it is issued, labelled and deleted", func() {
		if !since(33) {
			Skip("before 1.33 the API server validates an unchanged spec when the status is written (kubernetes#129506)")
		}
		crd := &unstructured.Unstructured{}
		crd.SetAPIVersion("apiextensions.k8s.io/v1")
		crd.SetKind("CustomResourceDefinition")
		crd.SetName("apikeys.apikey-operator.io")
		// limit removes the limit on the length of all roles, or restores it, and waits until the API server applies that.
		fat := build.ApiKey(namespace(), "fat", build.Roles(many(256, "%0253d")...))
		var rules any
		limit := func(limited bool) {
			GinkgoHelper()
			reread(crd)
			versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
			Expect(err).NotTo(HaveOccurred())
			Expect(versions).To(HaveLen(1))
			spec := []string{"schema", "openAPIV3Schema", "properties", "spec", "properties", "roles"}
			roles, found, err := unstructured.NestedMap(versions[0].(map[string]any), spec...)
			Expect(err).NotTo(HaveOccurred())
			Expect(found).To(BeTrue())
			if limited {
				roles["x-kubernetes-validations"] = rules
			} else {
				rules = roles["x-kubernetes-validations"]
				Expect(rules).NotTo(BeNil())
				delete(roles, "x-kubernetes-validations")
			}
			Expect(unstructured.SetNestedMap(versions[0].(map[string]any), roles, spec...)).To(Succeed())
			Expect(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")).To(Succeed())
			Expect(admin.Update(ctx, crd)).To(Succeed())
			another := build.ApiKey(fat.Namespace, "another", build.Roles(fat.Spec.Roles...))
			Eventually(func() bool { return dryRun(another.DeepCopy()) != nil }).Should(Equal(limited))
		}
		limit(false)
		DeferCleanup(func() {
			if dryRun(build.ApiKey(fat.Namespace, "another", build.Roles(fat.Spec.Roles...))) == nil {
				limit(true)
			}
		})
		create(fat)
		limit(true)

		settle(controllers(options()), fat)
		expectIssued(fat)
		fat.Labels = map[string]string{"team": "shop"}
		Expect(admin.Update(ctx, fat)).To(Succeed())
		fat.Spec.Roles = fat.Spec.Roles[:100]
		Expect(admin.Update(ctx, fat)).To(MatchError(ContainSubstring("is immutable (changed: spec.roles)")))
		Expect(admin.Delete(ctx, fat)).To(Succeed())
		Expect(exists(fat)).To(BeFalse())
	})

	It("agrees with the operator's own parser on every duration", func() {
		for _, text := range []string{
			"1s", "90d", "12h30m", "1d2h3m4s", "0s", "00d", "3650d", "3650d1s", "3651d", "87600h", "87601h", "315360000s", "315360001s",
			"999999999s", "999999999d", "1000000000s", "1.5h", "-1s", "+1s", " 1s", "1s ", "1 s", "1h1d", "1m1m", "d", "90", "1w", "1D",
			"1ms", "1h30", "٣d",
		} {
			_, parserErr := expiry.ParseDuration(text)
			schemaErr := dryRun(build.ApiKey("default", "duration", build.TTL(v1alpha1.Duration(text))))
			Expect(schemaErr == nil).To(Equal(parserErr == nil), "%q: the schema says %v, the parser %v", text, schemaErr, parserErr)
		}
	})

	It("agrees with the operator's own parser on every moment that it accepts", func() {
		for _, text := range []string{
			"2030-01-01T00:00:00Z", "2030-01-01T00:00:00.123456789Z", "2030-01-01T00:00:00+23:59", "2000-01-01T00:00:00Z",
			"9998-12-31T23:59:59-23:59", "2028-02-29T12:00:00Z",
		} {
			Expect(dryRun(build.ApiKey("default", "moment", build.At(text)))).To(Succeed(), text)
			_, err := expiry.ParseMoment(text)
			Expect(err).NotTo(HaveOccurred(), text)
		}
		for _, text := range []string{
			"2029-02-29T12:00:00Z", "2030-01-01T00:00:60Z", "2030-01-01t00:00:00z", "2030-01-01 00:00:00Z", "2030-01-01T00:00:00+24:00",
			"2030-1-1T00:00:00Z", "2030-01-01T00:00:00,5Z", "1893456000", "now",
		} {
			Expect(dryRun(build.ApiKey("default", "moment", build.At(text)))).NotTo(Succeed(), text)
		}
	})

	It("refuses an edit of any part of the spec but suspend, and says what to do instead", func() {
		key := build.ApiKey(namespace(), "edited", build.CIDRs("10.0.0.0/8"))
		create(key)
		patch := func(body string) error {
			return admin.Patch(ctx, key.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(body)))
		}
		const cure = "delete this ApiKey, which revokes its token, and create a new one"
		edits := map[string]string{ // of each field
			"displayName":     `"x"`,
			"roles":           `["org.admin"]`,
			"expiry":          `{"after":"91d"}`,
			"cidrs":           `null`,
			"secret":          `{"name":"x"}`,
			"ttlAfterExpired": `"1d"`,
			"rotation":        `{"every":"30d"}`,
			"attributes":      `{"owner":"team-b"}`,
		}
		for field := range reflect.TypeFor[v1alpha1.ApiKeySpec]().Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "suspend" {
				continue
			}
			Expect(edits).To(HaveKey(name), "a new field needs an edit here, and its place in the message of the rule in api/")
			Expect(patch(fmt.Sprintf(`{"spec":{%q:%s}}`, name, edits[name]))).To(MatchError(And(
				ContainSubstring("spec: "), ContainSubstring("(changed: spec."+name+")"), ContainSubstring(cure))))
		}
		Expect(patch(`{"spec":{"roles":["x"],"cidrs":["10.0.0.0/9"]}}`)).To(MatchError(ContainSubstring("(changed: spec.roles spec.cidrs)")))
		for _, suspend := range []string{"true", "false", "true", "null"} {
			Expect(patch(`{"spec":{"suspend":`+suspend+`}}`)).To(Succeed(), suspend)
		}
		Expect(patch(`{"spec":{"suspend":true,"roles":["x"]}}`)).To(MatchError(ContainSubstring("(changed: spec.roles)")))
		Expect(patch(`{"spec":null}`)).To(MatchError(ContainSubstring("spec: Required value")))
		Expect(patch(`{"metadata":{"labels":{"team":"a"}}}`)).To(Succeed(), "labels are not the spec")
	})

	It("lets nobody, not even the operator, move a deadline or replace the digest of an issued key", func() {
		c := controllers(options())
		key := build.ApiKey(namespace(), "fixed")
		create(key)
		settle(c, key)
		tamper := func(change func(*v1alpha1.ApiKeyStatus)) error {
			changed := reread(key.DeepCopy())
			before := changed.DeepCopy()
			change(&changed.Status)
			return self.Status().Patch(ctx, changed, client.MergeFrom(before))
		}
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) { s.ExpiresAt = nil })).To(MatchError(ContainSubstring("expiresAt is immutable")))
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) { s.ExpiresAt = &metav1.Time{Time: s.ExpiresAt.AddDate(1, 0, 0)} })).
			To(MatchError(ContainSubstring("expiresAt is immutable")))
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) { s.Hash = "sha256:" + strings.Repeat("0", 64) })).
			To(MatchError(ContainSubstring("status.hash changes only to the pending token of a rotation")))
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) { s.IssuedAt = nil })).To(MatchError(ContainSubstring("status.issuedAt is immutable")))

		// A rotation is the only way, and it fixes what the token before was and how long it goes on.
		const retiring = "is the token before the last rotation, and its retiresAt never changes"
		hash := func(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }
		until := func(t time.Time, hash string) *v1alpha1.ApiKeyRetiringToken {
			return &v1alpha1.ApiKeyRetiringToken{Hash: hash, RetiresAt: metav1.NewTime(t)}
		}
		soon := time.Now().Truncate(time.Second).Add(time.Hour)
		first := key.Status.Hash
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) {
			s.Rotation = &v1alpha1.ApiKeyRotationStatus{Retiring: until(soon, hash("1"))}
		})).To(MatchError(ContainSubstring(retiring)))
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) {
			s.Rotation = &v1alpha1.ApiKeyRotationStatus{Pending: &v1alpha1.ApiKeyPendingToken{Hash: hash("2"), TokenHint: "ak_2", Overlap: "1h"}}
		})).To(Succeed())
		rotate := func(to string, retires *v1alpha1.ApiKeyRetiringToken) func(*v1alpha1.ApiKeyStatus) {
			return func(s *v1alpha1.ApiKeyStatus) {
				s.Hash, s.Rotation = to, &v1alpha1.ApiKeyRotationStatus{Retiring: retires}
			}
		}
		Expect(tamper(rotate(hash("3"), until(soon, first)))).To(MatchError(ContainSubstring("pending token of a rotation")))
		Expect(tamper(rotate(hash("2"), until(soon, hash("1"))))).To(MatchError(ContainSubstring(retiring)))
		Expect(tamper(rotate(hash("2"), until(soon, first)))).To(Succeed())
		Expect(tamper(rotate(hash("2"), until(soon.Add(time.Second), first)))).To(MatchError(ContainSubstring(retiring)))
		Expect(tamper(rotate(first, nil))).To(MatchError(ContainSubstring("pending token of a rotation")), "there is no way back")
		Expect(tamper(func(s *v1alpha1.ApiKeyStatus) { s.Rotation = nil })).To(Succeed(), "an overlap may end early")
	})
})
