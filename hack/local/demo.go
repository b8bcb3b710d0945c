package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const shortLived = `apiVersion: apikey-operator.io/v1alpha1
kind: ApiKey
metadata: {name: short-lived}
spec:
  roles: [org.permission.message.read]
  expiry: {after: 5s}
  ttlAfterExpired: 2s
`

// demo shows the life of an API key, from kubectl apply to garbage. It fails if anything is not as it says.
func demo(ctx context.Context, l *local) error {
	d := &player{ctx: ctx, local: l}

	d.scene("A key for ninety days, from two networks")
	d.kubectl("apply", "-f", "config/samples/ninety_days_from_two_networks.yaml")
	d.kubectl("wait", "--for=condition=Ready", "apikey/shopify-orders", "--timeout=30s")
	d.kubectl("get", "apikeys", "-o", "wide")

	d.scene("The token is in its Secret, for who may read that; the operator itself may not list Secrets")
	d.kubectl("get", "secret", "shopify-token", "-o", "go-template={{.data.token | base64decode}}{{println}}")
	d.refused("no", "auth", "can-i", "list", "secrets", "--as=system:serviceaccount:apikey-operator-system:apikey-operator")

	d.scene("Claimed: once its user has deleted the Secret, the token is shown nowhere again")
	d.kubectl("delete", "secret", "shopify-token")
	d.kubectl("get", "apikey", "shopify-orders")
	d.refused("not found", "get", "secret", "shopify-token")

	d.scene("A key can't be edited")
	d.refused("an ApiKey can not be edited", "patch", "apikey", "shopify-orders", "--type=merge",
		"-p", `{"spec":{"roles":["org.admin.setting.write"]}}`)

	d.scene("Nor can a wrong one be made: the answer says what would be right")
	d.refused("the network is 10.0.0.0/8", "patch", "--dry-run=server", "--type=merge", "apikey", "shopify-orders",
		"-p", `{"spec":{"cidrs":["10.0.0.1/8"]}}`)

	d.scene("A key of five seconds expires, and is collected two seconds later")
	d.apply(shortLived)
	d.kubectl("wait", "--for=condition=Ready", "apikey/short-lived", "--timeout=30s")
	d.kubectl("wait", `--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=Expired`, "apikey/short-lived", "--timeout=30s")
	d.kubectl("get", "apikey", "short-lived")
	d.refused("not found", "get", "secret", "short-lived")
	d.kubectl("wait", "--for=delete", "apikey/short-lived", "--timeout=30s")
	d.kubectl("events", "--for=apikey/short-lived")

	d.scene("Deleting a key revokes it, and takes its Secret along")
	d.kubectl("apply", "-f", "config/samples/never_expires.yaml")
	d.kubectl("wait", "--for=condition=Ready", "apikey/status-page", "--timeout=30s")
	d.kubectl("get", "secret", "status-page")
	d.kubectl("delete", "apikey", "status-page")
	d.kubectl("wait", "--for=delete", "secret/status-page", "--timeout=30s")
	fmt.Println()
	return d.err
}

// player runs commands and stops at the first that does not do what the demo says.
type player struct {
	ctx   context.Context
	local *local
	err   error
}

func (d *player) scene(title string) {
	if d.err == nil {
		fmt.Println()
		say("%s", title)
	}
}

// kubectl runs a command that must succeed.
func (d *player) kubectl(args ...string) { d.play("", "", args...) }

// apply feeds a manifest to kubectl apply.
func (d *player) apply(manifest string) { d.play(manifest, "", "apply", "-f", "-") }

// refused runs a command that must fail, and say so.
func (d *player) refused(answer string, args ...string) { d.play("", answer, args...) }

func (d *player) play(input, refusal string, args ...string) {
	if d.err != nil {
		return
	}
	fmt.Println("$ kubectl " + quoted(args))
	fmt.Print(input)
	var output bytes.Buffer
	command := exec.CommandContext(d.ctx, d.local.plane.Kubectl(), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+d.local.kubeconfig, "PATH="+filepath.Dir(d.local.plane.Kubectl()))
	command.Stdin = strings.NewReader(input)
	command.Stdout = io.MultiWriter(os.Stdout, &output)
	command.Stderr = command.Stdout
	err := command.Run()
	switch {
	case refusal == "" && err != nil:
		d.err = fmt.Errorf("kubectl %s: %w", quoted(args), err)
	case refusal != "" && (err == nil || !strings.Contains(output.String(), refusal)):
		d.err = fmt.Errorf("kubectl %s should have been refused with %q", quoted(args), refusal)
	}
}

func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.ContainsAny(arg, " {}()[]\"?$") {
			words[i] = "'" + arg + "'"
		}
	}
	return strings.Join(words, " ")
}
