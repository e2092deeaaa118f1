package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
)

// server is a Prometheus inside this program: its scraper, its database and its query language.
type server struct {
	db      *tsdb.DB
	manager *scrape.Manager
	engine  *promql.Engine
	dir     string
	ended   chan struct{}
}

// scrapeInterval is short, because the example is.
const scrapeInterval = 500 * time.Millisecond

// startPrometheus scrapes the metrics at an address.
func startPrometheus(address string) (*server, error) {
	dir, err := os.MkdirTemp("", "observed-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, ended: make(chan struct{})}
	if s.db, err = tsdb.Open(dir, nil, nil, tsdb.DefaultOptions(), nil); err != nil {
		return nil, err
	}
	s.engine = promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: 10 * time.Second, LookbackDelta: time.Minute,
	})
	options := &scrape.Options{DiscoveryReloadInterval: model.Duration(scrapeInterval)} // the default is 5 s
	if s.manager, err = scrape.NewManager(options, nil, nil, nil, s.db, prometheus.NewRegistry()); err != nil {
		return nil, err
	}
	configuration, err := config.Load(fmt.Sprintf(`
global:
  scrape_interval: %s
  scrape_timeout: %s
scrape_configs:
  - job_name: observed
    static_configs:
      - targets: [%q]
`, model.Duration(scrapeInterval), model.Duration(scrapeInterval), address), nil)
	if err != nil {
		return nil, err
	}
	if err := s.manager.ApplyConfig(configuration); err != nil {
		return nil, err
	}
	targets := make(chan map[string][]*targetgroup.Group, 1)
	targets <- map[string][]*targetgroup.Group{"observed": {{
		Source: "observed", Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(address)}},
	}}}
	go func() {
		defer close(s.ended)
		_ = s.manager.Run(targets) // it ends with close
	}()
	return s, nil
}

func (s *server) close() error {
	s.manager.Stop()
	<-s.ended
	err := s.db.Close()
	if removed := os.RemoveAll(s.dir); err == nil {
		err = removed
	}
	return err
}

// query returns the values of an expression, now.
func (s *server) query(ctx context.Context, expression string) (promql.Vector, error) {
	q, err := s.engine.NewInstantQuery(ctx, s.db, nil, expression, time.Now())
	if err != nil {
		return nil, err
	}
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return nil, result.Err
	}
	values, err := result.Vector()
	return append(promql.Vector(nil), values...), err
}

// await waits until an expression has a value that is at least n.
func (s *server) await(ctx context.Context, expression string, n int) error {
	for {
		values, err := s.query(ctx, expression)
		if err != nil {
			return err
		}
		if len(values) > 0 && values[0].F >= float64(n) {
			return nil
		}
		select {
		case <-time.After(scrapeInterval / 5):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// question is what an operator asks, and its query.
type question struct{ text, expression, unit string }

// printAnswers prints what Prometheus knows.
func (s *server) printAnswers(ctx context.Context, w io.Writer, questions []question) error {
	for _, q := range questions {
		values, err := s.query(ctx, q.expression)
		if err != nil {
			return fmt.Errorf("%s: %w", q.expression, err)
		}
		fmt.Fprintf(w, "  %s\n    %s\n", q.text, q.expression)
		for _, v := range values {
			if !math.IsNaN(v.F) {
				fmt.Fprintf(w, "      %-44s %.4g %s\n", v.Metric, v.F, q.unit)
			}
		}
	}
	return nil
}

// questions are those of somebody who is on call.
var questions = []question{
	{
		"What is slow? The time within which 95 % of the calls ended, by command:",
		`histogram_quantile(0.95, sum by (le, rpc_method) (rate(rpc_client_call_duration_seconds_bucket[1m])))`, "s",
	},
	{
		"What fails? Errors by command:",
		`sum by (rpc_method, error_type) (rpc_client_call_duration_seconds_count{error_type!=""})`, "calls",
	},
	{
		"What died, and why? Lost workers by cause:",
		`sum by (snakepit_cause) (snakepit_pool_losses_total) > 0`, "workers",
	},
	{
		"Does it get worse? The memory of each worker:",
		`sum by (snakepit_worker) (snakepit_worker_memory_bytes) / 1024 / 1024`, "MiB",
	},
}
