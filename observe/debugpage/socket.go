package debugpage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// Listen offers the page on a Unix socket until the pool is closed. Only this user may open it. With an empty path the
// socket is in Dir, where "snakepit top" and "snakepit ps" find it by themselves; its name has the pool's name and the
// process id. Otherwise the path must not exist. Listen returns at once.
func (p *Page) Listen(path string) error {
	l, err := p.listen(path)
	if err != nil {
		return fmt.Errorf("the debug page's socket: %w", err)
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // it ends with Close
	go func() {
		<-p.pool.Closed()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil { // viewers are told that the pool is closed, and leave
			_ = server.Close()
		}
	}()
	return nil
}

func (p *Page) listen(path string) (net.Listener, error) {
	if path != "" {
		return listenPrivately(path)
	}
	dir, err := core.MakeUserDir()
	if err != nil {
		return nil, err
	}
	name := regexp.MustCompile(`[^A-Za-z0-9._-]`).ReplaceAllString(p.pool.Name(), "_")
	name = name[:min(len(name), 40)] + "-" + strconv.Itoa(os.Getpid())
	for i := 1; ; i++ { // a program may have several pools of one name
		if i > 1 {
			path = filepath.Join(dir, fmt.Sprintf("%s-%d.sock", name, i))
		} else {
			path = filepath.Join(dir, name+".sock")
		}
		l, err := listenPrivately(path)
		if !errors.Is(err, fs.ErrExist) {
			return l, err
		}
		if removeStale(path) {
			i--
		}
	}
}

// listenPrivately makes a socket that only this user may open.
func listenPrivately(path string) (net.Listener, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close() // err is what counts
		return nil, err
	}
	return l, nil
}

// Sockets returns the sockets in core.UserDir at which a program of this user listens, by name. Those of killed
// programs are removed.
func Sockets() ([]string, error) {
	all, err := filepath.Glob(filepath.Join(core.UserDir(), "*.sock"))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, removeStale), nil
}

// removeStale removes a socket at which nobody listens, and reports whether it is gone.
func removeStale(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close() // it was opened for a look only
		return false
	}
	return isRefused(err) && os.Remove(path) == nil
}
