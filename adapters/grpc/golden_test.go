package grpc

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/proto"

	"github.com/snakepit-go/snakepit/adapters/grpc/snakepitpb"
	"github.com/snakepit-go/snakepit/core"
)

var update = flag.Bool("update", false, "write the golden file anew")

// TestGolden holds the bytes of a batch to the file that the Python tests read too.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "frames.txtar")
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range archive.Files {
		lines := strings.SplitAfter(string(file.Data), "\n")
		var g struct {
			Kind                string
			Flags               core.Flags
			ID, Parent          uint64
			TTL, Items, Bytes   int64
			Name, Session, Body string
			Meta                map[string]string
		}
		if err := json.Unmarshal([]byte(lines[0]), &g); err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
		f := core.Frame{
			Kind: core.ParseKind(g.Kind), Flags: g.Flags, ID: g.ID, Parent: g.Parent, Name: g.Name, TTL: time.Duration(g.TTL) * time.Millisecond,
			Session: g.Session, Meta: g.Meta, Items: g.Items, Bytes: g.Bytes,
		}
		if g.Body != "" {
			if f.Body, err = hex.DecodeString(g.Body); err != nil {
				t.Fatalf("%s: %v", file.Name, err)
			}
		}
		message, err := proto.Marshal(new(encodedBatch).fill([]core.Frame{f}))
		if err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
		wire := hex.EncodeToString(message) + "\n"
		if *update {
			lines[1] = wire
			archive.Files[i].Data = []byte(strings.Join(lines, ""))
		}
		if wire != lines[1] {
			t.Errorf("%s: wrote %q, not %q", file.Name, wire, lines[1])
		}
		batch := &snakepitpb.Batch{}
		if err := proto.Unmarshal(message, batch); err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
		if got, err := decode(batch); err != nil || !reflect.DeepEqual(got, []core.Frame{f}) {
			t.Errorf("%s: read %q as %+v, %v", file.Name, lines[1], got, err)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
