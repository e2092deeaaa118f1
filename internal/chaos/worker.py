"""The worker of the chaos run. Each call notes in a file that it ran."""

import ctypes
import os
import resource
import tempfile
import time
from typing import Any, Dict, Iterator, List

from snakepit_bridge import Context, Worker

worker = Worker()
ledger = os.environ["CHAOS_LEDGER"]
kept: List[bytes] = []

if "CHAOS_ADDRESS_SPACE" in os.environ:
    limit = int(os.environ["CHAOS_ADDRESS_SPACE"])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def ran(id: str) -> None:
    """Notes that a call has begun. It opens the file each time: a fault may have closed all descriptors."""
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{id}\n".encode())
    finally:
        os.close(file)


@worker.command
def work(id: str, ms: float, size: int) -> Dict[str, Any]:
    ran(id)
    end = time.monotonic() + ms / 1000
    if ms > 20:
        time.sleep(ms / 1000)
    while time.monotonic() < end:
        pass
    return {"id": id, "data": b"x" * size}


@worker.command
def fails(id: str) -> None:
    ran(id)
    raise ValueError(id)


@worker.command
def items(id: str, n: int) -> Iterator[Dict[str, Any]]:
    ran(id)
    for i in range(n):
        yield {"id": id, "i": i}
    return id


@worker.command
def total(ctx: Context, id: str) -> Dict[str, Any]:
    ran(id)
    return {"id": id, "sum": sum(ctx.input)}


@worker.command
def asks(ctx: Context, id: str, deep: bool) -> Any:
    ran(id)
    return ctx.call("answer", {"id": id, "deep": deep})


@worker.command
def visit(ctx: Context, id: str, generation: str) -> Dict[str, Any]:
    ran(id)
    state = ctx.session.state
    seen = state.get("generation")
    state["generation"] = generation
    state["visits"] = state.get("visits", 0) + 1
    return {"id": id, "seen": seen, "visits": state["visits"]}


if os.environ.get("CHAOS_SNAPSHOTS"):

    @worker.on_snapshot
    def snapshot(session: Any) -> Dict[str, Any]:
        return dict(session.state)


@worker.command
def writes(id: str) -> Dict[str, Any]:
    ran(id)
    with tempfile.NamedTemporaryFile() as file:
        file.write(id.encode() * 1000)
        file.flush()
    return {"id": id}


@worker.command
def hogs(id: str) -> None:
    """Takes all the memory that it can get."""
    ran(id)
    while True:
        kept.append(b"x" * (16 << 20))


@worker.command
def prints(id: str) -> None:
    """Prints 20 MB, in lines."""
    ran(id)
    for _ in range(20):
        print((id + "." * 200 + "\n") * 5000, end="")


@worker.command
def exits(id: str) -> None:
    ran(id)
    os._exit(3)


@worker.command
def closes(id: str) -> None:
    """Closes all descriptors, also those of the bridge."""
    ran(id)
    os.closerange(0, 1024)
    time.sleep(600)


@worker.command
def holds(id: str) -> None:
    """Waits in C with the interpreter's lock."""
    ran(id)
    receive, _ = os.pipe()
    ctypes.PyDLL(None).read(receive, ctypes.create_string_buffer(1), 1)


if __name__ == "__main__":
    worker.run()
