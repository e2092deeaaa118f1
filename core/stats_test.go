package core_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/snakepit-go/snakepit/core"
)

// A health check may write Stats as JSON. Errors are text there.
func TestStatsAsJSON(t *testing.T) {
	stats := core.Stats{Ready: 1, Calls: 5, Workers: []core.WorkerStats{
		{
			State: core.StateReady, PID: 7, Adapter: "msgpack", Age: 1500 * time.Millisecond,
			Refused: []core.Refusal{{Adapter: "grpc", Err: errors.New("no grpcio")}},
		},
		{Index: 1, State: core.StateDead, Failures: 2, LastErr: errors.New("exit status 3")},
	}}
	const want = `{"ready":1,"running":0,"waiting":0,"sessions":0,"calls":5,"saturated":0,` +
		`"waited":0,"cancelled":0,"lost":0,"restarts":0,"replaced":0,"start_fails":0,"terminated":0,` +
		`"snapshot_bytes":0,"workers":[` +
		`{"index":0,"state":"ready","pid":7,"adapter":"msgpack",` +
		`"refused":[{"adapter":"grpc","error":"no grpcio"}],"running":0,"calls":0,"sessions":0,"age_seconds":1.5},` +
		`{"index":1,"state":"dead","running":0,"calls":0,"sessions":0,"failures":2,"age_seconds":0,` +
		`"last_error":"exit status 3"}],"wait_seconds":0,"oldest_wait_seconds":0}`
	if got, err := json.Marshal(stats); err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
