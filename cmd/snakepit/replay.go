package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snakepit-go/snakepit"
	codecjson "github.com/snakepit-go/snakepit/codec/json"
	"github.com/snakepit-go/snakepit/codec/msgpack"
	"github.com/snakepit-go/snakepit/core"
)

func replayCommand() *cobra.Command {
	var c call
	var id uint64
	var list bool
	cmd := &cobra.Command{
		Use: "replay FILE [WORKER]", Short: "Make a call again that a lost worker was running",
		Long: "Replay reads the recording of a lost worker, which Options.Recorder has written, and sends one of\n" +
			"its calls to a new worker. Without --call that is the oldest one that had no answer. --list shows the\n" +
			"exit and the calls, and needs no worker. To replay a call with arguments, the program has to record\n" +
			"bodies (Recorder.Bodies).\n" + aboutResults + exitCodes,
		Args: atMost(2, words("FILE")),
		Example: "  snakepit replay models-20261201T100000.000000-7-0.snakepit --list\n" +
			"  snakepit replay models-20261201T100000.000000-7-0.snakepit worker.py --debug",
	}
	c.register(cmd)
	cmd.Flags().Uint64Var(&id, "call", 0, "the id of the call, as --list shows it")
	cmd.Flags().BoolVar(&list, "list", false, "print how the worker ended, and its last calls")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		r, err := readRecording(args[0])
		if err != nil {
			return err
		}
		if list {
			return write(cmd.OutOrStdout(), recordedText(r))
		}
		if len(args) < 2 {
			return errors.New("replay needs WORKER, or --list; see snakepit replay --help")
		}
		again, err := choose(r, id)
		if err != nil {
			return err
		}
		return c.replay(cmd, args[1], again)
	}
	return cmd
}

func readRecording(path string) (*core.Recording, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	r, err := core.ReadRecording(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// recordedCall is a call of a recording, decoded.
type recordedCall struct {
	frame  core.RecordedFrame
	args   any
	input  []any // nil if it has none
	stream bool  // it sent items
}

// choose returns the call with an id, or the oldest one that had no answer.
func choose(r *core.Recording, id uint64) (*recordedCall, error) {
	open := r.Unfinished()
	if id == 0 && len(open) > 0 {
		id = open[0].ID
	}
	at := slices.IndexFunc(r.Frames, func(f core.RecordedFrame) bool {
		return f.Sent && f.Kind == "call" && f.ID == id
	})
	switch {
	case at < 0 && id == 0:
		return nil, errors.New("every recorded call had an answer; choose one with --call, as --list shows them")
	case at < 0:
		return nil, fmt.Errorf("the recording has no call %d; --list shows them", id)
	}
	f := r.Frames[at]
	var codec core.Codec = codecjson.Codec{}
	if r.Codec == "msgpack" {
		codec = msgpack.Codec{}
	}
	decode := func(f core.RecordedFrame) (v any, err error) {
		switch {
		case f.Size == 0:
			return nil, nil
		case f.Body == nil && !r.Bodies:
			return nil, errors.New("the recording has no arguments: set Recorder.Bodies in the program")
		case f.Body == nil:
			return nil, fmt.Errorf("a body of %d bytes was too large to be recorded", f.Size)
		}
		return v, codec.Decode(f.Body, &v)
	}
	c := &recordedCall{frame: f}
	var err error
	if c.args, err = decode(f); err != nil {
		return nil, fmt.Errorf("call %d, %s: %w", id, f.Name, err)
	}
	for _, other := range r.Frames[at+1:] {
		if other.ID != id || other.Kind != "item" {
			continue
		}
		if !other.Sent {
			c.stream = true
			continue
		}
		v, err := decode(other)
		if err != nil {
			return nil, fmt.Errorf("the input of call %d, %s: %w", id, f.Name, err)
		}
		c.input = append(c.input, v)
	}
	if f.Flags&core.NoInput == 0 && c.input == nil {
		c.input = []any{}
	}
	return c, nil
}

// replay makes a recorded call on a new worker.
func (c *call) replay(cmd *cobra.Command, word string, again *recordedCall) (err error) {
	if c.session == "" {
		c.session = again.frame.Session
	}
	if err := c.start(cmd, word); err != nil {
		return err
	}
	defer closing(c.pool, &err)
	ctx := cmd.Context()
	if again.frame.Meta != nil {
		ctx = snakepit.WithMetadata(ctx, again.frame.Meta)
	}
	name := again.frame.Name
	info, _ := commandInfo(c.pool, name)
	return c.repeat(cmd, func() error {
		c.steps.say("call", "%s, call %d of the recording", name, again.frame.ID)
		opts := []snakepit.CallOption{snakepit.Timeout(c.limit())}
		if again.input != nil {
			opts = append(opts, snakepit.Input(slices.Values(again.input)))
		}
		if !info.Stream && !again.stream {
			result, err := snakepit.Execute[any](ctx, c.target, name, again.args, opts...)
			if err != nil {
				c.steps.failed(err)
				return runError{err}
			}
			c.steps.say("result", "")
			return printValue(cmd.OutOrStdout(), result)
		}
		for v, err := range snakepit.ExecuteStream[any](ctx, c.target, name, again.args, opts...) {
			var failed *snakepit.ItemError
			switch {
			case errors.As(err, &failed):
				printError(cmd.ErrOrStderr(), err)
				continue
			case err != nil:
				return runError{err}
			}
			if err := printValue(cmd.OutOrStdout(), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// recordedText tells how a worker ended, and lists its last calls.
func recordedText(r *core.Recording) string {
	text := r.Exit + "\n"
	rows := [][]string{{"CALL", "COMMAND", "SESSION", "AT", "ARGUMENTS", "ITEMS", "END"}}
	for i, f := range r.Frames {
		if !f.Sent || f.Kind != "call" {
			continue
		}
		items, end := 0, "no answer"
		for _, other := range r.Frames[i+1:] {
			switch {
			case other.ID != f.ID || other.Sent:
			case other.Kind == "item":
				items++
			case other.Kind == "end":
				end = "result"
			case other.Kind == "error":
				end = "error"
			}
		}
		size := fmt.Sprintf("%d bytes", f.Size)
		if f.Body == nil && f.Size > 0 {
			size += ", not recorded"
		}
		row := []string{
			strconv.FormatUint(f.ID, 10), f.Name, f.Session, f.At.Local().Format("15:04:05.000"), size, "", end,
		}
		if items > 0 {
			row[5] = strconv.Itoa(items)
		}
		rows = append(rows, row)
	}
	for _, line := range orNone(rows, "no calls were recorded") {
		text += line + "\n"
	}
	return text
}
