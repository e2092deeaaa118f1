//go:build unix

package core

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	report := func(what string) Command {
		cmd := shell(what)
		cmd.Reports = true
		return cmd
	}
	for name, script := range map[string]string{
		"line":             `echo '{"endpoint": "unix:/x", "more": 1}' >&$SNAKEPIT_CONTROL_FD; exec sleep 1000`,
		"line and silence": `echo '{"endpoint": "unix:/x"}' >&$SNAKEPIT_CONTROL_FD; exec 3>&-; exec sleep 1000`,
		"no line feed":     `printf '{"endpoint": "unix:/x"}' >&3; exec 3>&-; exec sleep 1000`,
		"after a blank":    `printf ' ' >&3; sleep 0.1; echo '{"endpoint": "unix:/x"}' >&3; exec sleep 1000`,
		"in pieces":        `printf '{"endpoint": ' >&3; printf '"unix:/x"}\n' >&3; exec sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			if p := newFixture(t, report(script)).launch(Spec{}); p.Endpoint != "unix:/x" {
				t.Errorf("the endpoint is %q", p.Endpoint)
			}
		})
	}
	for name, c := range map[string]struct{ script, says string }{
		"exit": {"echo bad luck >&2; exit 5",
			"ended before it reported that it can start: it exited with code 5"},
		"signal":     {"kill -KILL $$", `it was ended by signal "killed"`},
		"garbage":    {"echo '{garbage' >&3; exit 6", `unreadable`},
		"and status": {"echo '{garbage' >&3; exit 6", `exited with code 6`},
		"list":       {"echo '[]' >&3; exit 6", `not a JSON object: "[]"`},
		"wrong type": {`echo '{"endpoint": 5}' >&3; exit 6`, `unreadable`},
		"empty line": {"echo >&3; exit 6", `not a JSON object: ""`},
		"too long": {"head -c 70000 /dev/zero | tr '\\0' x >&3; exit 6",
			"longer than 65536 bytes; it exited with code 6"},
		"silence": {"exec 3>&-; exec sleep 1000",
			"ended before it reported that it can start: it did not end and was killed"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := newFixture(t, report(c.script)).fails(t.Context(), Spec{Stdio: true})
			if !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrUnavailable) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if name == "exit" && !slices.Equal(a.output(), []string{"bad luck"}) {
				t.Errorf("it printed %q", a.output())
			}
		})
	}
	t.Run("unavailable", func(t *testing.T) {
		_, err := newFixture(t, report(`echo '{"unavailable": "No module named grpc\u001b[2J", `+
			`"remedy": "pip install grpcio"}' >&3; exec sleep 1000`)).
			fails(t.Context(), Spec{})
		if !errors.Is(err, ErrUnavailable) ||
			!strings.Contains(err.Error(), `No module named grpc\x1b[2J; to get it: pip install grpcio`) {
			t.Error(err)
		}
	})
	for script, c := range map[string]struct { // what ends it while it tries the transport
		says        string
		unavailable bool
	}{
		"kill -SEGV $$": {`tried the protocol, and was ended by signal "segmentation fault"`, true},
		"exit 7":        {"tried the protocol, and exited with code 7", true},
		"kill -KILL $$": {`ended before it reported that it can start: it was ended by signal "killed"`, false},
		"exec 3>&-; exec sleep 1000": {
			"ended before it reported that it can start: it did not end and was killed", false},
	} {
		t.Run("tries, then "+script, func(t *testing.T) {
			_, err := newFixture(t, report(`printf ' ' >&3; `+script)).fails(t.Context(), Spec{})
			if errors.Is(err, ErrUnavailable) != c.unavailable || !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
		})
	}
	t.Run("failed", func(t *testing.T) {
		fails := report(`echo '{"failed": {"type": "OSError", "message": "no room"}}' >&3; exec sleep 1000`)
		_, err := newFixture(t, fails).fails(t.Context(), Spec{})
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Error() != "OSError: no room" || errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		f := newFixture(t, report("echo ready; exec sleep 1000"))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			f.log.line(t, "ready")
			cancel()
		}()
		if a, err := f.fails(ctx, Spec{}); !errors.Is(err, context.Canceled) ||
			!slices.Equal(a.output(), []string{"ready"}) {
			t.Error(err, a.output())
		}
	})
}
