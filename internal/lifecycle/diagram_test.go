package lifecycle

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page has the diagram, and a table of the states.
const page = "../../docs/lifecycle.md"

// none is where a key is before its creation, and after its end.
const none = "[*]"

// arrow leads from one state to another, by their names.
type arrow struct{ from, to string }

// others are the arrows that no plan leads along: what users do, and what the API server does when it is told to delete.
func others() map[arrow]bool {
	arrows := map[arrow]bool{
		{none, Pending.String()}:               true, // created
		{Expired.String(), none}:               true, // collected, where nothing holds it
		{Deleting.String(), none}:              true,
		{Expired.String(), Tombstone.String()}: true, // a tool or an annotation keeps it from now on
		{Tombstone.String(), Expired.String()}: true,
	}
	for _, state := range allStates() {
		if state != Deleting {
			arrows[arrow{state.String(), Deleting.String()}] = true
		}
	}
	return arrows
}

// arrows are those of the table, and the others.
func arrows() map[arrow]bool {
	all := others()
	for _, from := range allStates() {
		for _, to := range allStates() {
			if from != to && Leads(from, to) {
				all[arrow{from.String(), to.String()}] = true
			}
		}
	}
	return all
}

var (
	drawnArrow = regexp.MustCompile(`^(\S+) --> (\S+): \S.*$`)
	drawnGroup = regexp.MustCompile(`^state "[^"]+" as (\w+) \{$`)
)

// read are the states and arrows of a diagram. An arrow from a group is one from each state in it.
func read(t *testing.T, diagram string) (names []string, drawn map[arrow]bool) {
	t.Helper()
	members := map[string][]string{}
	var open []string
	var lines []arrow
	note := func(name string) {
		if name == none || members[name] != nil {
			return
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		for _, group := range open {
			if !slices.Contains(members[group], name) {
				members[group] = append(members[group], name)
			}
		}
	}
	for line := range strings.Lines(diagram) {
		line = strings.TrimSpace(line)
		switch {
		case line == "stateDiagram-v2":
		case line == "}" && len(open) > 0:
			open = open[:len(open)-1]
		case drawnGroup.MatchString(line):
			open = append(open, drawnGroup.FindStringSubmatch(line)[1])
		case drawnArrow.MatchString(line):
			match := drawnArrow.FindStringSubmatch(line)
			note(match[1])
			note(match[2])
			lines = append(lines, arrow{match[1], match[2]})
		default:
			t.Fatalf("%q is neither an arrow with a label nor a group", line)
		}
	}
	if len(open) > 0 {
		t.Fatalf("%q has no end", open)
	}
	drawn = map[arrow]bool{}
	for _, line := range lines {
		from := members[line.from]
		if from == nil {
			from = []string{line.from}
		}
		for _, name := range from {
			one := arrow{name, line.to}
			if drawn[one] {
				t.Errorf("drawn twice: %v", one)
			}
			drawn[one] = true
		}
	}
	return names, drawn
}

// compare names what one has and the other lacks.
func compare(drawn, known map[arrow]bool) (unknown, missing []arrow) {
	for one := range drawn {
		if !known[one] {
			unknown = append(unknown, one)
		}
	}
	for one := range known {
		if !drawn[one] {
			missing = append(missing, one)
		}
	}
	return unknown, missing
}

func diagram(t *testing.T) (text, diagram string) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(content), "```mermaid\n")
	diagram, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatalf("%s has no diagram", page)
	}
	return string(content), diagram
}

// The picture of the states shows all that there are, and every way between them, and no other.
func TestDiagram(t *testing.T) {
	text, diagram := diagram(t)
	names, drawn := read(t, diagram)
	want := make([]string, 0, numStates)
	for _, state := range allStates() {
		want = append(want, state.String())
		if !strings.Contains(text, "\n| "+state.String()+" | ") {
			t.Errorf("the table of %s has no row for %s", page, state)
		}
	}
	if slices.Sort(names); !slices.Equal(names, slices.Sorted(slices.Values(want))) {
		t.Errorf("states that are drawn: %q\nstates that there are: %q", names, want)
	}
	unknown, missing := compare(drawn, arrows())
	for _, one := range unknown {
		t.Errorf("%s draws an arrow from %s to %s, and nothing leads there", page, one.from, one.to)
	}
	for _, one := range missing {
		t.Errorf("%s lacks the arrow from %s to %s", page, one.from, one.to)
	}
}

// The test above would see a difference.
func TestADiagramThatIsWrongIsSeen(t *testing.T) {
	_, diagram := diagram(t)
	if _, drawn := read(t, diagram+"Tombstone --> Issued: risen\n"); !drawn[arrow{"Tombstone", "Issued"}] {
		t.Error("an arrow is not seen")
	} else if unknown, missing := compare(drawn, arrows()); len(unknown) != 1 || len(missing) != 0 {
		t.Errorf("an arrow too many: %v, %v", unknown, missing)
	}
	known := arrows()
	for _, one := range slices.Collect(maps.Keys(known)) {
		delete(known, one)
		_, drawn := read(t, diagram)
		if unknown, missing := compare(drawn, known); len(unknown) != 1 || unknown[0] != one || len(missing) != 0 {
			t.Errorf("without %v in the table: %v, %v", one, unknown, missing)
		}
		known[one] = true
	}
}
