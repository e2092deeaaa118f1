package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// childVariable makes a process of this program a child. A child carries out orders from its standard input and
// answers on its standard output. It keeps the subjects that it has started.
//
// What is measured runs in children: so it can be pinned to one processor, is not affected by what was measured
// before, and can be killed.
const childVariable = "SNAKEPIT_BENCH_CHILD"

// order is a job with its arguments.
type order struct {
	Job     string `json:"job"`
	Row     string `json:"row,omitempty"`
	Subject string `json:"subject,omitempty"`
	Point   int    `json:"point,omitempty"`
	Quick   bool   `json:"quick,omitempty"`
	Trace   bool   `json:"trace,omitempty"`
	Way     string `json:"way,omitempty"`
	Adapter string `json:"adapter,omitempty"`
	Command string `json:"command,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Note    string `json:"note,omitempty"`
	Busy    bool   `json:"busy,omitempty"`
}

// answer is the result of an order, or an error.
type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// jobs are the available jobs.
var jobs = map[string]func(*bed, order) (any, error){
	"row":     rowJob,
	"series":  seriesJob,
	"streams": streamsJob,
	"memory":  memoryJob,
	"result":  resultJob,
	"way":     wayJob,
	"host":    hostJob,
	"growing": growingJob,
}

// child is such a process.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startChild starts a child, on one processor if the mode is pinned. The variables are added to its environment.
func startChild(m mode, variables ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), childVariable+"=1"), variables...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := cmd.Start
	if m == pinned {
		start = func() error { return startPinned(cmd) }
	}
	if err := start(); err != nil {
		return nil, err
	}
	return &child{cmd, in, json.NewDecoder(out)}, nil
}

// ask has an order carried out and decodes its result.
func (c *child) ask(result any, o order) error {
	if err := c.send(o); err != nil {
		return err
	}
	var a answer
	if err := c.out.Decode(&a); err != nil {
		return fmt.Errorf("the process for %+v ended: %w", o, err)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return json.Unmarshal(a.Result, result)
}

func (c *child) send(o order) error { return json.NewEncoder(c.in).Encode(o) }

// close ends the child and what it has started.
func (c *child) close() error {
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// inChild carries out one order in a child of its own.
func inChild(result any, o order) error {
	c, err := startChild(free)
	if err != nil {
		return err
	}
	return errors.Join(c.ask(result, o), c.close())
}

// runChild is the child's side.
func runChild() error {
	b, err := newBed()
	if err != nil {
		return err
	}
	err = serve(b, json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout))
	return errors.Join(err, b.close())
}

func serve(b *bed, orders *json.Decoder, answers *json.Encoder) error {
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		job := jobs[o.Job]
		if job == nil {
			return fmt.Errorf("unknown job %q", o.Job)
		}
		var a answer
		result, err := job(b, o)
		if err == nil {
			a.Result, err = json.Marshal(result)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}
