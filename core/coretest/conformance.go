package coretest

import (
	"context"
	"errors"
	"strings"

	"github.com/snakepit-go/snakepit/core"
)

// Conformance returns an adapter whose workers offer the commands that docs/protocol.md lists under "Conformance". Each
// worker runs up to concurrency calls at once. The state of their sessions survives them.
func Conformance(concurrency int) *Adapter {
	a := &Adapter{Concurrency: concurrency}
	a.bind = func(worker *Conn, o *core.ServeOptions) map[string]core.Function {
		state := newMemory()
		o.Snapshot, o.Restore = state.snapshot, state.restore
		return map[string]core.Function{
			"conformance.echo":      {Run: echo},
			"conformance.count":     {Stream: true, Run: count},
			"conformance.mixed":     {Stream: true, Run: mixed},
			"conformance.fail":      {Run: fail},
			"conformance.wait":      {Run: wait},
			"conformance.sum":       {Run: sum},
			"conformance.double":    {Stream: true, Run: double},
			"conformance.first":     {Run: first},
			"conformance.context":   {Run: describe},
			"conformance.remember":  {Run: state.remember},
			"snakepit.forget":       {Run: state.forget},
			"snakepit.describe":     {Run: descriptions},
			"conformance.callback":  {Run: callback},
			"conformance.callbacks": {Run: callbacks},
			"conformance.log":       {Run: log},
			"conformance.print": {Run: func(context.Context, *core.Incoming) (any, error) {
				return nil, nil // the worker has no output of its own
			}},
			"conformance.child": {Run: func(context.Context, *core.Incoming) (any, error) {
				return []string{}, nil // the worker has no environment of its own
			}},
			"conformance.unsendable": {Run: func(context.Context, *core.Incoming) (any, error) {
				return map[string]any{"culprit": make(chan int)}, nil
			}},
			"conformance.exit": {Run: func(ctx context.Context, _ *core.Incoming) (any, error) {
				_ = worker.Close() // as if its process had died
				<-ctx.Done()
				return nil, ctx.Err()
			}},
		}
	}
	return a
}

// descriptions describes some of the commands.
func descriptions(context.Context, *core.Incoming) (any, error) {
	message := map[string]any{"message": map[string]any{"$ref": "#/$defs/Message"}}
	return []any{
		map[string]any{"name": "conformance.fail", "stream": false, "schema": map[string]any{
			"arguments": map[string]any{"type": "object", "properties": message, "required": []any{"message"}},
			"result":    map[string]any{"type": "null"},
			"$defs":     map[string]any{"Message": map[string]any{"type": "string"}},
		}},
		map[string]any{"name": "conformance.count", "stream": true},
	}, nil
}

// argument returns the single argument of a command. It may be passed by name, as a map with one entry.
func argument(c *core.Incoming, name string) (any, error) {
	var v any
	if err := c.Decode(&v); err != nil {
		return nil, err
	}
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		if named, ok := m[name]; ok {
			return named, nil
		}
	}
	return v, nil
}

func echo(_ context.Context, c *core.Incoming) (any, error) { return argument(c, "value") }

func count(ctx context.Context, c *core.Incoming) (any, error) {
	var in struct {
		N    int  `json:"n"`
		Size int  `json:"size"`
		Fail bool `json:"fail"`
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	for i := range in.N {
		var v any = i
		if in.Size > 0 {
			v = []byte(strings.Repeat("x", in.Size))
		}
		if err := c.Send(ctx, v); err != nil {
			return nil, err
		}
	}
	if in.Fail {
		return nil, errors.New("failed, as asked")
	}
	return map[string]any{"sent": in.N}, nil
}

func mixed(ctx context.Context, c *core.Incoming) (any, error) {
	var in struct {
		N int `json:"n"`
	}
	err := c.Decode(&in)
	for i := 0; i < in.N && err == nil; i++ {
		if i%2 == 1 {
			err = c.Fail(ctx, errors.New("it is odd"))
		} else {
			err = c.Send(ctx, i)
		}
	}
	return nil, err
}

func fail(_ context.Context, c *core.Incoming) (any, error) {
	var in map[string]any
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	message, ok := in["message"].(string)
	data, more := in["data"]
	if !ok || len(in) > 2 || len(in) == 2 && !more {
		return nil, &core.RemoteError{Type: core.TypeBadArguments, Message: "fail takes message and data"}
	}
	return nil, &core.RemoteError{
		Type: "Failure", Module: "coretest", Bases: []string{"coretest.Base"}, Message: message, Value: data,
		Cause: &core.RemoteError{Type: "Reason", Message: "the cause"},
	}
}

func wait(ctx context.Context, _ *core.Incoming) (any, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// inputs calls f with each item of the input, and skips failed items. An item that cannot be decoded is an error.
func inputs(ctx context.Context, c *core.Incoming, f func(v any) error) error {
	for v, err := range c.Input(ctx) {
		if errors.As(err, new(*core.ItemError)) && errors.As(err, new(*core.RemoteError)) {
			continue
		}
		if err == nil {
			err = f(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sum(ctx context.Context, c *core.Incoming) (any, error) {
	total := int64(0)
	err := inputs(ctx, c, func(v any) error {
		n, ok := v.(int64)
		if !ok {
			return errors.New("an input is not an integer")
		}
		total += n
		return nil
	})
	return total, err
}

func double(ctx context.Context, c *core.Incoming) (any, error) {
	return nil, inputs(ctx, c, func(v any) error {
		n, ok := v.(int64)
		if !ok {
			return errors.New("an input is not an integer")
		}
		return c.Send(ctx, 2*n)
	})
}

func first(ctx context.Context, c *core.Incoming) (any, error) {
	for v, err := range c.Input(ctx) {
		return v, err
	}
	return nil, errors.New("there was no input")
}

func describe(ctx context.Context, c *core.Incoming) (any, error) {
	metadata := map[string]any{}
	for k, v := range c.Metadata {
		metadata[k] = v
	}
	got := map[string]any{"session": nil, "metadata": metadata, "remaining": nil}
	if c.Session != "" {
		got["session"] = c.Session
	}
	if left, limited := remaining(ctx); limited {
		got["remaining"] = left
	}
	return got, nil
}

func callback(ctx context.Context, c *core.Incoming) (any, error) {
	var in struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	var v any
	err := c.Host().Call(ctx, in.Name, in.Value, &v)
	return v, err
}

func callbacks(ctx context.Context, c *core.Incoming) (any, error) {
	var in struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	all := []any{}
	for v, err := range c.Host().Stream(ctx, in.Name, in.Value) {
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func log(_ context.Context, c *core.Incoming) (any, error) {
	var in struct {
		Level   string `json:"level"`
		Message string `json:"message"`
	}
	err := c.Decode(&in)
	if err == nil {
		c.Host().Log(in.Level, in.Message, map[string]any{"answer": 42})
	}
	return nil, err
}
