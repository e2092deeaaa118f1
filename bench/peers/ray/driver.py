"""Starts Ray on this machine and measures it. Each line of standard input is a command in JSON and gets a line of JSON.

Usage: driver.py <directory for Ray's files> <processors> [<port of the dashboard>]

Without a port there is no dashboard, so no jobs.
"""

import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Ray prints here
warnings.simplefilter("ignore")
logging.disable(logging.INFO)

import ray  # noqa: E402

ARGS = {"operation": "add", "a": 5, "b": 3}


@ray.remote
class Echo:
    def call(self, args):
        return args

    def count(self, n):
        yield from (i for i in range(n))  # Ray wants a generator, not any iterator


actors = {}


def actor(callers=1):
    """Returns an actor for so many calls at once. With max_concurrency > 1 it is a threaded actor."""
    if callers not in actors:
        actors[callers] = Echo.options(max_concurrency=callers).remote()
    return actors[callers]


def one_by_one(actor, calls):
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        result = ray.get(actor.call.remote(ARGS))
        times.append(time.perf_counter_ns() - start)
        assert result == ARGS, result
    return times


async def in_flight(actor, callers, calls):
    numbers = iter(range(calls))  # shared by the callers
    times = []

    async def caller():
        for _ in numbers:
            start = time.perf_counter_ns()
            result = await actor.call.remote(ARGS)
            times.append(time.perf_counter_ns() - start)
            assert result == ARGS, result

    await asyncio.gather(*(caller() for _ in range(callers)))
    return times


def run(callers, calls):
    if callers == 1:
        return one_by_one(actor(), calls)
    return asyncio.run(in_flight(actor(callers), callers, calls))


def measure_calls(callers, calls):
    run(callers, max(500, callers * 5))
    start = time.perf_counter()
    times = run(callers, calls)
    seconds = time.perf_counter() - start
    return {"p50_ns": round(statistics.median(times)), "per_second": calls / seconds}


def measure_items(items):
    """Receives a stream of small items, from a streaming generator."""
    ray.get(actor().call.remote(ARGS))
    start = time.perf_counter()
    got = 0
    for ref in actor().count.options(num_returns="streaming").remote(items):
        item = ray.get(ref)
        assert item == got, item
        got += 1
    seconds = time.perf_counter() - start
    assert got == items, got
    return {"per_second": items / seconds}


def measure_start(count):
    """Starts so many actors at once and waits until each has answered a call."""
    start = time.perf_counter()
    started = [Echo.options(num_cpus=0.01).remote() for _ in range(count)]
    ray.get([each.call.remote(ARGS) for each in started])
    seconds = time.perf_counter() - start
    for each in started:
        ray.kill(each)
    return {"seconds": seconds}


JOB = """
import json, sys, time
import ray
from echo import Echo

ray.init(log_to_driver=False)

def start(count):
    begin = time.perf_counter()
    started = [Echo.remote() for _ in range(count)]
    ray.get([each.call.remote("an answer") for each in started])
    seconds = time.perf_counter() - begin
    for each in started:
        ray.kill(each)
    return seconds

start(1)
print("an answer", flush=True)
print("took", json.dumps([start(count) for count in json.loads(sys.argv[1])]), flush=True)
"""
ACTOR = """
import ray

@ray.remote(num_cpus=0.01)
class Echo:
    def call(self, args):
        return args
"""


def measure_job(counts):
    """Submits a job with a directory of files and waits until its actor has answered a call.

    Then the job starts so many actors at once, for each count, and waits until each has answered a call.
    """
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient("http://" + ray._private.worker.global_worker.node.address_info["webui_url"])
    with tempfile.TemporaryDirectory() as directory:
        for name, text in {"job.py": JOB, "echo.py": ACTOR}.items():
            with open(os.path.join(directory, name), "w") as file:
                file.write(text)
        start = time.perf_counter()
        job = client.submit_job(
            entrypoint=f"python job.py '{json.dumps(counts)}'", runtime_env={"working_dir": directory}
        )
        while "an answer" not in client.get_job_logs(job):
            if client.get_job_status(job).is_terminal() and "an answer" not in client.get_job_logs(job):
                raise RuntimeError(client.get_job_logs(job))
            time.sleep(0.01)
        seconds = time.perf_counter() - start
    while not client.get_job_status(job).is_terminal():
        time.sleep(0.05)
    assert client.get_job_status(job) == "SUCCEEDED", client.get_job_logs(job)
    (took,) = [line[5:] for line in client.get_job_logs(job).splitlines() if line.startswith("took ")]
    return {"seconds": seconds, "took": json.loads(took)}


def serve(port):
    """Starts Ray Serve with a deployment of one replica."""
    from ray import serve
    from starlette.responses import StreamingResponse

    @serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
    class Deployment:
        async def __call__(self, request):
            if request.url.path == "/count":
                return StreamingResponse(self.count(int(request.query_params["n"])))
            return await request.json()

        async def count(self, n):
            for i in range(n):
                yield f"{i}\n"

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Deployment.bind())
    return {}


COMMANDS = {
    "calls": measure_calls,
    "items": measure_items,
    "start": measure_start,
    "job": measure_job,
    "serve": serve,
}


def main(directory, processors, port=None):
    dashboard = {"include_dashboard": port is not None}
    if port is not None:
        dashboard["dashboard_port"] = int(port)
    # "local" starts a new Ray even if the environment names a running one.
    ray.init(
        "local", num_cpus=int(processors), logging_level="ERROR", log_to_driver=False, _temp_dir=directory, **dashboard
    )
    try:
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = COMMANDS[command.pop("do")](**command)
            except Exception as exc:
                answer = {"error": f"{type(exc).__name__}: {exc}"}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
