package grant

import (
	"fmt"
	"strings"
	"time"
)

const (
	// maxNamed and maxRefusals limit what a message lists. It only counts the rest.
	maxNamed    = 5
	maxRefusals = 8
	// MaxMessage is the maximum length in bytes of a verdict's message.
	MaxMessage = 4096
)

// enumerate lists the first maxNamed names, and counts the rest.
func enumerate(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

// days formats a duration in the notation of the API, such as 90d or 12h30m.
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

// clip cuts a message to at most limit bytes, between two characters.
func clip(message string, limit int) string {
	if len(message) <= limit {
		return message
	}
	const mark = "..."
	return strings.ToValidUTF8(message[:limit-len(mark)], "") + mark
}
