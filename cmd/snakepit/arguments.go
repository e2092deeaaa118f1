package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	codecjson "github.com/snakepit-go/snakepit/codec/json"
)

const aboutArguments = `
KEY=VALUE is a keyword argument. Its value is JSON, or else text: n=5 is a number, n='"5"' and
name=Ann are text. A single argument without a key is JSON: an object becomes keyword arguments,
anything else one positional argument. In place of a value or of the single argument, @FILE reads
the JSON in a file, and @- reads standard input. Text that begins with @ needs a second one:
user=@@ann.`

// readArgs is parseArgs with a context: standard input or a pipe may block for ever. When ctx ends, readArgs
// returns and abandons the reader.
func readArgs(ctx context.Context, args []string, stdin io.Reader) (any, error) {
	type parsed struct {
		arg any
		err error
	}
	done := make(chan parsed, 1)
	go func() {
		arg, err := parseArgs(args, stdin)
		done <- parsed{arg, err}
	}()
	select {
	case p := <-done:
		return p.arg, p.err
	case <-ctx.Done():
		return nil, runError{ctx.Err()}
	}
}

// parseArgs turns the arguments of a command line into the argument of a call. stdin is what @- reads.
func parseArgs(args []string, stdin io.Reader) (any, error) {
	if len(args) == 0 {
		return nil, nil
	}
	if len(args) == 1 {
		file, isFile := strings.CutPrefix(args[0], "@")
		if isFile && !strings.HasPrefix(file, "@") {
			return readValue(file, stdin)
		}
		if err := syntax(args[0]); err == nil {
			return parseValue(args[0])
		} else if strings.HasPrefix(args[0], "{") || strings.HasPrefix(args[0], "[") ||
			strings.HasPrefix(args[0], `"`) {
			return nil, fmt.Errorf("argument %s is broken JSON: %w", args[0], err)
		}
	}
	named, usedStdin := make(map[string]any, len(args)), ""
	for _, arg := range args {
		key, text, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf(
				"argument %q is not KEY=VALUE; a single argument may also be JSON, such as '\"text\"', or @FILE", arg)
		}
		if _, twice := named[key]; twice {
			return nil, fmt.Errorf("argument %s is given twice", key)
		}
		if text == "@-" {
			if usedStdin != "" {
				return nil, fmt.Errorf("arguments %s and %s are both @-, but there is one standard input", usedStdin,
					key)
			}
			usedStdin = key
		}
		value, err := parseText(text, stdin)
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", key, err)
		}
		named[key] = value
	}
	return named, nil
}

// parseText parses the text after the equals sign.
func parseText(text string, stdin io.Reader) (any, error) {
	if file, ok := strings.CutPrefix(text, "@"); ok {
		if strings.HasPrefix(file, "@") {
			return file, nil
		}
		return readValue(file, stdin)
	}
	if syntax(text) != nil {
		return text, nil
	}
	return parseValue(text)
}

// readValue reads the value that follows an @.
func readValue(file string, stdin io.Reader) (any, error) {
	name := file
	var content []byte
	var err error
	switch file {
	case "":
		return nil, errors.New(
			"@ needs a file: use @FILE, @- for standard input, or @@ for text that begins with @")
	case "-":
		name = "standard input"
		content, err = io.ReadAll(stdin)
	default:
		content, err = os.ReadFile(file)
	}
	switch at := new(fs.PathError); {
	case errors.As(err, &at):
		return nil, fmt.Errorf("%s cannot be read: %w", name, at.Err)
	case err != nil:
		return nil, fmt.Errorf("%s cannot be read: %w", name, err)
	case len(bytes.TrimSpace(content)) == 0:
		return nil, fmt.Errorf("%s is empty, but it has to be JSON", name)
	}
	if err := syntax(string(content)); err != nil {
		if at := new(json.SyntaxError); errors.As(err, &at) {
			before := content[:max(0, at.Offset-1)]
			line, column := 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')
			return nil, fmt.Errorf("%s is not JSON: line %d, column %d: %w", name, line, column, err)
		}
		return nil, fmt.Errorf("%s is not JSON: %w", name, err)
	}
	v, err := parseValue(string(content))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// syntax returns the syntax error in the JSON text, or nil.
func syntax(text string) error {
	var raw json.RawMessage
	return json.Unmarshal([]byte(text), &raw)
}

// parseValue decodes JSON. It understands the tags that results are printed with.
func parseValue(text string) (v any, err error) {
	err = codecjson.Codec{}.Decode([]byte(text), &v)
	return v, err
}
