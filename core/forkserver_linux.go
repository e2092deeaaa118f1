package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
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
	all     map[*forkServer]struct{}
}

// forkServer is a process that has imported the worker's program and forks workers. It is their parent, so it reports
// how they end.
type forkServer struct {
	process *Process
	conn    *net.UnixConn
	ready   chan struct{} // closed when it has reported, or failed
	err     error         // why it failed; set before ready is closed
	gone    chan struct{} // closed when its connection has ended

	mu       sync.Mutex // guards the fields below
	sequence int
	pending  map[int]chan forkReply
	children map[int]*forked // by process id
	retired  bool            // it gets no more requests, and ends with its last worker
}

// forkReply is a message of a fork server. _forkserver.py of the Python package describes the messages.
type forkReply struct {
	Started int    `json:"started"`
	Failed  int    `json:"failed"`
	PID     int    `json:"pid"`
	Error   string `json:"error"`
	Exited  int    `json:"exited"`
	Code    int    `json:"code"`
	Signal  int    `json:"signal"`
}

// forked is one worker that a fork server has forked.
type forked struct {
	server *forkServer
	pid    int
	ended  chan struct{} // closed when it has exited; it is a zombie until reap
	code   int           // set before ended is closed
	signal string
	orphan bool // nobody waits for it: the caller has left before it was forked
}

// maxForkMessage bounds a request: its environment, for the most part.
const maxForkMessage = 160 << 10

// forkServer returns the current fork server, and starts one if there is none.
func (sp *spawner) forkServer(ctx context.Context) (*forkServer, error) {
	s := &sp.servers
	s.mu.Lock()
	fs := s.current
	if fs != nil {
		select {
		case <-fs.gone:
			fs = nil
		default:
		}
	}
	if fs == nil {
		fs = &forkServer{
			ready: make(chan struct{}), gone: make(chan struct{}),
			pending: map[int]chan forkReply{}, children: map[int]*forked{},
		}
		if s.all == nil {
			s.all = map[*forkServer]struct{}{}
		}
		s.current, s.all[fs] = fs, struct{}{}
		go func() {
			fs.err = sp.startForkServer(fs)
			if fs.err != nil {
				s.remove(fs)
			}
			close(fs.ready)
		}()
	}
	s.mu.Unlock()
	select {
	case <-fs.ready:
		return fs, fs.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the fork server has not imported the program: %w", context.Cause(ctx))
	}
}

// remove forgets a server.
func (s *forkServers) remove(fs *forkServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, fs)
	if s.current == fs {
		s.current = nil
	}
}

// renew has the next start begin a new server, which reads the program anew.
func (s *forkServers) renew() {
	s.mu.Lock()
	fs := s.current
	s.current = nil
	s.mu.Unlock()
	if fs != nil {
		fs.retire()
	}
}

// close ends all servers. Their workers have ended.
func (s *forkServers) close() {
	s.mu.Lock()
	all := s.all
	s.all, s.current = nil, nil
	s.mu.Unlock()
	for fs := range all {
		if fs.process != nil {
			fs.process.kill()
		}
		<-fs.ready
		if fs.process != nil {
			<-fs.process.done
		}
	}
}

// startForkServer starts the process of fs and waits for its report.
func (sp *spawner) startForkServer(fs *forkServer) error {
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
	fs.conn = conn.(*net.UnixConn)
	p := &Process{
		name: path, limits: &Limits{}, oom: sp.oom,
		exited: make(chan struct{}), done: make(chan struct{}), asking: make(chan struct{}, 1),
	}
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
		_ = fs.conn.Close()
		return err
	}
	sp.watchOver(p, noWorker)
	fs.process = p
	go p.supervise(nil)
	defer func() { _ = files.control.Close() }()
	if err := p.awaitReport(context.Background(), files.control); err != nil {
		p.kill()
		<-p.done
		_ = fs.conn.Close()
		return err
	}
	go fs.read()
	return nil
}

// fork asks for a worker.
func (fs *forkServer) fork(ctx context.Context, files []*os.File, env []string) (*forked, error) {
	fs.mu.Lock()
	fs.sequence++
	number := fs.sequence
	reply := make(chan forkReply, 1)
	fs.pending[number] = reply
	fs.mu.Unlock()
	defer func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		delete(fs.pending, number)
	}()
	request, err := json.Marshal(map[string]any{"start": number, "env": env})
	if err != nil {
		return nil, err
	}
	if len(request) > maxForkMessage {
		return nil, fmt.Errorf("the environment is too large for a fork server: %d bytes, and the limit is %d",
			len(request), maxForkMessage)
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := fs.conn.WriteMsgUnix(request, syscall.UnixRights(fds...), nil); err != nil {
		return nil, fmt.Errorf("the fork server: %w", err)
	}
	select {
	case r := <-reply:
		if r.Error != "" {
			return nil, &RemedyError{
				Err: fmt.Errorf("the fork server cannot fork: %s", r.Error), Remedy: "turn the fork server off",
			}
		}
		fs.mu.Lock()
		defer fs.mu.Unlock()
		return fs.children[r.PID], nil
	case <-fs.gone:
		return nil, errors.New("the fork server has ended")
	case <-ctx.Done():
		return nil, fmt.Errorf("the fork server has not forked a worker: %w", context.Cause(ctx))
	}
}

// read handles the server's messages until its connection ends.
func (fs *forkServer) read() {
	defer close(fs.gone)
	buf := make([]byte, 64<<10)
	for {
		n, err := fs.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		var r forkReply
		if json.Unmarshal(buf[:n], &r) == nil {
			fs.handle(r)
		}
	}
	_ = fs.conn.Close()
	// Without their parent nobody says how the workers end, so they are ended now.
	fs.mu.Lock()
	children := fs.children
	fs.children = map[int]*forked{}
	fs.mu.Unlock()
	for pid, c := range children {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		for end := time.Now().Add(time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		select {
		case <-c.ended:
		default:
			c.code, c.signal = -1, killSignal
			close(c.ended)
		}
	}
}

// handle handles one message.
func (fs *forkServer) handle(r forkReply) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch {
	case r.Started > 0 && r.PID > 0:
		c := &forked{server: fs, pid: r.PID, ended: make(chan struct{})}
		fs.children[r.PID] = c
		if reply := fs.pending[r.Started]; reply != nil {
			reply <- r
			return
		}
		c.orphan = true
		_ = syscall.Kill(-r.PID, syscall.SIGKILL)
	case r.Failed > 0:
		if reply := fs.pending[r.Failed]; reply != nil {
			reply <- r
		}
	case r.Exited > 0:
		c := fs.children[r.Exited]
		if c == nil {
			return
		}
		c.code = r.Code
		if r.Signal > 0 {
			c.code, c.signal = -1, syscall.Signal(r.Signal).String()
		}
		close(c.ended)
		if c.orphan {
			fs.forget(c)
		}
	}
}

// reap has the server reap the worker, which has ended.
func (c *forked) reap() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.forget(c)
}

// forget reaps a child. Callers hold mu.
func (fs *forkServer) forget(c *forked) {
	if fs.children[c.pid] != c {
		return
	}
	delete(fs.children, c.pid)
	request, _ := json.Marshal(map[string]int{"reap": c.pid})
	_, _ = fs.conn.Write(request) // an error: it has ended, and the system reaps its children
	fs.endRetired()
}

// retire ends the server once its last worker has ended.
func (fs *forkServer) retire() {
	go func() {
		<-fs.ready
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.retired = true
		fs.endRetired()
	}()
}

func (fs *forkServer) endRetired() {
	if fs.retired && len(fs.children) == 0 && len(fs.pending) == 0 && fs.conn != nil {
		_ = fs.conn.CloseWrite() // it exits at the end of file
	}
}

// forkFromServer has the fork server fork the process p.
func (sp *spawner) forkFromServer(ctx context.Context, p *Process, files *childFiles, env []string) error {
	fs, err := sp.forkServer(ctx)
	if err != nil {
		return err
	}
	if sp.groups != nil {
		if p.group, err = sp.groups.add(); err != nil {
			return err
		}
	}
	p.oomBase = sp.oom.base()
	if p.forked, err = fs.fork(ctx, files.child, env); err != nil {
		p.group.remove()
		return err
	}
	p.pid = p.forked.pid
	if p.proc, err = os.FindProcess(p.pid); err == nil {
		err = p.group.join(p.pid)
	}
	if err != nil {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.forked.ended
		p.forked.reap()
		p.group.remove()
	}
	return err
}
