package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// httpSidecar is a client of ways/http_sidecar.py, over persistent connections.
type httpSidecar struct {
	*sidecar
	client http.Client
}

func startHTTP(python string) (way, error) {
	s, err := startSidecar(python, "http_sidecar.py")
	if err != nil {
		return nil, err
	}
	return &httpSidecar{sidecar: s, client: http.Client{Transport: &http.Transport{}}}, nil
}

func (h *httpSidecar) call(ctx context.Context, function string, args map[string]any) (result any, err error) {
	body, err := h.post(ctx, function, args)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	// Read to the end. Otherwise the connection is not used again.
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(text, &result)
	return result, err
}

func (h *httpSidecar) stream(ctx context.Context, function string, args map[string]any, each func(any)) error {
	body, err := h.post(ctx, function, args)
	if err != nil {
		return err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var item any
		switch err := d.Decode(&item); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		each(item)
	}
}

func (h *httpSidecar) post(ctx context.Context, function string, args map[string]any) (io.ReadCloser, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/%s", h.port, function)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := h.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		return nil, errors.Join(fmt.Errorf("%s: %s", response.Status, text), err)
	}
	return response.Body, nil
}

func (h *httpSidecar) close() error {
	h.client.CloseIdleConnections()
	return h.sidecar.close()
}
