"""The worker of the lifecycle tests."""

import os
import subprocess
import sys

from snakepit_bridge import Worker

worker = Worker()
kept = []


@worker.command
def pid():
    return os.getpid()


@worker.command
def count(n: int):
    for _ in range(n):
        yield os.getpid()


@worker.command
def grow(mib: int):
    kept.append(b"x" * (mib << 20))


@worker.command
def spawn(mib: int):
    code = f"import time; kept = b'x' * ({mib} << 20); print(flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    return child.pid


@worker.command
def add(ctx, n: int):
    state = ctx.session.state
    state["sum"] = state.get("sum", 0) + n
    return state["sum"]


worker.run()
