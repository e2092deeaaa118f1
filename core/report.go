package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	maxReport   = 64 << 10    // bytes
	reportGrace = time.Second // how long a process without a usable report may take to exit, for its exit code
)

// report is the single line that the worker writes to its control pipe.
type report struct {
	Endpoint    string       `json:"endpoint"`
	Unavailable string       `json:"unavailable"`
	Remedy      string       `json:"remedy"`
	Failed      *RemoteError `json:"failed"`
}

// awaitReport waits for the report, the process's exit or ctx.
func (p *Process) awaitReport(ctx context.Context, control *os.File) error {
	read := make(chan rawReport, 1)
	go func() { read <- readReport(control) }()
	var got rawReport
	select {
	case got = <-read:
	case <-p.exited: // the report may still be in the pipe, and a child may hold the pipe open
		_ = control.SetReadDeadline(time.Now().Add(outputGrace))
		got = <-read
	case <-ctx.Done():
		_ = control.SetReadDeadline(time.Now())
		<-read
		return p.notReported(ctx)
	}
	return p.judge(ctx, got)
}

func (p *Process) notReported(ctx context.Context) error {
	return &reportError{fmt.Errorf("%s has not reported that it can start: %w", p.name, ctx.Err())}
}

// judge returns the error that a report means, or sets Endpoint.
func (p *Process) judge(ctx context.Context, got rawReport) error {
	switch {
	case got.tried:
		p.awaitExit(ctx)
		if how := p.status(); how.crashed() {
			return &UnavailableError{Reason: fmt.Sprintf("%s tried the protocol, and %s", p.name, how)}
		}
		return p.endWithoutReport(ctx, errNoReport)
	case got.err != nil:
		return p.endWithoutReport(ctx, got.err)
	}
	r, err := parseReport(got.line)
	switch {
	case err != nil:
		return p.endWithoutReport(ctx, err)
	case r.Failed != nil && r.Remedy != "":
		return &RemedyError{r.Failed, escapeControl(r.Remedy, false)}
	case r.Failed != nil:
		return r.Failed
	case r.Unavailable != "":
		return &UnavailableError{Reason: escapeControl(r.Unavailable, false), Remedy: escapeControl(r.Remedy, false)}
	}
	p.Endpoint = r.Endpoint
	return nil
}

func parseReport(line []byte) (r report, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("{")) {
		return r, fmt.Errorf("its report is not a JSON object: %q", truncate(string(line), 200))
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("its report is unreadable (%s): %q", brief(err), truncate(string(line), 200))
	}
	return r, nil
}

var errNoReport = errors.New("it closed its control pipe without a report")

// rawReport is what a worker has written to its control pipe.
type rawReport struct {
	line  []byte
	tried bool // it wrote only blanks: its pipe ended while it tried the transport
	err   error
}

// readReport reads one line. The end of the pipe ends it too.
func readReport(r *os.File) rawReport {
	var line []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		more := buf[:n]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			more = readAvailable(r)
		}
		line = append(line, more...)
		if err != nil || len(line) > maxReport || bytes.IndexByte(line, '\n') >= 0 {
			return cutReport(line, err)
		}
	}
}

// cutReport returns the report in what was read until err, or until its line was complete.
func cutReport(read []byte, err error) rawReport {
	if end := bytes.IndexByte(read, '\n'); end >= 0 && end <= maxReport {
		return rawReport{line: read[:end]}
	}
	switch {
	case len(read) > maxReport:
		return rawReport{err: fmt.Errorf("its report is longer than %d bytes", maxReport)}
	case len(read) > 0:
		return rawReport{line: read, tried: len(bytes.Trim(read, " ")) == 0}
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
		return rawReport{err: errNoReport}
	default:
		return rawReport{err: fmt.Errorf("its report: %w", err)}
	}
}

// endWithoutReport ends a process whose report is missing or unusable, and adds to the error how it ended.
func (p *Process) endWithoutReport(ctx context.Context, err error) error {
	p.awaitExit(ctx)
	if errors.Is(err, errNoReport) {
		return &reportError{fmt.Errorf("%s ended before it reported that it can start: it %s", p.name, p.status())}
	}
	return &reportError{fmt.Errorf("%s cannot be used: %w; it %s", p.name, err, p.status())}
}

// awaitExit waits up to reportGrace for the process's exit, then kills the process.
func (p *Process) awaitExit(ctx context.Context) {
	timer := time.NewTimer(reportGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
		<-p.done
	case <-timer.C:
	case <-ctx.Done():
	}
	if !p.hasExited() {
		p.kill()
		<-p.done
	}
}

// reportError: the process sent no usable report. It may be the wrong program.
type reportError struct{ err error }

func (e *reportError) Error() string { return e.err.Error() }
func (e *reportError) Unwrap() error { return e.err }
