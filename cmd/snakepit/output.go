package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	codecjson "github.com/snakepit-go/snakepit/codec/json"
)

// console is standard error. The log and the commands write to it. While a bar is drawn there, other text goes
// above it.
type console struct {
	out io.Writer

	mu  sync.Mutex
	bar io.Writer // nil if there is none
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar != nil {
		if n, err := c.bar.Write(p); err == nil {
			return n, nil
		}
	}
	return c.out.Write(p) // also when the bar has just ended
}

// lineStart moves the cursor to the start of the line. After Ctrl-C a terminal prints ^C and leaves the cursor
// behind it. A bar moves the cursor only up and down.
const lineStart = "\r"

// lineStart ignores errors: the worst result is a ragged line.
func (c *console) lineStart() { _, _ = io.WriteString(c.out, lineStart) }

// above makes later text go above the bar. nil ends that.
func (c *console) above(bar io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bar = bar
}

// output is standard output. Its errors name it.
type output struct{ io.Writer }

func (o output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errOutput, err)
	}
	return n, err
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	switch outer := w.(type) {
	case *console:
		w = outer.out
	case output:
		w = outer.Writer
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printValue prints a worker's value as one line of JSON, with the tags of docs/protocol.md for values that JSON lacks.
func printValue(w io.Writer, v any) error {
	line, err := codecjson.Codec{}.Append(nil, v)
	if err != nil {
		return runError{fmt.Errorf("%w: %w", errPrinting, err)}
	}
	line, err = sortKeys(line)
	if err != nil {
		return runError{fmt.Errorf("%w: %w", errPrinting, err)}
	}
	return write(w, string(line))
}

// printIndented prints this program's own data as indented JSON.
func printIndented(w io.Writer, v any) error {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		return runError{fmt.Errorf("%w: %w", errPrinting, err)}
	}
	return write(w, b.String())
}

func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return runError{err}
	}
	return nil
}

// sortKeys sorts the keys of JSON and ends it with a line feed, so that equal results give equal text. Numbers
// stay as they are.
func sortKeys(line []byte) ([]byte, error) {
	in := json.NewDecoder(bytes.NewReader(line))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	err := out.Encode(v)
	return b.Bytes(), err
}
