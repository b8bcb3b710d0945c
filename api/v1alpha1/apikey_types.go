package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SecretType is the type of every token Secret.
const SecretType = "apikey-operator.io/token"

// DefaultSecretKey is the data key of the token in its Secret if spec.secret.key is absent.
const DefaultSecretKey = "token"

// Annotations of an ApiKey that the operator reads.
const (
	// AnnotationKeep prevents the operator from deleting an expired ApiKey. Its value must be "true".
	AnnotationKeep = "apikey-operator.io/keep"

	// AnnotationRotate requests a rotation: ID or ID;overlap=DURATION, such as 2027-01-31;overlap=1h. Each value is a request
	// once. The ID has 1 to 64 printable ASCII characters, but no semicolon.
	AnnotationRotate = "apikey-operator.io/rotate"

	// AnnotationRetire ends the retiring token at once. Its value is an ID, as in [AnnotationRotate], and each value is a
	// request once.
	AnnotationRetire = "apikey-operator.io/retire"
)

// ApiKey requests an API key: a random token that has roles. The key may expire, and may be restricted to networks. The
// operator delivers the token in a Secret, and keeps only its digest. The spec is immutable, except for suspend. Deleting an ApiKey
// revokes its token.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=apikeys,scope=Namespaced,shortName=ak,categories=apikey-operator
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expires`
// +kubebuilder:printcolumn:name="Last Used",type=date,JSONPath=`.status.lastUsedAt`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.status.secretName`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`,priority=1
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.cidrs`,priority=1
// +kubebuilder:printcolumn:name="Display Name",type=string,JSONPath=`.spec.displayName`,priority=1
// +kubebuilder:printcolumn:name="Owner",type=string,JSONPath=`.spec.attributes.owner`,priority=1
// +kubebuilder:printcolumn:name="Hint",type=string,JSONPath=`.status.tokenHint`,priority=1
// +kubebuilder:printcolumn:name="Rotated",type=date,JSONPath=`.status.rotation.rotatedAt`,priority=1
type ApiKey struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec describes the API key: what it may do, and until when. Only suspend can
	// be edited: to change anything else, delete the ApiKey and create a new one.
	// +required
	// +kubebuilder:validation:XValidation:rule="(has(self.displayName) == has(oldSelf.displayName) && (!has(self.displayName) || self.displayName == oldSelf.displayName)) && self.roles == oldSelf.roles && self.expiry == oldSelf.expiry && (has(self.cidrs) == has(oldSelf.cidrs) && (!has(self.cidrs) || self.cidrs == oldSelf.cidrs)) && (has(self.secret) == has(oldSelf.secret) && (!has(self.secret) || self.secret == oldSelf.secret)) && (has(self.ttlAfterExpired) == has(oldSelf.ttlAfterExpired) && (!has(self.ttlAfterExpired) || self.ttlAfterExpired == oldSelf.ttlAfterExpired)) && (has(self.rotation) == has(oldSelf.rotation) && (!has(self.rotation) || self.rotation == oldSelf.rotation)) && (has(self.attributes) == has(oldSelf.attributes) && (!has(self.attributes) || self.attributes == oldSelf.attributes))",messageExpression="'the spec of an ApiKey is immutable (changed:' + (has(self.displayName) != has(oldSelf.displayName) || has(self.displayName) && self.displayName != oldSelf.displayName ? ' spec.displayName' : '') + (self.roles != oldSelf.roles ? ' spec.roles' : '') + (self.expiry != oldSelf.expiry ? ' spec.expiry' : '') + (has(self.cidrs) != has(oldSelf.cidrs) || has(self.cidrs) && self.cidrs != oldSelf.cidrs ? ' spec.cidrs' : '') + (has(self.secret) != has(oldSelf.secret) || has(self.secret) && self.secret != oldSelf.secret ? ' spec.secret' : '') + (has(self.ttlAfterExpired) != has(oldSelf.ttlAfterExpired) || has(self.ttlAfterExpired) && self.ttlAfterExpired != oldSelf.ttlAfterExpired ? ' spec.ttlAfterExpired' : '') + (has(self.rotation) != has(oldSelf.rotation) || has(self.rotation) && self.rotation != oldSelf.rotation ? ' spec.rotation' : '') + (has(self.attributes) != has(oldSelf.attributes) || has(self.attributes) && self.attributes != oldSelf.attributes ? ' spec.attributes' : '') + '); delete this ApiKey, which revokes its token, and create a new one'"
	Spec ApiKeySpec `json:"spec,omitzero"`

	// status is what the operator observed and did. Only the operator writes it.
	// Until the operator has processed the key, it holds observedGeneration: -1.
	// ---
	// Without the default, kstatus (Flux, Helm) reports a key that the operator
	// hasn't processed yet as Current.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.expiresAt) || has(self.expiresAt) && self.expiresAt == oldSelf.expiresAt",message="status.expiresAt is immutable once it is set"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.issuedAt) || has(self.issuedAt) && self.issuedAt == oldSelf.issuedAt && has(self.hash) && (self.hash == oldSelf.hash || has(oldSelf.rotation) && has(oldSelf.rotation.pending) && self.hash == oldSelf.rotation.pending.hash)",message="once the key is issued, status.issuedAt is immutable, and status.hash changes only to the pending token of a rotation"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.issuedAt) || !has(self.rotation) || !has(self.rotation.retiring) || has(self.hash) && (self.hash != oldSelf.hash ? self.rotation.retiring.hash == oldSelf.hash : has(oldSelf.rotation) && has(oldSelf.rotation.retiring) && self.rotation.retiring.hash == oldSelf.rotation.retiring.hash && self.rotation.retiring.retiresAt == oldSelf.rotation.retiring.retiresAt)",message="status.rotation.retiring is the token before the last rotation, and its retiresAt never changes"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.lastUsedAt) || has(self.lastUsedAt) && self.lastUsedAt >= oldSelf.lastUsedAt",message="status.lastUsedAt only moves forward"
	// +kubebuilder:validation:XValidation:rule="!has(self.lastUsedAt) || has(self.issuedAt) && self.lastUsedAt >= self.issuedAt",message="status.lastUsedAt is not before status.issuedAt"
	Status ApiKeyStatus `json:"status,omitzero"`
}

// ApiKeySpec describes the API key that a user requests.
//
// +kubebuilder:validation:XValidation:rule="!has(self.rotation) || !has(self.rotation.every) || !has(self.secret) || !has(self.secret.revealFor)",message="rotation.every can't be combined with secret.revealFor: a rotation by schedule would deliver a token that nobody waits for; remove one of the two",fieldPath=".rotation.every"
type ApiKeySpec struct {
	// displayName describes for people what the key is for and who uses it: 1 to
	// 256 characters. It has no effect on access.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	DisplayName string `json:"displayName,omitempty"`

	// roles are the names of the roles that the key has: 1 to 256 names, at most
	// 16384 characters in total. Each name is a lower-case DNS subdomain, such as
	// org.permission.customer.read. The gateways and services that require a role
	// decide what it permits.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule="self.map(role, size(role)).sum() <= 16384",messageExpression="'the names of all roles may have at most 16384 characters in total, but these have %d; use one ApiRole that includes them, or create several ApiKeys'.format([self.map(role, size(role)).sum()])"
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be a DNS subdomain: lower-case letters, digits, - and ., such as org.permission.customer.read"
	Roles []string `json:"roles,omitempty"`

	// expiry says when the key expires. Exactly one of after, at and never must be
	// set.
	// +required
	// +kubebuilder:validation:XValidation:rule="[has(self.after), has(self.at), has(self.never)].filter(x, x).size() == 1",messageExpression="has(self.after) || has(self.at) || has(self.never) ? 'exactly one of after, at and never must be set, but these are set:' + (has(self.after) ? ' after' : '') + (has(self.at) ? ' at' : '') + (has(self.never) ? ' never' : '') : 'exactly one of after, at and never must be set, such as after: 90d'"
	Expiry ApiKeyExpiry `json:"expiry,omitzero"`

	// cidrs are the networks that the key may be used from: 1 to 64 IPv4 or IPv6
	// networks without host bits, such as 10.20.0.0/16 or 2001:db8::/32. Absent
	// means any network. A key that has cidrs is refused where the verifier can't
	// determine the client address.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be an IPv4 or IPv6 network, such as 10.20.0.0/16 or 2001:db8::/32; IPv4-mapped IPv6 addresses are not allowed"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",messageExpression="'%s has host bits; the network is %s'.format([self, string(cidr(self).masked())])"
	CIDRs []string `json:"cidrs,omitempty"`

	// secret says where the token is delivered. Absent means a Secret with the
	// same name as the ApiKey.
	// +optional
	Secret *ApiKeySecret `json:"secret,omitempty"`

	// ttlAfterExpired is how long the operator keeps the ApiKey object after the
	// key has expired, before it deletes the object. Days, hours, minutes and
	// seconds in this order, such as 7d or 12h30m; at most 3650d. 0s means that
	// the object is deleted at once. Absent means the operator's
	// --ttl-after-expired, which defaults to 24h. An ApiKey that a GitOps tool
	// manages, or that has the annotation apikey-operator.io/keep: "true", is not
	// deleted.
	// +optional
	TTLAfterExpired Duration `json:"ttlAfterExpired,omitempty"`

	// attributes say whose key it is, for example owner: team-shop. They open
	// nothing: gateways and services receive them with the identity of the key, and
	// an ApiKeyPolicy can require them. 1 to 16 attributes. A name is a lower-case
	// letter, followed by at most 62 lower-case letters, digits and -. All names and
	// values together have at most 2048 characters. They are not secret: whoever can
	// see the ApiKey sees them.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z][a-z0-9-]{0,62}$'))",messageExpression="'\"%s\" is not a name of an attribute: must be a lower-case letter, followed by at most 62 lower-case letters, digits and -, such as owner or cost-center'.format([self.filter(name, !name.matches('^[a-z][a-z0-9-]{0,62}$')).map(name, name.size() > 63 ? name.substring(0, 63) + '...' : name)[0]])"
	// +kubebuilder:validation:XValidation:rule="self.map(name, size(name) + size(self[name])).sum() <= 2048",messageExpression="'the names and values of all attributes may have at most 2048 characters in total, but these have %d; shorten or remove some'.format([self.map(name, size(name) + size(self[name])).sum()])"
	Attributes map[string]AttributeValue `json:"attributes,omitempty"`

	// suspend makes verifiers refuse the token while it is true, with the answer
	// that they give to an unknown token. Verifiers accept the token again once
	// suspend is false or absent. The key still expires, and its Secret is deleted,
	// at the usual times. suspend is the only field of the spec that can be edited.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`

	// rotation says when the token is replaced by a new one, while the key stays
	// the same. Absent means on request only: the annotation
	// apikey-operator.io/rotate requests a rotation of any issued key.
	// +optional
	Rotation *ApiKeyRotation `json:"rotation,omitempty"`
}

// Duration is a length of time as days, hours, minutes and seconds in this order, each optional, such as 90d, 12h30m or
// 0s; at most 3650d (ten years). A day is 24 hours. It differs from Go's duration format, which has no days.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=40
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$') && int('0' + self.find('[0-9]+d').split('d')[0]) * 86400 + int('0' + self.find('[0-9]+h').split('h')[0]) * 3600 + int('0' + self.find('[0-9]+m').split('m')[0]) * 60 + int('0' + self.find('[0-9]+s').split('s')[0]) <= 315360000",message="must be days, hours, minutes and seconds in this order, such as 90d or 12h30m, and at most 3650d (ten years)"
type Duration string

// ApiKeyExpiry says when a key expires.
type ApiKeyExpiry struct {
	// after is the lifetime of the key, counted from when the operator first
	// writes a digest to the status. Days, hours, minutes and seconds in this
	// order, such as 90d or 12h30m; more than zero and at most 3650d (ten years).
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 15m or 90d"
	After Duration `json:"after,omitempty"`

	// at is the time at which the key expires, in RFC 3339 and in the years 2000
	// to 9998, such as 2027-01-31T00:00:00Z. Fractions of a second are truncated.
	// A key whose expiry time passes before it is issued gets no token.
	// ---
	// at is a string because clients that read and write a metav1.Time convert it
	// to UTC. That would change a field that is immutable.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[2-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$') && self < '9999' && !format.datetime().validate(self).hasValue()",message="must be a time in RFC 3339, in the years 2000 to 9998, such as 2027-01-31T00:00:00Z or 2027-01-31T00:00:00+01:00"
	At string `json:"at,omitempty"`

	// never says that the key does not expire. The only valid value is true.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="never must be true; if the key expires, remove never and set after or at"
	Never *bool `json:"never,omitempty"`
}

// ApiKeySecret says where the token is delivered, and how long it stays there.
//
// +kubebuilder:validation:MinProperties=1
type ApiKeySecret struct {
	// name is the name of the Secret, in the namespace of the ApiKey: a DNS
	// subdomain. Absent means the name of the ApiKey. The operator never changes a
	// Secret of that name that belongs to something else; the key stays pending
	// until that Secret is gone.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be a DNS subdomain: lower-case letters, digits, - and ."
	Name string `json:"name,omitempty"`

	// key is the data key that holds the token in the Secret. It may contain
	// letters, digits, -, _ and . only. Absent means token.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a file name of letters, digits, -, _ and . that is not . and does not start with .., such as token"
	Key string `json:"key,omitempty"`

	// revealFor is how long the Secret exists after the key is issued. Then the
	// operator deletes the Secret; the key stays valid. Days, hours, minutes and
	// seconds in this order, such as 15m; more than zero and at most 3650d. Absent
	// means that the Secret exists as long as the key is valid.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 15m or 90d"
	RevealFor Duration `json:"revealFor,omitempty"`
}

// ApiKeyStatus is the observed state of an ApiKey. It never contains a token.
type ApiKeyStatus struct {
	// observedGeneration is the metadata.generation that this status was computed
	// from. It is -1 until the operator has processed the key.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// hash is the digest of the whole current token: sha256: followed by 64
	// hexadecimal digits. Verifiers accept the token as soon as its digest is
	// written here.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Hash string `json:"hash,omitempty"`

	// tokenHint is the first characters of the token, which help people to tell
	// keys apart.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=21
	TokenHint string `json:"tokenHint,omitempty"`

	// issuedAt is when the operator confirmed that the Secret holds the first
	// token. After that, the operator mints another token for this key only in a
	// rotation, even if the Secret is deleted.
	// +optional
	IssuedAt *metav1.Time `json:"issuedAt,omitempty"`

	// expiresAt is the time from which the token is refused. It is set when a
	// digest is first written to the status, and never changes. Absent means that
	// the key does not expire, or that it has no token yet.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// expires shows expiresAt in the output of kubectl get: the same time, or
	// never.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=35
	Expires string `json:"expires,omitempty"`

	// secretName is the name of the Secret that the token is delivered in.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`

	// secretDeletedAt is when the operator deleted the Secret, after
	// spec.secret.revealFor or when the key expired, or when it found that the
	// Secret was already gone. After that, the operator does not look for the
	// Secret again.
	// +optional
	SecretDeletedAt *metav1.Time `json:"secretDeletedAt,omitempty"`

	// rotation is what the operator observed and did about rotation. Absent means
	// that the key was never rotated and has no schedule.
	// +optional
	Rotation *ApiKeyRotationStatus `json:"rotation,omitempty"`

	// lastUsedAt is when a verifier last accepted a token of the key, as far as
	// this is recorded. It only moves forward, and lags behind the last use by up
	// to the operator's --usage-precision, which defaults to one hour, and by more
	// in a cluster with very many keys in use. Absent means that no use was seen,
	// which does not prove that there was none.
	// +optional
	LastUsedAt *metav1.Time `json:"lastUsedAt,omitempty"`

	// conditions are Ready and, while they apply, Expiring, Stalled, OutOfPolicy,
	// RotationBlocked and ClockSkewed.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ApiKeyList is a list of ApiKeys.
//
// +kubebuilder:object:root=true
type ApiKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApiKey `json:"items"`
}
