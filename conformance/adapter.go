package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/snakepit-go/snakepit/core"
)

// first is the clause on which all others rest.
var first = rule("start/hello", "Start connects to one new worker. "+
	"The worker's first frame is its hello.", func(t *trial) {
	t.start().receiveHello()
})

// quiet returns options of a pool that logs nothing.
func quiet() *core.Options { return &core.Options{Size: 1, Logger: hclog.NewNullLogger()} }

// adapterClauses is about what an adapter does, as the comments in core/adapter.go say.
var adapterClauses = []clause{
	first,
	rule("start/name", "Name is lower case letters and digits. "+
		"A chain's name is a comma-separated list of such names.", func(t *trial) {
		if name := t.h.Adapter.Name(); !regexp.MustCompile(`^[a-z0-9]+(,[a-z0-9]+)*$`).MatchString(name) {
			t.Errorf("the name is %q", name)
		}
	}),
	rule("start/link", "A Link has a connection and at least one codec. "+
		"The codecs have different names. MaxFrame is at least 4096, or 0.", func(t *trial) {
		l := t.launch().Link
		if l.Conn == nil || len(l.Codecs) == 0 {
			t.Fatalf("the link has the connection %v and %d codecs", l.Conn, len(l.Codecs))
		}
		names := map[string]bool{}
		for _, c := range l.Codecs {
			if c.Name() == "" || names[c.Name()] {
				t.Errorf("a codec is called %q", c.Name())
			}
			names[c.Name()] = true
		}
		if l.MaxFrame != 0 && l.MaxFrame < 4096 {
			t.Errorf("MaxFrame is %d", l.MaxFrame)
		}
	}),
	rule("start/process", "Link.Process is the process that was launched or adopted for the link, "+
		"or nil if there was none.", func(t *trial) {
		spy := &spy{Adapter: t.h.Adapter}
		w := t.launchWith(spy)
		if len(spy.launched) == 0 && w.Process != nil {
			t.Errorf("nothing was launched, but the link has process %d", w.Process.PID())
		}
		if len(spy.launched) > 0 && !slices.Contains(spy.launched, w.Process) {
			t.Errorf("the link's process is none of the %d that were launched", len(spy.launched))
		}
	}),
	rule("start/outlives-ctx", "ctx bounds only Start: the returned Link outlives it.", func(t *trial) {
		ctx, cancel := context.WithCancel(t.Context())
		w, err := core.StartRaw(ctx, t.h.Adapter, t.command(), quiet())
		if err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(w.Close)
		cancel()
		<-time.After(pause)
		p := t.reading(w)
		p.receiveHello()
		p.answerHello()
		p.ping(1)
	}),
	rule("start/ctx-done", "Start returns at the latest when ctx is done.", func(t *trial) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		t.within("a start whose context was done", func() {
			if w, err := core.StartRaw(ctx, t.h.Adapter, t.command(), quiet()); err == nil {
				w.Close()
			}
		})
	}),
	rule("start/parallel", "Start may be called from several goroutines at once. "+
		"Each call starts a worker of its own.", func(t *trial) {
		const n = 3
		workers, errs := make([]*core.RawWorker, n), make([]error, n)
		cmd := t.command()
		var starts sync.WaitGroup
		for i := range n {
			starts.Go(func() { workers[i], errs[i] = core.StartRaw(t.Context(), t.h.Adapter, cmd, quiet()) })
		}
		starts.Wait()
		for _, w := range workers {
			if w != nil {
				t.Cleanup(w.Close)
			}
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("%v", err)
		}
		for i, w := range workers {
			p := t.reading(w)
			p.receiveHello()
			p.answerHello()
			p.echo(fmt.Sprintf("worker %d", i))
		}
	}),
	ruleAlone("start/launch-error", "An error about the worker itself, such as a missing program, "+
		"names the program and does not wrap ErrUnavailable. After the error nothing is left.", func(t *trial) {
		if t.h.Worker == nil {
			t.Skipf("the adapter launches no program")
		}
		missing := filepath.Join(t.tempDir(), "no-such-program")
		t.leavesNothing(func() {
			_, err := core.StartRaw(t.Context(), t.h.Adapter, core.Command{Path: missing}, quiet())
			if err == nil || errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "no-such-program") {
				t.Errorf("the error of a missing program is %v", err)
			}
		})
	}),
	rule("start/unavailable", "An error that wraps ErrUnavailable means that this protocol is unavailable here. "+
		"No other error means that. Start's error agrees with that of Launch.", func(t *trial) {
		if strings.Contains(t.h.Adapter.Name(), ",") {
			t.Skipf("a chain does not launch a refused adapter again for a while, so one refusal would hide the next")
		}
		for refusal, unavailable := range map[error]bool{
			fmt.Errorf("%w: a package is missing", core.ErrUnavailable): true,
			errors.New("the worker is broken"):                          false,
		} {
			spy := &spy{Adapter: t.h.Adapter, refusal: refusal}
			w, err := core.StartRaw(t.Context(), spy, t.command(), quiet())
			if w != nil {
				w.Close()
			}
			if spy.asked == 0 {
				t.Skipf("the adapter launches no program")
			}
			if err == nil || errors.Is(err, core.ErrUnavailable) != unavailable {
				t.Errorf("Launch returns the error %q, and Start returns %v", refusal, err)
			}
		}
	}),
	rule("start/endpoint", "Link.Endpoint is where other clients may reach the worker, "+
		"such as \"unix:/tmp/x.sock\".", func(t *trial) {
		p := t.connect()
		network, address := "tcp", p.worker.Endpoint
		if address == "" {
			t.Skipf("the link has no endpoint")
		}
		if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
			network, address = "unix", path
		} else if _, _, err := net.SplitHostPort(address); err != nil || strings.Contains(address, "/") {
			t.Skipf("the suite can't reach %q", address)
		}
		c, err := new(net.Dialer).DialContext(t.Context(), network, address)
		if err != nil {
			t.Fatalf("dialling the endpoint %q: %v", p.worker.Endpoint, err)
		}
		_ = c.Close()
		p.echo("undisturbed")
	}),
	ruleAlone("start/leaves-nothing", "When a worker has ended, nothing of it is left: "+
		"no goroutine, no descriptor, no file in Launcher.Dir.", func(t *trial) {
		t.leavesNothing(func() {
			for _, killed := range []bool{false, true} { // a killed worker removes nothing itself
				w := t.launch()
				p := t.reading(w)
				p.receiveHello()
				p.answerHello()
				p.ping(1)
				if killed && w.Process != nil {
					p.kill()
				}
				_ = w.Conn.Close()
				if w.Process != nil {
					p.exits()
				}
				t.settles("files in the directory", 0, func() int { return len(leftIn(w.Dir())) })
				w.Close()
				if _, err := os.Stat(w.Dir()); err == nil {
					t.Errorf("the private directory is still there")
				}
			}
		})
	}),
	rule("start/token", "A worker's hello shows Link.Token. "+
		"An adapter that dials shows HostToken, and the worker refuses a host without it.", func(t *trial) {
		p := t.start()
		p.receiveHello()
		if want := p.worker.Token; want != "" && p.hello.Token != want {
			t.Errorf("the hello shows the token %q, not the worker's", p.hello.Token)
		}
		if p.worker.Token == "" {
			t.Skipf("the link has no token")
		}
		for what, wrong := range map[string]func(token string) string{
			"a wrong token":                 func(token string) string { return strings.Repeat("x", len(token)) },
			"the beginning of the token":    func(token string) string { return token[:len(token)-1] },
			"the end of the token":          func(token string) string { return token[1:] },
			"the token and a letter more":   func(token string) string { return token + "x" },
			"a token that is only a letter": func(string) string { return "x" },
		} {
			spy := &spy{Adapter: t.h.Adapter, hostToken: wrong}
			w, err := core.StartRaw(t.Context(), spy, t.command(), quiet())
			if err != nil {
				continue
			}
			t.Cleanup(w.Close)
			if spy.asked == 0 {
				t.Skipf("core did not launch the worker, so the suite can't try wrong tokens")
			}
			if w.Process.Endpoint == "" {
				t.Skipf("the worker dials the host, and its hello shows the token")
			}
			p = t.reading(w)
			_ = p.waitEnd("a host has shown " + what)
			if p.has(func(*core.Frame) bool { return true }) {
				t.Errorf("a host with %s is served: %s", what, p.rest())
			}
		}
	}),

	rule("frames/order", "Frames arrive in the order in which they were written.", func(t *trial) {
		p := t.connect()
		const n = 300
		for i := range uint64(n) {
			p.send(core.Frame{Kind: core.KindPing, ID: 1 + i})
		}
		p.pongs(1, n)
	}),
	rule("frames/batch", "Write sends all frames of a batch, however many, in order.", func(t *trial) {
		p := t.connect()
		const n = 3000
		batch := make([]core.Frame, n)
		for i := range batch {
			batch[i] = core.Frame{Kind: core.KindPing, ID: 7 + uint64(i)}
		}
		p.send(batch...)
		p.pongs(7, n)
	}),
	rule("frames/empty-batch", "A batch without frames sends nothing and harms nothing.", func(t *trial) {
		p := t.connect()
		if err := p.conn.Write(nil); err != nil {
			t.Errorf("%v", err)
		}
		p.ping(1)
	}),
	rule("frames/prompt", "Read returns as soon as any frame has arrived. Write holds none back.", func(t *trial) {
		p := t.connect()
		t.within("one ping after the other", func() {
			for i := range uint64(20) {
				p.ping(1 + i)
			}
		})
	}),
	rule("frames/read-result", "Read returns at least one frame or an error, never both. "+
		"After an error it returns only errors.", func(t *trial) {
		p := t.connect()
		for i := range uint64(100) { // the last answers and the end arrive together
			p.send(core.Frame{Kind: core.KindPing, ID: 1 + i})
		}
		p.bye() // peer.read checks that each Read returns one of the two
		w := t.launch()
		for {
			frames, err := w.Conn.Read()
			if (len(frames) == 0) == (err == nil) {
				t.Fatalf("Read returned %d frames and the error %v", len(frames), err)
			}
			if err != nil {
				break
			}
			_ = w.Conn.Close()
		}
		for range 3 {
			if frames, err := w.Conn.Read(); err == nil || len(frames) > 0 {
				t.Fatalf("Read returned %d frames and the error %v after an earlier error", len(frames), err)
			}
		}
	}),
	rule("frames/fields", "Every field of a frame arrives unchanged: "+
		"name, session, metadata, time left, flags and body.", func(t *trial) {
		p := t.connect()
		got, ok := p.call("conformance.context", nil, func(f *core.Frame) {
			f.Session, f.TTL, f.Meta = "chat 7", time.Hour, map[string]string{"tenant": "a", "": "empty", "b": ""}
		}).(map[string]any)
		if !ok {
			t.Fatalf("conformance.context returns no map")
		}
		if got["session"] != "chat 7" {
			t.Errorf("the session is %s", show(got["session"]))
		}
		if want := (args{"tenant": "a", "": "empty", "b": ""}); !reflect.DeepEqual(got["metadata"], want) {
			t.Errorf("the metadata is %s", show(got["metadata"]))
		}
		if left, ok := number(got["remaining"]); !ok || left <= 3000 || left > 3600 {
			t.Errorf("%s seconds of an hour are left", show(got["remaining"]))
		}
	}),
	rule("frames/text", "Names, sessions and metadata may have any Unicode text.", func(t *trial) {
		p := t.connect()
		const odd = "tab\t feed\n \"quote\" \\ \x00\x1f\x7f \u2028 ü 漢 😀"
		got, ok := p.call("conformance.context", nil, func(f *core.Frame) {
			f.Session, f.Meta = odd, map[string]string{odd: odd}
		}).(map[string]any)
		if !ok || got["session"] != odd || !reflect.DeepEqual(got["metadata"], args{odd: odd}) {
			t.Errorf("session and metadata arrive as %s", show(got))
		}
		p.cancel(p.open("conformance.echo", args{"value": odd})) // the reason of a cancel is text too
		if _, flags := p.fails(p.openNamed(odd)); flags&core.NotStarted == 0 {
			t.Errorf("a command with an odd name should be unknown")
		}
	}),
	rule("frames/text-back", "The names and sessions that a worker "+
		"sends may have any Unicode text too.", func(t *trial) {
		p := t.connect()
		const odd = "näme\t\n\"\\\u2028 漢 😀"
		id := p.open("conformance.callback", args{"name": odd, "value": nil}, inSession(odd))
		if f := p.callback(id); f.Name != odd || f.Session != odd {
			t.Errorf("the worker calls %q in session %q, but the call of %q in session %q arrives",
				odd, odd, f.Name, f.Session)
		} else {
			p.end(f.ID)
			p.finish(id)
		}
	}),
	rule("frames/limit", "If a frame is larger than the adapter's limit, "+
		"Read returns an error and not the frame.", func(t *trial) {
		spy := &spy{Adapter: t.h.Adapter, maxFrame: 2 << 20} // large: a message may hold several smaller frames
		p := t.reading(t.launchWith(spy))
		p.receiveHello()
		if p.largest() < 8<<20 {
			t.Skipf("the worker sends no frame that is large enough")
		}
		p.answerHello(func(ours map[string]any) { ours["max_frame"] = p.hello.MaxFrame })
		p.open("conformance.count", args{"n": int64(1), "size": int64(6_000_000)})
		if err := p.waitEnd("a frame of 6 MB has come, and the limit is 2 MiB"); errors.Is(err, io.EOF) {
			t.Errorf("a frame above the limit is taken for the peer's end")
		}
		if p.has(func(f *core.Frame) bool { return f.Size() > spy.maxFrame }) {
			t.Errorf("Read returns a frame above the limit")
		}
	}),
	rule("frames/numbers", "Ids and other numbers are exact up to 2^53-1.", func(t *trial) {
		p := t.connect()
		p.ping(1<<53 - 1)
		p.nextID = 1<<53 - 3
		p.echo("a large id")
	}),
	rule("frames/body", "A body may have any bytes. It arrives unchanged.", func(t *trial) {
		p := t.connect()
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		p.echo(bytes.Repeat(all, 8))
		p.echo("a\tb\nc\r\n{}\x00")
	}),
	rule("frames/no-body", "A frame without a body arrives without one.", func(t *trial) {
		p := t.connect()
		if got := p.call("conformance.echo", nil); got != nil {
			t.Errorf("a call without a body is answered by %s", show(got))
		}
	}),
	rule("frames/largest", "A frame as large as the limit passes, in both directions.", func(t *trial) {
		p := t.connect()
		f := p.prepare("conformance.echo", nil)
		size := (p.largest() - f.Size() - 1024) / 4 * 3 // it must fit even if binary travels as text
		v := bytes.Repeat([]byte{0xfe}, size)
		p.echo(v)
	}),
	rule("frames/owned-by-reader", "The caller owns the frames that Read returned: "+
		"later frames do not change them, and an append to one body changes no other.", func(t *trial) {
		p := t.connect()
		const n = 50
		var want [][]byte
		for i := range n {
			want = append(want, bytes.Repeat([]byte{byte(i)}, 2000))
		}
		var kept []core.Frame
		for round := range 2 {
			var batch []core.Frame
			for i := range n {
				batch = append(batch, p.prepare("conformance.echo", args{"value": want[i]}))
			}
			for at := range batch { // one at a time: every worker accepts that
				p.send(batch[at])
				f := p.answer(batch[at].ID)
				if round == 0 {
					kept = append(kept, f)
				}
				_ = append(f.Body, "####"...)
			}
		}
		for i := range kept {
			if got := p.decode(kept[i].Body); !reflect.DeepEqual(got, want[i]) {
				t.Fatalf("frame %d has changed since it was read: %.60q", i, kept[i].Body)
			}
		}
	}),
	rule("frames/retains-nothing", "Write retains nothing: "+
		"its caller may change the frames when it has returned.", func(t *trial) {
		p := t.connect()
		for _, size := range []int{10, 1000, 100_000} {
			if !p.passes(size) {
				continue
			}
			f := p.prepare("conformance.echo", args{"value": strings.Repeat("a", size)})
			batch := []core.Frame{f}
			p.send(batch...)
			for i := range f.Body {
				f.Body[i] = 'z'
			}
			batch[0] = core.Frame{Kind: core.KindPing, ID: 99}
			p.send(core.Frame{Kind: core.KindPing, ID: 1})
			if got := p.finish(f.ID); got != strings.Repeat("a", size) {
				t.Errorf("an echo of %d bytes that were changed after Write is %.60q", size, got)
			}
		}
	}),
	rule("frames/both-ways", "One goroutine may write while another one reads: "+
		"neither waits for the other.", func(t *trial) {
		p := t.connect()
		value := strings.Repeat("x", min(64<<10, p.largest()/2))
		const n = 60
		var batch []core.Frame
		for range n {
			batch = append(batch, p.prepare("conformance.echo", args{"value": value}))
		}
		for at := 0; at < n; at += p.limit {
			end := min(at+p.limit, n)
			p.send(batch[at:end]...)
			for i := at; i < end; i++ {
				if got := p.finish(batch[i].ID); got != value {
					t.Fatalf("an echo of %d bytes is %.60s", len(value), show(got))
				}
			}
		}
	}),

	rule("close/write-side", "CloseWrite delivers all written frames. "+
		"After them the peer reads end of file. Read still works.", func(t *trial) {
		t.connect().byeBehindPings()
	}),
	rule("close/eof", "Read returns io.EOF if the peer closed its side between two frames, "+
		"and so does every later Read.", func(t *trial) {
		p := t.connect()
		p.echo(1.5)
		p.bye()
		for range 2 {
			if frames, err := p.conn.Read(); !errors.Is(err, io.EOF) || len(frames) > 0 {
				t.Errorf("Read returns %d frames and %v", len(frames), err)
			}
		}
	}),
	rule("close/unblocks-read", "Close unblocks Read, which returns an error.", func(t *trial) {
		p := t.connect()
		t.within("Close", func() {
			if err := p.conn.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			_ = p.waitEnd("the connection was closed")
		})
	}),
	rule("close/unblocks-write", "Close unblocks Write, which returns an error.", func(t *trial) {
		p := t.connect()
		p.ping(1)
		t.freeze(p.worker)
		var failure error // why the loop ended
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			body := p.encode(strings.Repeat("x", min(1<<20, p.largest()/2)))
			f := core.Frame{Kind: core.KindItem, ID: 1 << 40, Body: body}
			for failure == nil {
				failure = p.conn.Write([]core.Frame{f})
			}
		}()
		select {
		case <-ended:
			t.Fatalf("Write to a worker that does not read returns %v", failure)
		case <-time.After(pause):
		}
		t.within("Close", func() {
			_ = p.conn.Close()
			select {
			case <-ended:
			case <-t.Context().Done():
				t.Fatalf("Write goes on after Close")
			}
		})
	}),
	rule("close/again", "Close may be called from any goroutine, more than once.", func(t *trial) {
		p := t.connect()
		var closers sync.WaitGroup
		for range 4 {
			closers.Go(func() {
				defer caught(t)
				_ = p.conn.Close()
			})
		}
		closers.Wait()
		if err := p.conn.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
	}),
	rule("close/then-errors", "After Close Read and Write return errors.", func(t *trial) {
		p := t.connect()
		_ = p.conn.Close()
		_ = p.waitEnd("the connection was closed")
		if frames, err := p.conn.Read(); err == nil {
			t.Errorf("Read returns %d frames", len(frames))
		}
		for range 2 {
			if p.conn.Write([]core.Frame{{Kind: core.KindPing, ID: 1}}) == nil {
				t.Errorf("Write returns no error")
			}
		}
	}),
	rule("close/ends-worker", "Close releases everything: the worker notices that its host is gone.", func(t *trial) {
		p := t.connect()
		_ = p.conn.Close()
		p.exits()
	}),
	rule("close/loss", "When the worker ends, Read returns an error, or io.EOF, at once.", func(t *trial) {
		p := t.connect()
		p.need("conformance.exit")
		if p.worker.Process == nil && !t.h.DetectsLoss {
			t.Skipf("the adapter does not notice the loss of a worker that core did not launch")
		}
		p.open("conformance.exit", args{"code": 3})
		t.within("noticing the loss", func() { _ = p.waitEnd("the worker has ended") })
	}),
	rule("close/lost-write", "If the peer is gone, Write returns an error, "+
		"and so does every later Write.", func(t *trial) {
		p := t.connect()
		p.need("conformance.exit")
		if p.worker.Process == nil && !t.h.DetectsLoss {
			t.Skipf("the adapter does not notice the loss of a worker that core did not launch")
		}
		p.open("conformance.exit", args{"code": 3})
		_ = p.waitEnd("the worker has ended")
		ping := []core.Frame{{Kind: core.KindPing, ID: 1}}
		for end := time.Now().Add(atOnce); p.conn.Write(ping) == nil; { // the first writes may still succeed
			if time.Now().After(end) {
				t.Fatalf("Write to a worker that has gone returns no error")
			}
			<-time.After(5 * time.Millisecond)
		}
		for range 3 {
			if p.conn.Write(ping) == nil {
				t.Errorf("Write returns no error after an earlier one")
			}
		}
	}),
	rule("close/inside-frame", "io.EOF means an end between two frames. "+
		"An end inside a frame is another error.", func(t *trial) {
		for try := time.Duration(1); try <= 8; try++ { // it has to die while it writes: only reading would show when
			p := t.peer(t.launch())
			t.needsLocal(p.worker)
			frames, err := p.conn.Read()
			if err != nil {
				t.Fatalf("%v", err)
			}
			p.got(frames, nil)
			p.receiveHello()
			p.answerHello()
			size := (p.largest() - 1024) / 4 * 3 // it must fit even if binary travels as text
			p.open("conformance.count", args{"n": int64(1), "size": int64(size)})
			<-time.After(try * pause / 2)
			p.kill()
			go p.read()
			if err := p.waitEnd("the worker was killed inside a frame"); !errors.Is(err, io.EOF) {
				return
			}
		}
		t.Errorf("Read returns io.EOF, although the worker was killed inside a frame")
	}),
	rule("close/corrupt", "Bytes that are not a frame end the connection and are never taken for a frame: "+
		"no call is answered wrongly.", func(t *trial) {
		if t.h.Corrupt == nil {
			t.Skipf("the harness has no way to damage what is sent")
		}
		p := t.connect()
		p.echo("sound")
		if err := t.h.Corrupt(p.conn); err != nil {
			t.Fatalf("Harness.Corrupt: %v", err)
		}
		f := p.prepare("conformance.echo", args{"value": "damaged on its way"})
		_ = p.conn.Write([]core.Frame{f}) // an error means that the connection has ended already
		_ = p.conn.CloseWrite()
		_ = p.waitEnd("the worker got damaged bytes")
		p.silent("a damaged call is answered", func(f *core.Frame) bool {
			return f.Kind == core.KindEnd && string(f.Body) != "" && p.decode(f.Body) == "damaged on its way"
		})
	}),
}

// launchWith is launch with an adapter that wraps the one under test.
func (t *trial) launchWith(a core.Adapter) *core.RawWorker {
	t.restsOn("close/unblocks-read")
	w, err := core.StartRaw(t.Context(), a, t.command(), quiet())
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(w.Close)
	return w
}

// kill kills the worker's process and waits for its end.
func (p *peer) kill() {
	p.t.needsLocal(p.worker)
	process, err := os.FindProcess(p.worker.Process.PID())
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		p.t.Fatalf("%v", err)
	}
	p.exits()
}

// pongs takes n answers to pings. They have to come in order.
func (p *peer) pongs(from uint64, n int) {
	p.t.restsOn("ping/answered")
	for i := range uint64(n) {
		if f := p.next(core.KindPong); f.ID != from+i {
			p.t.Fatalf("the answer to ping %d comes instead of the answer to ping %d", f.ID, from+i)
		}
	}
}

// byeBehindPings sends many pings and the host's end right behind them, and takes the pongs. They come before the
// worker's end.
func (p *peer) byeBehindPings() {
	for i := range uint64(pingsBeforeBye) {
		p.send(core.Frame{Kind: core.KindPing, ID: 1 + i})
	}
	p.bye()
	p.pongs(1, pingsBeforeBye)
}

const pingsBeforeBye = 500

// openNamed opens a call of a command. The worker need not have the command.
func (p *peer) openNamed(name string) uint64 {
	f := core.Frame{Kind: core.KindCall, ID: p.nextID, Name: name, Flags: core.NoInput}
	p.nextID += 2
	p.send(f)
	return f.ID
}

func (t *trial) tempDir() string {
	dir, err := os.MkdirTemp("", "snakepit-conformance-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// number returns v as a float64 if it is a number of any type.
func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
