package otel_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/snakepit-go/snakepit/adapters/msgpack"
	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/observe/otel"
)

// scrape returns the metrics of a pool of Python workers as Prometheus reads them. The pool has served a call of each
// kind, and has lost a worker.
func scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	pool := open(t, msgpack.Adapter{}, 2, io.Discard)
	observed(t, pool, &otel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	if err := pool.WaitReady(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if got, err := core.Execute[int](t.Context(), pool.Session("ada"), "outer", 20); err != nil || got != 41 {
		t.Fatal(got, err)
	}
	for range core.ExecuteStream[int](t.Context(), pool, "count", 5) {
	}
	var naps sync.WaitGroup
	for range 3 { // one has to wait
		naps.Go(func() {
			if _, err := core.Execute[any](t.Context(), pool, "nap", 0.2); err != nil {
				t.Error(err)
			}
		})
	}
	naps.Wait()
	if _, err := core.Execute[any](t.Context(), pool, "fail", "no"); err == nil {
		t.Fatal("no error")
	}
	if _, err := core.Execute[any](t.Context(), pool, "made up", nil); !errors.Is(err, core.ErrUnknownCommand) {
		t.Fatal(err)
	}
	if _, err := core.Execute[any](t.Context(), pool, "crash", nil); !errors.Is(err, core.ErrWorkerLost) {
		t.Fatal(err)
	}
	if err := pool.WaitReady(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	options := promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}
	server := httptest.NewServer(promhttp.HandlerFor(registry, options))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response.Status, err)
	}
	return families
}

// with returns the metric that has the labels. Others do not count.
func with(t *testing.T, family *dto.MetricFamily, labels map[string]string) *dto.Metric {
	t.Helper()
	for _, m := range family.GetMetric() {
		has := map[string]string{}
		for _, l := range m.Label {
			has[l.GetName()] = l.GetValue()
		}
		other := func(key string) bool { return has[key] != labels[key] }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(labels)), other) {
			return m
		}
	}
	t.Errorf("%s has no series with %v: %v", family.GetName(), labels, family.GetMetric())
	return &dto.Metric{}
}

func TestPrometheus(t *testing.T) {
	all := scrape(t)
	calls := all["rpc_client_call_duration_seconds"]
	outer := with(t, calls, map[string]string{
		"rpc_system_name": "snakepit", "rpc_method": "outer", "snakepit_pool": "snakepit",
		"snakepit_adapter": "msgpack",
	}).GetHistogram()
	if outer.GetSampleCount() != 1 || outer.GetSampleSum() <= 0 || outer.GetSampleSum() > 60 {
		t.Errorf("the duration of outer is %v", outer)
	}
	for method, kind := range map[string]string{
		"fail": "ValueError", "_OTHER": "unknown_command", "crash": "worker_lost",
	} {
		m := with(t, calls, map[string]string{"rpc_method": method, "error_type": kind})
		if m.GetHistogram().GetSampleCount() != 1 {
			t.Errorf("of %s there is %v", method, m)
		}
	}
	function := with(t, all["rpc_server_call_duration_seconds"], map[string]string{"rpc_method": "twice"})
	if function.GetHistogram().GetSampleCount() != 1 {
		t.Errorf("of the function there is %v", function)
	}
	queue := with(t, all["snakepit_call_queue_duration_seconds"], map[string]string{"rpc_method": "nap"}).GetHistogram()
	if queue.GetSampleCount() != 1 || queue.GetSampleSum() <= 0.01 {
		t.Errorf("of the calls that waited there is %v", queue)
	}
	for _, want := range []struct {
		name   string
		labels map[string]string
		least  float64
		most   float64
	}{
		{"snakepit_call_items_total", map[string]string{"rpc_method": "count", "snakepit_direction": "to_host"}, 5, 5},
		{"snakepit_call_bytes_total", map[string]string{"rpc_method": "count", "snakepit_direction": "to_host"}, 5, 5},
		{"snakepit_pool_workers", map[string]string{"snakepit_state": "ready"}, 2, 2},
		{"snakepit_pool_losses_total", map[string]string{"snakepit_cause": "exit"}, 1, 1},
		{"snakepit_pool_losses_total", map[string]string{"snakepit_cause": "oom"}, 0, 0},
		{"snakepit_pool_restarts_total", nil, 1, 1},
		{"snakepit_worker_memory_bytes", map[string]string{"snakepit_worker": "0"}, 1 << 20, 1 << 30},
		{"snakepit_worker_cpu_time_seconds_total", map[string]string{"snakepit_worker": "1"}, 0.001, 60},
	} {
		m := with(t, all[want.name], want.labels)
		got := m.GetCounter().GetValue() + m.GetGauge().GetValue()
		if got < want.least || got > want.most {
			t.Errorf("%s%v is %v", want.name, want.labels, got)
		}
	}
	for name, family := range all {
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if l.GetValue() == "ada" || l.GetValue() == "made up" {
					t.Errorf("%s has a label %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
}

// The dashboard asks for metrics that exist, and docs/tracing.md lists all metrics.
func TestPagesNameTheMetrics(t *testing.T) {
	there := map[string]bool{}
	for name, family := range scrape(t) {
		there[name] = true
		if family.GetType() == dto.MetricType_HISTOGRAM {
			there[name+"_bucket"], there[name+"_count"], there[name+"_sum"] = true, true, true
		}
	}
	named := regexp.MustCompile(`\b(?:rpc_client|rpc_server|snakepit)_[a-z_]+`)
	labels := []string{
		"snakepit_pool", "snakepit_worker", "snakepit_adapter", "snakepit_direction", "snakepit_state",
		"snakepit_cause",
	}
	dashboard, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, name := range named.FindAllString(string(dashboard), -1) {
		if slices.Contains(labels, name) {
			continue
		}
		if count++; !there[name] {
			t.Errorf("docs/grafana.json asks for %s, which does not exist", name)
		}
	}
	if count < 20 {
		t.Errorf("docs/grafana.json names only %d metrics", count)
	}
	page, err := os.ReadFile("../../docs/tracing.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range there {
		if named.MatchString(name) && !regexp.MustCompile(`_(bucket|count|sum)$`).MatchString(name) &&
			!slices.Contains(named.FindAllString(string(page), -1), name) {
			t.Errorf("docs/tracing.md does not name %s", name)
		}
	}
}
