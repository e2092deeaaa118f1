"""Calls a Ray actor and prints the measured times.

Usage: driver.py <directory for Ray's files> <calls in flight> <calls>
"""

import asyncio
import json
import statistics
import sys
import time

import ray

ARGS = {"operation": "add", "a": 5, "b": 3}


@ray.remote
class Echo:
    def call(self, args):
        return args


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


def run(actor, callers, calls):
    if callers == 1:
        return one_by_one(actor, calls)
    return asyncio.run(in_flight(actor, callers, calls))


def main(directory, callers, calls):
    # "local" starts a new Ray even if the environment names a running one.
    ray.init(
        "local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False, _temp_dir=directory
    )
    try:
        # An actor with max_concurrency > 1 is a threaded actor.
        actor = Echo.options(max_concurrency=callers).remote()
        run(actor, callers, max(500, callers * 5))
        start = time.perf_counter()
        times = run(actor, callers, calls)
        seconds = time.perf_counter() - start
        print(json.dumps({"p50_ns": round(statistics.median(times)), "per_second": calls / seconds}))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
