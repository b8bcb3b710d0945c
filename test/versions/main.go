// Command versions runs the specs with the label releases on the oldest supported release of Kubernetes and on the newest, and prints the
// results as a table. `make test-versions` starts it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// releases names the releases and the folders with their binaries.
var releases = []struct{ name, folder string }{
	{"oldest", filepath.Join("bin", "kube", "oldest")},
	{"newest", filepath.Join("bin", "kube")},
}

// suites lists the packages in test/ that have specs with the label.
var suites = []string{"integration", "gateways"}

const label = "releases"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "versions:", err)
		os.Exit(1)
	}
}

// result is the outcome of a suite on a release.
type result struct {
	release, version, suite string

	passed, failed, skipped int
	// reasons says why specs were skipped, without duplicates.
	reasons []string
	took    time.Duration
}

func run(ctx context.Context) error {
	reports, err := os.MkdirTemp("", "versions-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(reports) }()
	var results []result
	var failures []error
	for _, release := range releases {
		folder, err := filepath.Abs(release.folder)
		if err != nil {
			return err
		}
		version, err := exec.CommandContext(ctx, filepath.Join(folder, "kube-apiserver"), "--version").Output()
		if err != nil {
			return fmt.Errorf("%s (use make test-versions): %w", release.folder, err)
		}
		for _, suite := range suites {
			r := result{release: release.name, version: strings.TrimSpace(string(version)), suite: suite}
			fmt.Printf("# test/%s on %s\n", suite, r.version)
			report := filepath.Join(reports, release.name+"-"+suite+".json")
			if err := test(ctx, folder, suite, report); err != nil {
				failures = append(failures, fmt.Errorf("test/%s on %s: %w", suite, r.version, err))
			}
			if err := r.read(report); err != nil {
				failures = append(failures, err)
			}
			results = append(results, r)
		}
	}
	return errors.Join(append(failures, show(results))...)
}

// test runs a suite's specs with the label, on the binaries in a folder.
func test(ctx context.Context, folder, suite, report string) error {
	command := exec.CommandContext(ctx, "go", "test", "-C", "test", "-v", "-vet=off", "-count=1", "-timeout=40m", "./"+suite,
		"-ginkgo.label-filter="+label, "-ginkgo.json-report="+report)
	command.Env = append(os.Environ(), "KUBEBUILDER_ASSETS="+folder)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 2 * time.Minute // the suite needs time to stop its control plane
	return command.Run()
}

// read counts the specs in a report.
func (r *result) read(report string) error {
	content, err := os.ReadFile(report)
	if err != nil {
		return err
	}
	var suites []types.Report
	if err := json.Unmarshal(content, &suites); err != nil {
		return fmt.Errorf("%s: %w", report, err)
	}
	for _, suite := range suites {
		r.took += suite.RunTime
		for _, spec := range suite.SpecReports.WithLeafNodeType(types.NodeTypeIt) {
			switch {
			case spec.State.Is(types.SpecStatePassed):
				r.passed++
			case spec.State.Is(types.SpecStateFailureStates):
				r.failed++
			case spec.State.Is(types.SpecStateSkipped) && spec.Failure.Message != "": // the spec skipped itself; the label filter gives no message
				r.skipped++
				if reason := spec.FullText() + ": " + spec.Failure.Message; !slices.Contains(r.reasons, reason) {
					r.reasons = append(r.reasons, reason)
				}
			}
		}
	}
	if r.passed == 0 {
		return fmt.Errorf("test/%s on %s: no spec with the label %s passed", r.suite, r.version, label)
	}
	return nil
}

func show(results []result) error {
	fmt.Println()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "RELEASE\tAPI SERVER\tSUITE\tPASSED\tFAILED\tSKIPPED\tTIME")
	for _, r := range results {
		_, _ = fmt.Fprintf(table, "%s\t%s\ttest/%s\t%d\t%d\t%d\t%s\n", r.release, r.version, r.suite, r.passed, r.failed, r.skipped, r.took.Round(time.Second))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		for _, reason := range r.reasons {
			fmt.Printf("skipped on %s: %s\n", r.version, reason)
		}
	}
	return nil
}
