package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/apikey-operator/apikey-operator/test/torture/model"
	"github.com/apikey-operator/apikey-operator/test/torture/plan"
)

// figures are what a run counted, for the tables in docs/torture.md.
type figures struct {
	operations, starts, answers, results, faults map[string]int
	// recovery is, for each kind of fault, the longest time from its end until the next new key opened at both verifiers.
	recovery map[string]time.Duration
	stalled  time.Duration
	// recorded is how often the last use of a key was recorded.
	recorded int
}

// count counts a history. cycles are when new keys were seen to open, in order.
func count(history model.History, cycles []time.Time) figures {
	f := figures{
		operations: map[string]int{}, starts: map[string]int{}, answers: map[string]int{}, results: map[string]int{}, faults: map[string]int{},
		recovery: map[string]time.Duration{},
	}
	used := map[string]time.Time{}
	for _, event := range history {
		switch e := event.(type) {
		case model.Key:
			if !e.Used.Equal(used[e.UID]) {
				f.recorded++
			}
			used[e.UID] = e.Used
		case model.Operation:
			f.operations[e.Kind]++
		case model.Fault:
			f.addFault(e, cycles)
		case model.Answer:
			f.answers[e.Protocol]++
			f.results[string(e.Result)]++
		case model.Start:
			f.starts[e.Process]++
		default:
		}
	}
	return f
}

func (f *figures) addFault(e model.Fault, cycles []time.Time) {
	if e.Target == model.Machine {
		f.stalled += e.To.Sub(e.From)
		return
	}
	name := e.Kind + " " + e.Target
	if e.Kind == plan.Quota || e.Kind == plan.Plant {
		name = e.Kind // the target is a namespace or a key
	}
	f.faults[name]++
	if i, _ := slices.BinarySearchFunc(cycles, e.To, time.Time.Compare); i < len(cycles) {
		f.recovery[name] = max(f.recovery[name], cycles[i].Sub(e.To))
	}
}

// report prints the figures of a run as tables: first the row for docs/torture.md, then what it sums up.
func (r *run) report(w io.Writer, duration, judged time.Duration) {
	f := count(r.history, r.cycles)
	_, _ = fmt.Fprintf(w, "%d events of history, judged in %s\n\n", len(r.history), judged.Round(time.Millisecond))
	_, _ = fmt.Fprintln(w, "| seed | duration | operations | faults | answers judged | of them certain | new keys that opened | longest recovery | stalls |")
	_, _ = fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	longest := slices.MaxFunc(append(slices.Collect(maps.Values(f.recovery)), 0), cmp.Compare[time.Duration])
	_, _ = fmt.Fprintf(w, "| %d | %s | %d | %d | %d | %d | %d | %.1f s | %.1f s |\n\n", r.seed, duration, sum(f.operations), sum(f.faults),
		sum(f.answers), model.Certain(r.history, promises), len(r.cycles), longest.Seconds(), f.stalled.Seconds())

	_, _ = fmt.Fprintln(w, "| what | how often |\n|---|---|")
	for _, part := range []struct {
		name   string
		counts map[string]int
	}{{"operation", f.operations}, {"start of", f.starts}, {"answers over", f.answers}, {"answer", f.results}} {
		for _, name := range slices.Sorted(maps.Keys(part.counts)) {
			_, _ = fmt.Fprintf(w, "| %s %s | %d |\n", part.name, name, part.counts[name])
		}
	}
	_, _ = fmt.Fprintf(w, "| last use recorded | %d |\n", f.recorded)
	_, _ = fmt.Fprintln(w, "\n| fault | how often | longest recovery |\n|---|---|---|")
	for _, name := range slices.Sorted(maps.Keys(f.faults)) {
		_, _ = fmt.Fprintf(w, "| %s | %d | %.1f s |\n", name, f.faults[name], f.recovery[name].Seconds())
	}
	_, _ = fmt.Fprintln(w)
}

func sum(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

// explain prints a violation with the shortest history that shows it, and the faults meanwhile.
func (r *run) explain(w io.Writer, v model.Violation) {
	const patience = 2000
	_, _ = fmt.Fprintf(w, "VIOLATION %s\n  the shortest history that shows it:\n", v)
	about := model.About(r.history, v)
	for _, event := range model.Shrink(about, v, promises, patience) {
		_, _ = fmt.Fprintf(w, "    %s\n", event)
	}
	_, _ = fmt.Fprintln(w, "  what else was done to it, and the faults within a minute:")
	for _, event := range about {
		from, to := event.Span()
		near := from.Before(v.At.Add(time.Second)) && to.After(v.At.Add(-time.Minute))
		switch e := event.(type) {
		case model.Fault, model.Start:
			if near {
				_, _ = fmt.Fprintf(w, "    %s\n", event)
			}
		case model.Operation:
			if e.Kind != "edit" || near {
				_, _ = fmt.Fprintf(w, "    %s\n", event)
			}
		case model.Key, model.Secret:
			_, _ = fmt.Fprintf(w, "    %s\n", event)
		default:
		}
	}
}
