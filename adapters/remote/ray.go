package remote

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	workers "github.com/snakepit-go/snakepit/adapters/grpc"
	"github.com/snakepit-go/snakepit/adapters/remote/launchpb"
	"github.com/snakepit-go/snakepit/core"
)

// Ray has workers started on a Ray cluster. A pool submits one job to the cluster, by Ray's Jobs API: the back end,
// with the program's files as its working directory. Ray places each worker by the resources that it needs. The pool
// connects to each worker where it runs, so this program has to reach all nodes of the cluster. The job ends when the
// pool is closed, or when this program ends in whatever way. If the job is lost, or is about to end, the next start
// submits another one.
//
// The program has to have a core.Source, as those of package python do. python.Elsewhere needs no Python here.
type Ray struct {
	// Dashboard is the address of Ray's dashboard, such as "http://head:8265".
	Dashboard string

	// What Ray reserves for each worker: processors, GPUs, bytes of memory, and custom resources. 0 CPUs mean 1.
	// Negative ones mean none.
	CPUs      float64
	GPUs      float64
	Memory    int64
	Resources map[string]float64

	// Strategy is Ray's scheduling strategy: "DEFAULT" fills nodes, "SPREAD" uses many. "" means "DEFAULT".
	Strategy string

	// RuntimeEnv is more of the job's runtime_env, such as {"pip": ["torch"]}. It has no working_dir.
	RuntimeEnv map[string]any

	// WorkerPorts are the ports that workers may listen on, such as "20000-20999", for firewalls. "" means any.
	WorkerPorts string

	// WaitForRoom makes a start wait while the cluster has no room, up to its time limit. Ray's autoscaler sees the
	// demand. Otherwise the start fails with core.ErrNoRoom, and a chain tries its next adapter.
	WaitForRoom bool

	// Header is added to each request to the dashboard, such as an authorization.
	Header http.Header

	// Client sends the requests to the dashboard. nil means http.DefaultClient.
	Client *http.Client

	// ConnectTimeout limits the time to connect to the back end, and then to a worker. 0 means 10 s.
	ConnectTimeout time.Duration
}

// Name returns "ray".
func (Ray) Name() string { return "ray" }

// ForPool returns the adapter of one pool. It has a job of its own.
func (r Ray) ForPool(info core.PoolInfo) core.OwnedAdapter { return &rayPool{options: r, info: info} }

// Start returns an error: only a pool has a program to submit. An adapter that wraps this one passes ForPool on.
func (r Ray) Start(context.Context, *core.Launcher) (*core.Link, error) {
	return nil, errors.New("ray: the adapter is used without ForPool: an adapter that wraps it has to pass ForPool on")
}

// Version asks the dashboard for the version of Ray. Its errors are those of a start.
func (r Ray) Version(ctx context.Context) (string, error) {
	if err := r.checkDashboard(); err != nil {
		return "", err
	}
	return r.jobs().version(ctx)
}

func (r Ray) jobs() *jobs {
	return &jobs{dashboard: strings.TrimRight(r.Dashboard, "/"), client: r.Client, header: r.Header}
}

func (r Ray) checkDashboard() error {
	at, err := url.Parse(r.Dashboard)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return &core.RemedyError{
			Err:    fmt.Errorf("ray: Dashboard %q is no address", r.Dashboard),
			Remedy: `write the dashboard's address, such as "http://head:8265"`,
		}
	}
	return nil
}

// check returns an error that says which option is bad.
func (r Ray) check(source *core.Source) error {
	bad := func(remedy, format string, args ...any) error {
		return &core.RemedyError{Err: fmt.Errorf("ray: "+format, args...), Remedy: remedy}
	}
	if err := r.checkDashboard(); err != nil {
		return err
	}
	switch {
	case r.ConnectTimeout < 0:
		return bad("use a positive one, or 0 for 10 s", "ConnectTimeout %s is negative", r.ConnectTimeout)
	case r.GPUs < 0 || r.Memory < 0:
		return bad("use positive ones, or 0 for none", "GPUs %v or Memory %d is negative", r.GPUs, r.Memory)
	case r.Strategy != "" && r.Strategy != "DEFAULT" && r.Strategy != "SPREAD":
		return bad(`use "DEFAULT" or "SPREAD"`, "there is no Strategy %q", r.Strategy)
	case r.RuntimeEnv["working_dir"] != nil:
		return bad("the program's files are the working directory: put what is missing beside them",
			"RuntimeEnv has a working_dir")
	case !hasJSON(r.Resources):
		return bad("use finite numbers", "Resources has an amount without JSON: %v", r.Resources)
	case !isVariables(r.RuntimeEnv["env_vars"]):
		return bad("use a map[string]string", "RuntimeEnv has env_vars of the type %T", r.RuntimeEnv["env_vars"])
	case source == nil:
		return bad("use a program of package python, such as python.Elsewhere", "the program has no files to submit")
	}
	return nil
}

func hasJSON(v any) bool {
	_, err := json.Marshal(v)
	return err == nil
}

// isVariables reports whether a value can be the env_vars of a runtime_env, or is nil.
func isVariables(v any) bool {
	switch v.(type) {
	case nil, map[string]string, map[string]any:
		return true
	}
	return false
}

// entryPoint returns the back end's command line. announce is what it shows in front of where it listens.
func (r Ray) entryPoint(source *core.Source, announce string) string {
	number := func(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }
	cpus := r.CPUs
	switch {
	case cpus == 0:
		cpus = 1
	case cpus < 0:
		cpus = 0
	}
	args := []string{
		"-m", "snakepit_bridge.ray", path.Join(filesDir, source.Script), "--for-one-host", "--announce", announce,
		"--num-cpus", number(cpus), "--num-gpus", number(r.GPUs),
	}
	if r.Memory > 0 {
		args = append(args, "--memory", strconv.FormatInt(r.Memory, 10))
	}
	if len(r.Resources) > 0 {
		text, _ := json.Marshal(r.Resources) // check has tried it
		args = append(args, "--resources", string(text))
	}
	if r.Strategy != "" {
		args = append(args, "--strategy", r.Strategy)
	}
	if r.WorkerPorts != "" {
		args = append(args, "--worker-ports", r.WorkerPorts)
	}
	if len(source.Args) > 0 {
		args = append(append(args, "--"), source.Args...)
	}
	for i, arg := range args {
		args[i] = quote(arg)
	}
	return "exec $(command -v python || command -v python3) " + strings.Join(args, " ")
}

// quote quotes an argument for a shell, which runs the entry point.
func quote(arg string) string {
	if arg != "" && !strings.ContainsFunc(arg, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:", r)
	}) {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// rayPool is the adapter of one pool.
type rayPool struct {
	options Ray
	info    core.PoolInfo

	mu     sync.Mutex // guards the fields below
	opened *opening   // the last one, or nil
	ending []*job     // earlier jobs that are about to end; workers may still run there
	closed bool
}

// opening is the submission of the job. Its fields are set before done is closed.
type opening struct {
	done      chan struct{}
	job       *job // nil after an error
	err       error
	calledOff bool // the context of the start that submitted has ended
}

// ended reports whether a new job has to be submitted. It is false while the job is being submitted.
func (o *opening) ended() bool {
	select {
	case <-o.done:
		return o.err != nil || o.job.ended() || o.job.client.ending.Load()
	default:
		return false
	}
}

func (p *rayPool) Name() string { return p.options.Name() }

// Start has a worker started, and connects to it. The first Start submits the job. Others wait for it.
func (p *rayPool) Start(ctx context.Context, l *core.Launcher) (*core.Link, error) {
	lease, err := p.lease(ctx, l)
	if err != nil {
		return nil, err
	}
	return lease.connect(ctx, l)
}

// lease gets a worker from the job. If that turns out to be about to end, it gets one from another job.
func (p *rayPool) lease(ctx context.Context, l *core.Launcher) (*lease, error) {
	j, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	leased, err := j.client.lease(ctx, l)
	if err == nil || ctx.Err() != nil || !j.client.ending.Load() {
		return leased, err
	}
	if j, err = p.open(ctx); err != nil {
		return nil, err
	}
	return j.client.lease(ctx, l)
}

// open returns the job that runs.
func (p *rayPool) open(ctx context.Context) (*job, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	o := p.opened
	mine := o == nil || o.ended()
	if mine {
		p.ending = slices.DeleteFunc(p.ending, (*job).ended)
		if o != nil && o.err == nil && !o.job.ended() {
			p.ending = append(p.ending, o.job)
		}
		o = &opening{done: make(chan struct{})}
		p.opened = o
	}
	p.mu.Unlock()
	if mine {
		o.err = errors.New("ray: the submission has not returned") // if code of the user panics in it
		defer close(o.done)
		o.job, o.err = p.submit(ctx)
		o.calledOff = ctx.Err() != nil
		return o.job, o.err
	}
	select {
	case <-o.done:
		if o.calledOff && ctx.Err() == nil {
			return p.open(ctx) // another start's time was up, not this one's
		}
		return o.job, o.err
	case <-ctx.Done():
		return nil, overdue(ctx, "raise Options.StartTimeout", "the job on Ray is not ready")
	}
}

// Close ends the job.
func (p *rayPool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	o, jobs := p.opened, slices.Clone(p.ending)
	p.mu.Unlock()
	if o == nil {
		return nil
	}
	for _, j := range jobs {
		j.cancel() // also if the submission below hangs
	}
	errs := make([]error, len(jobs)+1)
	select {
	case <-o.done: // the submission has returned
		if o.err == nil {
			jobs = append(jobs, o.job)
		}
	case <-ctx.Done():
		errs[len(jobs)] = context.Cause(ctx)
	}
	var closing sync.WaitGroup
	for i, j := range jobs {
		closing.Go(func() { errs[i] = j.close(ctx) })
	}
	closing.Wait()
	return errors.Join(errs...)
}

// job is the back end as a job on the cluster.
type job struct {
	jobs   *jobs
	id     string
	client *client
	gone   chan struct{} // closed when the back end has ended, or cannot be reached
	cancel context.CancelFunc
	log    func(level hclog.Level, message string, args ...any)
}

func (j *job) ended() bool {
	select {
	case <-j.gone:
		return true
	default:
		return false
	}
}

// announcement is what the back end prints once it is ready, or cannot start.
type announcement struct {
	Endpoint    string `json:"endpoint"`
	Certificate []byte `json:"certificate"` // DER; base64 in JSON
	Error       string `json:"error"`
	Remedy      string `json:"remedy"`
}

// submit submits the job and waits until the back end is ready. After an error no job is left.
func (p *rayPool) submit(ctx context.Context) (_ *job, err error) {
	source := p.info.Command.Source
	if err := p.options.check(source); err != nil {
		return nil, err
	}
	own, err := workers.NewCertificate()
	if err != nil {
		return nil, fmt.Errorf("ray: making the pool's certificate: %w", err)
	}
	api := p.options.jobs()
	version, err := api.version(ctx)
	if err != nil {
		return nil, err
	}
	archive, err := pack(ctx, source)
	if err != nil {
		return nil, err
	}
	workingDir, err := api.upload(ctx, archive)
	if err != nil {
		return nil, err
	}
	public := string(encode("CERTIFICATE", own.Certificate[0]))
	announce := rand.Text()
	j := &job{
		jobs: api, id: p.info.RunID + "-" + strings.ToLower(rand.Text()[:6]), gone: make(chan struct{}),
		log: p.info.Log,
	}
	defer func() {
		if err != nil {
			j.abandon()
		}
	}()
	if err := api.submit(ctx, submission{
		Entrypoint: p.options.entryPoint(source, announce), SubmissionID: j.id,
		RuntimeEnv: p.options.runtimeEnv(workingDir, public), Metadata: map[string]string{"job_name": p.info.RunID},
	}); err != nil {
		return nil, err
	}
	p.info.Log(hclog.Debug, "job submitted to Ray", "job", j.id, "ray", version)
	ready, err := j.await(ctx, announce)
	if err != nil {
		return nil, err
	}
	j.client = &client{
		options: Adapter{
			Targets: []string{ready.Endpoint}, TLS: workers.Pinned(ready.Certificate, own),
			WaitForRoom: p.options.WaitForRoom, ConnectTimeout: p.options.ConnectTimeout,
		},
		name: p.Name(), own: own, pem: public, waits: true,
		moreRoom: "add nodes, let workers reserve less, or set WaitForRoom",
	}
	if err := j.client.dial(); err != nil {
		return nil, fmt.Errorf("ray: %w", err)
	}
	if err := j.keep(ctx); err != nil {
		return nil, errors.Join(err, j.client.cc.Close())
	}
	p.info.Log(hclog.Info, "back end on Ray is ready", "job", j.id, "endpoint", ready.Endpoint, "ray", version)
	return j, nil
}

// runtimeEnv returns the job's environment.
func (r Ray) runtimeEnv(workingDir, clients string) map[string]any {
	env := map[string]any{}
	for name, value := range r.RuntimeEnv {
		env[name] = value
	}
	variables := map[string]any{"SNAKEPIT_LAUNCH_CLIENTS": clients}
	switch given := env["env_vars"].(type) {
	case map[string]string:
		for name, value := range given {
			variables[name] = value
		}
	case map[string]any:
		for name, value := range given {
			variables[name] = value
		}
	}
	env["env_vars"], env["working_dir"] = variables, workingDir
	return env
}

// pollInterval is how often the job is asked whether it is ready.
const pollInterval = 100 * time.Millisecond

// await waits for the back end's announcement.
func (j *job) await(ctx context.Context, announce string) (a announcement, err error) {
	state, logs := "", "" // as they were told last
	late := func() error {
		return &core.RemedyError{
			Err:    fmt.Errorf("%s: %w%s", state, context.Cause(ctx), tail(logs)),
			Remedy: "look at the job in Ray's dashboard, " + j.jobs.dashboard + ", or raise Options.StartTimeout",
		}
	}
	for {
		status, err := j.jobs.status(ctx, j.id)
		var printed string
		if err == nil {
			printed, err = j.jobs.logs(ctx, j.id)
		}
		switch {
		case err != nil && ctx.Err() != nil && state != "":
			return a, late()
		case err != nil:
			return a, err
		}
		state, logs = fmt.Sprintf("the job %s on Ray is %s: %s", j.id, status.Status, status.Message), printed
		for line := range strings.Lines(logs) {
			text, found := strings.CutPrefix(strings.TrimSpace(line), "snakepit-backend "+announce+" ")
			if !found {
				continue
			}
			switch err := json.Unmarshal([]byte(text), &a); {
			case err != nil:
				return a, fmt.Errorf("%w: the back end on Ray announces %q", core.ErrProtocol, text)
			case a.Error != "":
				return a, &core.RemedyError{
					Err: errors.New("the back end on Ray: " + plain(a.Error)), Remedy: plain(a.Remedy),
				}
			}
			return a, nil
		}
		if status.over() {
			return a, &core.RemedyError{
				Err:    errors.New(state + tail(logs)),
				Remedy: "see what it printed, or look at the job in Ray's dashboard, " + j.jobs.dashboard,
			}
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return a, late()
		}
	}
}

// tail returns the last lines of a log, indented, for an error.
func tail(logs string) string {
	lines := strings.Split(strings.TrimSpace(plain(logs)), "\n")
	blank := func(line string) bool { return strings.TrimSpace(line) == "" }
	lines = slices.DeleteFunc(lines[max(0, len(lines)-10):], blank)
	if len(lines) == 0 {
		return ""
	}
	return "\n  " + strings.Join(lines, "\n  ")
}

// keep holds the back end: it ends when this program does.
func (j *job) keep(ctx context.Context) error {
	own, cancel := context.WithCancel(context.Background())
	release := context.AfterFunc(ctx, cancel)
	stream, err := j.client.launch.Hold(own, &launchpb.HoldRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return j.client.explain(ctx, err)
	}
	j.cancel = cancel
	go func() { // it ends with the job, or with cancel
		defer close(j.gone)
		for err == nil {
			_, err = stream.Recv()
		}
		_ = j.client.cc.Close() // the leases have ended too
		j.log(hclog.Debug, "back end on Ray has ended", "job", j.id)
	}()
	return nil
}

// abandonTime is how long Ray may take to accept that a job is to be stopped.
const abandonTime = 2 * time.Second

// abandon stops a job that is of no use.
func (j *job) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), abandonTime)
	defer cancel()
	_ = j.jobs.stop(ctx, j.id) // it ends by itself if nobody holds it
}

// close ends the job, and waits for its end.
func (j *job) close(ctx context.Context) error {
	j.cancel()
	<-j.gone
	var err error
	if end, ok := ctx.Deadline(); ok { // the rest is for abandon
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-abandonTime))
		defer cancel()
	}
	for {
		var status jobStatus
		if status, err = j.jobs.status(ctx, j.id); err == nil && status.over() {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("the job %s on Ray is still %s", j.id, status.Status)
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			j.abandon()
			return err
		}
	}
}
