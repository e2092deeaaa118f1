package core

import (
	"fmt"
	"time"
)

// Kind says what a Frame means. The numbers are the same on the wire.
type Kind uint8

// The kinds of frame, and which side may send them when. The "opener" is the side that sent the call frame, the
// "answerer" is the other side.
//
//	kind    sender    when                                     meaning
//	Hello   both      first, once each; the worker begins      limits, features and commands
//	Call    both      after both hellos                        opens a call
//	Item    both      in a direction that has not ended        one value of a stream; Failed: one value's error
//	End     both      once for each direction                  that direction has ended; the answerer's ends the call
//	Error   answerer  instead of its End                       the call has ended with an error
//	        worker    instead of its hello, with ID 0          it cannot serve
//	Cancel  opener    until the call has ended                 stop, and answer with End or Error
//	        answerer  while the opener's direction is open     send no more input
//	Credit  both      for a direction that it receives         it has consumed items: the peer may send more
//	Ping    both      after both hellos                        answer with a Pong of the same ID
//	Pong    both      for each Ping                            it is alive, and runs these calls
//	Log     worker    after both hellos                        one log record
//	Bye     both      once                                     opens no more calls; accepts only those of live parents
//	Piece   both      before a Call, Item, End, Error, State   the next bytes of that frame's body
//	State   worker    before its answer to a KeepState call    the state of the session; Failed: it has none to give
const (
	KindHello Kind = 1 + iota
	KindCall
	KindItem
	KindEnd
	KindError
	KindCancel
	KindCredit
	KindPing
	KindPong
	KindLog
	KindBye
	KindPiece
	KindState
)

var kindNames = [...]string{
	"", "hello", "call", "item", "end", "error", "cancel", "credit", "ping", "pong", "log", "bye", "piece", "state",
}

// String returns the kind's name, such as "call". Text protocols send this name.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// ParseKind returns the kind with the given name, or 0 if there is none.
func ParseKind(name string) Kind {
	for k := KindHello; k <= KindState; k++ {
		if kindNames[k] == name {
			return k
		}
	}
	return 0
}

// Flags qualify a Frame.
type Flags uint8

// The flags of a frame. The numbers are the same on the wire.
const (
	NoInput    Flags = 1 << iota // Call: the opener's direction has ended with this frame
	Failed                       // Item: the body is an error; the stream goes on. State: there is no body
	NotStarted                   // Error: the call certainly did not run
	KeepState                    // Call: the worker sends the session's state before its answer
)

// Frame is the unit that an adapter carries. It is the same on every adapter; docs/protocol.md has the encodings.
type Frame struct {
	Kind    Kind
	Flags   Flags
	ID      uint64            // the call's id; Ping and Pong: a number that matches them; below 2^53
	Parent  uint64            // Call: the live call that this one serves, or 0
	Name    string            // Call: the command; Cancel and Bye: the reason; Ping: "stacks" or nothing
	TTL     time.Duration     // Call: the time left when it was written, sent in whole milliseconds; 0: no limit
	Session string            // Call: the session that the call belongs to, or ""
	Meta    map[string]string // Call: the caller's metadata
	Items   int64             // Credit: how many more items the peer may send
	Bytes   int64             // Credit: how many more body bytes the peer may send; first Piece: the size of the body
	Body    []byte            // encoded by the agreed codec; JSON in a Hello, and in an Error instead of a Hello
}

// frameOverhead is an upper bound on the bytes that an encoding adds to a frame's variable parts.
const frameOverhead = 256

// Size is the number of bytes that counts against Link.MaxFrame: the frame's variable parts and a fixed allowance for
// the rest.
func (f *Frame) Size() int {
	n := frameOverhead + len(f.Name) + len(f.Session) + len(f.Body)
	for k, v := range f.Meta {
		n += len(k) + len(v) + 8
	}
	return n
}

// String returns the frame as one line of a trace. Bodies are truncated, and only the size of a hello's body
// is shown, because it may carry a token.
func (f *Frame) String() string {
	s := fmt.Sprintf("%s %d", f.Kind, f.ID)
	if f.Parent != 0 {
		s += fmt.Sprintf(" parent=%d", f.Parent)
	}
	if f.Name != "" {
		s += fmt.Sprintf(" name=%q", f.Name)
	}
	if f.TTL != 0 {
		s += fmt.Sprintf(" ttl=%s", f.TTL)
	}
	if f.Session != "" {
		s += fmt.Sprintf(" session=%q", f.Session)
	}
	if f.Flags != 0 {
		s += fmt.Sprintf(" flags=%d", f.Flags)
	}
	if f.Kind == KindCredit {
		s += fmt.Sprintf(" items=%d", f.Items)
	}
	if f.Kind == KindCredit || f.Kind == KindPiece && f.Bytes != 0 {
		s += fmt.Sprintf(" bytes=%d", f.Bytes)
	}
	if len(f.Meta) > 0 {
		s += fmt.Sprintf(" meta=%d", len(f.Meta)) // values may be secrets
	}
	const show = 64
	switch {
	case f.Kind == KindHello:
		s += fmt.Sprintf(" body=%dB", len(f.Body))
	case len(f.Body) > show:
		s += fmt.Sprintf(" body=%dB %q...", len(f.Body), f.Body[:show])
	case len(f.Body) > 0:
		s += fmt.Sprintf(" body=%q", f.Body)
	}
	return s
}
