package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// hasForkServer says that this system has fork servers.
const hasForkServer = true

// forkServers are the fork servers of a pool: the current one, and older ones whose workers have not ended.
type forkServers struct {
	mu      sync.Mutex // guards the fields below
	current *forkServer
	all     map[*forkServer]struct{} // those whose process has not ended
	closed  bool
}

// forkServer is a process that has imported the worker's program and forks workers. It is their parent, so it reports
// how they end.
type forkServer struct {
	servers *forkServers
	cancel  context.CancelFunc // ends its start
	stop    chan struct{}      // closed by end
	ready   chan struct{}      // closed when it has reported, or failed
	gone    chan struct{}      // closed when its connection has ended, before the ends of its workers are known
	ended   chan struct{}      // closed when nothing of it is left
	work    sync.WaitGroup     // goroutines that handle it

	// set before ready is closed
	err     error // why it failed
	process *Process
	conn    *net.UnixConn

	mu       sync.Mutex // guards the fields below
	sequence int
	pending  map[int]chan *forkAnswer
	asked    time.Time       // when the first request was made that it has not reacted to; zero if there is none
	children map[int]*forked // by process id
	users    int             // starts that have it, or wait for it
	retired  bool            // it gets no more requests, and ends with its last worker
	ending   bool            // end was called
	givenUp  bool            // giveUp was called
}

// forkAnswer is what became of a request.
type forkAnswer struct {
	worker *forked
	err    error
	unsafe bool // the server must not fork any more
}

// forkReply is a message of a fork server. _forkserver.py of the Python package describes the messages.
type forkReply struct {
	Started int    `json:"started"`
	Failed  int    `json:"failed"`
	PID     int    `json:"pid"`
	Error   string `json:"error"`
	Errno   int    `json:"errno"` // 0: the server must not fork
	Exited  int    `json:"exited"`
	Code    int    `json:"code"`
	Signal  int    `json:"signal"`
}

const (
	// maxForkEnv is the limit of a worker's environment, in bytes. A message of a socket has at most 208 KiB, unless
	// the system's net.core.wmem_default says otherwise.
	maxForkEnv = 160 << 10
	forkSilent = 5 * time.Second // how long the server may take to read a request, or to react to one
	forkStop   = 2 * time.Second // how long the server may take to exit
)

var errForkServerEnded = errors.New("the fork server has ended")

// forkServer returns the current fork server, and starts one if there is none. The caller calls leave when it has its
// worker, or gives up.
func (sp *spawner) forkServer(ctx context.Context) (*forkServer, error) {
	s := &sp.servers
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	fs := s.current
	if fs == nil || fs.isGone() {
		fs = &forkServer{
			servers: s, stop: make(chan struct{}), ready: make(chan struct{}), gone: make(chan struct{}),
			ended: make(chan struct{}), pending: map[int]chan *forkAnswer{}, children: map[int]*forked{},
		}
		var starting context.Context
		starting, fs.cancel = context.WithTimeoutCause(context.Background(), sp.opts.StartTimeout,
			errors.New("the fork server has not imported the program within the start timeout"))
		if s.all == nil {
			s.all = map[*forkServer]struct{}{}
		}
		s.current, s.all[fs] = fs, struct{}{}
		go sp.runForkServer(starting, fs)
	}
	fs.mu.Lock()
	fs.users++
	fs.mu.Unlock()
	s.mu.Unlock()
	select {
	case <-fs.ready:
		if fs.err != nil {
			fs.leave()
		}
		return fs, fs.err
	case <-ctx.Done():
		fs.leave()
		return nil, fmt.Errorf("the fork server has not imported the program: %w", context.Cause(ctx))
	}
}

func (fs *forkServer) isGone() bool { return isDone(fs.gone) }

// leave undoes what forkServer did for one caller.
func (fs *forkServer) leave() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.users--
	fs.endRetired()
}

// drop has the next start begin another server.
func (s *forkServers) drop(fs *forkServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == fs {
		s.current = nil
	}
}

// renew has the next start begin another server, which reads the program anew.
func (s *forkServers) renew() {
	s.mu.Lock()
	fs := s.current
	s.mu.Unlock()
	if fs != nil {
		fs.retire()
	}
}

// retire has the next start begin another server. This one ends with its last worker.
func (fs *forkServer) retire() {
	fs.servers.drop(fs)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.retired = true
	fs.endRetired()
}

// close ends all servers, and their workers with them.
func (s *forkServers) close() {
	s.mu.Lock()
	all := maps.Clone(s.all)
	s.closed = true
	s.mu.Unlock()
	for fs := range all {
		fs.mu.Lock()
		fs.end()
		fs.mu.Unlock()
	}
	for fs := range all {
		<-fs.ended
	}
}

// runForkServer runs a server from its start to its end.
func (sp *spawner) runForkServer(ctx context.Context, fs *forkServer) {
	defer close(fs.ended)
	fs.err = sp.startForkServer(ctx, fs)
	fs.cancel()
	if fs.err == nil {
		close(fs.ready)
		fs.read()
	}
	// This comes before the ends of the workers are known. So no start that follows them gets this server.
	fs.servers.drop(fs)
	close(fs.gone)
	if fs.err == nil {
		lost := fs.loseWorkers()
		fs.work.Wait()
		sp.logLoss(fs, lost)
	} else {
		close(fs.ready)
	}
	fs.servers.mu.Lock()
	delete(fs.servers.all, fs)
	fs.servers.mu.Unlock()
}

// logLoss logs how a server ended that was still wanted, with so many workers.
func (sp *spawner) logLoss(fs *forkServer, workers int) {
	fs.mu.Lock()
	expected, givenUp := fs.ending, fs.givenUp
	fs.mu.Unlock()
	if expected {
		return
	}
	how := fs.process.status().String()
	if givenUp {
		how = "did not answer and was killed"
	}
	if lines := fs.process.lastOutput(time.Time{}); len(lines) > 0 {
		how += "; its last output: " + strings.Join(lines[max(0, len(lines)-3):], " | ")
	}
	sp.opts.Log.events(noWorker).Error("fork server lost, with its workers",
		"pid", fs.process.pid, "workers", workers, "exit", how)
}

// startForkServer starts the process of fs and waits for its report. After an error nothing of it is left.
func (sp *spawner) startForkServer(ctx context.Context, fs *forkServer) (err error) {
	path, err := sp.executable()
	if err != nil {
		return err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("a socket for the fork server: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fork server"), os.NewFile(uintptr(pair[1]), "fork server")
	defer closeFiles([]*os.File{ours, theirs})
	conn, err := net.FileConn(ours)
	if err != nil {
		return fmt.Errorf("a socket for the fork server: %w", err)
	}
	defer func() {
		if err != nil {
			_ = conn.Close() // no process has the other end
		}
	}()
	p := sp.newProcess(path)
	p.limits = &Limits{} // those of the pool are for workers
	files, err := openChildFiles(p, Spec{Files: []*os.File{theirs}}, true)
	defer files.closeTheirs()
	if err == nil {
		err = sp.forkExec(p, files, nil, mergeEnv(sp.withThreads(sp.env), []string{
			"SNAKEPIT_FORK_SERVER=1", "SNAKEPIT_RUN_ID=" + sp.runID, "SNAKEPIT_DIR=" + sp.dir,
			"SNAKEPIT_MAX_FRAME=" + strconv.Itoa(sp.opts.MaxFrame),
		}, files.env))
	}
	if err != nil {
		files.closeOurs()
		return err
	}
	sp.watchOver(p, noWorker)
	go p.supervise(nil)
	defer func() { _ = files.control.Close() }()
	if err = p.awaitReport(ctx, files.control); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		p.kill()
		<-p.done
		return err
	}
	fs.process, fs.conn = p, conn.(*net.UnixConn)
	return nil
}

// fork asks for a worker.
func (fs *forkServer) fork(ctx context.Context, files []*os.File, env []string) (*forked, error) {
	environ := strings.Join(env, "\x00")
	if len(environ) > maxForkEnv {
		return nil, fmt.Errorf("the environment is too large for a fork server: %d bytes, and the limit is %d",
			len(environ), maxForkEnv)
	}
	fs.mu.Lock()
	fs.sequence++
	number := fs.sequence
	answer := make(chan *forkAnswer, 1)
	fs.pending[number] = answer
	if fs.asked.IsZero() {
		fs.asked = time.Now()
	}
	fs.mu.Unlock()
	defer func() {
		fs.mu.Lock()
		delete(fs.pending, number)
		fs.mu.Unlock()
		select {
		case a := <-answer: // it came at the moment in which the caller gave up
			fs.discard(a.worker)
		default:
		}
	}()
	request := fmt.Sprintf("{\"start\": %d}\n%s", number, environ)
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	_ = fs.conn.SetWriteDeadline(time.Now().Add(forkSilent)) // an error: it is closed, as the write tells
	if _, _, err := fs.conn.WriteMsgUnix([]byte(request), syscall.UnixRights(fds...), nil); err != nil {
		return nil, fs.notAsked(number, err)
	}
	select {
	case a := <-answer:
		if a.worker != nil && fs.isGone() { // it has ended, too
			fs.discard(a.worker)
			return nil, errForkServerEnded
		}
		if a.unsafe {
			fs.retire()
		}
		return a.worker, a.err
	case <-fs.gone:
		return nil, errForkServerEnded
	case <-ctx.Done():
		if fs.isSilent() {
			fs.giveUp()
		}
		return nil, fmt.Errorf("the fork server has not forked a worker: %w", context.Cause(ctx))
	}
}

// notAsked handles the error of the write of a request.
func (fs *forkServer) notAsked(number int, err error) error {
	switch {
	case isHangUp(err):
		return errForkServerEnded
	case errors.Is(err, os.ErrDeadlineExceeded):
		fs.giveUp()
	default: // it says nothing about the server
		fs.mu.Lock()
		if delete(fs.pending, number); len(fs.pending) == 0 {
			fs.asked = time.Time{}
		}
		fs.mu.Unlock()
	}
	err = fmt.Errorf("the fork server cannot be asked for a worker: %w", err)
	if isLimit(err) {
		err = &RemedyError{err, limitRemedy}
	}
	return err
}

// isSilent reports whether the server has not reacted to a request for some time.
func (fs *forkServer) isSilent() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return !fs.asked.IsZero() && time.Since(fs.asked) >= forkSilent
}

// isHangUp reports whether a write failed because the server's end of the connection is closed, or ours.
func isHangUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// giveUp ends a server that does not answer, with its workers.
func (fs *forkServer) giveUp() {
	fs.servers.drop(fs)
	fs.mu.Lock()
	fs.givenUp = true
	fs.mu.Unlock()
	fs.process.kill()
}

// read handles the server's messages until its connection has ended.
func (fs *forkServer) read() {
	fs.work.Go(func() {
		select {
		case <-fs.process.exited:
		case <-fs.stop:
			_ = fs.conn.CloseWrite() // it exits at the end of file; an error: it has hung up, or stop kills it
			fs.process.stop(forkStop)
		}
		// A child of the program may hold the other end. An error: the connection is closed already.
		_ = fs.conn.SetReadDeadline(time.Now().Add(outputGrace))
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := fs.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		fs.handle(buf[:n])
	}
	_ = fs.conn.Close() // all that it has sent was read
}

// loseWorkers ends a server that has no connection, and its workers. No one reports their ends any more. It returns
// their number.
func (fs *forkServer) loseWorkers() int {
	fs.mu.Lock()
	left := fs.children
	fs.children = map[int]*forked{}
	for pid, c := range left {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // an error: no process is left
		c.lost = true
	}
	fs.mu.Unlock()
	fs.process.stop(2 * outputGrace)
	count := 0
	lose := func(c *forked) {
		if !c.isEnded() {
			count++
			c.status = exitStatus{code: -1, signal: killSignal}
			close(c.ended)
		}
	}
	for end := time.Now().Add(time.Second); len(left) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		maps.DeleteFunc(left, func(pid int, c *forked) bool {
			// If this program adopts orphans, nobody else reaps this one.
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			if syscall.Kill(pid, 0) == nil {
				return false
			}
			lose(c)
			return true
		})
	}
	for _, c := range left {
		lose(c)
	}
	return count
}

// handle handles one message. The program that the server has imported may have sent it, so nothing in it is believed
// that is not checked.
func (fs *forkServer) handle(message []byte) {
	var r forkReply
	if json.Unmarshal(message, &r) != nil {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	defer func() {
		fs.asked = time.Time{}
		if len(fs.pending) > 0 {
			fs.asked = time.Now()
		}
	}()
	switch {
	case r.Started > 0:
		fs.started(r.Started, r.PID)
	case r.Failed > 0:
		err := fmt.Errorf("the fork server cannot fork: %s", escapeControl(truncate(r.Error, 1000), false))
		switch errno := syscall.Errno(r.Errno); {
		case r.Errno <= 0: // its text has the remedy
		case isLimit(errno):
			err = &RemedyError{err, limitRemedy}
		default:
			err = &RemedyError{err, "turn the fork server off"}
		}
		fs.answer(r.Failed, &forkAnswer{err: err, unsafe: r.Errno <= 0})
	case r.Exited > 0:
		c := fs.children[r.Exited]
		if c == nil || c.isEnded() {
			return
		}
		c.status = exitStatus{code: r.Code}
		if r.Signal > 0 {
			c.status = exitStatus{code: -1, signal: syscall.Signal(r.Signal).String()}
		}
		close(c.ended)
	}
}

// answer answers a request, once. It returns false if nobody waits for the answer. Callers hold mu.
func (fs *forkServer) answer(number int, a *forkAnswer) bool {
	reply := fs.pending[number]
	if reply == nil {
		return false
	}
	delete(fs.pending, number)
	reply <- a // it has room
	return true
}

// started notes a new worker. Callers hold mu.
func (fs *forkServer) started(number, pid int) {
	if fs.children[pid] != nil || !isWorkerOf(pid, fs.process.pid) {
		fs.answer(number, &forkAnswer{err: fmt.Errorf(
			"the fork server says that it has forked the process %d, which is no child of it here: a fork server "+
				"cannot be in another namespace of process ids", pid)})
		return
	}
	c := &forked{server: fs, pid: pid, ended: make(chan struct{})}
	fs.children[pid] = c
	if !fs.answer(number, &forkAnswer{worker: c}) { // the caller has left
		fs.work.Go(func() { fs.discard(c) })
	}
}

// endRetired ends a retired server that has no more workers and no more users. Callers hold mu.
func (fs *forkServer) endRetired() {
	if fs.retired && len(fs.children) == 0 && fs.users == 0 {
		fs.end()
	}
}

// end ends the server, even while it starts. Callers hold mu.
func (fs *forkServer) end() {
	if !fs.ending {
		fs.ending = true
		fs.cancel()
		close(fs.stop)
	}
}

// forkFromServer has the fork server fork the process p.
func (sp *spawner) forkFromServer(ctx context.Context, p *Process, files *childFiles, env []string) (err error) {
	if sp.groups != nil {
		if p.group, err = sp.groups.add(); err != nil {
			return err
		}
	}
	worker, err := sp.forkOnce(ctx, p, files, env)
	if errors.Is(err, errForkServerEnded) { // another one takes its place
		worker, err = sp.forkOnce(ctx, p, files, env)
	}
	if err != nil {
		p.group.remove()
		return err
	}
	p.body, p.pid = worker, worker.pid
	if err = p.group.join(p.pid); err != nil {
		worker.server.discard(worker)
		p.group.remove()
	}
	return err
}

// forkOnce has the current fork server fork the process p.
func (sp *spawner) forkOnce(ctx context.Context, p *Process, files *childFiles, env []string) (*forked, error) {
	fs, err := sp.forkServer(ctx)
	if err != nil {
		return nil, err
	}
	defer fs.leave()
	p.oomBase = sp.oom.base()
	return fs.fork(ctx, files.child, env)
}
