package core

import (
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// logQueue stands between the goroutine that reads frames and the logger, which is the user's code and may be slow.
type logQueue struct {
	log     hclog.Logger
	codec   Codec
	bodies  chan []byte
	dropped atomic.Int64
}

// logBacklog is how many records may wait for a slow logger.
const logBacklog = 1024

func newLogQueue(log hclog.Logger, codec Codec) *logQueue {
	return &logQueue{log: log, codec: codec, bodies: make(chan []byte, logBacklog)}
}

// put takes a record without blocking; one that finds the queue full is counted and reported later.
func (q *logQueue) put(body []byte) {
	select {
	case q.bodies <- body:
	default:
		q.dropped.Add(1)
	}
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
