package conformance

import (
	"slices"
	"strings"

	"github.com/snakepit-go/snakepit/core"
)

// pieceClauses is about large bodies that travel in pieces.
var pieceClauses = []clause{
	rule("pieces/joined", "Pieces are the beginning of the body of the frame that follows, "+
		"be it a call or an item of its input.", func(t *trial) {
		p := t.connectPieces()
		p.sendPieces(p.prepare("conformance.echo", args{"value": "a value in pieces"}), 7)
		if got := p.finish(p.nextID - 2); got != "a value in pieces" {
			t.Errorf("an echo of a value in pieces is %s", show(got))
		}
		id := p.open("conformance.double", nil, withInput)
		p.item(id, int64(1))
		p.sendPieces(core.Frame{Kind: core.KindItem, ID: id, Body: p.encode(int64(1) << 40)}, 2)
		p.item(id, int64(3))
		p.end(id)
		if got, _ := p.integers(id); !slices.Equal(got, []int64{2, 2 << 40, 6}) {
			t.Errorf("the doubles of 1, 1<<40 in pieces and 3 are %v", got)
		}
	}),
	rule("pieces/between", "Other frames may come between pieces. "+
		"The id of a call is seen with its first piece.", func(t *trial) {
		p := t.connectPieces()
		first := inPieces(p.prepare("conformance.echo", args{"value": "the first call"}), 7)
		second := p.prepare("conformance.echo", args{"value": "the second call"})
		p.send(first[0])
		p.ping(77)
		p.send(second)
		if got := p.finish(second.ID); got != "the second call" {
			t.Errorf("the second call returns %s", show(got))
		}
		p.send(first[1:]...)
		if got := p.finish(first[0].ID); got != "the first call" {
			t.Errorf("the first call returns %s", show(got))
		}
	}),
	rule("pieces/ended", "Pieces for a call that has ended are dropped.", func(t *trial) {
		p := t.connectPieces()
		id := p.open("conformance.double", nil, withInput)
		p.item(id, int64(1))
		if f := p.answer(id); f.Kind != core.KindItem {
			t.Fatalf("the double of 1 is %s", f.String())
		}
		item := inPieces(core.Frame{Kind: core.KindItem, ID: id, Body: p.encode("an item that is given up")}, 5)
		p.send(item[0])
		p.cancel(id)
		p.expectError(id)
		p.send(item[1:]...)
		p.echo("it goes on")
	}),
	rule("pieces/breaches", "Pieces that are not those of one body end the connection.", func(t *trial) {
		for what, change := range map[string]func(p *peer, frames []core.Frame) []core.Frame{
			"the first piece says too few bytes": func(_ *peer, frames []core.Frame) []core.Frame {
				frames[0].Bytes--
				return frames
			},
			"the first piece says too many bytes": func(_ *peer, frames []core.Frame) []core.Frame {
				frames[0].Bytes++
				return frames
			},
			"the frame itself has no byte of the body": func(_ *peer, frames []core.Frame) []core.Frame {
				last := frames[len(frames)-1]
				piece := core.Frame{Kind: core.KindPiece, ID: last.ID, Body: last.Body}
				last.Body = nil
				return append(frames[:len(frames)-1], piece, last)
			},
			"the first piece does not come": func(_ *peer, frames []core.Frame) []core.Frame { return frames[1:] },
			"the first piece comes twice": func(_ *peer, frames []core.Frame) []core.Frame {
				return slices.Concat(frames[:1], frames)
			},
			"the body is above max_frame": func(p *peer, frames []core.Frame) []core.Frame {
				frames[0].Bytes = int64(p.maxFrame())
				return frames[:1]
			},
			"the pieces are of a call of the worker that never was": func(_ *peer, frames []core.Frame) []core.Frame {
				frames[0].ID = 1000
				return frames[:1]
			},
		} {
			p := t.connectPieces()
			p.echo("before")
			frames := inPieces(p.prepare("conformance.echo", args{"value": "a value in pieces"}), 7)
			p.send(change(p, frames)...)
			p.breach(what)
		}
	}),
	rule("pieces/agreed", "A side sends pieces only if the other one has announced the feature.", func(t *trial) {
		for _, features := range [][]string{nil, {"pieces"}} {
			p := t.connect(func(ours map[string]any) { ours["features"] = features })
			text := strings.Repeat("a large value ", 2<<20) // 28 MiB
			if len(text)+1024 > p.maxFrame() || t.h.MaxFrame > 0 {
				t.Skipf("the worker takes no frame of %d bytes", len(text))
			}
			id := p.open("conformance.echo", args{"value": text})
			f, pieces := p.joined(id)
			if f.Kind != core.KindEnd || p.decode(f.Body) != text {
				t.Errorf("the echo of a large value is a %s of %d bytes", f.Kind, len(f.Body))
			}
			if features == nil && pieces > 0 {
				t.Errorf("%d pieces come, and the host takes none", pieces)
			}
		}
	}),
}

// connectPieces connects as a host that takes pieces. It skips the clause if the worker takes none.
func (t *trial) connectPieces() *peer {
	p := t.connect(func(ours map[string]any) { ours["features"] = []string{"pieces"} })
	if !slices.Contains(p.hello.Features, "pieces") {
		t.Skipf("the worker does not announce pieces")
	}
	return p
}

// inPieces returns the frame and before it its pieces, each of so many bytes.
func inPieces(f core.Frame, size int) (frames []core.Frame) {
	body := f.Body
	for len(body) > size {
		frames = append(frames, core.Frame{Kind: core.KindPiece, ID: f.ID, Body: body[:size]})
		body = body[size:]
	}
	frames[0].Bytes = int64(len(f.Body))
	f.Body = body
	return append(frames, f)
}

// sendPieces sends a frame in pieces, each in a batch of its own.
func (p *peer) sendPieces(f core.Frame, size int) {
	for _, piece := range inPieces(f, size) {
		p.send(piece)
	}
}

// joined returns the next frame of a call with the bodies of the pieces before it, and how many these were.
func (p *peer) joined(id uint64) (f core.Frame, pieces int) {
	var body []byte
	for {
		f = p.of(id)
		body = append(body, f.Body...)
		if f.Kind != core.KindPiece {
			f.Body = body
			return f, pieces
		}
		if size := f.Bytes; (size != 0) != (pieces == 0) {
			p.t.Errorf("piece %d says %d bytes", pieces, size)
		}
		pieces++
	}
}
