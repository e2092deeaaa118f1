package core

import (
	"encoding/json"
	"math"
	"time"
)

// Usage is what the processes of one worker use.
type Usage struct {
	Index int
	PID   int
	// Memory is the resident memory of the worker's process tree, in bytes; 0 if it is unknown. Pages that several
	// processes share count for each of them.
	Memory int64
	// CPU is the processor time that the worker's process tree has used since its start; 0 if it is unknown.
	CPU time.Duration
}

// MarshalJSON writes the processor time in seconds.
func (u Usage) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Index  int     `json:"index"`
		PID    int     `json:"pid"`
		Memory int64   `json:"memory_bytes"`
		CPU    float64 `json:"cpu_seconds"`
	}{u.Index, u.PID, u.Memory, u.CPU.Seconds()})
}

// Usage returns what the processes of the living workers use, in the order of Workers. It needs Linux and reads the
// system's table of processes, which takes some milliseconds. Of a worker elsewhere only the memory is known, and only
// with Recycle.Memory: its back end tells it about once a second.
func (p *Pool) Usage() []Usage {
	p.mu.Lock()
	var all []Usage
	var here []bool
	local := false
	for _, w := range p.workers {
		if w.mux == nil || w.link.Process == nil || w.state == StateDead {
			continue
		}
		proc := w.link.Process
		u := Usage{Index: w.index, PID: proc.PID(), Memory: proc.memory.Load()}
		all, here = append(all, u), append(here, proc.Host() == "")
		local = local || proc.Host() == ""
	}
	p.mu.Unlock()
	if !local || !hasTreeMemory {
		return all
	}
	table := readProcesses()
	for i := range all {
		if u := &all[i]; here[i] {
			u.Memory, u.CPU = table.memory(u.PID, math.MaxInt64), table.processorTime(u.PID)
		}
	}
	return all
}
