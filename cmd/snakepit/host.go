package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
	"github.com/snakepit-go/snakepit/observe/debugpage"
)

// host is a running program whose pool offers its debug page.
type host struct {
	name   string // the argument HOST, or the socket that was found
	base   string // the page's URL, with a slash at the end
	client *http.Client
}

const aboutHost = `
HOST is a program that runs a pool and offers its debug page: a URL, such as
http://localhost:6060/debug/snakepit/, or HOST:PORT for that path, or a Unix socket. Without HOST it is
the program of this user that offers its page on a socket (debugpage.Page.Listen).
`

const hostCodes = `
Exit codes:
  0    it worked
  1    the host could not answer
  2    wrong usage
  3    no host was found, or it can't be reached
  130, 143  interrupted by Ctrl-C, terminated by SIGTERM`

var errNoHost = errors.New("no host")

// hostError is an answer of a host that is no use.
type hostError struct{ error }

func (e hostError) Unwrap() error { return e.error }

// findHosts returns the host that a word names. Without a word it returns all hosts of this user that have a socket.
func findHosts(word string) ([]host, error) {
	if word != "" {
		h, err := parseHost(word)
		return []host{h}, err
	}
	sockets, err := debugpage.Sockets()
	if err != nil {
		return nil, runError{fmt.Errorf("%w was found: %w", errNoHost, err)}
	}
	if len(sockets) == 0 {
		return nil, runError{fmt.Errorf("%w was found: no program offers its page in %s\n"+
			"hint: name a host, such as localhost:6060, or have the program offer a socket: "+
			`debugpage.New(pool, nil).Listen("")`, errNoHost, core.UserDir())}
	}
	hosts := make([]host, 0, len(sockets))
	for _, s := range sockets {
		hosts = append(hosts, onSocket(s))
	}
	return hosts, nil
}

// findHost is findHosts for commands that need exactly one.
func findHost(word string) (host, error) {
	hosts, err := findHosts(word)
	if err != nil {
		return host{}, err
	}
	if len(hosts) > 1 {
		names := make([]string, 0, len(hosts))
		for _, h := range hosts {
			names = append(names, "  "+h.name)
		}
		return host{}, fmt.Errorf("there are several hosts; name one:\n%s", strings.Join(names, "\n"))
	}
	return hosts[0], nil
}

// parseHost reads the argument HOST.
func parseHost(word string) (host, error) {
	if info, err := os.Stat(word); err == nil && info.Mode()&os.ModeSocket != 0 {
		return onSocket(word), nil
	}
	text := word
	if !strings.Contains(word, "://") {
		if _, _, err := net.SplitHostPort(word); err != nil {
			return host{}, fmt.Errorf("HOST is %q; it has to be a URL, HOST:PORT or the path of a Unix socket", word)
		}
		text = "http://" + word
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return host{}, fmt.Errorf("HOST is %q, which is not a URL such as http://localhost:6060/debug/snakepit/", word)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/debug/snakepit/"
	}
	u.Path, u.RawQuery = strings.TrimSuffix(u.Path, "/")+"/", ""
	return host{word, u.String(), &http.Client{}}, nil
}

func onSocket(file string) host {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", file)
	}}
	return host{file, "http://" + url.PathEscape(strings.TrimSuffix(filepath.Base(file), ".sock")) + "/",
		&http.Client{Transport: transport}}
}

// ask makes a request. The caller closes the body.
func (h host) ask(ctx context.Context, method, what string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, h.base+what, nil)
	if err != nil {
		return nil, err
	}
	response, err := h.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, runError{ctx.Err()}
		}
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return nil, runError{fmt.Errorf("%w answers at %s: %w", errNoHost, h.name, err)}
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))   // what could be read is enough
	isPage := response.Header.Get("Content-Security-Policy") != "" // as all answers of the page have
	if response.StatusCode == http.StatusNotFound && !isPage {
		return nil, runError{fmt.Errorf("%w offers a debug page at %s: 404\n"+
			"hint: name the URL where the program has mounted it", errNoHost, h.base)}
	}
	return nil, runError{hostError{fmt.Errorf("%s: %s", h.name, bytes.TrimSpace(text))}}
}

// get decodes the answer of a request.
func (h host) get(ctx context.Context, method, what string, v any) error {
	ctx, cancel := asked(ctx)
	defer cancel()
	body, err := h.ask(ctx, method, what)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(v); err != nil {
		return runError{hostError{fmt.Errorf("%s does not answer as a debug page: %w", h.base, err)}}
	}
	return nil
}

// measured returns the state, with the processor time that the workers use at the moment.
func (h host) measured(ctx context.Context) (s debugpage.State, err error) {
	if err = h.get(ctx, http.MethodGet, "state", &s); err != nil {
		return s, err
	}
	select {
	case <-time.After(600 * time.Millisecond): // the page measures at most twice a second
	case <-ctx.Done():
		return s, runError{ctx.Err()}
	}
	return s, h.get(ctx, http.MethodGet, "state", &s)
}

// watch passes each state on, as JSON, until the pool is closed, ctx is done, or f returns an error.
func (h host) watch(ctx context.Context, f func(state []byte) error) error {
	body, err := h.ask(ctx, http.MethodGet, "watch")
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReader(body)
	kind := ""
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case ctx.Err() != nil:
			return runError{ctx.Err()}
		case err != nil:
			return runError{hostError{fmt.Errorf("the connection to %s has ended: %w", h.name, err)}}
		}
		if name, found := bytes.CutPrefix(line, []byte("event: ")); found {
			kind = string(bytes.TrimSpace(name))
		}
		data, found := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case !found:
		case kind == "closed":
			return nil
		default:
			if err := f(bytes.TrimSpace(data)); err != nil {
				return err
			}
		}
	}
}
