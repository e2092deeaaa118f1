package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// childVariable holds an order for a process of this program. The process does only that. A measurement in its
// own process is not affected by earlier measurements. A host that a trial kills has to be a process of its own.
const childVariable = "SNAKEPIT_BENCH_CHILD"

// order is the job of such a process, with its arguments.
type order struct {
	Job     string `json:"job"`
	Way     string `json:"way,omitempty"`
	Python  string `json:"python,omitempty"`
	Adapter string `json:"adapter,omitempty"`
	Command string `json:"command,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Note    string `json:"note,omitempty"`
	Busy    bool   `json:"busy,omitempty"`
}

// jobs are the available jobs. The process prints the result of its job.
var jobs = map[string]func(order) (any, error){
	"memory": memoryJob,
	"result": resultJob,
	"way":    wayJob,
	"host":   hostJob,
}

// child prepares the process.
func child(o order) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// inChild runs the process and decodes its output into result.
func inChild(result any, o order) error {
	cmd, err := child(o)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%+v, in a process of its own: %w", o, err)
	}
	return json.Unmarshal(out, result)
}

// runChild runs in the process.
func runChild(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return fmt.Errorf("%s: %w", childVariable, err)
	}
	job := jobs[o.Job]
	if job == nil {
		return fmt.Errorf("%s: unknown job %q", childVariable, o.Job)
	}
	result, err := job(o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
