package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// rotationScene replaces the token of the key orders while a client calls the API all the time, and returns the new token.
func (d *player) rotationScene(g *gate, old string) string {
	d.scene("The key gets a new token, while a client calls the API all the time. The old token is accepted for another hour")
	loop := d.startLoop(g, old)
	d.kubectl("apikey", "rotate", "orders", "--overlap", "1h", "--yes")
	d.stopLoop(loop)
	d.kubectl("get", "apikey", "orders", "-o", `jsonpath={"old: "}{.status.rotation.retiring}{"\nnew: "}{.status.hash}{"\n"}`)
	current := d.tokenOf("orders")
	d.call(g, inside, old, "OLD", http.StatusOK)
	d.call(g, inside, current, "NEW", http.StatusOK)
	return current
}

// suspensionScene turns the key orders off, and on again.
func (d *player) suspensionScene(g *gate, token string) {
	d.scene("A suspended key is refused like an unknown one. Resumed, it goes on with the same token")
	for _, each := range []struct {
		verb   string
		status int
	}{{"suspend", http.StatusUnauthorized}, {"resume", http.StatusOK}} {
		d.kubectl("apikey", each.verb, "orders")
		d.until(g, token, each.status)
		d.call(g, inside, token, "NEW", each.status)
	}
}

// reread is the time after which the client of a loop reads the token again, as a program does with a mounted file.
const reread = 200 * time.Millisecond

// loop is a client that calls the API all the time.
type loop struct {
	cancel  context.CancelFunc
	group   sync.WaitGroup
	first   string
	renewed chan struct{} // closed when another token than the first was accepted

	sent, refused int
	err           error
}

// startLoop starts a client that calls the API with the token in the Secret orders. It has the token first already.
func (d *player) startLoop(g *gate, first string) *loop {
	ctx, cancel := context.WithCancel(d.ctx)
	l := &loop{cancel: cancel, first: first, renewed: make(chan struct{})}
	if d.err == nil {
		l.group.Go(func() { l.err = l.run(ctx, d.local, g) })
	}
	return l
}

func (l *loop) run(ctx context.Context, cluster *local, g *gate) error {
	c, token, next := client(inside), l.first, time.Now().Add(reread)
	renewed := false
	for ctx.Err() == nil {
		if time.Now().After(next) {
			found, err := cluster.tokenIn(ctx, "orders")
			if err != nil {
				return ignoreCanceled(ctx, err)
			}
			token, next = found, time.Now().Add(reread)
		}
		status, _, err := ask(ctx, c, g.url, token)
		if err != nil {
			return ignoreCanceled(ctx, err)
		}
		l.sent++
		switch {
		case status != http.StatusOK:
			l.refused++
		case token != l.first && !renewed:
			renewed = true
			close(l.renewed)
		}
	}
	return nil
}

func ignoreCanceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stopLoop waits until the client has used a new token, and stops it. It fails if a request was refused.
func (d *player) stopLoop(l *loop) {
	defer l.cancel()
	if d.err == nil {
		select {
		case <-l.renewed:
		case <-time.After(time.Minute):
			d.err = errors.New("the client has no new token after a minute")
		case <-d.ctx.Done():
		}
	}
	l.cancel()
	l.group.Wait()
	if d.err != nil {
		return
	}
	if d.err = l.err; d.err == nil && l.refused > 0 {
		d.err = fmt.Errorf("%d of %d requests were refused during the rotation", l.refused, l.sent)
	}
	say("The client sent %d requests meanwhile, and uses the new token now. %d were refused.", l.sent, l.refused)
}
