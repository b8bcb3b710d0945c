package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

const listedKeys = 10_000

// benchListing measures kubectl apikey with many keys: how soon the first line comes, how long all of it takes, and how much memory it needs.
func benchListing(ctx context.Context, rounds int) (err error) {
	plane, seeder, err := seededPlane(ctx, listedKeys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	folder, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	user := person{kubeconfig: filepath.Join(folder, "kubeconfig"), program: filepath.Join(plane.Root, "bin", "kubectl-apikey")}
	if err := plane.AdminKubeconfig(user.kubeconfig); err != nil {
		return err
	}
	fmt.Printf("\nkubectl apikey with %d keys, median of %d rounds\n\n", listedKeys, rounds)
	fmt.Println("| command | first line | all | peak memory |")
	fmt.Println("|---|---|---|---|")
	token := seeder.tokens[len(seeder.tokens)-1].token
	for _, c := range []struct {
		input string
		args  []string
	}{
		{"", []string{"version"}}, // how long it takes to start
		{"", []string{"list", "--all-namespaces"}},
		{"", []string{"list", "--all-namespaces", "--sort", "expires"}},
		{token, []string{"find"}},
	} {
		var first, all, peak []float64
		for range rounds {
			run, err := user.run(ctx, c.input, c.args)
			if err != nil {
				return err
			}
			first, all, peak = append(first, run.first.Seconds()), append(all, run.all.Seconds()), append(peak, float64(run.peak>>20))
		}
		fmt.Printf("| `%s` | %.2f s | %.2f s | %.0f MiB |\n", strings.Join(c.args, " "), middle(first), middle(all), middle(peak))
	}
	return nil
}

// person runs kubectl apikey.
type person struct{ kubeconfig, program string }

// answer is how the command answered: when its first byte came and when it ended, since its start, and its peak memory in bytes.
type answer struct {
	first, all time.Duration
	peak       int64
}

func (p person) run(ctx context.Context, input string, args []string) (answer, error) {
	command := exec.CommandContext(ctx, p.program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig)
	command.Stdin = strings.NewReader(input)
	out := &firstByte{}
	var stderr bytes.Buffer
	command.Stdout, command.Stderr = out, &stderr
	start := time.Now()
	if err := command.Start(); err != nil {
		return answer{}, err
	}
	done := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- watchMemory(command.Process.Pid, done) }()
	err := command.Wait()
	all := time.Since(start)
	close(done)
	most := <-peak
	if err != nil {
		return answer{}, fmt.Errorf("kubectl apikey %s: %w\n%s", args[0], err, stderr.String())
	}
	if out.at.IsZero() {
		return answer{}, fmt.Errorf("kubectl apikey %s printed nothing", args[0])
	}
	return answer{first: out.at.Sub(start), all: all, peak: most}, nil
}

// watchMemory returns the peak of a process's resident memory, as it was seen last before done. The usage that the kernel reports at the end is of
// no use: it is at least that of the process that started the command.
func watchMemory(pid int, done <-chan struct{}) (most int64) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, peak, err := controlplane.MemoryOf(pid); err == nil {
			most = max(most, peak)
		}
		select {
		case <-done:
			return most
		case <-tick.C:
		}
	}
}

// firstByte notes when something is first written to it.
type firstByte struct{ at time.Time }

func (f *firstByte) Write(p []byte) (int, error) {
	if f.at.IsZero() {
		f.at = time.Now()
	}
	return len(p), nil
}
