package grant

import (
	"fmt"
	"strings"
	"time"
)

const (
	// A message is for a person to read: beyond these it counts what it does not name.
	maxNamed    = 5
	maxRefusals = 8
	// MaxMessage is the most bytes that a verdict's message has. Names of 253 characters could make it long.
	MaxMessage = 4096
)

// enumerate names some, and counts the rest.
func enumerate(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

// days writes a duration as the API does.
func days(d time.Duration) string {
	var text strings.Builder
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, unit.name)
			d -= n * unit.size
		}
	}
	return text.String()
}

// clip cuts a message to a number of bytes, not within a character.
func clip(message string, limit int) string {
	if len(message) <= limit {
		return message
	}
	const mark = "..."
	return strings.ToValidUTF8(message[:limit-len(mark)], "") + mark
}
