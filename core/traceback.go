package core

import (
	"fmt"
	"strings"
)

// TraceFrame is one line of a traceback.
type TraceFrame struct {
	File     string `json:"file"`
	Line     int    `json:"line"` // from 1
	Function string `json:"function"`
	Source   string `json:"source,omitempty"` // the source line, trimmed, if it could be read
}

// The lines of Python's tracebacks between an exception and the one that it led to.
const (
	fromCause   = "\nThe above exception was the direct cause of the following exception:\n\n"
	fromContext = "\nDuring handling of the above exception, another exception occurred:\n\n"
)

// Traceback returns the whole chain the way the worker's language prints it, in Python the outermost cause first. If
// the worker sent no such text, Traceback makes one from the fields, in Python's format.
func (e *RemoteError) Traceback() string {
	var b strings.Builder
	e.traceback(&b)
	return b.String()
}

func (e *RemoteError) traceback(b *strings.Builder) {
	if e.Text != "" {
		b.WriteString(strings.TrimSuffix(e.Text, "\n") + "\n")
		return
	}
	switch {
	case e.Cause != nil:
		e.Cause.traceback(b)
		b.WriteString(fromCause)
	case e.Context != nil:
		e.Context.traceback(b)
		b.WriteString(fromContext)
	}
	if len(e.Frames) > 0 {
		b.WriteString("Traceback (most recent call last):\n")
	}
	for _, f := range e.Frames {
		fmt.Fprintf(b, "  File %q, line %d, in %s\n", f.File, f.Line, f.Function)
		if f.Source != "" {
			fmt.Fprintf(b, "    %s\n", f.Source)
		}
	}
	b.WriteString(e.Error() + "\n")
	for _, n := range e.Notes {
		b.WriteString(n + "\n")
	}
	if len(e.Errors) == 0 {
		return
	}
	for i, member := range e.Errors {
		fmt.Fprintf(b, "  +---------------- %d ----------------\n", i+1)
		for line := range strings.Lines(member.Traceback()) {
			b.WriteString("  | " + line)
		}
	}
	b.WriteString("  +------------------------------------\n")
}
