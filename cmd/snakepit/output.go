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

// console is standard error, which the log and the commands write to. While bars are drawn there, the rest goes above them.
type console struct {
	out io.Writer

	mu   sync.Mutex
	bars io.Writer // nil if there are none
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bars != nil {
		if n, err := c.bars.Write(p); err == nil {
			return n, nil
		}
	}
	return c.out.Write(p) // also when the bars have just ended
}

// lineStart moves the cursor, which stands behind the ^C that a terminal shows when somebody presses Ctrl-C. Bars move it only up and down.
const lineStart = "\r"

func (c *console) lineStart() { _, _ = io.WriteString(c.out, lineStart) } // nothing worse than a ragged line

// above has what is written from now on go above the bars; nil ends that.
func (c *console) above(bars io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bars = bars
}

// output is standard output. It says in its errors that they are its own.
type output struct{ io.Writer }

func (o output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errOutput, err)
	}
	return n, err
}

// isTerminal reports whether somebody looks at what is written there.
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

// printJSON prints one value that a worker sent as one line, with the tags of docs/protocol.md for what JSON lacks.
func printJSON(w io.Writer, v any) error {
	line, err := codecjson.Codec{}.Append(nil, v)
	if err != nil {
		return started{fmt.Errorf("%w: %w", errPrinting, err)}
	}
	line, err = sortKeys(line)
	if err != nil {
		return started{fmt.Errorf("%w: %w", errPrinting, err)}
	}
	return printLine(w, line)
}

// printPlainJSON prints what this program has to say as indented JSON.
func printPlainJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		return started{fmt.Errorf("%w: %w", errPrinting, err)}
	}
	return printLine(w, b.Bytes())
}

func printLine(w io.Writer, line []byte) error {
	if _, err := w.Write(line); err != nil {
		return started{err}
	}
	return nil
}

// sortKeys gives JSON its keys in order and a line feed at its end, so that equal results are equal text. Numbers stay as they are.
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
