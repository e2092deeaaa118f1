package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit"
)

//go:embed index.html
var page []byte

// service answers requests by calls to Python.
type service struct {
	pool      *snakepit.Pool
	logger    hclog.Logger
	closing   context.Context // ends all streams when the service is to end
	close     context.CancelFunc
	heartbeat time.Duration // the interval of comments: proxies cut silent connections
	stall     time.Duration // the time limit of a write: a browser that reads nothing holds a worker
}

func newService(pool *snakepit.Pool, logger hclog.Logger) *service {
	s := &service{pool: pool, logger: logger, heartbeat: 15 * time.Second, stall: time.Minute}
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	mux.HandleFunc("GET /primes", s.primes)
	mux.HandleFunc("GET /factor", s.factor)
	mux.HandleFunc("GET /healthz", s.health)
	return mux
}

// primes answers with a stream.
func (s *service) primes(w http.ResponseWriter, r *http.Request) {
	limit, err := number(r, "limit")
	if err != nil {
		answer(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	s.stream(w, r, "primes", map[string]any{"limit": limit})
}

// factor answers with one plain call. The request's context ends the call when the browser leaves.
func (s *service) factor(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "n")
	if err != nil {
		answer(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	factors, err := snakepit.Execute[[]int64](r.Context(), s.pool, "factor", map[string]any{"n": n})
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"n": n, "factors": factors})
}

// health reports the state of the pool. A service without a ready worker is of no use to a load balancer.
func (s *service) health(w http.ResponseWriter, _ *http.Request) {
	stats := s.pool.Stats()
	status := http.StatusOK
	if stats.Ready == 0 || s.closing.Err() != nil {
		status = http.StatusServiceUnavailable
	}
	adapters := []string{}
	for _, worker := range stats.Workers {
		adapters = append(adapters, worker.Adapter)
	}
	answer(w, status, map[string]any{
		"ready": stats.Ready, "running": stats.Running, "waiting": stats.Waiting, "calls": stats.Calls,
		"cancelled": stats.Cancelled,
		"saturated": stats.Saturated, "lost": stats.Lost, "adapters": adapters,
	})
}

var errClosing = errors.New("the service is shutting down")

// stream sends each item of a Python generator as an event "progress", and its return value as an event "done".
// Python waits while the browser does not read. It is cancelled when the browser leaves. Before the first item
// an error sets the response's status. Later it is an event "error".
func (s *service) stream(w http.ResponseWriter, r *http.Request, command string, args any) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.closing, func() { cancel(errClosing) })()

	out := &events{service: s, w: w}
	defer out.end()
	var result any
	for item, err := range snakepit.ExecuteStream[any](ctx, s.pool, command, args, snakepit.Result(&result)) {
		switch {
		case r.Context().Err() != nil:
			return // the browser has left
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		switch {
		case err != nil && !out.begun:
			s.fail(w, err)
			return
		case err != nil:
			s.note(err)
			out.send("error", failure{explain(err)})
			return
		case !out.send("progress", item):
			return
		}
	}
	out.send("done", result)
}

// events are the server-sent events of one response: https://html.spec.whatwg.org/multipage/server-sent-events.html
type events struct {
	*service
	w     http.ResponseWriter
	begun bool
	beat  sync.WaitGroup
	stop  chan struct{}
	mu    sync.Mutex // guards w after begin
}

// send sends an event. It returns false if that is no longer possible.
func (e *events) send(name string, data any) bool {
	text, err := json.Marshal(data)
	if err != nil { // for example NaN
		e.logger.Error("an event cannot be sent", "event", name, "error", err)
		name, text = "error", []byte(`{"error":"the answer has no JSON"}`)
	}
	if !e.begun {
		e.begin()
	}
	return e.write(fmt.Sprintf("event: %s\ndata: %s\n\n", name, text)) && err == nil
}

func (e *events) begin() {
	e.begun = true
	e.w.Header().Set("Content-Type", "text/event-stream")
	e.w.Header().Set("Cache-Control", "no-store")
	e.w.Header().Set("X-Accel-Buffering", "no") // otherwise nginx buffers the events
	e.stop = make(chan struct{})
	e.beat.Go(func() {
		ticker := time.NewTicker(e.heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				e.write(": still here\n\n")
			case <-e.stop:
				return
			}
		}
	})
}

func (e *events) write(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	control := http.NewResponseController(e.w)
	if err := control.SetWriteDeadline(time.Now().Add(e.stall)); err != nil {
		return false
	}
	_, err := io.WriteString(e.w, text)
	return err == nil && control.Flush() == nil
}

// end stops the heartbeat. Nothing may write after the handler has returned.
func (e *events) end() {
	if e.begun {
		close(e.stop)
		e.beat.Wait()
	}
}

type failure struct {
	Error string `json:"error"`
}

// fail answers with the status of an error.
func (s *service) fail(w http.ResponseWriter, err error) {
	s.note(err)
	code := status(err)
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	answer(w, code, failure{explain(err)})
}

// status returns the HTTP status of an error. The worker raises ValueError for an invalid argument.
func status(err error) int {
	switch {
	case errors.Is(err, snakepit.Exception("ValueError")):
		return http.StatusBadRequest
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, snakepit.ErrSaturated), errors.Is(err, snakepit.ErrClosed),
		errors.Is(err, snakepit.ErrCrashLoop), errors.Is(err, errClosing):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// note logs errors that are not the browser's fault, with the traceback. The browser does not get the traceback.
func (s *service) note(err error) {
	var remote *snakepit.RemoteError
	switch {
	case status(err) != http.StatusInternalServerError:
	case errors.As(err, &remote):
		s.logger.Error("a handler has raised", "error", err, "traceback", remote.Traceback())
	default:
		s.logger.Error("a call has failed", "error", err)
	}
}

// explain shortens a Python exception to the part that matters to users.
func explain(err error) string {
	var start *snakepit.StartError
	var remote *snakepit.RemoteError
	switch {
	case errors.As(err, &start):
	case errors.As(err, &remote):
		return remote.Message
	case errors.Is(err, context.DeadlineExceeded):
		return "it took too long and was stopped"
	case errors.Is(err, snakepit.ErrSaturated):
		return "all workers are busy and as many requests wait; try again later"
	}
	return err.Error()
}

func answer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value)
}

// number reads a parameter of the query.
func number(r *http.Request, name string) (int64, error) {
	text := r.FormValue(name)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %q, but it must be a whole number", name, text)
	}
	return n, nil
}
