package model

import "slices"

// Shrink returns a part of a history that shows a violation of the same rule about the same subject. Nothing more can be removed from it,
// unless that takes more than patience judgements. Events that are not about the subject are removed first.
func Shrink(h History, v Violation, p Promises, patience int) History {
	shows := func(part History) bool {
		patience--
		return slices.ContainsFunc(Judge(part, p), func(other Violation) bool {
			return other.Rule == v.Rule && other.Subject == v.Subject && other.Cause == v.Cause
		})
	}
	if about := About(h, v); shows(about) {
		h = about
	}
	for size := max(len(h)/2, 1); patience > 0; {
		shrunk := false
		for from := 0; from < len(h) && patience > 0; {
			part := slices.Concat(h[:from], h[min(from+size, len(h)):])
			if shows(part) {
				h, shrunk = part, true
			} else {
				from += size
			}
		}
		if size == 1 && !shrunk {
			break
		}
		if !shrunk {
			size = max(size/2, 1)
		}
	}
	return h
}

// About returns the events of a history that are about the subject of a violation, the keys and settings behind it, and all faults.
func About(h History, v Violation) History {
	subjects := map[string]bool{}
	for _, event := range h {
		switch e := event.(type) {
		case Key:
			if e.Touches(v.Subject) {
				subjects[e.UID], subjects[e.Namespace+"/"+e.Name], subjects[e.Digest] = true, true, true
			}
		case Secret:
			if e.Touches(v.Subject) {
				subjects[e.Digest] = true
			}
		default:
		}
	}
	subjects[v.Subject] = true
	delete(subjects, "") // the digest of a key that has none
	var about History
	for _, event := range h {
		if matters(event, v, subjects) {
			about = append(about, event)
		}
	}
	return about
}

func matters(event Event, v Violation, subjects map[string]bool) bool {
	if v.Subject == "" {
		_, is := event.(Finding)
		return is
	}
	switch e := event.(type) {
	case Fault, Start:
		return true
	case Operation:
		return e.Kind == "edit" || subjects[e.Subject] || subjects[e.UID]
	case Beat:
		return v.Rule == RuleAnswer
	}
	for subject := range subjects {
		if event.Touches(subject) {
			return true
		}
	}
	return false
}
