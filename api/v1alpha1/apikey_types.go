package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SecretType is the type of every Secret that the operator creates.
const SecretType = "apikey-operator.io/token"

// DefaultSecretKey is the data key of the token where spec.secret.key is absent.
const DefaultSecretKey = "token"

// AnnotationKeep keeps an expired ApiKey for ever, as a tombstone, when its value is "true".
const AnnotationKeep = "apikey-operator.io/keep"

// ApiKey asks for an API key: a random token that carries roles, until it expires, from the networks that it
// is tied to. The operator delivers the token once, in a Secret, and keeps only its digest. A key can't be
// edited; deleting it revokes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=apikeys,scope=Namespaced,shortName=ak,categories=apikey-operator
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expires`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.status.secretName`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`,priority=1
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.cidrs`,priority=1
// +kubebuilder:printcolumn:name="Display Name",type=string,JSONPath=`.spec.displayName`,priority=1
// +kubebuilder:printcolumn:name="Hint",type=string,JSONPath=`.status.tokenHint`,priority=1
type ApiKey struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the key may do, and until when. Only suspend can be
	// edited. To change anything else, delete the ApiKey and create a new one.
	// +required
	// +kubebuilder:validation:XValidation:rule="(has(self.displayName) == has(oldSelf.displayName) && (!has(self.displayName) || self.displayName == oldSelf.displayName)) && self.roles == oldSelf.roles && self.expiry == oldSelf.expiry && (has(self.cidrs) == has(oldSelf.cidrs) && (!has(self.cidrs) || self.cidrs == oldSelf.cidrs)) && (has(self.secret) == has(oldSelf.secret) && (!has(self.secret) || self.secret == oldSelf.secret)) && (has(self.ttlAfterExpired) == has(oldSelf.ttlAfterExpired) && (!has(self.ttlAfterExpired) || self.ttlAfterExpired == oldSelf.ttlAfterExpired))",messageExpression="'an ApiKey can not be edited, except for spec.suspend (changed:' + (has(self.displayName) != has(oldSelf.displayName) || has(self.displayName) && self.displayName != oldSelf.displayName ? ' spec.displayName' : '') + (self.roles != oldSelf.roles ? ' spec.roles' : '') + (self.expiry != oldSelf.expiry ? ' spec.expiry' : '') + (has(self.cidrs) != has(oldSelf.cidrs) || has(self.cidrs) && self.cidrs != oldSelf.cidrs ? ' spec.cidrs' : '') + (has(self.secret) != has(oldSelf.secret) || has(self.secret) && self.secret != oldSelf.secret ? ' spec.secret' : '') + (has(self.ttlAfterExpired) != has(oldSelf.ttlAfterExpired) || has(self.ttlAfterExpired) && self.ttlAfterExpired != oldSelf.ttlAfterExpired ? ' spec.ttlAfterExpired' : '') + '); delete it, which revokes its token, and create a new one'"
	Spec ApiKeySpec `json:"spec,omitzero"`

	// status is what the operator has done. Nobody else writes it. Until the
	// operator has seen the key, it holds an observedGeneration of -1.
	// ---
	// Without the default kstatus (Flux, Helm) would take a key that nobody has seen yet for one that is as it should be.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.expiresAt) || has(self.expiresAt) && self.expiresAt == oldSelf.expiresAt",message="status.expiresAt is fixed when the token is first committed and never changes"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.issuedAt) || has(self.issuedAt) && self.issuedAt == oldSelf.issuedAt && has(self.hash) && self.hash == oldSelf.hash",message="status.hash and status.issuedAt never change once the token is issued"
	Status ApiKeyStatus `json:"status,omitzero"`
}

// ApiKeySpec is what a user asks for.
type ApiKeySpec struct {
	// displayName is for people: what the key is used for, by whom. At most
	// 256 characters.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	DisplayName string `json:"displayName,omitempty"`

	// roles are what the key may do: 1 to 256 names, each a lower-case DNS
	// subdomain such as org.permission.customer.read, of at most 16384
	// characters together. What a role opens is up to the gateways and
	// services that ask for it.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule="self.map(role, size(role)).sum() <= 16384",messageExpression="'the names of all roles together may have at most 16384 characters, and these have %d; name one ApiRole that includes them, or create several ApiKeys'.format([self.map(role, size(role)).sum()])"
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be a DNS subdomain: lower-case letters, digits, - and ., such as org.permission.customer.read"
	Roles []string `json:"roles,omitempty"`

	// expiry says when the key expires: exactly one of after, at and never.
	// +required
	// +kubebuilder:validation:XValidation:rule="[has(self.after), has(self.at), has(self.never)].filter(x, x).size() == 1",messageExpression="has(self.after) || has(self.at) || has(self.never) ? 'only one of after, at and never may be set; this has' + (has(self.after) ? ' after' : '') + (has(self.at) ? ' at' : '') + (has(self.never) ? ' never' : '') : 'one of after, at and never must be set, such as after: 90d'"
	Expiry ApiKeyExpiry `json:"expiry,omitzero"`

	// cidrs are the networks that the key may be used from: at most 64, IPv4
	// or IPv6, such as 10.20.0.0/16 or 2001:db8::/32, without host bits.
	// Absent means any network. A gateway that can't tell a client's address
	// refuses a key that has cidrs.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be an IPv4 or IPv6 network such as 10.20.0.0/16 or 2001:db8::/32; an IPv4 network is written as IPv4, not mapped into IPv6"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",messageExpression="'%s has host bits; the network is %s'.format([self, string(cidr(self).masked())])"
	CIDRs []string `json:"cidrs,omitempty"`

	// secret says where the token is delivered. Absent means a Secret of the
	// ApiKey's own name.
	// +optional
	Secret *ApiKeySecret `json:"secret,omitempty"`

	// ttlAfterExpired is how long the ApiKey stays after it has expired,
	// before the operator deletes it: days, hours, minutes and seconds in this
	// order, such as 7d or 12h30m; 0s means at once; at most 3650d. Absent
	// means the operator's --ttl-after-expired, 24h unless set. A key that a
	// GitOps tool declares, or that has the annotation
	// apikey-operator.io/keep: "true", is not deleted.
	// +optional
	TTLAfterExpired Duration `json:"ttlAfterExpired,omitempty"`

	// suspend makes verifiers refuse the token for as long as it is true, with
	// the answer that they give to an unknown token. The token works again
	// once suspend is false or absent. Expiry and everything else go on. It is
	// the one field that can be edited.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
}

// Duration is a length of time as people write it: days, hours, minutes and seconds in this order, each optional, such
// as 90d, 12h30m or 0s; at most 3650d (ten years). A day is 24 hours. Go's own notation has no days.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=40
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$') && int('0' + self.find('[0-9]+d').split('d')[0]) * 86400 + int('0' + self.find('[0-9]+h').split('h')[0]) * 3600 + int('0' + self.find('[0-9]+m').split('m')[0]) * 60 + int('0' + self.find('[0-9]+s').split('s')[0]) <= 315360000",message="must be days, hours, minutes and seconds in this order, such as 90d or 12h30m, and at most 3650d (ten years)"
type Duration string

// ApiKeyExpiry says when a key expires.
type ApiKeyExpiry struct {
	// after is the key's life, counted from the moment that the operator first
	// commits a token: days, hours, minutes and seconds in this order, such as
	// 90d or 12h30m; more than zero, at most 3650d (ten years).
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 15m or 90d"
	After Duration `json:"after,omitempty"`

	// at is the moment at which the key expires, in RFC 3339, of the years
	// 2000 to 9998, such as 2027-01-31T00:00:00Z; fractions of a second are
	// cut off. A key whose moment has passed before it was issued gets no
	// token.
	// ---
	// It is text, since a metav1.Time is rewritten in UTC by every client that
	// reads and writes the object, which would be an edit of a spec that can't
	// be edited.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[2-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$') && self < '9999' && !format.datetime().validate(self).hasValue()",message="must be a moment in RFC 3339, of the years 2000 to 9998, such as 2027-01-31T00:00:00Z or 2027-01-31T00:00:00+01:00"
	At string `json:"at,omitempty"`

	// never says that the key does not expire; always true where it is
	// present.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="never can only be true; for a key that expires leave it out and set after or at"
	Never *bool `json:"never,omitempty"`
}

// ApiKeySecret says where and for how long the token is delivered.
//
// +kubebuilder:validation:MinProperties=1
type ApiKeySecret struct {
	// name is the name of the Secret, in the ApiKey's namespace: a DNS
	// subdomain. Absent means the ApiKey's own name. A Secret of that name
	// that is not this key's is never touched; the key waits until it is gone.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be a DNS subdomain: lower-case letters, digits, - and ."
	Name string `json:"name,omitempty"`

	// key is the data key of the token in the Secret: letters, digits, -, _
	// and . only. Absent means token.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a file name of letters, digits, -, _ and . that does not start with .., such as token"
	Key string `json:"key,omitempty"`

	// revealFor is how long after issue the Secret stays, before the operator
	// deletes it; the key lives on. Days, hours, minutes and seconds in this
	// order, such as 15m; more than zero, at most 3650d. Absent means as long
	// as the key.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be more than zero, such as 15m or 90d"
	RevealFor Duration `json:"revealFor,omitempty"`
}

// ApiKeyStatus is what the operator has done. It never holds a token.
type ApiKeyStatus struct {
	// observedGeneration is the metadata.generation that this status speaks
	// of; -1 until the operator has seen the key.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// hash is the digest of the whole token: sha256: and 64 hex digits. A
	// verifier accepts a token by it, from the moment that it is written.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Hash string `json:"hash,omitempty"`

	// tokenHint is the first characters of the token, to recognise a key by.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=21
	TokenHint string `json:"tokenHint,omitempty"`

	// issuedAt is when the token was confirmed to be in its Secret. From then
	// on no other token is ever minted for this key, whatever becomes of the
	// Secret.
	// +optional
	IssuedAt *metav1.Time `json:"issuedAt,omitempty"`

	// expiresAt is the moment from which the token is refused, fixed when a
	// token is first committed. Absent means never.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// expires is expiresAt for people: the same moment, or never.
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
	// spec.secret.revealFor or at expiry, or found that its user had done so
	// before. It does not look for the Secret again.
	// +optional
	SecretDeletedAt *metav1.Time `json:"secretDeletedAt,omitempty"`

	// conditions are Ready and, where they apply, Expiring, Stalled,
	// OutOfPolicy and ClockSkewed.
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
