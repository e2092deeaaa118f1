package core

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// launchVars are the variables that a host sets for its workers, as docs/protocol.md lists them. A host that is itself
// a worker, or a worker's child, must not pass on its own values.
var launchVars = []string{
	"SNAKEPIT_PROTOCOL", "SNAKEPIT_RUN_ID", "SNAKEPIT_WORKER_INDEX", "SNAKEPIT_CONN_FD", "SNAKEPIT_CONTROL_FD",
	"SNAKEPIT_LIFELINE_FD", "SNAKEPIT_DIR", "SNAKEPIT_MAX_FRAME", "SNAKEPIT_HOST_TOKEN", "SNAKEPIT_WORKER_TOKEN",
	"SNAKEPIT_FORK_SERVER", "SNAKEPIT_GRPC_PORTS", "SNAKEPIT_GRPC_TLS", "SNAKEPIT_GRPC_CLIENT_TOKEN", "SNAKEPIT_CACHE",
	"SNAKEPIT_GRPC_HOST", "SNAKEPIT_NODE",
}

// mergeEnv joins lists of "KEY=value". A later entry replaces an earlier one with the same key.
func mergeEnv(lists ...[]string) []string {
	var env []string
	at := map[string]int{}
	for _, e := range slices.Concat(lists...) {
		name, _, ok := strings.Cut(e, "=")
		if i, seen := at[name]; seen && ok {
			env[i] = e
			continue
		}
		at[name] = len(env)
		env = append(env, e)
	}
	return env
}

// threadVars are the environment variables that set the thread count of numeric libraries.
var threadVars = []string{
	"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
	"NUMEXPR_NUM_THREADS",
}

// threadEnv returns variables that share the processors among size workers: otherwise N workers would start N times as
// many threads as there are processors. It returns nil if env has any of threadVars, because a library that reads
// several of them could prefer ours, and for a size of 0.
func threadEnv(env []string, size int) []string {
	if size == 0 {
		return nil
	}
	n := strconv.Itoa(max(1, runtime.GOMAXPROCS(0)/size))
	var vars []string
	for _, name := range threadVars {
		if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			return nil
		}
		vars = append(vars, name+"="+n)
	}
	return vars
}
