// Package adaptertest has the shared parts of the adapters' tests: frames to send, the golden files, and the rules for
// every connection over a byte stream. Package conformance has the rules for every adapter.
package adaptertest

import (
	"encoding/json"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/snakepit-go/snakepit/core"
)

var (
	texts   = rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringOfN(rapid.Rune(), 40, 400, -1))
	numbers = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(0, 300), rapid.Uint64Range(0, 1<<53-1))
)

// Frames generates any frame that an adapter may be given, with bodies from the generator.
func Frames(bodies *rapid.Generator[[]byte]) *rapid.Generator[core.Frame] {
	return rapid.Custom(func(t *rapid.T) core.Frame {
		f := core.Frame{
			Kind:    core.Kind(rapid.IntRange(int(core.KindHello), int(core.KindState)).Draw(t, "kind")),
			Flags:   core.Flags(rapid.Uint8().Draw(t, "flags")),
			ID:      numbers.Draw(t, "id"),
			Parent:  numbers.Draw(t, "parent"),
			Name:    texts.Draw(t, "name"),
			Session: texts.Draw(t, "session"),
			TTL:     time.Duration(rapid.Int64Range(0, math.MaxInt64/1_000_000).Draw(t, "ttl")) * time.Millisecond,
			Items:   int64(numbers.Draw(t, "items")),
			Bytes:   int64(numbers.Draw(t, "bytes")),
			Body:    bodies.Draw(t, "body"),
		}
		if meta := rapid.MapOfN(texts, texts, 0, 4).Draw(t, "meta"); len(meta) > 0 {
			f.Meta = meta
		}
		return f
	})
}

// ReadAll reads until the connection ends, and returns the error that ended it.
func ReadAll(c core.Conn) (all []core.Frame, err error) {
	for {
		frames, err := c.Read()
		if err != nil {
			return all, err
		}
		all = append(all, frames...)
	}
}

// Golden is one adapter's form of frames in a golden file: a line of text for each frame.
type Golden struct {
	Body  func(text string) ([]byte, error) // the body in the file's notation
	Write func(f core.Frame) string
	Read  func(line string) ([]core.Frame, error)
}

// Check compares the adapter with testdata/frames.txtar. The tests of other languages read that file too. In each
// section the first line is the frame, the second is what the adapter writes for it, and the rest are other lines with
// the same meaning. With update Check rewrites the second lines.
func (g Golden) Check(t *testing.T, update bool) {
	t.Helper()
	const path = "testdata/frames.txtar"
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range archive.Files {
		lines := strings.SplitAfter(string(file.Data), "\n")
		want, err := g.frame(lines[0])
		if err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
		wire := g.Write(want) + "\n"
		if update {
			lines = append([]string{lines[0], wire}, lines[min(2, len(lines)):]...)
			archive.Files[i].Data = []byte(strings.Join(lines, ""))
		}
		if wire != lines[1] {
			t.Errorf("%s: wrote %q, not %q", file.Name, wire, lines[1])
		}
		for _, line := range lines[1:] {
			if line == "" {
				continue
			}
			got, err := g.Read(strings.TrimSuffix(line, "\n"))
			if err != nil || !reflect.DeepEqual(got, []core.Frame{want}) {
				t.Errorf("%s: read %q as %+v, %v", file.Name, line, got, err)
			}
		}
	}
	if update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// frame reads the first line of a section.
func (g Golden) frame(line string) (core.Frame, error) {
	var v struct {
		Kind                string
		Flags               core.Flags
		ID, Parent          uint64
		TTL, Items, Bytes   int64
		Name, Session, Body string
		Meta                map[string]string
	}
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		return core.Frame{}, err
	}
	f := core.Frame{
		Kind: core.ParseKind(v.Kind), Flags: v.Flags, ID: v.ID, Parent: v.Parent, Name: v.Name, Session: v.Session,
		Meta: v.Meta, TTL: time.Duration(v.TTL) * time.Millisecond, Items: v.Items, Bytes: v.Bytes,
	}
	var err error
	if v.Body != "" {
		f.Body, err = g.Body(v.Body)
	}
	return f, err
}
