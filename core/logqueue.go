package core

import (
	"bytes"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// logQueue stands between the goroutine that reads frames and the logger, which is the user's code and may be slow.
type logQueue struct {
	log     hclog.Logger
	codec   Codec
	bodies  chan []byte
	bytes   atomic.Int64 // in bodies
	dropped atomic.Int64
}

// How much may wait for a slow logger: so many records, and no more once they take so many bytes.
const (
	logBacklog = 1024
	logBytes   = 4 << 20
)

func newLogQueue(log hclog.Logger, codec Codec) *logQueue {
	return &logQueue{log: log, codec: codec, bodies: make(chan []byte, logBacklog)}
}

// put takes a record without blocking; one that finds the queue full is counted and reported later.
func (q *logQueue) put(body []byte) {
	if len(q.bodies) == logBacklog || q.bytes.Load() >= logBytes { // only this goroutine adds to it
		q.dropped.Add(1)
		return
	}
	q.bytes.Add(int64(len(body)))
	q.bodies <- bytes.Clone(body) // which is a part of all that was read with it
}

// run logs until done is closed, and then what is left.
func (q *logQueue) run(done <-chan struct{}) {
	for {
		select {
		case body := <-q.bodies:
			q.emit(body)
		case <-done:
			for {
				select {
				case body := <-q.bodies:
					q.emit(body)
				default:
					return
				}
			}
		}
	}
}

func (q *logQueue) emit(body []byte) {
	q.bytes.Add(-int64(len(body)))
	if n := q.dropped.Swap(0); n > 0 {
		q.log.Warn("log records were dropped because the logger is slow", "count", n)
	}
	var r logRecord
	if err := q.codec.Decode(body, &r); err != nil {
		q.log.Warn("a log record could not be decoded", "error", err)
		return
	}
	r.emit(q.log)
}
