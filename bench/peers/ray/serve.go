package ray

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Serve is a deployment of Ray Serve and an HTTP client of it. Any number of goroutines may use it at once.
type Serve struct {
	address   string
	client    http.Client
	transport *http.Transport
	cluster   *Cluster
}

// connections is the limit of connections to Ray Serve. More callers wait for a free one.
const connections = 128

// Serve starts Ray Serve with a deployment of one replica on a Ray that runs. Closing the Ray ends it.
func (c *Cluster) Serve() (*Serve, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := c.ask(&struct{}{}, map[string]any{"do": "serve", "port": json.Number(port)}); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: 4 * time.Second,
	}
	return &Serve{"http://127.0.0.1:" + port, http.Client{Transport: transport}, transport, c}, nil
}

// Call posts a map as JSON and returns the map that came back.
func (s *Serve) Call(ctx context.Context, args map[string]any) (result map[string]any, err error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	err = s.do(ctx, http.MethodPost, "/", body, func(response io.Reader) error {
		text, err := io.ReadAll(response) // to the end: otherwise the connection is not used again
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &result)
	})
	return result, err
}

// Stream receives n small items, each in a line.
func (s *Serve) Stream(ctx context.Context, n int) error {
	return s.do(ctx, http.MethodGet, fmt.Sprintf("/count?n=%d", n), nil, func(response io.Reader) error {
		lines := bufio.NewScanner(response)
		for got := 0; ; got++ {
			if !lines.Scan() {
				if err := lines.Err(); err != nil || got == n {
					return err
				}
				return fmt.Errorf("ray serve: %d items instead of %d", got, n)
			}
			var item int
			if err := json.Unmarshal(lines.Bytes(), &item); err != nil {
				return fmt.Errorf("ray serve: item %d is %q: %w", got, lines.Text(), err)
			}
			if item != got {
				return fmt.Errorf("ray serve: item %d is %d", got, item)
			}
		}
	})
}

func (s *Serve) do(ctx context.Context, method, path string, body []byte, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, method, s.address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("ray serve: %s: %s", response.Status, text)
	}
	return read(response.Body)
}

// PIDs lists the driver of the Ray.
func (s *Serve) PIDs() []int { return s.cluster.PIDs() }

// Close closes the client's connections.
func (s *Serve) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}
