package conformance

import (
	"github.com/snakepit-go/snakepit/core"
)

// pieceMutants are broken workers that take or send large bodies in pieces.
var pieceMutants = []mutant{
	{"takes a piece for a frame of its own", "pieces/joined", writing(func(f *core.Frame) {
		if f.Kind == core.KindPiece {
			drop(f)
		}
	})},
	{"answers nothing until a body is complete", "pieces/between", frames(func(core.Conn) (frameFunc, frameFunc) {
		var held []core.Frame
		of := uint64(0)
		return nil, func(f core.Frame) []core.Frame {
			if f.Kind == core.KindPiece && f.Bytes > 0 {
				of = f.ID
			}
			if of == 0 {
				return []core.Frame{f}
			}
			held = append(held, f)
			if f.ID != of || f.Kind == core.KindPiece {
				return nil
			}
			of = 0
			all := held
			held = nil
			return all
		}
	})},
	{"ends the connection for a piece that crossed an end", "pieces/ended",
		frames(func(c core.Conn) (frameFunc, frameFunc) {
			over := map[uint64]bool{}
			return nil, one(func(f *core.Frame) {
				over[f.ID] = over[f.ID] || f.Kind == core.KindCancel
				if f.Kind == core.KindPiece && over[f.ID] {
					_ = c.Close()
				}
			})
		})},
	{"takes as many bytes as there are", "pieces/breaches", frames(func(core.Conn) (frameFunc, frameFunc) {
		var held []core.Frame
		return nil, func(f core.Frame) []core.Frame {
			if f.Kind == core.KindPiece {
				held = append(held, f)
				return nil
			}
			var body []byte
			for _, piece := range held {
				if piece.ID == f.ID {
					body = append(body, piece.Body...)
				}
			}
			held = nil
			f.Body = append(body, f.Body...)
			return []core.Frame{f}
		}
	})},
	{"sends pieces to every host", "pieces/agreed", frames(func(core.Conn) (frameFunc, frameFunc) {
		return func(f core.Frame) []core.Frame {
			if f.Kind != core.KindEnd || len(f.Body) < 1<<20 {
				return []core.Frame{f}
			}
			return inPieces(f, 1<<20)
		}, nil
	})},
	{"loses a piece", "pieces/agreed", frames(func(core.Conn) (frameFunc, frameFunc) {
		return one(func(f *core.Frame) {
			if f.Kind == core.KindPiece && f.Bytes == 0 {
				drop(f)
			}
		}), nil
	})},
}
