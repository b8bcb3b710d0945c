package serve

import "strings"

// HeaderTraceparent is the header that carries the trace of a request (W3C Trace Context).
const HeaderTraceparent = "Traceparent"

// Traceparent returns the value if there is exactly one, and otherwise an empty string. Its argument has the
// values of all traceparent headers of a request.
func Traceparent(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

const (
	traceDigits = 32
	spanDigits  = 16
	// "00-" trace "-" span "-" flags, with two digits of flags.
	traceparentLength = 3 + traceDigits + 1 + spanDigits + 3
)

// parseTraceparent returns the trace ID and the parent span ID of a traceparent header (W3C Trace Context,
// section 3.2). Versions later than 00 may append fields after another dash.
func parseTraceparent(text string) (trace, span string, ok bool) {
	if len(text) < traceparentLength || len(text) > traceparentLength && (text[:2] == "00" || text[traceparentLength] != '-') {
		return "", "", false
	}
	version, rest := text[:2], text[3:]
	trace, span = rest[:traceDigits], rest[traceDigits+1:traceDigits+1+spanDigits]
	flags := text[traceparentLength-2 : traceparentLength]
	dashes := text[2] == '-' && rest[traceDigits] == '-' && text[traceparentLength-3] == '-'
	if !dashes || version == "ff" || !isHex(version) || !isHex(trace) || !isHex(span) || !isHex(flags) || isZero(trace) || isZero(span) {
		return "", "", false
	}
	return trace, span, true
}

func isHex(text string) bool { return strings.Trim(text, "0123456789abcdef") == "" }

func isZero(text string) bool { return strings.Trim(text, "0") == "" }
