"""A Ray cluster of a head and two nodes on this machine. It ends when its standard input ends.

It prints the address of the dashboard. For each line of input, an id, it removes that node.
"""

import os
import socket
import sys
import warnings

warnings.simplefilter("ignore")
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Ray prints here

from ray.cluster_utils import Cluster  # noqa: E402

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
# By default Ray takes up to half a minute to notice that a node is gone. A busy machine may delay an answer.
notice = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 0, "include_dashboard": True, "dashboard_port": port, "_system_config": notice},
)
try:
    # Otherwise each node would unpack the files of a job anew in the directory where others run them.
    nodes = [cluster.add_node(num_cpus=4, runtime_env_dir_name=f"files-{n}") for n in range(2)]
    cluster.wait_for_nodes()
    print(f"http://127.0.0.1:{port}", file=answers, flush=True)
    for line in sys.stdin:
        for node in nodes:
            if node.node_id == line.strip():
                cluster.remove_node(node, allow_graceful=False)
        print("removed", file=answers, flush=True)
finally:
    cluster.shutdown()
