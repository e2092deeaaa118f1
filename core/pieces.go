package core

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file sends and receives large bodies in pieces, so that other frames need not wait for the whole of one: a ping,
// a cancel, another call.

// featurePieces is the feature that a side announces in its hello if it takes pieces.
const featurePieces = "pieces"

const (
	splitAbove = 24 << 20  // a frame with a larger body is split; a smaller one takes some milliseconds
	pieceBytes = 240 << 10 // a piece and its header fit into 256 KiB, which a peer may read at once
	pieceBatch = 4         // pieces that one Write carries
)

// splitFrame is a frame whose body is being sent in pieces. The frame itself comes last, with the last piece.
type splitFrame struct {
	outgoing
	sent int // bytes of the body
}

// split sends the first piece of a frame. The others follow in turns with other frames. Callers hold mu.
func (m *mux) split(batch []Frame, q outgoing) []Frame {
	if q.of != nil {
		q.of.splitting = true
		q.of.opening = q.frame.Kind == KindCall
	}
	m.splits = append(m.splits, splitFrame{q, pieceBytes})
	return append(batch, Frame{
		Kind: KindPiece, ID: q.frame.ID, Bytes: int64(len(q.frame.Body)), Body: q.frame.Body[:pieceBytes],
	})
}

// appendPieces appends the next pieces of the frames that are being sent, in turns. Callers hold mu.
func (m *mux) appendPieces(batch []Frame, now time.Time) []Frame {
	for n := 0; n < pieceBatch && len(m.splits) > 0; n++ {
		q := m.splits[0]
		m.splits = slices.Delete(m.splits, 0, 1)
		s := q.of
		if !(s != nil && s.opening) && q.stale() { // the peer has to get a call that it then cancels
			s.splitting = false
			continue
		}
		rest := q.frame.Body[q.sent:]
		if len(rest) > pieceBytes {
			q.sent += pieceBytes
			m.splits = append(m.splits, q)
			batch = append(batch, Frame{Kind: KindPiece, ID: q.frame.ID, Body: rest[:pieceBytes]})
			continue
		}
		q.frame.Body = rest
		batch = append(batch, q.frame)
		if s == nil {
			continue
		}
		if s.opening {
			batch[len(batch)-1].TTL = s.ttl(now)
			if s.cancelSent {
				batch = append(batch, Frame{Kind: KindCancel, ID: s.id, Name: s.cancelReason})
			}
		}
		s.splitting, s.opening = false, false
	}
	return batch
}

// mayBeSplit reports whether frames of the kind may have pieces before them.
func (k Kind) mayBeSplit() bool {
	return k == KindCall || k == KindItem || k == KindEnd || k == KindError || k == KindState
}

// ttl returns the time that the call has left, or 0 if it has no limit.
func (s *stream) ttl(now time.Time) time.Duration {
	if s.deadline.IsZero() {
		return 0
	}
	return max(s.deadline.Sub(now), time.Millisecond)
}

// join is a body that arrives in pieces.
type join struct {
	size    int
	body    []byte // the pieces so far
	n       int    // their bytes
	opens   bool   // the pieces are those of a call frame
	dropped bool   // the call is going to be refused, so body stays nil
}

// piece keeps a piece. Callers hold mu, and it releases that for a while.
func (m *mux) piece(f *Frame) error {
	j := m.joins[f.ID]
	switch {
	case !m.terms.pieces:
		return errors.New("a piece, which was not agreed on")
	case j == nil && f.Bytes == 0:
		if m.streams[f.ID] != nil || m.neverUsed(f.ID) {
			return errors.New("a piece of a frame that has not begun")
		}
		return nil // the call ended while the piece was on its way
	case j == nil:
		var err error
		if j, err = m.newJoin(f); j == nil {
			return err
		}
	case f.Bytes != 0:
		return errors.New("a first piece, and the frame has begun already")
	}
	if j.n += len(f.Body); j.n >= j.size {
		return fmt.Errorf("pieces of %d bytes, and the first one said %d with the frame itself", j.n, j.size)
	}
	m.fill(j, f.Body)
	return nil
}

// fill adds bytes to a body. It releases mu meanwhile, because to make the memory for a large body takes long. Only the
// goroutine that reads uses a join.
func (m *mux) fill(j *join, b []byte) {
	m.mu.Unlock()
	defer m.mu.Lock()
	j.add(b)
}

// add adds bytes to the body. A peer may claim much and send little, so there is memory for the whole body only once a
// part of it has come. The body's end lies at a multiple of 8: an array at its end can be used where it is.
func (j *join) add(b []byte) {
	const part = 16
	switch n := len(j.body) + len(b); {
	case j.dropped:
		return
	case n <= cap(j.body):
	case n < j.size/part:
		j.body = append(make([]byte, 0, j.size/part), j.body...)
	default:
		pad := -j.size & 7
		j.body = append(make([]byte, pad+j.size)[pad:pad], j.body...)
	}
	j.body = append(j.body, b...)
}

// newJoin begins to join a frame. It returns nil if the frame's call has ended. Callers hold mu.
func (m *mux) newJoin(f *Frame) (*join, error) {
	if f.Bytes < 0 || f.Bytes > int64(m.terms.maxFrame-frameOverhead) {
		return nil, fmt.Errorf("the first piece of a body of %d bytes, and the limit is %d", f.Bytes,
			m.terms.maxFrame-frameOverhead)
	}
	j := &join{size: int(f.Bytes), opens: m.isNext(f.ID)}
	if m.streams[f.ID] == nil && !j.opens {
		if m.neverUsed(f.ID) {
			return nil, errors.New("an id that was never used")
		}
		return nil, nil
	}
	if j.opens {
		m.lastPeerID = f.ID
		j.dropped = m.openIncoming+m.opening >= m.terms.incoming
		if m.opening++; m.opening > maxBacklog {
			return nil, errors.New("more calls begin than are sent")
		}
	}
	if m.joins == nil {
		m.joins = map[uint64]*join{}
	}
	m.joins[f.ID] = j
	return j, nil
}

// joined puts the pieces before the body of the frame that they belong to. It returns nil if there are none. Callers
// hold mu, and it releases that for a while.
func (m *mux) joined(f *Frame) (*join, error) {
	j := m.joins[f.ID]
	if j == nil {
		return nil, nil
	}
	delete(m.joins, f.ID)
	if j.opens {
		m.opening--
	}
	switch n := j.n + len(f.Body); {
	case j.opens != (f.Kind == KindCall):
		return nil, errors.New("another kind of frame than its pieces began")
	case n != j.size:
		return nil, fmt.Errorf("a body of %d bytes, and its first piece said %d", n, j.size)
	}
	m.fill(j, f.Body)
	f.Body = j.body
	return j, nil
}

// isNext reports whether the peer may open a call with this id. Callers hold mu.
func (m *mux) isNext(id uint64) bool {
	return id%2 != m.nextID%2 && id > m.lastPeerID && id < 1<<53
}

// neverUsed reports whether no side has opened a call with this id. Callers hold mu.
func (m *mux) neverUsed(id uint64) bool {
	return id == 0 || id%2 == m.nextID%2 && id >= m.nextID || id%2 != m.nextID%2 && id > m.lastPeerID
}
