package core

import (
	"strings"
	"testing"
)

// A traceback is bounded, whatever links an error has. A program may make any RemoteError, and a worker may send null
// among the members.
func TestTracebackOfOddErrors(t *testing.T) {
	circle := &RemoteError{Type: "Circle"}
	circle.Cause = &RemoteError{Type: "Half", Context: circle}
	if text := circle.Traceback(); !strings.HasSuffix(text, "\nCircle\n") || len(text) > maxTrace {
		t.Errorf("%d bytes end with %.60q", len(text), text[max(0, len(text)-60):])
	}
	if circle.some(maxLinks, func(e *RemoteError) bool { return e.Type == "Other" }) {
		t.Error("a circle has an error that is not in it")
	}

	members := &RemoteError{Type: "Group", Errors: []*RemoteError{nil, {Type: "One"}, nil}}
	if text := members.Traceback(); !strings.Contains(text, "  | One\n") {
		t.Errorf("got %s", text)
	}

	deep := &RemoteError{Type: "Innermost"}
	for range 240 {
		deep = &RemoteError{Type: "Group", Errors: []*RemoteError{deep}}
	}
	for range 4000 {
		deep.Errors = append(deep.Errors, &RemoteError{Type: "Member"})
	}
	if text := deep.Traceback(); len(text) > maxTrace+100 || !strings.Contains(text, "Innermost") {
		t.Errorf("%d bytes", len(text))
	}
	wide := &RemoteError{Type: "Group"}
	for range 100_000 {
		wide.Errors = append(wide.Errors, &RemoteError{Type: "Member"})
	}
	if text := wide.Traceback(); len(text) > maxTrace+100 || !strings.HasSuffix(text, "[the rest is left out]\n") {
		t.Errorf("%d bytes", len(text))
	}
}

// The first line of a failed start has the exception. The details do not repeat it.
func TestStartErrorSaysTheExceptionOnce(t *testing.T) {
	const printed = "Traceback (most recent call last):\n  File \"w.py\", line 1, in f\nValueError: a\nnote\n"
	for _, text := range []string{"", printed} {
		remote := &RemoteError{
			Type: "ValueError", Message: "a", Notes: []string{"note"}, Text: text,
			Frames: []TraceFrame{{File: "w.py", Line: 1, Function: "f"}},
		}
		const want = "ValueError: a\n  Traceback (most recent call last):\n    File \"w.py\", line 1, in f\n  note\n" +
			"  command: python w.py\nhint: mend it"
		if got := (&StartError{Command: "python w.py", Remedy: "mend it", Err: remote}).Error(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}
