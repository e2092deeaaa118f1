package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// jobs is a client of Ray's Jobs API; see
// https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html.
type jobs struct {
	dashboard string // without a slash at the end
	client    *http.Client
	header    http.Header
}

// submission is the request that submits a job.
type submission struct {
	Entrypoint   string            `json:"entrypoint"`
	SubmissionID string            `json:"submission_id"`
	RuntimeEnv   map[string]any    `json:"runtime_env"`
	Metadata     map[string]string `json:"metadata"`
}

// jobStatus is what Ray says of a job.
type jobStatus struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// over reports whether the job has ended.
func (s jobStatus) over() bool {
	return slices.Contains([]string{"STOPPED", "SUCCEEDED", "FAILED"}, s.Status)
}

// version returns Ray's version.
func (j *jobs) version(ctx context.Context) (string, error) {
	var about struct {
		Version string `json:"ray_version"`
	}
	if err := j.call(ctx, http.MethodGet, "/api/version", nil, &about); err != nil {
		return "", err
	}
	if about.Version == "" {
		return "", j.noDashboard("its answer has no ray_version")
	}
	return about.Version, nil
}

// upload stores an archive on the cluster, unless it is there, and returns its URI.
func (j *jobs) upload(ctx context.Context, archive []byte) (string, error) {
	sum := sha256.Sum256(archive)
	name := "_ray_pkg_" + hex.EncodeToString(sum[:8]) + ".zip"
	path := "/api/packages/gcs/" + name
	response, err := j.send(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return "", err
	}
	_ = response.Body.Close() // only its status counts
	if response.StatusCode != http.StatusOK {
		if response, err = j.send(ctx, http.MethodPut, path, archive, "application/octet-stream"); err != nil {
			return "", err
		}
		if err := j.read(response, "uploading the program", nil); err != nil {
			return "", err
		}
	}
	return "gcs://" + name, nil
}

// noAgent is in the answer of a dashboard that cannot submit a job yet: the part of Ray that runs jobs is starting.
const noAgent = "No available agent"

// submit submits a job. It waits until the cluster can run jobs.
func (j *jobs) submit(ctx context.Context, s submission) error {
	var refusal error // the last one
	for {
		err := j.call(ctx, http.MethodPost, "/api/jobs/", s, nil)
		switch {
		case err != nil && ctx.Err() != nil && refusal != nil:
			return overdue(ctx, "look at the cluster in Ray's dashboard, "+j.dashboard, refusal.Error())
		case err == nil || !strings.Contains(err.Error(), noAgent):
			return err
		}
		refusal = err
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done(): // the next request fails
		}
	}
}

func (j *jobs) status(ctx context.Context, id string) (s jobStatus, err error) {
	err = j.call(ctx, http.MethodGet, "/api/jobs/"+id, nil, &s)
	s.Status, s.Message = plain(s.Status), plain(s.Message)
	return s, err
}

// logs returns what the job has printed.
func (j *jobs) logs(ctx context.Context, id string) (string, error) {
	var answer struct {
		Logs string `json:"logs"`
	}
	err := j.call(ctx, http.MethodGet, "/api/jobs/"+id+"/logs", nil, &answer)
	return answer.Logs, err
}

func (j *jobs) stop(ctx context.Context, id string) error {
	return j.call(ctx, http.MethodPost, "/api/jobs/"+id+"/stop", nil, nil)
}

// call sends a request with a JSON body, and decodes the answer.
func (j *jobs) call(ctx context.Context, method, path string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("ray: %w", err)
		}
	}
	response, err := j.send(ctx, method, path, text, "application/json")
	if err != nil {
		return err
	}
	return j.read(response, method+" "+path, answer)
}

func (j *jobs) send(ctx context.Context, method, path string, body []byte, kind string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, j.dashboard+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ray: %w", err)
	}
	for name, values := range j.header {
		request.Header[name] = values
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", kind)
	}
	client := j.client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, overdue(ctx, "see whether Ray runs, and whether a firewall drops what is sent to that port",
				fmt.Sprintf("the dashboard of Ray at %s does not answer", j.dashboard))
		}
		return nil, &core.UnavailableError{
			Reason: fmt.Sprintf("the dashboard of Ray at %s does not answer: %v", j.dashboard, err),
			Remedy: "start Ray there (ray start --head --dashboard-host 0.0.0.0), or correct Dashboard; " +
				"a firewall has to let its port pass",
		}
	}
	return response, nil
}

// maxAnswer bounds an answer of the dashboard. The largest one is a job's log.
const maxAnswer = 16 << 20

// read decodes an answer, and closes it.
func (j *jobs) read(response *http.Response, what string, answer any) error {
	defer func() { _ = response.Body.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	isPage := strings.HasPrefix(response.Header.Get("Content-Type"), "text/html")
	switch {
	case err != nil:
		return fmt.Errorf("ray: %s: %w", what, err)
	case response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden:
		return &core.RemedyError{
			Err:    fmt.Errorf("the dashboard of Ray at %s refuses this program: %s", j.dashboard, response.Status),
			Remedy: `set Header to what the cluster demands, such as "Authorization: Bearer TOKEN"`,
		}
	case response.StatusCode == http.StatusNotFound && isPage: // Ray's own are plain text
		return j.noDashboard("%s: %s", what, response.Status)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("ray: %s: %s: %.500s", what, response.Status,
			plain(strings.TrimSpace(string(text))))
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return j.noDashboard("%s: %.100q", what, text)
	}
	return nil
}

func (j *jobs) noDashboard(format string, args ...any) error {
	return &core.RemedyError{
		Err:    fmt.Errorf("what listens at %s is no dashboard of Ray: %s", j.dashboard, fmt.Sprintf(format, args...)),
		Remedy: "correct Dashboard",
	}
}
