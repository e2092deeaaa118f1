package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// childVariable tells a process of this program to do one job and nothing else. What is measured in a process of its own does not count
// what was measured before; what is to be killed has to be one.
const childVariable = "SNAKEPIT_BENCH_CHILD"

// jobs are what such a process can do. It prints what the job returns.
var jobs = map[string]func(arg string) (any, error){
	"memory": memoryJob,
	"result": resultJob,
	"way":    wayJob,
	"host":   hostJob,
}

// child prepares a process of this program that does a job.
func child(job string, args ...any) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", childVariable, job, strings.TrimSpace(fmt.Sprintln(args...))))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// inChild does a job in a process of its own and decodes what it prints into result.
func inChild(result any, job string, args ...any) error {
	cmd, err := child(job, args...)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s %v, in a process of its own: %w", job, args, err)
	}
	return json.Unmarshal(out, result)
}

// runChild is what such a process runs.
func runChild(text string) error {
	name, arg, _ := strings.Cut(text, " ")
	job := jobs[name]
	if job == nil {
		return fmt.Errorf("%s=%q: no job is called that", childVariable, text)
	}
	result, err := job(arg)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
