package otel

import (
	"maps"
	"sync"
	"sync/atomic"
)

// table is a map that is read often and changes rarely. A get takes no lock. Any goroutine may use it.
type table[K comparable, V any] struct {
	mu  sync.Mutex // guards changes
	all atomic.Pointer[map[K]V]
}

func (t *table[K, V]) get(key K) (V, bool) {
	all := t.all.Load()
	if all == nil {
		return *new(V), false
	}
	v, ok := (*all)[key]
	return v, ok
}

// put sets an entry, and drops those for whose keys keep is false. A nil keep keeps all.
func (t *table[K, V]) put(key K, v V, keep func(K) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[K]V{}
	if all := t.all.Load(); all != nil {
		maps.Copy(next, *all)
	}
	if keep != nil {
		maps.DeleteFunc(next, func(key K, _ V) bool { return !keep(key) })
	}
	next[key] = v
	t.all.Store(&next)
}

// add returns the entry of a key. If there is none and the table has fewer than most entries, it makes one. Otherwise
// it returns false.
func (t *table[K, V]) add(key K, most int, create func() V) (V, bool) {
	if v, ok := t.get(key); ok {
		return v, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[K]V{}
	if all := t.all.Load(); all != nil {
		if v, ok := (*all)[key]; ok { // it was added meanwhile
			return v, true
		}
		if len(*all) >= most {
			return *new(V), false
		}
		maps.Copy(next, *all)
	}
	v := create()
	next[key] = v
	t.all.Store(&next)
	return v, true
}

// snapshot returns the entries as they are now. The caller must not change them.
func (t *table[K, V]) snapshot() map[K]V {
	if all := t.all.Load(); all != nil {
		return *all
	}
	return nil
}
