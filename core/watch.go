package core

import (
	"context"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watchTime is the time between two looks at the program's files. A change counts once two looks in a row see the same:
// an editor may write a file in several steps.
const watchTime = 250 * time.Millisecond

// maxSources bounds the files and directories that one look visits.
const maxSources = 10_000

// sources are the files that Options.Watch looks at.
type sources struct {
	patterns []string
	seed     maphash.Seed
	loaded   uint64 // the state of the files that the workers have
	seen     uint64 // the state at the last look
}

func newSources(patterns []string) *sources {
	s := &sources{patterns: patterns, seed: maphash.MakeSeed()}
	s.loaded = s.state()
	s.seen = s.loaded
	return s
}

// changed reports whether the files have changed, and have rested since the last look.
func (s *sources) changed() bool {
	now := s.state()
	rested := now == s.seen
	s.seen = now
	if !rested || now == s.loaded {
		return false
	}
	s.loaded = now
	return true
}

// state returns a hash of the names, sizes and times of the files.
func (s *sources) state() uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	left := maxSources
	add := func(path string, info fs.FileInfo) {
		_, _ = h.WriteString(path)
		_, _ = h.WriteString(strconv.FormatInt(info.Size(), 10))
		_, _ = h.WriteString(strconv.FormatInt(info.ModTime().UnixNano(), 36))
	}
	for _, pattern := range s.patterns {
		dir, name := filepath.Split(pattern)
		if !strings.ContainsAny(name, `*?[\`) {
			if info, err := os.Stat(pattern); err == nil {
				add(pattern, info)
			}
			continue
		}
		// A directory that cannot be read has no files that could change.
		_ = filepath.WalkDir(filepath.Clean(dir), func(path string, d fs.DirEntry, err error) error {
			switch left--; {
			case left < 0:
				return filepath.SkipAll
			case err != nil:
				return nil
			case d.IsDir():
				if path != filepath.Clean(dir) && isForeign(path, d.Name()) {
					return filepath.SkipDir
				}
				return nil
			}
			if ok, _ := filepath.Match(name, d.Name()); !ok {
				return nil
			}
			if info, err := os.Stat(path); err == nil { // not d.Info: a link's target may change
				add(path, info)
			}
			return nil
		})
	}
	return h.Sum64()
}

// isForeign reports whether a directory is hidden, or has no code of the program: a cache, or installed packages.
func isForeign(path, name string) bool {
	if strings.HasPrefix(name, ".") || name == "__pycache__" || name == "node_modules" || name == "site-packages" {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "pyvenv.cfg"))
	return err == nil
}

// watchSources reloads the pool whenever the program's files have changed, until the pool closes. A reload that is
// under way is called off: it may be one of a program that hangs.
func (p *Pool) watchSources(s *sources) {
	stop := func() {}
	for range p.ticks(watchTime) {
		if !s.changed() {
			continue
		}
		stop()
		ctx, cancel := context.WithCancel(p.ctx)
		ended := make(chan struct{})
		stop = func() {
			cancel()
			<-ended
		}
		go func() {
			defer close(ended)
			p.reloadSources(ctx)
		}()
	}
	stop()
}

func (p *Pool) reloadSources(ctx context.Context) {
	err := p.reloadFor(ctx, "the program has changed and was reloaded")
	if err != nil && ctx.Err() == nil { // otherwise the files have changed again, or the pool is closing
		p.log.Error("the program has changed and cannot be loaded; the old workers serve on", "error", err)
	}
}
