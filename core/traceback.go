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

const (
	maxTrace = 1 << 20 // bytes of a traceback that Go makes
	maxLinks = 500     // how deep causes, contexts and members are followed; a body nests no deeper
)

// Traceback returns the whole chain the way the worker's language prints it, in Python the outermost cause first. If
// the worker sent no such text, Traceback makes one from the fields, in Python's format.
func (e *RemoteError) Traceback() string {
	var p tracePrinter
	p.print(e, "", maxLinks)
	return p.b.String()
}

// tracePrinter writes a traceback. Beyond maxTrace it writes nothing more.
type tracePrinter struct {
	b   strings.Builder
	cut bool
}

// lines writes text that ends with a line feed, each line after the prefix.
func (p *tracePrinter) lines(prefix, text string) {
	for line := range strings.Lines(text) {
		if p.b.Len()+len(prefix)+len(line) > maxTrace {
			if !p.cut {
				p.b.WriteString("[the rest is left out]\n")
			}
			p.cut = true
			return
		}
		p.b.WriteString(prefix + line)
	}
}

// print writes an error. links is how many more links it may follow: a RemoteError that a program made may be its own
// cause.
func (p *tracePrinter) print(e *RemoteError, prefix string, links int) {
	if e == nil || p.cut || links == 0 {
		return
	}
	if e.Text != "" {
		p.lines(prefix, strings.TrimSuffix(e.Text, "\n")+"\n")
		return
	}
	switch {
	case e.Cause != nil:
		p.print(e.Cause, prefix, links-1)
		p.lines(prefix, fromCause)
	case e.Context != nil:
		p.print(e.Context, prefix, links-1)
		p.lines(prefix, fromContext)
	}
	if len(e.Frames) > 0 {
		p.lines(prefix, "Traceback (most recent call last):\n")
	}
	for _, f := range e.Frames {
		p.lines(prefix, fmt.Sprintf("  File %q, line %d, in %s\n", f.File, f.Line, f.Function))
		if f.Source != "" {
			p.lines(prefix, "    "+f.Source+"\n")
		}
	}
	p.lines(prefix, e.Error()+"\n")
	for _, n := range e.Notes {
		p.lines(prefix, n+"\n")
	}
	if len(e.Errors) == 0 {
		return
	}
	for i, member := range e.Errors {
		p.lines(prefix, fmt.Sprintf("  +---------------- %d ----------------\n", i+1))
		p.print(member, prefix+"  | ", links-1)
	}
	p.lines(prefix, "  +------------------------------------\n")
}
