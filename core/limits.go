package core

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what one worker may use. A zero field is no limit. If a limit ends a worker, its WorkerExit.Limit names
// the limit. All of them but Nice need Linux.
type Limits struct {
	// Memory bounds the resident memory of the worker and its children together, in bytes. The kernel ends
	// them if they reach it. The pool makes a control group for each worker, below its own group or beside
	// it. If it may not make one, Open returns an error that says why. Control groups of version 1 and 2
	// work.
	Memory int64
	// AddressSpace bounds the address space of each process of the worker, in bytes (RLIMIT_AS). Beyond
	// that Python raises MemoryError. A library may reserve much more than it uses, so Memory is the better
	// limit in most cases.
	AddressSpace int64
	// CPUTime bounds the processor time of each process of the worker, since its start (RLIMIT_CPU), in
	// whole seconds.
	CPUTime time.Duration
	// OpenFiles bounds the descriptors of each process of the worker (RLIMIT_NOFILE). Beyond that Python
	// raises OSError.
	OpenFiles int
	// FileSize bounds each file that a process of the worker writes, in bytes (RLIMIT_FSIZE). Beyond that
	// Python raises OSError.
	FileSize int64
	// Nice is the worker's nice value, from -20 to 19: with a higher one it gets less of a busy processor.
	// A negative one needs a right (CAP_SYS_NICE). 0 leaves it as it is.
	Nice int
}

// leastAddressSpace is what a bare interpreter with gRPC needs.
const (
	leastAddressSpace = 64 << 20
	leastOpenFiles    = 32
)

// check returns an error that names the bad field and its value.
func (l *Limits) check() error {
	for _, f := range []struct {
		name         string
		value, least int64
		why          string
	}{
		{"Memory", l.Memory, leastMemory, "a bare interpreter has 10 MiB"},
		{"AddressSpace", l.AddressSpace, leastAddressSpace, "a bare interpreter has 30 MiB"},
		{"CPUTime", int64(l.CPUTime), 1, "0 means no limit"},
		{"OpenFiles", int64(l.OpenFiles), leastOpenFiles, "a worker has up to 20 of its own"},
		{"FileSize", l.FileSize, 1, "0 means no limit"},
	} {
		switch {
		case f.value == 0:
		case f.name == "CPUTime" && (l.CPUTime < 0 || l.CPUTime%time.Second != 0):
			return fmt.Errorf("option Limits.CPUTime is %s; it has to be a positive number of whole seconds", l.CPUTime)
		case f.value < f.least:
			return fmt.Errorf("option Limits.%s is %d; the minimum is %d: %s", f.name, f.value, f.least, f.why)
		case !hasLimits:
			return fmt.Errorf("option Limits.%s needs Linux", f.name)
		}
	}
	if l.Nice < -20 || l.Nice > 19 {
		return fmt.Errorf("option Limits.Nice is %d; it has to be from -20 to 19", l.Nice)
	}
	if l.Nice != 0 && !hasNice {
		return errors.New("option Limits.Nice needs a Unix system")
	}
	return nil
}
