"""A Ray cluster of several nodes on this machine, for tests. Each line of standard input is a command.

The first line of its output is JSON: the address of the dashboard. Each command prints one line of JSON.
"""

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_DEDUP_LOGS="0")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Ray prints here

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.state import list_actors, list_jobs  # noqa: E402


def answer(value):
    print(json.dumps(value), file=answers, flush=True)


def main():
    # By default Ray takes up to half a minute to notice that a node is gone. A busy machine may delay an answer.
    notice = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": int(sys.argv[1]), "_system_config": notice}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        dashboard = "http://" + ray._private.worker.global_worker.node.address_info["webui_url"]
        answer({"dashboard": dashboard})
        for line in sys.stdin:
            what, _, rest = line.strip().partition(" ")
            if what == "add":
                name, resources = rest.split(" ", 1)
                # Otherwise each node would unpack the files of a job anew in the directory where others run them.
                nodes[name] = cluster.add_node(runtime_env_dir_name=f"files-{name}", **json.loads(resources))
                answer(nodes[name].node_id)
            elif what == "remove":
                cluster.remove_node(nodes.pop(rest), allow_graceful=False)
                answer("removed")
            elif what == "actors":
                known = list_actors(dashboard, limit=1000)
                answer(sum(actor.class_name == "Holder" and actor.state != "DEAD" for actor in known))
            elif what == "jobs":
                answer([job.status for job in list_jobs(dashboard) if job.type == "SUBMISSION"])
            elif what == "drivers":
                running = [job for job in list_jobs(dashboard) if job.type == "SUBMISSION" and job.status == "RUNNING"]
                answer([int(job.driver_info.pid) for job in running])
        ray.shutdown()
    finally:
        cluster.shutdown()


main()
