package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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

const orderPolicy = `apiVersion: apikey-operator.io/v1alpha1
kind: ApiKeyPolicy
metadata: {name: orders}
spec:
  roles: [org.permission.order.*]
  maxLifetime: %s
`

const yearlong = `apiVersion: apikey-operator.io/v1alpha1
kind: ApiKey
metadata: {name: yearlong}
spec:
  roles: [org.permission.order.read]
  expiry: {after: 365d}
`

// demo shows the life of an API key, from kubectl apply to its deletion. It fails if a command doesn't do what the demo says.
func demo(ctx context.Context, l *local) error {
	d := &player{ctx: ctx, local: l}

	d.scene("A key that is valid for ninety days, from two networks")
	d.kubectl("apply", "-f", "config/samples/ninety_days_from_two_networks.yaml")
	d.kubectl("wait", "--for=condition=Ready", "apikey/shopify-orders", "--timeout=30s")
	d.kubectl("get", "apikeys", "-o", "wide")

	d.scene("The token is in the token Secret, for those who may read Secrets there. The operator itself may not list Secrets")
	d.kubectl("get", "secret", "shopify-token", "-o", "go-template={{.data.token | base64decode}}{{println}}")
	d.refused("no", "auth", "can-i", "list", "secrets", "--as=system:serviceaccount:apikey-operator-system:apikey-operator")

	d.scene("Claimed: the user deletes the Secret, and the token is stored nowhere in the cluster any more")
	d.kubectl("delete", "secret", "shopify-token")
	d.kubectl("get", "apikey", "shopify-orders")
	d.refused("not found", "get", "secret", "shopify-token")

	d.scene("For people, kubectl apikey does that in one step: it creates a key, prints the token once, and deletes the Secret")
	d.token("create", "shopper", "--role", "org.permission.order.read", "--expires", "90d", "--attribute", "owner=team-shop")
	d.kubectl("apikey", "list")

	d.scene("A key can't be edited")
	d.refused("the spec of an ApiKey is immutable", "patch", "apikey", "shopify-orders", "--type=merge",
		"-p", `{"spec":{"roles":["org.admin.setting.write"]}}`)

	d.scene("The API server refuses invalid values and says what is valid")
	d.refused("the network is 10.0.0.0/8", "patch", "--dry-run=server", "--type=merge", "apikey", "shopify-orders",
		"-p", `{"spec":{"cidrs":["10.0.0.1/8"]}}`)

	d.scene("A key that is valid for five seconds expires, and the operator deletes it two seconds later")
	d.apply(shortLived)
	d.kubectl("wait", "--for=condition=Ready", "apikey/short-lived", "--timeout=30s")
	d.kubectl("wait", `--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=Expired`, "apikey/short-lived", "--timeout=30s")
	d.kubectl("get", "apikey", "short-lived")
	d.refused("not found", "get", "secret", "short-lived")
	d.kubectl("wait", "--for=delete", "apikey/short-lived", "--timeout=30s")
	d.kubectl("events", "--for=apikey/short-lived")

	d.scene("Deleting a key revokes it, and deletes its Secret too")
	d.kubectl("apply", "-f", "config/samples/never_expires.yaml")
	d.kubectl("wait", "--for=condition=Ready", "apikey/status-page", "--timeout=30s")
	d.kubectl("get", "secret", "status-page")
	d.kubectl("delete", "apikey", "status-page")
	d.kubectl("wait", "--for=delete", "secret/status-page", "--timeout=30s")

	d.gateScenes()
	d.policyScene()
	d.scene("All of this is also a page for people, with a grid of keys, Add API key and Copy token: make run prints its link, kubectl apikey ui opens it")
	fmt.Println()
	return d.err
}

// gateScenes call an API that the verifier protects.
func (d *player) gateScenes() {
	if d.err != nil {
		return
	}
	g, err := d.local.openGate(d.ctx)
	if err != nil {
		d.err = err
		return
	}
	defer func() { d.err = errors.Join(d.err, g.stop()) }()

	d.scene("An API behind " + g.name + ": GET /orders requires the role org.permission.order.read")
	d.kubectl("apikey", "create", "orders", "--role", "org.permission.order.read", "--expires", "90d", "--cidr", "127.0.0.2/32", "--keep-secret", "-o", "name")
	another := d.token("create", "another-role", "--role", "org.permission.message.read", "--expires", "90d")
	short := d.token("create", "of-five-seconds", "--role", "org.permission.order.read", "--expires", "5s")
	orders := d.tokenOf("orders")
	d.until(g, orders, http.StatusOK)
	d.call(g, inside, orders, "ORDERS", http.StatusOK)
	d.scene("Without a token, with a key that lacks the role, and from outside the key's networks")
	d.call(g, inside, "", "", http.StatusUnauthorized)
	d.call(g, inside, another, "ANOTHER_ROLE", http.StatusForbidden)
	d.call(g, outside, orders, "ORDERS", http.StatusForbidden)
	d.scene("The key that is valid for five seconds, after it expired")
	d.until(g, short, http.StatusUnauthorized)
	d.call(g, inside, short, "OF_FIVE_SECONDS", http.StatusUnauthorized)
	orders = d.rotationScene(g, orders)
	d.suspensionScene(g, orders)
	d.scene("The token turned up somewhere. Whose is it? The command hashes it and asks for the key with that digest")
	d.find(orders, "NEW")
	d.scene("A deleted key")
	d.kubectl("delete", "apikey", "another-role", "of-five-seconds", "--ignore-not-found")
	d.revoke(g, orders)
	d.call(g, inside, orders, "NEW", http.StatusUnauthorized)
}

// policyScene shows a key that a policy refuses, and that it is issued once the policy changes.
func (d *player) policyScene() {
	d.scene("A policy allows keys of at most ninety days. A key of a year stays pending, and its status says why")
	d.apply(fmt.Sprintf(orderPolicy, "90d"))
	d.apply(yearlong)
	d.kubectl("wait", `--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=NotAllowed`, "apikey/yearlong", "--timeout=30s")
	d.kubectl("get", "apikey", "yearlong")
	d.kubectl("get", "apikey", "yearlong", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}{"\n"}`)
	d.scene("The policy changes, and the key is issued at once")
	d.apply(fmt.Sprintf(orderPolicy, "365d"))
	d.kubectl("wait", "--for=condition=Ready", "apikey/yearlong", "--timeout=30s")
	d.kubectl("get", "apikey", "yearlong")
}

// player runs the demo's commands. After the first one that doesn't do what the demo says, it skips the others.
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

// apply runs kubectl apply with a manifest on standard input.
func (d *player) apply(manifest string) { d.play(manifest, "", "apply", "-f", "-") }

// refused runs a command that must fail with an output that contains answer.
func (d *player) refused(answer string, args ...string) { d.play("", answer, args...) }

func (d *player) play(input, refusal string, args ...string) {
	if d.err != nil {
		return
	}
	fmt.Println("$ kubectl " + quoted(args))
	fmt.Print(input)
	d.run(input, refusal, args)
}

// token runs kubectl apikey, which prints a token on standard output, and returns the token.
func (d *player) token(args ...string) string {
	if d.err != nil {
		return ""
	}
	args = append([]string{"apikey"}, args...)
	fmt.Println("$ kubectl " + quoted(args))
	var output bytes.Buffer
	command := d.command(args)
	command.Stdout, command.Stderr = &output, os.Stdout
	if err := command.Run(); err != nil {
		d.err = fmt.Errorf("kubectl %s: %w", quoted(args), err)
	}
	fmt.Print(output.String())
	return strings.TrimSpace(output.String())
}

// find asks whose token this is.
func (d *player) find(token, tokenName string) {
	if d.err != nil {
		return
	}
	fmt.Printf("$ echo \"$%s\" | kubectl apikey find\n", tokenName)
	d.run(token+"\n", "", []string{"apikey", "find"})
}

// run runs kubectl and shows its output. If refusal is not empty, the command must fail with an output that contains it.
func (d *player) run(input, refusal string, args []string) {
	var output bytes.Buffer
	command := d.command(args)
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

// command returns kubectl with the plugin, for an administrator of the cluster.
func (d *player) command(args []string) *exec.Cmd {
	kubectl, bin := d.local.plane.Kubectl(), filepath.Join(d.local.plane.Root, "bin")
	command := exec.CommandContext(d.ctx, kubectl, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+d.local.kubeconfig, "PATH="+filepath.Dir(kubectl)+string(os.PathListSeparator)+bin)
	return command
}

func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.ContainsAny(arg, " {}()[]\"?$;") {
			words[i] = "'" + arg + "'"
		}
	}
	return strings.Join(words, " ")
}
