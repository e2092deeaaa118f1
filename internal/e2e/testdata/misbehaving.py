"""Commands that do what no worker should, each in its own way."""

import ctypes
import os
import sys
import time

from snakepit_bridge import Worker
from snakepit_bridge.transport import END, ITEM, LOG

worker = Worker()


def transport(ctx):
    return ctx._runner.transport


def put(ctx, *frames):
    """Writes frames that the runner knows nothing of."""
    with ctx._runner.outbox._writing:
        transport(ctx).write([dict(frame) for frame in frames])


def put_raw(ctx, data):
    """Writes bytes past the encoding of frames; for gRPC they are a whole message."""
    t = transport(ctx)
    with ctx._runner.outbox._writing:
        if type(t).__name__ == "JsonStdio":
            out = t._out
        elif type(t).__name__ == "MsgpackSocket":
            out = t._socket.fileno()
        else:
            t._send(data)
            return
        while data:
            data = data[os.write(out, data) :]


@worker.command
def echo(value):
    return value


@worker.command
def prints_without_end():
    sys.stdout.write("=" * (10 << 20))
    sys.stdout.flush()


@worker.command
def prints_long_lines():
    for _ in range(20):
        os.write(2, b"x" * 100_000 + b"\n")


@worker.command
def replaces_stdout():
    sys.stdout = None
    sys.stderr = object()
    os.close(1)


@worker.command
def logs_a_flood():
    import logging

    for i in range(20_000):
        logging.getLogger("flood").warning("record %d", i)


@worker.command
def logs_nonsense(ctx):
    bodies = [b"\xff\xfe", b"[" * 100_000, b'{"level":7,"message":{"a":1}}', b"\xdd\xff\xff\xff\xff", b""]
    put(ctx, *({"kind": LOG, "id": 0, "body": body} for body in bodies if b"\n" not in body))


@worker.command
def ends_twice(ctx):
    put(ctx, *2 * [{"kind": END, "id": ctx._call.id}])


@worker.command
def nests(ctx, json: bool):
    put(ctx, {"kind": END, "id": ctx._call.id, "body": b"[" * (8 << 20) if json else b"\x91" * (8 << 20)})


@worker.command
def claims_elements(ctx, json: bool):
    body = b'{"$array":{"dtype":"<f8","shape":[4000000000,4000000000],"data":""}}' if json else b"\xdd\xff\xff\xff\xff"
    put(ctx, {"kind": END, "id": ctx._call.id, "body": body})


@worker.command
def writes_garbage(ctx):
    put_raw(ctx, b"\xff\xfe\x00garbage\n" * 1000)
    time.sleep(60)


@worker.command
def cuts_a_frame_short(ctx):
    half = {"JsonStdio": b'{"kind":"end","i', "MsgpackSocket": b"\x00\x00\x01\x00\x82\xa4kind"}
    put_raw(ctx, half.get(type(transport(ctx)).__name__, b"\x0a\x7f\x08"))
    os._exit(9)


@worker.command
def claims_4_gib(ctx):
    put_raw(
        ctx, b"\xff\xff\xff\xff" if type(transport(ctx)).__name__ == "MsgpackSocket" else b"\x0a\xff\xff\xff\xff\x0f"
    )
    time.sleep(60)


@worker.command
def answers_what_never_was(ctx):
    put(ctx, {"kind": END, "id": 1_000_001})
    time.sleep(60)


@worker.command
def ignores_credit(ctx):
    for _ in range(100):
        put(
            ctx,
            *50
            * [
                {
                    "kind": ITEM,
                    "id": ctx._call.id,
                    "body": b"1" if type(transport(ctx)).__name__ == "JsonStdio" else b"\x01",
                }
            ],
        )
        yield 1


@worker.command
def exits_in_a_stream():
    yield from range(3)
    time.sleep(0.05)  # what was yielded may wait a moment for company
    os._exit(5)


@worker.command
def segfaults():
    ctypes.string_at(0)


@worker.command
def hangs_in_c():
    receive, _ = os.pipe()
    ctypes.PyDLL(None).read(receive, ctypes.create_string_buffer(1), 1)  # with the GIL, and no signal ends it


@worker.command
def leaves_a_grandchild():
    if os.fork() == 0:
        time.sleep(20)  # with every descriptor that it could inherit
        os._exit(0)
    os._exit(6)


@worker.command
def closes_descriptors():
    os.closerange(0, 64)


if __name__ == "__main__":
    worker.run()
