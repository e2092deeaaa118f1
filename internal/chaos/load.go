//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/snakepit-go/snakepit"
)

// load makes calls of all kinds, and checks what comes back.
type load struct {
	pool  *snakepit.Pool
	book  *book
	life  string // the host's life, a part of each id
	count atomic.Int64
}

// outcome names the outcome of a call for the ledger.
func outcome(err error) string {
	for _, known := range []struct {
		name   string
		target error
	}{
		{"crash-loop", snakepit.ErrCrashLoop}, // it wraps the error of the last start
		{"lost", snakepit.ErrWorkerLost}, {"session-lost", snakepit.ErrSessionLost},
		{"saturated", snakepit.ErrSaturated}, {"closed", snakepit.ErrClosed},
		{"late", context.DeadlineExceeded}, {"cancelled", context.Canceled},
		{"no-memory", snakepit.Exception("MemoryError")}, {"no-room", snakepit.Exception("OSError")},
	} {
		if errors.Is(err, known.target) {
			return known.name
		}
	}
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, new(*snakepit.RemoteError)):
		return "raised"
	}
	return "other"
}

// call makes one call and notes it. f makes the call and checks the result. It returns what is wrong with it, or "".
func (l *load) call(what string, f func(id string) (wrong string, err error)) error {
	id := fmt.Sprintf("%s-%s-%d", l.life, what, l.count.Add(1))
	l.book.begin(id)
	wrong, err := f(id)
	name := outcome(err)
	if name == "other" {
		wrong = "an error of no known kind"
	}
	if wrong != "" {
		l.book.wrong(fmt.Sprintf("%s: %s (%v)", id, wrong, err))
	}
	l.book.end(id, name, err == nil || snakepit.MayHaveRun(err))
	if name == "crash-loop" { // such calls fail at once, and the workers need the processors
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// run makes calls until ctx is done.
func (l *load) run(ctx context.Context) {
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for ctx.Err() == nil {
		own, cancel := context.WithTimeout(context.Background(), time.Duration(1+r.IntN(4000))*time.Millisecond)
		if r.IntN(2) == 0 {
			own = snakepit.WithTenant(own, fmt.Sprint(r.IntN(3)))
		}
		l.one(own, r)
		cancel()
	}
}

type answer struct {
	ID   string `json:"id"`
	Data []byte `json:"data"`
	I    int    `json:"i"`
	Sum  int    `json:"sum"`
}

type args = map[string]any

// one makes one call of a random kind.
func (l *load) one(ctx context.Context, r *rand.Rand) {
	check := func(id string, got answer, err error) (string, error) {
		if err == nil && got.ID != id {
			return fmt.Sprintf("it got the result of %q", got.ID), err
		}
		return "", err
	}
	switch r.IntN(12) {
	case 0, 1, 2:
		size := 10
		if r.IntN(20) == 0 {
			size = 1 << 20
		}
		ms := r.ExpFloat64() * 3
		_ = l.call("work", func(id string) (string, error) {
			got, err := snakepit.Execute[answer](ctx, l.pool, "work", args{"id": id, "ms": ms, "size": size},
				snakepit.Priority(r.IntN(2)))
			if err == nil && len(got.Data) != size {
				return fmt.Sprintf("it got %d bytes, not %d", len(got.Data), size), nil
			}
			return check(id, got, err)
		})
	case 3:
		_ = l.call("cancel", func(id string) (string, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer time.AfterFunc(time.Duration(r.IntN(30))*time.Millisecond, cancel).Stop()
			got, err := snakepit.Execute[answer](ctx, l.pool, "work", args{"id": id, "ms": 50, "size": 1})
			return check(id, got, err)
		})
	case 4:
		_ = l.call("fails", func(id string) (string, error) {
			_, err := snakepit.Execute[any](ctx, l.pool, "fails", args{"id": id})
			var remote *snakepit.RemoteError
			if err == nil || errors.As(err, &remote) && remote.Type == "ValueError" && remote.Message != id {
				return "it did not raise its own exception", err
			}
			return "", err
		})
	case 5, 6:
		_ = l.call("items", func(id string) (string, error) { return l.items(ctx, r, id) })
	case 7:
		_ = l.call("total", func(id string) (string, error) {
			n := r.IntN(200)
			input := func(yield func(int) bool) {
				for i := range n {
					if !yield(i) {
						return
					}
				}
			}
			got, err := snakepit.Execute[answer](ctx, l.pool, "total", args{"id": id}, snakepit.Input(input))
			if err == nil && got.Sum != n*(n-1)/2 {
				return fmt.Sprintf("the sum of %d inputs is %d", n, got.Sum), nil
			}
			return check(id, got, err)
		})
	case 8:
		_ = l.call("asks", func(id string) (string, error) {
			got, err := snakepit.Execute[answer](ctx, l.pool, "asks", args{"id": id, "deep": r.IntN(4) == 0})
			return check(id, got, err)
		})
	case 9:
		_ = l.call("writes", func(id string) (string, error) {
			got, err := snakepit.Execute[answer](ctx, l.pool, "writes", args{"id": id})
			return check(id, got, err)
		})
	case 10:
		_ = l.call("nowait", func(id string) (string, error) {
			got, err := snakepit.Execute[answer](ctx, l.pool, "work", args{"id": id, "ms": 1, "size": 1},
				snakepit.NoWait())
			return check(id, got, err)
		})
	case 11:
		_ = l.call("hint", func(id string) (string, error) {
			session := l.pool.Session(fmt.Sprint("hint", r.IntN(3)), snakepit.Hint())
			got, err := snakepit.Execute[answer](ctx, session, "work", args{"id": id, "ms": 1, "size": 1})
			return check(id, got, err)
		})
	}
}

// items reads a stream, sometimes not to its end.
func (l *load) items(ctx context.Context, r *rand.Rand, id string) (string, error) {
	n, leave := r.IntN(3000), -1
	if r.IntN(3) == 0 {
		leave = r.IntN(n + 1)
	}
	var result string
	next := 0
	for got, err := range snakepit.ExecuteStream[answer](ctx, l.pool, "items", args{"id": id, "n": n},
		snakepit.Result(&result)) {
		switch {
		case err != nil:
			return "", err
		case got.ID != id || got.I != next:
			return fmt.Sprintf("item %d is item %d of %q", next, got.I, got.ID), nil
		case next == leave:
			return "", nil
		}
		next++
	}
	if next != n || result != id {
		return fmt.Sprintf("%d of %d items, and the result is %q", next, n, result), nil
	}
	return "", nil
}

// functions are what workers call.
func (l *load) functions() map[string]snakepit.Function {
	return map[string]snakepit.Function{
		"answer": snakepit.Func(func(ctx context.Context, in struct {
			ID   string `json:"id"`
			Deep bool   `json:"deep"`
		}) (answer, error) {
			if !in.Deep {
				return answer{ID: in.ID}, nil
			}
			var got answer
			err := l.call("deep", func(id string) (string, error) {
				var err error
				got, err = snakepit.Execute[answer](ctx, l.pool, "work", args{"id": id, "ms": 1, "size": 1})
				if err == nil && got.ID != id {
					return fmt.Sprintf("it got the result of %q", got.ID), nil
				}
				return "", err
			})
			return answer{ID: in.ID}, err
		}),
	}
}

// visit uses one session again and again, begins it anew, and checks that no state of an ended one shows up.
func (l *load) visit(ctx context.Context, name string) {
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for n := 0; ctx.Err() == nil; n++ {
		generation := fmt.Sprintf("%s-%d", name, n)
		session := l.pool.Session(name)
		sure, maybe := 0, 0
		for range 1 + r.IntN(30) {
			err := l.call("visit", func(id string) (string, error) {
				own, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				got, err := snakepit.Execute[struct {
					ID     string
					Seen   *string
					Visits int
				}](own, session, "visit", args{"id": id, "generation": generation})
				switch {
				case err != nil:
					return "", err
				case got.ID != id:
					return fmt.Sprintf("it got the result of %q", got.ID), nil
				case got.Seen != nil && *got.Seen != generation:
					return fmt.Sprintf("generation %s sees the state of %s", generation, *got.Seen), nil
				case got.Visits < sure+1 || got.Visits > sure+maybe+1:
					return fmt.Sprintf("it is visit %d, after %d that were answered and %d that may have run",
						got.Visits, sure, maybe), nil
				}
				return "", nil
			})
			switch {
			case err == nil:
				sure++
			case snakepit.MayHaveRun(err):
				maybe++
			}
			if errors.Is(err, snakepit.ErrSessionLost) || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
		session.Close()
	}
}
