// Package goplugin calls Python through hashicorp/go-plugin. Its README says where this set-up is advised.
package goplugin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/snakepit-go/snakepit/bench/peers"
)

//go:embed plugin.py
var source []byte

// peer is a running plugin.
type peer struct {
	cmd       *exec.Cmd
	client    *plugin.Client
	conn      *grpc.ClientConn
	kill      context.CancelFunc
	directory string // holds plugin.py and the socket
}

// Start starts the plugin. If ctx ends before it is ready, the plugin is killed.
func Start(ctx context.Context, python string) (peers.Peer, error) {
	directory, err := os.MkdirTemp("", "goplugin")
	if err != nil {
		return nil, err
	}
	p := &peer{directory: directory}
	if err := p.start(ctx, python); err != nil {
		return nil, errors.Join(fmt.Errorf("go-plugin with %s: %w", python, err), ctx.Err(), p.Close())
	}
	return p, nil
}

func (p *peer) start(ctx context.Context, python string) error {
	script := filepath.Join(p.directory, "plugin.py")
	if err := os.WriteFile(script, source, 0o600); err != nil {
		return err
	}
	// go-plugin takes no context to start. The plugin outlives ctx, so its own context follows ctx only until then.
	var life context.Context
	life, p.kill = context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, p.kill)()
	p.cmd = exec.CommandContext(life, python, script, filepath.Join(p.directory, "s"))
	p.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "SNAKEPIT_BENCH_PLUGIN",
			MagicCookieValue: "echo",
		},
		Plugins:          plugin.PluginSet{"echo": echo{}},
		Cmd:              p.cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Stderr:           os.Stderr,
		Logger:           hclog.New(&hclog.LoggerOptions{Name: "go-plugin", Level: hclog.Error}),
	})
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	conn, err := protocol.Dispense("echo")
	if err != nil {
		return err
	}
	p.conn = conn.(*grpc.ClientConn)
	return nil
}

func (p *peer) Call(ctx context.Context, args map[string]any) (map[string]any, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	var reply wrapperspb.BytesValue
	if err := p.conn.Invoke(ctx, "/bench.Echo/Call", wrapperspb.Bytes(body), &reply); err != nil {
		return nil, err
	}
	var result map[string]any
	return result, json.Unmarshal(reply.Value, &result)
}

func (p *peer) PIDs() []int {
	if p.client.Exited() {
		return nil
	}
	return []int{p.cmd.Process.Pid}
}

func (p *peer) Close() error {
	var err error
	if p.client != nil {
		p.client.Kill()
		p.kill()
		if state := p.cmd.ProcessState; p.conn != nil && !state.Success() {
			err = fmt.Errorf("plugin: %s", state)
		}
	}
	return errors.Join(err, os.RemoveAll(p.directory))
}

// echo is the plugin for go-plugin. Its client is the connection itself.
type echo struct {
	plugin.NetRPCUnsupportedPlugin
}

func (echo) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

func (echo) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the plugin is served by Python")
}
