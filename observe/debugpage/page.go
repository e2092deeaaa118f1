// Package debugpage shows what the workers of a pool do, in a browser and to the commands "snakepit top", "ps",
// "stack" and "events". It is for the pool what net/http/pprof is for the program: mount it where only operators reach
// it.
//
//	mux.Handle("/debug/snakepit/", debugpage.New(pool, nil))
package debugpage

import (
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// Options configure a Page. A nil *Options, and each zero field, means the default that the field's comment states.
type Options struct {
	// Token allows changes, such as to reload the pool or to end a worker, to those who send it. The page asks for it.
	// "" means that nothing can be changed.
	Token string
	// Arguments shows the arguments of calls, shortened, as fmt prints them. They may be secrets. The default is not to
	// show them.
	Arguments bool
}

// Page is an http.Handler that shows one pool. It works below any path that ends with a slash. It sees the events,
// calls and log records that come after New, until the pool is closed. It shows no arguments and no environment, but
// error messages, tracebacks and log lines may have what the program writes there. Any number of requests may run at
// once.
type Page struct {
	pool    *core.Pool
	opts    Options
	history *history
	usage   usage
	foreign *http.CrossOriginProtection
	flames  sync.Mutex // one sampling at a time
}

// New returns the page of a pool, and begins to watch the pool. opts may be nil.
func New(pool *core.Pool, opts *Options) *Page {
	p := &Page{pool: pool, foreign: http.NewCrossOriginProtection()}
	if opts != nil {
		p.opts = *opts
	}
	p.history = newHistory(p.opts.Arguments)
	pool.Observe(p.history)
	return p
}

//go:embed page
var files embed.FS

// ServeHTTP serves the page and what it asks for. The last element of the path says what:
//
//	GET  /            the page
//	GET  /state       the State, as JSON
//	GET  /watch       the State as server-sent events, each second and at each change of a worker
//	GET  /events      the events as lines of JSON (Happening); with ?follow=1 also those to come
//	POST /stack       the Look at ?worker=, as JSON
//	POST /flame       the Flame of ?worker=, sampled for ?seconds=, as JSON
//	POST /reload      reloads the pool
//	POST /replace     replaces ?worker=
//	POST /terminate   ends ?worker= by force
//
// The last three need "Authorization: Bearer" with Options.Token.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'self'; img-src data:; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if err := p.foreign.Check(r); err != nil {
		fail(w, http.StatusForbidden, err)
		return
	}
	name := path.Base(r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/") {
		name = ""
	}
	routes := map[string]struct {
		method string
		serve  func(http.ResponseWriter, *http.Request) error
	}{
		"": {http.MethodGet, file("index.html")}, "page.css": {http.MethodGet, file("page.css")},
		"page.js": {http.MethodGet, file("page.js")},
		"state":   {http.MethodGet, p.serveState}, "watch": {http.MethodGet, p.serveWatch},
		"events": {http.MethodGet, p.serveEvents},
		"stack":  {http.MethodPost, p.serveStack}, "flame": {http.MethodPost, p.serveFlame},
		"reload":    {http.MethodPost, p.allowed(p.reload)},
		"replace":   {http.MethodPost, p.allowed(p.replace)},
		"terminate": {http.MethodPost, p.allowed(p.terminate)},
	}
	route, found := routes[name]
	switch {
	case !found && r.Method == http.MethodGet && !strings.Contains(name, "."):
		http.Redirect(w, r, name+"/", http.StatusMovedPermanently)
		return
	case !found:
		fail(w, http.StatusNotFound, fmt.Errorf("%s is not a part of this page", name))
		return
	case r.Method != route.method && (r.Method != http.MethodHead || route.method != http.MethodGet):
		h.Set("Allow", route.method)
		fail(w, http.StatusMethodNotAllowed, fmt.Errorf("%s needs %s", name, route.method))
		return
	}
	if err := route.serve(w, r); err != nil {
		var status *statusError
		if !errors.As(err, &status) {
			status = &statusError{http.StatusInternalServerError, err}
		}
		fail(w, status.status, err)
	}
}

// statusError is an error with its HTTP status.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// fail writes an error as text.
func fail(w http.ResponseWriter, status int, err error) { http.Error(w, err.Error(), status) }

// file serves a file of the page.
func file(name string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		http.ServeFileFS(w, r, files, "page/"+name)
		return nil
	}
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func (p *Page) serveState(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, p.State())
}

const (
	watchInterval = time.Second            // between two states of a quiet pool
	leastInterval = 200 * time.Millisecond // between two states of a busy one
)

// serveWatch ends with the request or the pool. The last state is that of the closed pool.
func (p *Page) serveWatch(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	_, seen, _ := p.history.after(0)
	for {
		body, err := json.Marshal(p.State())
		if err != nil {
			return err
		}
		if _, err = fmt.Fprintf(w, "event: state\ndata: %s\n\n", body); err == nil {
			err = out.Flush()
		}
		if err != nil {
			return nil // the viewer has left
		}
		pause := time.After(leastInterval)
		_, now, changed := p.history.after(seen)
		if now == seen {
			select {
			case <-tick.C:
			case <-changed:
			case <-p.pool.Closed():
			case <-r.Context().Done():
				return nil
			}
		}
		seen = now
		select {
		case <-pause:
		case <-p.pool.Closed():
			_, _ = fmt.Fprint(w, "event: closed\ndata: {}\n\n") // the connection ends with it
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// serveEvents ends with the request or the pool.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, enc := http.NewResponseController(w), json.NewEncoder(w)
	for n := 0; ; {
		events, seq, changed := p.history.after(n)
		n = seq
		for _, e := range events {
			if err := enc.Encode(e); err != nil {
				return nil // the reader has left
			}
		}
		if r.FormValue("follow") == "" {
			return nil
		}
		if err := out.Flush(); err != nil {
			return nil // the same
		}
		select {
		case <-changed:
		case <-p.pool.Closed():
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// worker returns the worker that a request names by its index, and by its process id if there are two.
func (p *Page) worker(r *http.Request) (*core.Worker, error) {
	index, err := strconv.Atoi(r.FormValue("worker"))
	if err != nil {
		return nil, &statusError{http.StatusBadRequest, errors.New("name a worker by its index, such as worker=0")}
	}
	pid := r.FormValue("pid")
	var found *core.Worker
	for _, w := range p.pool.Workers() {
		i := w.Info()
		if i.Index == index && (pid == "" && i.PID != 0 || pid == strconv.Itoa(i.PID)) {
			found = w // of two, the one that was started last
		}
	}
	if found == nil {
		what := fmt.Sprintf("no worker %d runs", index)
		if pid != "" {
			what += " as process " + pid
		}
		return nil, &statusError{http.StatusNotFound, errors.New(what)}
	}
	return found, nil
}

// allowed returns the handler of a change. Only those who send the token may ask for it.
func (p *Page) allowed(do func(*http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if p.opts.Token == "" {
			return &statusError{http.StatusForbidden, errors.New(
				"this page changes nothing; the program can allow it by debugpage.Options.Token")}
		}
		sent, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !isBearer || subtle.ConstantTimeCompare([]byte(sent), []byte(p.opts.Token)) != 1 {
			return &statusError{http.StatusUnauthorized, errors.New("the token is wrong or missing")}
		}
		if err := do(r); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (p *Page) reload(r *http.Request) error { return p.pool.Reload(r.Context()) }

func (p *Page) replace(r *http.Request) error {
	w, err := p.worker(r)
	if err == nil {
		w.Replace("somebody asked for it on the debug page")
	}
	return err
}

func (p *Page) terminate(r *http.Request) error {
	w, err := p.worker(r)
	if err == nil {
		w.Terminate("somebody asked for it on the debug page")
	}
	return err
}
