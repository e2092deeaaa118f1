package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// peer is a host that exchanges single frames with one worker.
type peer struct {
	t       *trial
	worker  *core.RawWorker
	conn    core.Conn
	codec   core.Codec
	hello   hello
	limit   int               // how many calls may be open at once
	nextID  uint64            // of the host's next call
	parents map[uint64]uint64 // the host's call that each of the worker's calls serves
	arrived chan struct{}

	mu     sync.Mutex // guards what follows
	frames []core.Frame
	err    error // why no more frames come
}

// hello is the worker's hello.
type hello struct {
	Versions    []int    `json:"versions"`
	Features    []string `json:"features"`
	Codecs      []string `json:"codecs"`
	MaxFrame    int      `json:"max_frame"`
	Window      window   `json:"window"`
	Concurrency int      `json:"concurrency"`
	Commands    []struct {
		Name   string `json:"name"`
		Stream bool   `json:"stream"`
	} `json:"commands"`
	PID     int    `json:"pid"`
	Runtime string `json:"runtime"`
	Library string `json:"library"`
	Token   string `json:"token"`
	Stacks  *struct {
		Signal int `json:"signal"`
	} `json:"stacks"`
}

type window struct {
	Items int64 `json:"items"`
	Bytes int64 `json:"bytes"`
}

// command returns the program that workers run.
func (t *trial) command() core.Command {
	if t.h.Worker == nil {
		return core.Command{}
	}
	cmd, err := t.h.Worker.Command()
	if err != nil {
		t.Fatalf("the worker: %v", err)
	}
	return cmd
}

// launch starts a worker. Nothing reads its connection yet.
func (t *trial) launch() *core.RawWorker { return t.launchWith(t.h.Adapter) }

// start starts a worker and begins to read.
func (t *trial) start() *peer { return t.reading(t.launch()) }

// reading begins to read what a worker sends.
func (t *trial) reading(w *core.RawWorker) *peer {
	p := t.peer(w)
	go p.read()
	return p
}

func (t *trial) peer(w *core.RawWorker) *peer {
	return &peer{
		t: t, worker: w, conn: w.Conn, nextID: 1, parents: map[uint64]uint64{}, arrived: make(chan struct{}, 1),
	}
}

// connect starts a worker and exchanges hellos. change may change the host's hello.
func (t *trial) connect(change ...func(ours map[string]any)) *peer {
	p := t.start()
	p.receiveHello()
	p.answerHello(change...)
	return p
}

// granting changes the window in the host's hello.
func granting(items, bytes int64) func(map[string]any) {
	return func(ours map[string]any) { ours["window"] = window{items, bytes} }
}

func (p *peer) read() {
	defer func() {
		if r := recover(); r != nil {
			p.t.Errorf("Read panics: %v\n%s", r, debug.Stack())
			p.got(nil, errors.New("panic"))
		}
	}()
	for {
		frames, err := p.conn.Read()
		if (len(frames) == 0) == (err == nil) {
			p.t.Errorf("Read returned %d frames and the error %v", len(frames), err)
		}
		p.got(frames, err)
		if err != nil {
			return
		}
	}
}

func (p *peer) got(frames []core.Frame, err error) {
	p.mu.Lock()
	if p.frames = append(p.frames, frames...); err != nil {
		p.err = err
	}
	p.mu.Unlock()
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// take waits for the next wanted frame. It keeps the others for later. It ends the clause once one of calls has ended:
// after that no wanted frame can come.
func (p *peer) take(what string, wanted func(f *core.Frame) bool, calls ...uint64) core.Frame {
	for {
		f, kept, err := p.pick(wanted)
		if f != nil {
			return *f
		}
		if end, _, _ := p.pick(endOf(calls)); end != nil {
			p.t.Fatalf("%s does not come: call %d has already ended, with %s", what, end.ID, p.described(end))
		}
		if err != nil {
			p.t.Fatalf("%s does not come: the connection has ended: %v%s", what, err, p.fate())
		}
		select {
		case <-p.arrived:
		case <-p.t.Context().Done():
			if kept == 0 {
				p.t.Fatalf("%s does not come, and no other frame comes%s", what, p.fate())
			}
			p.t.Fatalf("%s does not come; %d other frames have come: %s%s", what, kept, p.rest(), p.fate())
		}
	}
}

// pick takes the first wanted frame that has come. If there is none, it returns the number of other frames, and an
// error if no more frames can come. wanted may end the clause.
func (p *peer) pick(wanted func(f *core.Frame) bool) (*core.Frame, int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.frames {
		if wanted(&p.frames[i]) {
			f := p.frames[i]
			p.frames = slices.Delete(p.frames, i, i+1)
			return &f, 0, nil
		}
	}
	return nil, len(p.frames), p.err
}

// fate says whether and how the worker's process has exited, and what it printed last.
func (p *peer) fate() string {
	text := ""
	if proc := p.worker.Process; proc != nil {
		select {
		case <-proc.Done():
			text = fmt.Sprintf("; the worker has exited with code %d", exitCode(proc))
		case <-time.After(pause): // the connection ends a little before the process
		}
	}
	if printed := p.worker.Output(); len(printed) > 0 {
		text += "; its last output: " + strings.Join(printed[max(0, len(printed)-5):], " | ")
	}
	return text
}

func exitCode(p *core.Process) int {
	code, _, _ := p.Exit()
	return code
}

// rest describes the frames that nobody has taken.
func (p *peer) rest() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := ""
	for i := range min(len(p.frames), 5) {
		text += p.frames[i].String() + "; "
	}
	return text
}

// of returns the next frame of a call.
func (p *peer) of(id uint64) core.Frame {
	return p.take(fmt.Sprintf("the answer to call %d", id), func(f *core.Frame) bool {
		return f.ID == id && isCalls(f.Kind)
	})
}

// described describes the last frame of a call.
func (p *peer) described(end *core.Frame) string {
	if end.Kind == core.KindError {
		return "the error " + show(p.remote(*end).Error())
	}
	return "the result " + show(p.decode(end.Body))
}

func terminal(f *core.Frame) bool { return f.Kind == core.KindEnd || f.Kind == core.KindError }

// endOf returns a function that reports whether a frame ends one of the calls.
func endOf(calls []uint64) func(f *core.Frame) bool {
	return func(f *core.Frame) bool { return terminal(f) && slices.Contains(calls, f.ID) }
}

func isCalls(k core.Kind) bool {
	return k == core.KindItem || k == core.KindEnd || k == core.KindError ||
		k == core.KindCancel || k == core.KindCredit || k == core.KindPiece || k == core.KindState
}

// next returns the next frame of a kind.
func (p *peer) next(k core.Kind) core.Frame {
	return p.take("a frame "+k.String(), func(f *core.Frame) bool { return f.Kind == k })
}

// answer returns the next frame that answers a call. It skips credit for the input, and the answerer's cancel of the
// input.
func (p *peer) answer(id uint64) core.Frame {
	p.t.restsOn("call/result")
	return p.take(fmt.Sprintf("the answer to call %d", id), func(f *core.Frame) bool {
		return f.ID == id && isCalls(f.Kind) && f.Kind != core.KindCredit && f.Kind != core.KindCancel
	})
}

// silent waits a moment and fails the clause if an unwanted frame comes.
func (p *peer) silent(what string, unwanted func(f *core.Frame) bool) {
	for end := time.After(pause); ; {
		if f, _, _ := p.pick(unwanted); f != nil {
			p.t.Errorf("%s: %s", what, f.String())
			return
		}
		select {
		case <-p.arrived:
		case <-end:
			return
		}
	}
}

// staysEnded waits a moment and fails the clause if a frame of an ended call comes.
func (p *peer) staysEnded(id uint64) {
	p.silent("a frame follows the call's end", func(f *core.Frame) bool { return f.ID == id && isCalls(f.Kind) })
}

// has reports whether a wanted frame has come and was not taken.
func (p *peer) has(wanted func(f *core.Frame) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.frames, func(f core.Frame) bool { return wanted(&f) })
}

// breach waits for the consequences of a breach of the protocol: the connection ends, and a worker that core launched
// prints something and exits with a code other than 0.
func (p *peer) breach(what string) {
	_ = p.waitEnd(what)
	if p.worker.Process == nil {
		return
	}
	if code, _ := p.exits(); code == 0 || len(p.worker.Output()) == 0 {
		p.t.Errorf("%s, and the worker exits with code %d and prints %q", what, code, p.worker.Output())
	}
}

// waitEnd waits until the connection has ended and returns why.
func (p *peer) waitEnd(what string) error {
	for {
		p.mu.Lock()
		err := p.err
		p.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-p.arrived:
		case <-p.t.Context().Done():
			p.t.Fatalf("%s, but the connection does not end", what)
		}
	}
}

func (p *peer) receiveHello() core.Frame {
	f := p.take("the worker's hello", func(*core.Frame) bool { return true })
	switch f.Kind {
	case core.KindHello:
	case core.KindError:
		p.t.Fatalf("the worker says that it can't serve: %s", f.Body)
	default:
		p.t.Fatalf("the worker's first frame is not a hello: %s", f.String())
	}
	if err := json.Unmarshal(f.Body, &p.hello); err != nil {
		p.t.Fatalf("the worker's hello is not JSON (%v): %.200q", err, f.Body)
	}
	for _, c := range p.worker.Codecs {
		if slices.Contains(p.hello.Codecs, c.Name()) {
			p.codec = c
			break
		}
	}
	if p.codec == nil {
		p.t.Fatalf("the worker has the codecs %s, and the adapter has none of them", show(p.hello.Codecs))
	}
	p.limit = max(p.hello.Concurrency, 1) // hello/limits reports a lower concurrency
	if p.t.h.MaxConcurrency > 0 {
		p.limit = min(p.limit, p.t.h.MaxConcurrency)
	}
	return f
}

// maxFrame returns the largest frame that both sides allow.
func (p *peer) maxFrame() int {
	n := min(p.hello.MaxFrame, core.DefaultMaxFrame)
	if p.worker.MaxFrame > 0 {
		n = min(n, p.worker.MaxFrame)
	}
	return n
}

// largest returns the largest frame that a clause tries.
func (p *peer) largest() int {
	n := min(p.maxFrame(), 8<<20)
	if p.t.h.MaxFrame > 0 {
		n = min(n, p.t.h.MaxFrame)
	}
	return n
}

func (p *peer) answerHello(change ...func(map[string]any)) {
	ours := map[string]any{
		"version": 1, "codec": p.codec.Name(), "max_frame": p.maxFrame(),
		"window": window{1024, 1 << 20}, "concurrency": p.limit, "calls": 64,
	}
	for _, f := range change {
		f(ours)
	}
	body, err := json.Marshal(ours)
	if err != nil {
		p.t.Fatalf("%v", err)
	}
	p.send(core.Frame{Kind: core.KindHello, Body: body})
}

// send writes frames in one batch.
func (p *peer) send(frames ...core.Frame) {
	if err := p.conn.Write(frames); err != nil {
		p.t.Fatalf("writing %s: %v", frames[0].String(), err)
	}
}

// encode encodes a value with the agreed codec.
func (p *peer) encode(v any) []byte {
	body, err := p.codec.Append(nil, v)
	if err != nil {
		p.t.Fatalf("encoding %.100v: %v", v, err)
	}
	return body
}

// decode decodes a body. An absent body is nil.
func (p *peer) decode(body []byte) any {
	if len(body) == 0 {
		return nil
	}
	var v any
	if err := p.codec.Decode(body, &v); err != nil {
		p.t.Fatalf("the worker's value can't be decoded (%v): %.200q", err, body)
	}
	return v
}

// remote decodes a structured error.
func (p *peer) remote(f core.Frame) *core.RemoteError {
	e := &core.RemoteError{}
	if err := p.codec.Decode(f.Body, e); err != nil {
		p.t.Fatalf("the worker's error can't be decoded (%v): %.200q", err, f.Body)
	}
	return e
}

type args = map[string]any

// need skips the clause if the worker does not offer a command.
func (p *peer) need(names ...string) {
	if p.hello.Commands == nil {
		return // it does not say
	}
	for _, name := range names {
		if !p.offers(name) {
			p.t.Skipf("the worker does not offer %s", name)
		}
	}
}

func (p *peer) offers(name string) bool {
	for _, c := range p.hello.Commands {
		if c.Name == name {
			return true
		}
	}
	return false
}

// streams reports whether the worker's hello says that a command streams.
func (p *peer) streams(name string) bool {
	for _, c := range p.hello.Commands {
		if c.Name == name {
			return c.Stream
		}
	}
	return false
}

// passes reports whether a frame with size bytes of binary or text is within the limits of both sides. Binary may
// travel as text.
func (p *peer) passes(size int) bool { return size/3*4+1024 <= p.largest() }

// exact skips the clause if the worker does not announce exact-numbers.
func (p *peer) exact() {
	if !slices.Contains(p.hello.Features, "exact-numbers") {
		p.t.Skipf("the worker does not announce exact-numbers")
	}
}

// several skips the clause if the worker does not take n calls at once.
func (p *peer) several(n int) {
	if p.limit < n {
		p.t.Skipf("the worker takes only %d calls at once", p.limit)
	}
}

// prepare makes a call frame with the next id.
func (p *peer) prepare(command string, a any, change ...func(f *core.Frame)) core.Frame {
	p.need(command)
	f := core.Frame{Kind: core.KindCall, ID: p.nextID, Name: command, Flags: core.NoInput}
	p.nextID += 2
	if a != nil {
		f.Body = p.encode(a)
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

// open opens a call and returns its id.
func (p *peer) open(command string, a any, change ...func(f *core.Frame)) uint64 {
	f := p.prepare(command, a, change...)
	p.send(f)
	return f.ID
}

func withInput(f *core.Frame) { f.Flags = 0 }

func inSession(id string) func(*core.Frame) { return func(f *core.Frame) { f.Session = id } }

// finish returns the result of a call without items.
func (p *peer) finish(id uint64) any {
	f := p.answer(id)
	if f.Kind == core.KindError {
		p.t.Fatalf("call %d ends with the error %s", id, show(p.remote(f).Traceback()))
	}
	if f.Kind != core.KindEnd {
		p.t.Fatalf("call %d is answered by %s", id, f.String())
	}
	return p.decode(f.Body)
}

// call makes a call and returns its result.
func (p *peer) call(command string, a any, change ...func(f *core.Frame)) any {
	return p.finish(p.open(command, a, change...))
}

// echo checks that the connection still works.
func (p *peer) echo(v any) {
	if got := p.call("conformance.echo", args{"value": v}); !reflect.DeepEqual(got, v) {
		p.t.Fatalf("an echo of %s is %s", show(v), show(got))
	}
}

// fails returns the error that a call ends with.
func (p *peer) fails(id uint64) (*core.RemoteError, core.Flags) {
	p.t.restsOn("call/unknown")
	f := p.answer(id)
	if f.Kind != core.KindError {
		p.t.Fatalf("call %d should end with an error, but %s comes", id, f.String())
	}
	return p.remote(f), f.Flags
}

// expectError waits for the end of a call. The end must be an error.
func (p *peer) expectError(id uint64) { _, _ = p.fails(id) }

// collect takes a stream to its end, granting credit for each item.
func (p *peer) collect(id uint64) (items []core.Frame, end core.Frame) {
	p.t.restsOn("stream/items")
	for {
		f := p.answer(id)
		if f.Kind != core.KindItem {
			return items, f
		}
		items = append(items, f)
		p.grant(id, 1, int64(len(f.Body)))
	}
}

// integers takes a stream of integers to its normal end.
func (p *peer) integers(id uint64) (all []int64, result any) {
	items, end := p.collect(id)
	for i := range items {
		n, ok := p.decode(items[i].Body).(int64)
		if !ok || items[i].Flags != 0 {
			p.t.Fatalf("an item is not an integer: %s", items[i].String())
		}
		all = append(all, n)
	}
	if end.Kind != core.KindEnd {
		p.t.Fatalf("the stream ends with %s", end.String())
	}
	return all, p.decode(end.Body)
}

func (p *peer) grant(id uint64, items, bytes int64) {
	p.send(core.Frame{Kind: core.KindCredit, ID: id, Items: items, Bytes: bytes})
}

func (p *peer) item(id uint64, v any) {
	p.send(core.Frame{Kind: core.KindItem, ID: id, Body: p.encode(v)})
}

func (p *peer) cancel(id uint64) {
	p.t.restsOn("cancel/answered")
	p.send(core.Frame{Kind: core.KindCancel, ID: id, Name: "no longer wanted"})
}

func (p *peer) end(id uint64) { p.send(core.Frame{Kind: core.KindEnd, ID: id}) }

// callback returns the next call that the handler of a call makes.
func (p *peer) callback(id uint64) core.Frame {
	p.t.restsOn("callback/call")
	isCall := func(f *core.Frame) bool { return f.Kind == core.KindCall }
	f := p.take("the handler's call to the host", isCall, id)
	p.parents[f.ID] = id
	return f
}

// ping sends a ping and returns its answer.
func (p *peer) ping(id uint64) core.Frame {
	p.send(core.Frame{Kind: core.KindPing, ID: id})
	return p.pong(id)
}

func (p *peer) pong(id uint64) core.Frame {
	p.t.restsOn("ping/answered")
	return p.take(fmt.Sprintf("the answer to ping %d", id), func(f *core.Frame) bool {
		return f.Kind == core.KindPong && f.ID == id
	})
}

// running waits until the worker says that it runs the calls.
func (p *peer) running(ids ...uint64) {
	p.pongWith(fmt.Sprintf("that call %d is running", ids[0]), func(running []map[string]any) bool {
		there := map[any]bool{}
		for _, r := range running {
			there[r["id"]] = true
		}
		return !slices.ContainsFunc(ids, func(id uint64) bool { return !there[int64(id)] })
	}, ids...)
}

// pongWith pings until the answer is the wanted one: a pong may lag a little behind the frames of a call. It ends the
// clause once one of calls has ended.
func (p *peer) pongWith(what string, wanted func(running []map[string]any) bool, calls ...uint64) {
	for n := uint64(1 << 40); ; n++ {
		pong := p.ping(n)
		var body struct {
			Running []map[string]any `json:"running"`
		}
		if err := p.codec.Decode(pong.Body, &body); err != nil {
			p.t.Fatalf("the body of a pong can't be decoded (%v): %.200q", err, pong.Body)
		}
		if wanted(body.Running) {
			return
		}
		if end, _, _ := p.pick(endOf(calls)); end != nil {
			p.t.Fatalf("no pong says %s, and call %d has ended with %s", what, end.ID, p.described(end))
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-p.t.Context().Done():
			p.t.Fatalf("no pong says %s; the latest is %.200q", what, pong.Body)
		}
	}
}

// within fails the clause if f takes longer than atOnce.
func (t *trial) within(what string, f func()) {
	begin := time.Now()
	f()
	if took := time.Since(begin); took > atOnce {
		t.Errorf("%s took %s", what, took)
	}
}

// bye ends the worker in an orderly way.
func (p *peer) bye() {
	p.send(core.Frame{Kind: core.KindBye, Name: "closing"})
	if err := p.conn.CloseWrite(); err != nil {
		p.t.Fatalf("CloseWrite: %v", err)
	}
	if err := p.waitEnd("the host has said bye and closed its side"); !errors.Is(err, io.EOF) {
		p.t.Errorf("Read should return io.EOF after bye, not %v", err)
	}
}

// exits waits for the worker's process and returns how it ended.
func (p *peer) exits() (code int, signal string) {
	if p.worker.Process == nil {
		p.t.Skipf("the worker is not a process of this host")
	}
	select {
	case <-p.worker.Process.Done():
	case <-p.t.Context().Done():
		p.t.Fatalf("the worker's process does not end")
	}
	code, signal, _ = p.worker.Process.Exit()
	return code, signal
}
