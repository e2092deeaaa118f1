package main

import "github.com/spf13/cobra"

const aboutRay = `Ray starts workers on the nodes of a Ray cluster for Go programs elsewhere, which use the adapter
remote.Adapter. Run it on a node of the cluster. Ray places each worker by what it needs. The worker
file and the package snakepit_bridge have to be on each node, at the same paths.

It is for programs that can't submit a job. The adapter remote.Ray needs no such command: it submits
one itself. What follows -- are arguments of the worker.

It is the Python module snakepit_bridge.ray, which needs ray, grpcio, protobuf and cryptography.

Exit codes:
  0    a signal has ended it
  1    it can't serve
  2    wrong usage`

func rayCommand() *cobra.Command {
	b := back{name: "ray", module: "snakepit_bridge.ray"}
	cmd := &cobra.Command{
		Use: "ray WORKER [-- ARGUMENT...]", Short: "Start workers on a Ray cluster, from one of its nodes",
		Long: aboutRay, Args: words("WORKER"),
		Example: `  snakepit ray worker.py --num-gpus 1 --listen :7000 --certificates certs
  snakepit ray worker.py --resources '{"TPU": 1}' --plaintext -- --model large`,
	}
	f := cmd.Flags()
	f.String("listen", "", "where to listen, HOST:PORT (default: this node's address and any port)")
	f.Int("workers", 1000, "how many workers may run at once, if the cluster has room")
	f.String("worker-ports", "", "ports for the workers of each node, FIRST-LAST (default: any)")
	f.Float64("num-cpus", 1, "processors that each worker needs")
	f.Float64("num-gpus", 0, "GPUs that each worker needs")
	f.Int64("memory", 0, "bytes of memory that each worker needs")
	f.String("resources", "", "more of Ray's resources that each worker needs, as JSON")
	f.String("labels", "", "labels of the nodes that workers may run on, as JSON")
	f.String("strategy", "DEFAULT", "SPREAD prefers the node with the fewest workers")
	f.String("certificates", "", `directory of "snakepit certificates"`)
	f.String("certificate", "", "file of the certificate to show, in PEM, instead of --certificates")
	f.String("key", "", "file of its private key")
	f.String("clients", "", "file of the certificates of programs that may connect, or of their authorities")
	f.Bool("plaintext", false, "no TLS; only on a loopback address, for a cluster of one machine")
	f.Float64("grace", 20, "seconds that workers may go on after a signal")
	b.register(cmd)
	return cmd
}
