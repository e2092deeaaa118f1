package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Recording is what was recorded of a worker that was lost. See Options.Recorder.
type Recording struct {
	Version  int       `json:"version"`
	Time     time.Time `json:"time"` // when it was written
	Pool     string    `json:"pool"`
	Worker   int       `json:"worker"`
	PID      int       `json:"pid"`
	Host     string    `json:"host,omitempty"`
	Adapter  string    `json:"adapter"`
	Codec    string    `json:"codec"`
	Runtime  string    `json:"runtime"`
	Library  string    `json:"library"`
	Exit     string    `json:"exit"` // the text of the WorkerExit; the next fields are its fields
	ExitCode int       `json:"exit_code"`
	Signal   string    `json:"signal,omitempty"`
	OOM      bool      `json:"oom,omitempty"`
	Limit    string    `json:"limit,omitempty"`
	Cause    string    `json:"cause,omitempty"`
	Age      float64   `json:"age_seconds"`
	Doing    []string  `json:"doing,omitempty"`
	Output   []string  `json:"output,omitempty"`
	Stacks   string    `json:"stacks,omitempty"`
	Bodies   bool      `json:"bodies"` // Recorder.Bodies
	Events   []string  `json:"events"` // of the pool, the last ones

	// Frames are the last frames, the oldest first. Before them are the call frames of older calls that were running.
	Frames []RecordedFrame `json:"-"`
}

const recordingVersion = 1

// RecordedFrame is one frame of a Recording.
type RecordedFrame struct {
	At      time.Time         `json:"at"` // when it was read, or just before it was written
	Sent    bool              `json:"sent,omitempty"`
	Kind    string            `json:"kind"`
	ID      uint64            `json:"id,omitempty"`
	Parent  uint64            `json:"parent,omitempty"`
	Name    string            `json:"name,omitempty"`
	Flags   Flags             `json:"flags,omitempty"`
	TTL     int64             `json:"ttl_ms,omitempty"`
	Session string            `json:"session,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"` // with Recorder.Bodies
	Items   int64             `json:"items,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"`
	Size    int               `json:"size,omitempty"` // of the body
	Body    []byte            `json:"body,omitempty"` // with Recorder.Bodies, if there was room
}

// opensCall reports whether the frame is a call of the host.
func (f *RecordedFrame) opensCall() bool { return f.Sent && f.Kind == "call" }

// Unfinished returns the call frames of the host's calls that had no answer, the oldest first.
func (r *Recording) Unfinished() []RecordedFrame {
	var open []RecordedFrame
	for _, f := range r.Frames {
		switch {
		case f.opensCall():
			open = append(open, f)
		case !f.Sent && (f.Kind == "end" || f.Kind == "error"):
			open = slices.DeleteFunc(open, func(call RecordedFrame) bool { return call.ID == f.ID })
		}
	}
	return open
}

// write writes the recording: a line of JSON with all but the frames, and a line for each frame.
func (r *Recording) write(w io.Writer) error {
	enc := json.NewEncoder(w)
	if err := enc.Encode(r); err != nil {
		return err
	}
	for i := range r.Frames {
		if err := enc.Encode(&r.Frames[i]); err != nil {
			return err
		}
	}
	return nil
}

// ReadRecording reads a file that the pool has written for a lost worker.
func ReadRecording(from io.Reader) (*Recording, error) {
	dec := json.NewDecoder(from)
	r := &Recording{}
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("this is not a recording of a worker: %w", err)
	}
	if r.Version != recordingVersion {
		return nil, fmt.Errorf("the recording has version %d, and this program reads version %d", r.Version,
			recordingVersion)
	}
	for {
		var f RecordedFrame
		switch err := dec.Decode(&f); {
		case errors.Is(err, io.EOF):
			return r, nil
		case err != nil:
			return nil, fmt.Errorf("frame %d of the recording: %w", len(r.Frames)+1, err)
		}
		r.Frames = append(r.Frames, f)
	}
}
