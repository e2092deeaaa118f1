package main

import (
	"context"
	"time"

	"github.com/snakepit-go/snakepit/bench/peers/ray"
)

// needs are the modules of Python that a peer needs beside those of this library's development. The files
// peers/*/requirements.txt list the packages.
var needs = map[string]string{
	fastAPI:  "fastapi, httptools, uvicorn, uvloop",
	pyProc:   "pyproc_worker",
	goPlugin: "grpc_health",
	rayActor: allOfRay,
	rayServe: allOfRay,
	rayJob:   allOfRay,
	ofRayJob: allOfRay,
	onRay:    allOfRay,
	onRayJob: allOfRay,
}

const allOfRay = "ray.dashboard.head, ray.serve"

// actor measures calls of a Ray actor. Its driver is in Python and measures itself. Ray starts so many processes that
// one processor would show nothing of the call.
func actor(callers int, value func(ray.Result) float64) subject {
	return subject{name: rayActor, modes: []mode{free}, measure: func(b *bed, n scale) (sample, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		r, err := ray.Measure(ctx, b.python, callers, n.calls)
		return sample{value(r), unknown}, err
	}}
}
