package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	workers "github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/remote/launchpb"
	"github.com/snakepit-go/snakepit/core"
)

func (f *fake) Hold(_ *launchpb.HoldRequest, stream launchpb.Launch_HoldServer) error {
	if err := stream.Send(&launchpb.HoldEvent{}); err != nil {
		return err
	}
	f.mu.Lock()
	f.holds++
	f.mu.Unlock()
	<-stream.Context().Done()
	f.mu.Lock()
	f.holds--
	f.mu.Unlock()
	return nil
}

// dashboard is Ray's dashboard with its Jobs API. A job of it is a fake back end.
type dashboard struct {
	t   *testing.T
	url string
	// announce changes what a job announces. fail makes the job end with this message instead.
	announce func(a *announcement)
	fail     string
	silent   bool // the job announces nothing
	starting int  // how many submissions are refused, because no agent runs yet

	mu       sync.Mutex // guards the fields below
	requests []string
	archives map[string][]byte
	jobs     map[string]*submission
	backEnds []*fake
	logs     string
	ended    bool
}

func newDashboard(t *testing.T) *dashboard {
	t.Helper()
	d := &dashboard{t: t, archives: map[string][]byte{}, jobs: map[string]*submission{}}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

var announced = regexp.MustCompile(`--announce (\w+)`)

func (d *dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, r.Method+" "+r.URL.Path)
	id := strings.TrimPrefix(r.URL.Path, "/api/jobs/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Error(err)
	}
	answer := any(map[string]any{})
	switch {
	case r.URL.Path == "/api/version":
		answer = map[string]string{"version": "4", "ray_version": "2.60.0"}
	case strings.HasPrefix(r.URL.Path, "/api/packages/gcs/") && r.Method == http.MethodPut:
		d.archives[r.URL.Path] = body
	case strings.HasPrefix(r.URL.Path, "/api/packages/gcs/"):
		if d.archives[r.URL.Path] == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
	case id == "" && d.starting > 0:
		d.starting--
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "No available agent to submit job, please try again later.") // the client would see
		return
	case id == "":
		s := &submission{}
		if err := json.Unmarshal(body, s); err != nil {
			d.t.Error(err)
		}
		d.jobs[s.SubmissionID] = s
		d.start(s)
	case strings.HasSuffix(id, "/logs"):
		answer = map[string]string{"logs": d.logs}
	case strings.HasSuffix(id, "/stop"):
		d.ended = true
	case d.fail != "":
		answer = jobStatus{"FAILED", d.fail}
	case d.ended || d.released():
		answer = jobStatus{"SUCCEEDED", "done"}
	default:
		answer = jobStatus{"RUNNING", "it runs"}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		d.t.Error(err)
	}
}

// released reports whether the last back end was held and is not any more. Then it ends.
func (d *dashboard) released() bool {
	if len(d.backEnds) == 0 {
		return false
	}
	last := d.backEnds[len(d.backEnds)-1]
	last.mu.Lock()
	defer last.mu.Unlock()
	return last.holds == 0
}

// start starts the back end of a job.
func (d *dashboard) start(s *submission) {
	d.logs = "Traceback: a line of the log\n"
	if d.fail != "" || d.silent {
		return
	}
	variables, _ := s.RuntimeEnv["env_vars"].(map[string]any)
	clients := x509.NewCertPool()
	if text, _ := variables["SNAKEPIT_LAUNCH_CLIENTS"].(string); !clients.AppendCertsFromPEM([]byte(text)) {
		d.t.Errorf("the job has the variables %v", variables)
	}
	own, err := workers.NewCertificate()
	if err != nil {
		d.t.Fatal(err)
	}
	f := newFake(d.t, "127.0.0.1:0", 5, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{*own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	})))
	d.backEnds = append(d.backEnds, f)
	a := announcement{Endpoint: f.address, Certificate: own.Certificate[0]}
	if d.announce != nil {
		d.announce(&a)
	}
	text, err := json.Marshal(a)
	if err != nil {
		d.t.Error(err)
	}
	token := "none"
	if found := announced.FindStringSubmatch(s.Entrypoint); found != nil {
		token = found[1]
	}
	d.logs += fmt.Sprintf("snakepit-backend other {}\nsnakepit-backend %s %s\n", token, text)
}

// pool returns the adapter of a pool, with its log.
func (d *dashboard) pool(r Ray) *rayPool {
	r.Dashboard = d.url + "/"
	source := &core.Source{
		Script: "worker.py", Args: []string{"--large"},
		Files:   fstest.MapFS{"worker.py": {Data: []byte("w")}},
		Support: fstest.MapFS{"snakepit_bridge/ray.py": {Data: []byte("r")}},
	}
	return r.ForPool(core.PoolInfo{
		RunID: "pets-x", Command: core.Command{Source: source}, Log: func(hclog.Level, string, ...any) {},
	}).(*rayPool)
}

// The first start submits the job, and others use it. Close ends it.
func TestRayJob(t *testing.T) {
	d := newDashboard(t)
	d.starting = 2
	p := d.pool(Ray{
		GPUs: 1, Header: http.Header{"Authorization": {"Bearer x"}},
		RuntimeEnv: map[string]any{"pip": []string{"torch"}, "env_vars": map[string]string{"MODEL": "large"}},
	})
	const n = 5
	jobs := make([]*job, n)
	var starts sync.WaitGroup
	for i := range n {
		starts.Go(func() {
			var err error
			if jobs[i], err = p.open(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	if len(d.jobs) != 1 || slices.Contains(jobs, nil) || jobs[0] != jobs[n-1] {
		t.Fatalf("%d jobs", len(d.jobs))
	}
	for id, s := range d.jobs {
		variables, _ := s.RuntimeEnv["env_vars"].(map[string]any)
		dir, _ := s.RuntimeEnv["working_dir"].(string)
		name := strings.TrimPrefix(dir, "gcs://")
		files := unpack(t, d.archives["/api/packages/gcs/"+name])
		if !strings.HasPrefix(id, "pets-x-") || variables["MODEL"] != "large" || s.RuntimeEnv["pip"] == nil ||
			!strings.HasPrefix(name, "_ray_pkg_") || files["program/worker.py"] != "w" ||
			files["snakepit_bridge/ray.py"] != "r" || !strings.HasSuffix(s.Entrypoint, "--num-gpus 1 -- --large") {
			t.Errorf("%+v", s)
		}
	}
	leased, err := jobs[0].client.lease(t.Context(), &core.Launcher{})
	if err != nil {
		t.Fatal(err)
	}
	_ = leased.Close()
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := p.open(t.Context()); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	again := d.pool(Ray{})
	if _, err := again.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(d.archives) != 1 || len(d.jobs) != 2 {
		t.Errorf("%d archives, %d jobs", len(d.archives), len(d.jobs))
	}
	if err := again.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.pool(Ray{}).Close(t.Context()); err != nil || len(d.jobs) != 2 { // nothing was started
		t.Error(err)
	}
}

// A job that is lost is submitted again by the next start.
func TestRayJobIsLost(t *testing.T) {
	d := newDashboard(t)
	p := d.pool(Ray{})
	first, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.backEnds[0].server.Stop()
	<-first.gone
	second, err := p.open(t.Context())
	if err != nil || second == first {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What goes wrong is said, and no job is left.
func TestRayFails(t *testing.T) {
	for name, test := range map[string]struct {
		change func(d *dashboard)
		words  []string
	}{
		"the job fails": {func(d *dashboard) { d.fail = "Job entrypoint command failed" },
			[]string{
				"is FAILED: Job entrypoint command failed", "\n  Traceback: a line of the log", "Ray's dashboard",
			}},
		"the back end fails": {func(d *dashboard) {
			d.announce = func(a *announcement) { *a = announcement{Error: "no cryptography", Remedy: "install it"} }
		}, []string{"the back end on Ray: no cryptography; install it"}},
		"another certificate": {func(d *dashboard) {
			d.announce = func(a *announcement) {
				other, _ := workers.NewCertificate()
				a.Certificate = other.Certificate[0]
			}
		}, []string{"TLS with the back end", "does not have the worker's certificate"}},
		"nobody listens": {func(d *dashboard) {
			d.announce = func(a *announcement) { a.Endpoint = "127.0.0.1:1" }
		}, []string{"no back end answers (127.0.0.1:1)", "connection refused", "firewall"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDashboard(t)
			test.change(d)
			p := d.pool(Ray{})
			_, err := p.open(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			for _, word := range test.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%v\nlacks %q", err, word)
				}
			}
			if !d.ended {
				t.Error("the job was not stopped")
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// If code of the user panics in the submission, no other start waits for it, and Close returns.
func TestRayPanics(t *testing.T) {
	d := newDashboard(t)
	p := d.pool(Ray{Client: &http.Client{Transport: panicking{}}})
	func() {
		defer func() { _ = recover() }()
		_, _ = p.open(t.Context())
		t.Error("it does not panic")
	}()
	p.options.Client = nil
	if _, err := p.open(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("oops") }

// The end of one start's time is no verdict for another one that waits for the same job.
func TestRayCalledOff(t *testing.T) {
	d := newDashboard(t)
	d.silent = true
	p := d.pool(Ray{})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := p.open(ctx); first <- err }()
	eventually(t, "the job is submitted", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.jobs) == 1 })
	go func() { _, err := p.open(t.Context()); second <- err }()
	d.mu.Lock()
	d.silent = false
	d.mu.Unlock()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	d.mu.Lock()
	d.ended = false
	d.mu.Unlock()
	if err := <-second; err != nil {
		t.Error(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A start whose time is up says how far the job has come. The next start tries again.
func TestRayInTime(t *testing.T) {
	d := newDashboard(t)
	d.silent = true
	p := d.pool(Ray{})
	late := errors.New("it is late")
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := p.open(ctx); failed <- err }()
	eventually(t, "it asks whether the job is ready", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return strings.Count(strings.Join(d.requests, "\n"), "/logs") > 1
	})
	cancel(late)
	err := <-failed
	if !errors.Is(err, late) || !strings.Contains(err.Error(), "is RUNNING: it runs: it is late") || !d.ended {
		t.Errorf("%v", err)
	}
	d.mu.Lock()
	d.silent, d.ended = false, false
	d.mu.Unlock()
	if _, err := p.open(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A job that is about to end starts no more workers. The next start gets one from another job, and Close ends both.
func TestRayJobEnds(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, f *fake, first *job){
		"its health says so": func(t *testing.T, f *fake, first *job) {
			f.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
			eventually(t, "the health is known", func() bool {
				first.client.cc.Connect()
				return first.client.cc.GetState() != connectivity.Ready
			})
		},
		"a lease says so": func(t *testing.T, f *fake, first *job) {
			f.second = &launchpb.LeaseEvent{Event: &launchpb.LeaseEvent_Ending{Ending: &launchpb.Ending{}}}
			leased, err := first.client.lease(t.Context(), &core.Launcher{})
			if err != nil {
				t.Fatal(err)
			}
			defer leased.Close()
			if event, err := leased.Next(); err != nil || event.Ending == "" {
				t.Fatalf("%+v, %v", event, err)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.asked = 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDashboard(t)
			p := d.pool(Ray{})
			first, err := p.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			end(t, d.backEnds[0], first)
			leased, err := p.lease(t.Context(), &core.Launcher{})
			if err != nil {
				t.Fatal(err)
			}
			defer leased.Close()
			if len(d.backEnds) != 2 || leased.where != d.backEnds[1].address || d.backEnds[0].requests() != 0 {
				t.Errorf("there are %d jobs, and the lease is at %s", len(d.backEnds), leased.where)
			}
			if first.ended() {
				t.Error("the first job is not held any more, although its workers may still run")
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if !first.ended() || !p.opened.job.ended() {
				t.Error("a job is still held")
			}
		})
	}
}

// What is wrong with the dashboard is said.
func TestRayDashboard(t *testing.T) {
	answer := func(status int, text string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	d := newDashboard(t)
	for at, words := range map[string][]string{
		closed.URL:                  {"does not answer", "connection refused", "ray start --head"},
		answer(200, "<html>hello"):  {"is no dashboard of Ray", "correct Dashboard"},
		answer(200, "{}"):           {"is no dashboard of Ray"},
		answer(401, "who are you"):  {"refuses this program: 401 Unauthorized", "Authorization"},
		answer(500, "out of order"): {"GET /api/version: 500", "out of order"},
		answer(404, "<html>\nno"):   {"is no dashboard of Ray: GET /api/version: 404 Not Found; correct Dashboard"},
		"head:8265":                 {`Dashboard "head:8265" is no address`, "http://head:8265"},
		"":                          {`Dashboard "" is no address`},
	} {
		p := d.pool(Ray{})
		p.options.Dashboard = at
		_, err := p.open(t.Context())
		if err == nil || errors.Is(err, core.ErrUnavailable) != (at == closed.URL) {
			t.Errorf("%s: %v", at, err)
			continue
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%v\nlacks %q", err, word)
			}
		}
	}
}

func TestBadRayOptions(t *testing.T) {
	d := newDashboard(t)
	for words, r := range map[string]Ray{
		"ConnectTimeout -1s is negative":               {ConnectTimeout: -time.Second},
		"GPUs -1 or Memory 0 is negative":              {GPUs: -1},
		`there is no Strategy "ANYWHERE"`:              {Strategy: "ANYWHERE"},
		"RuntimeEnv has env_vars of the type []string": {RuntimeEnv: map[string]any{"env_vars": []string{"A=1"}}},
		"Resources has an amount without JSON":         {Resources: map[string]float64{"slot": math.NaN()}},
		"RuntimeEnv has a working_dir":                 {RuntimeEnv: map[string]any{"working_dir": "."}},
		"the program has no files":                     {},
	} {
		p := d.pool(r)
		if words == "the program has no files" {
			p.info.Command.Source = nil
		}
		_, err := p.open(t.Context())
		var known *core.RemedyError
		if !errors.As(err, &known) || !strings.HasPrefix(err.Error(), "ray: "+words) {
			t.Errorf("%v", err)
		}
	}
	if _, err := (Ray{}).Start(t.Context(), nil); err == nil {
		t.Error("it starts a worker without a pool")
	}
	if len(d.requests) > 0 {
		t.Error(d.requests)
	}
}
