package debugpage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// Look is what a worker does at one moment.
type Look struct {
	Worker    int       `json:"worker"`
	PID       int       `json:"pid"`
	Time      time.Time `json:"time"`
	Condition string    `json:"condition"` // see core.Condition
	Text      string    `json:"text"`      // the diagnosis in a sentence
	Stack     string    `json:"stack"`     // the stacks of all threads
	Error     string    `json:"error,omitempty"`
}

// lookTime bounds a look. A worker that does not answer takes a second for each of its two parts.
const lookTime = 10 * time.Second

func (p *Page) serveStack(w http.ResponseWriter, r *http.Request) error {
	worker, err := p.worker(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookTime)
	defer cancel()
	info := worker.Info()
	look := Look{Worker: info.Index, PID: info.PID, Time: time.Now()}
	diagnosis, diagnosed := worker.Diagnose(ctx)
	if diagnosed == nil {
		look.Condition, look.Text = string(diagnosis.Condition), diagnosis.String()
	}
	stack, err := worker.Stack(ctx)
	look.Stack = stack.Text
	if err = errors.Join(diagnosed, err); err != nil {
		look.Error = err.Error()
	}
	if diagnosed != nil && errors.Is(diagnosed, core.ErrWorkerLost) {
		return &statusError{http.StatusConflict, fmt.Errorf("there is nothing to look at: %w", err)}
	}
	return writeJSON(w, look)
}
