package core

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

// frameRing keeps the last frames of one connection. A nil *frameRing keeps none.
type frameRing struct {
	opts Recorder

	mu     sync.Mutex               // guards the fields below
	ring   []RecordedFrame          // the oldest at next, once it is full
	next   int                      // where the next frame goes
	open   map[uint64]RecordedFrame // the call frames of the host's live calls
	split  map[splitKey]bool        // the calls with a frame whose first pieces have passed
	bodies int                      // bytes of the bodies that are kept
}

// recorderBodies is how many bytes of bodies are kept for one worker.
const recorderBodies = 1 << 20

// splitKey is one direction of a call.
type splitKey struct {
	id   uint64
	sent bool
}

func newFrameRing(o Recorder) *frameRing {
	if o.Dir == "" {
		return nil
	}
	return &frameRing{opts: o, open: map[uint64]RecordedFrame{}, split: map[splitKey]bool{}}
}

// record keeps frames. The caller may change them and their bodies afterwards.
func (r *frameRing) record(frames []Frame, sent bool) {
	if r == nil || len(frames) == 0 {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range frames {
		r.add(&frames[i], sent, now)
	}
}

// add keeps one frame. Callers hold mu.
func (r *frameRing) add(f *Frame, sent bool, now time.Time) {
	e := RecordedFrame{
		At: now, Sent: sent, Kind: f.Kind.String(), ID: f.ID, Parent: f.Parent, Name: f.Name, Flags: f.Flags,
		TTL: f.TTL.Milliseconds(), Session: f.Session, Items: f.Items, Bytes: f.Bytes, Size: len(f.Body),
	}
	key := splitKey{f.ID, sent}
	cut := f.Kind == KindPiece || r.split[key]
	if f.Kind == KindPiece {
		r.split[key] = true
	} else if f.Kind.mayBeSplit() {
		delete(r.split, key)
	}
	if r.opts.Bodies && f.Kind != KindHello {
		e.Meta = f.Meta // it is not changed once it has been sent or received
		if !cut && r.room(len(f.Body)) {
			e.Body = bytes.Clone(f.Body)
			r.bodies += len(e.Body)
		}
	}
	switch {
	case sent && f.Kind == KindCall && len(r.open) < r.opts.Frames:
		r.open[f.ID] = e
	case !sent && (f.Kind == KindEnd || f.Kind == KindError):
		delete(r.split, splitKey{f.ID, true}) // of arguments or input that were given up
		if call, found := r.open[f.ID]; found {
			delete(r.open, f.ID)
			if !r.holds(call) {
				r.bodies -= len(call.Body)
			}
		}
	}
	if len(r.ring) < r.opts.Frames {
		r.ring = append(r.ring, e)
		r.next = len(r.ring) % r.opts.Frames
		return
	}
	r.drop(r.next)
	r.ring[r.next] = e
	r.next = (r.next + 1) % len(r.ring)
}

// drop forgets the body of a frame in the ring, unless the frame opens a live call.
func (r *frameRing) drop(i int) {
	e := &r.ring[i]
	if _, live := r.open[e.ID]; !live || !e.opensCall() {
		r.bodies -= len(e.Body)
	}
	e.Body = nil
}

// room reports whether a body may be kept, and makes room for it: the oldest bodies are dropped first.
func (r *frameRing) room(size int) bool {
	if size > recorderBodies {
		return false
	}
	for i := 0; i < len(r.ring) && r.bodies+size > recorderBodies; i++ {
		at := i
		if len(r.ring) == r.opts.Frames {
			at = (r.next + i) % len(r.ring)
		}
		if _, live := r.open[r.ring[at].ID]; !live || !r.ring[at].opensCall() {
			r.drop(at)
		}
	}
	return r.bodies+size <= recorderBodies
}

// holds reports whether the ring has a call frame.
func (r *frameRing) holds(call RecordedFrame) bool {
	return slices.ContainsFunc(r.ring, func(e RecordedFrame) bool { return e.ID == call.ID && e.opensCall() })
}

// frames returns the frames that are kept, the oldest first.
func (r *frameRing) frames() []RecordedFrame {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.ring
	if len(r.ring) == r.opts.Frames {
		all = slices.Concat(r.ring[r.next:], r.ring[:r.next])
	}
	var lost []RecordedFrame // call frames of live calls that have left the ring
	for _, call := range r.open {
		if !r.holds(call) {
			lost = append(lost, call)
		}
	}
	slices.SortFunc(lost, func(a, b RecordedFrame) int { return a.At.Compare(b.At) })
	return slices.Concat(lost, all)
}
