package core

import (
	"encoding/json"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// The texts are those of faulthandler on Python 3.8 and 3.14, and of the worker itself.
func TestParseStack(t *testing.T) {
	here := []TraceFrame{
		{File: `/a "b"/c.py`, Line: 12, Function: "wait in line"}, {File: "w.py", Line: 3, Function: "f"},
	}
	body := "  File \"/a \"b\"/c.py\", line 12 in wait in line\n  File \"w.py\", line 3 in f\n"
	for text, want := range map[string][]StackThread{
		"": nil,
		"goroutine 1 [running]:\nmain.main()\n\t/a.go:3\n": nil,
		"Thread 0x00000000000000b0 (most recent call first):\n" + body + "\n" +
			"Current thread 0x00000000000000a0 (most recent call first):\n" + body: {
			{ID: 0xa0, Main: true, Frames: here}, {ID: 0xb0, Frames: here},
		},
		"Thread 0x00000000000000a0 [MainThread] (most recent call first):\n" + body + "  ...\n\n" +
			"Thread 0x00000000000000b0 [a [b] c] (most recent call first):\n  <no Python frame>\n\n...\n": {
			{ID: 0xa0, Main: true, Name: "MainThread", Frames: here}, {ID: 0xb0, Name: "a [b] c"},
		},
		"Thread 0xzz (most recent call first):\n" + body + "hread (most recent call first):\n": nil,
	} {
		if got := parseStack(text, 0xa0); !reflect.DeepEqual(got, want) {
			t.Errorf("%q gives\n%+v, not\n%+v", text, got, want)
		}
	}
	if got := parseStack("Thread 0x0 (most recent call first):\n", 0); len(got) != 1 || got[0].Main {
		t.Errorf("without a main thread: %+v", got)
	}
}

// The stacks of a worker in Go fit into a frame, however small it is.
func TestGoStacks(t *testing.T) {
	for _, limit := range []int{100, 1000, 100_000} {
		text := goStacks(limit)
		escaped, err := json.Marshal(text)
		if err != nil || len(escaped) > limit || len(text) < min(limit/3, 200) ||
			!strings.HasPrefix(text, "goroutine ") {
			t.Errorf("for %d bytes: %d bytes of text, %d escaped, %v", limit, len(text), len(escaped), err)
		}
	}
	if _, file, _, _ := runtime.Caller(0); !strings.Contains(goStacks(1<<20), file) {
		t.Errorf("this test is not in %s", goStacks(1<<20))
	}
}
