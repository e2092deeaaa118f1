package websocket

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit"
	"github.com/snakepit-go/snakepit/conformance"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/frame"
	"github.com/snakepit-go/snakepit/python"
)

// limit is the time limit of a clause. A message of 28 MiB takes the library for Python several seconds.
const limit = 2 * time.Minute

func TestConformanceLaunched(t *testing.T) {
	conformance.Run(t, conformance.Harness{
		Adapter: Adapter{}, Worker: worker(4), Corrupt: corrupt, TimeLimit: limit,
	})
}

// TestConformanceRunning leaves out the clauses about a worker: it is the same one.
func TestConformanceRunning(t *testing.T) {
	conformance.Run(t, conformance.Harness{
		Adapter: running{worker(1)}, DetectsLoss: true, Corrupt: corrupt, TimeLimit: limit,
		Parts: []conformance.Part{conformance.Adapter, conformance.Pool},
	})
}

// worker returns the suite's worker. It finds the transport in this directory.
func worker(concurrency int) python.Program {
	program := python.Conformance(concurrency)
	program.Env = []string{"PYTHONPATH=."}
	return program
}

// corrupt damages the next message. One is enough, because the connection does not survive it.
func corrupt(c core.Conn) error {
	own := c.(*conn)
	own.out = append(own.out, '#')
	return nil
}

// running is an Adapter with a URL. Before each Start it starts a worker at that URL.
type running struct{ program python.Program }

func (running) Name() string { return Adapter{}.Name() }

func (r running) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	command, err := r.program.Command()
	if err != nil {
		return nil, err
	}
	report, control, err := os.Pipe() // the worker chooses a port and reports it
	if err != nil {
		return nil, err
	}
	defer report.Close()
	process := exec.Command(command.Path, command.Args...)
	process.Env = append(append(os.Environ(), command.Env...),
		"SNAKEPIT_PROTOCOL=websocket_transport:WebSocket", "SNAKEPIT_HOST_TOKEN=secret", "SNAKEPIT_CONTROL_FD=3")
	process.ExtraFiles = []*os.File{control}
	err = process.Start()
	control.Close()
	if err != nil {
		return nil, err
	}
	go func() { _ = process.Wait() }() // it ends after its host

	var link *core.Link
	line, err := bufio.NewReader(report).ReadBytes('\n')
	if err == nil {
		var ready struct{ Endpoint string }
		if err = json.Unmarshal(line, &ready); err == nil && ready.Endpoint == "" {
			err = fmt.Errorf("the worker reports %s", line)
		}
		if err == nil {
			link, err = Adapter{URL: ready.Endpoint, Token: "secret"}.Start(ctx, l)
		}
	}
	if err != nil {
		return nil, errors.Join(err, process.Process.Kill()) // no other host will connect to it
	}
	return link, nil
}

// FuzzParse checks that any bytes give frames or an error. Frames that were read can be written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"kind":"call","id":1,"name":"add","meta":{"a":"b"}}` + "\t{}\n" + `{"kind":"end","id":1}` + "\n"))
	f.Add([]byte(`{"kind":"item","id":1}` + "\t{}"))
	f.Fuzz(func(t *testing.T, message []byte) {
		c := &conn{limit: core.DefaultMaxFrame}
		frames, err := c.parse(message)
		if err != nil {
			return
		}
		var again []byte
		for i := range frames {
			again = frame.AppendLine(again, &frames[i])
		}
		if got, err := c.parse(again); err != nil || len(got) != len(frames) {
			t.Errorf("%d frames are read again as %d, %v", len(frames), len(got), err)
		}
	})
}

func Example() {
	ctx := context.Background()
	pool, err := snakepit.OpenWith(ctx, Adapter{}, snakepit.Python("worker.py"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	sum, err := snakepit.Execute[float64](ctx, pool, "add", map[string]any{"a": 5, "b": 3})
	fmt.Println(sum, err)
	// Output: 8 <nil>
}
