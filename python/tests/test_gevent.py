"""Programs that replace threads, locks and sockets of the standard library in place, as gevent and eventlet do."""

from importlib.util import find_spec

import pytest

LIBRARIES = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\n",
    # Its functions fail if the bridge or gRPC calls them. These have to keep the original functions.
    "stand-in": """
import _thread, os, queue, select, socket, sys, threading, time
STDLIB = os.path.dirname(os.__file__) + os.sep
def green(name, original):
    def call(*args, **kwargs):
        frame = sys._getframe(1)
        while frame.f_code.co_filename.startswith(STDLIB) and "site-packages" not in frame.f_code.co_filename:
            frame = frame.f_back
        place = frame.f_code.co_filename
        if "snakepit_bridge" in place or os.sep + "grpc" + os.sep in place:
            raise AssertionError(f"{place} calls the green {name}")
        return original(*args, **kwargs)
    return call
locks = ("Lock", "RLock", "_CRLock", "_allocate_lock", "_start_new_thread", "_start_joinable_thread")
for module, names in {
    _thread: ("start_new_thread", "start_joinable_thread", "allocate_lock", "RLock"),
    threading: locks,
    select: ("poll",),
    queue: ("SimpleQueue", "Queue"),
    socket: ("socketpair", "create_connection"),
    time: ("sleep",),
}.items():
    for name in names:
        if hasattr(module, name): setattr(module, name, green(f"{module.__name__}.{name}", getattr(module, name)))
""",
}

PROGRAM = """
import logging
@worker.command
def echo(x): return x

@worker.command
def count(n):
    yield from range(n)

@worker.command
def ask(ctx): return ctx.call("f", 5)

@worker.command
def total(ctx): return sum(ctx.input)

@worker.command
def log():
    logging.info("an info")
    logging.error("an error")

@worker.command
def spin():
    while True: pass
"""

GREEN = """
import socket, threading, time
@worker.command
def together():
    listener = socket.create_server(("127.0.0.1", 0))
    received = []
    def serve():
        connection, _ = listener.accept()
        received.append(connection.recv(10).decode())
        connection.close()
    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(listener.getsockname()) as client:
        time.sleep(0.001)
        client.sendall(b"abc")
        thread.join()
    listener.close()
    return received
"""

ASYNC = (
    "\nimport asyncio\n@worker.command\nasync def asynchronous():\n    await asyncio.sleep(0.001)\n    return 'done'\n"
)


def needed(library):
    return pytest.mark.skipif(
        library != "stand-in" and not find_spec(library), reason=f"{library} is not installed here"
    )


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("library", [pytest.param(name, marks=needed(name)) for name in LIBRARIES])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_program_with_green_threads(each_transport, library, concurrency, kind):
    if library == "stand-in" and kind == "async":
        pytest.skip("asyncio is meant to use what the program has put there")
    source = (
        LIBRARIES[library] + PROGRAM + (GREEN if library != "stand-in" else "") + (ASYNC if kind == "async" else "")
    )
    host = each_transport(source, f"concurrency={concurrency}")
    assert [host.call("echo", n) for n in range(20)] == list(range(20))
    ids = [host.open("echo", n) for n in range(concurrency)]
    assert [host.answer(id)["body"] for id in ids] == list(range(concurrency))
    id = host.open("count", 20)
    assert [host.wait_for("item", id)["body"] for _ in range(20)] == list(range(20))
    assert host.answer(id)["kind"] == "end"
    id = host.open("ask")
    asked = host.wait_for("call")
    host.send("end", 7, id=asked["id"])
    assert host.answer(id)["body"] == 7
    id = host.open("total", flags=0)
    for n in range(5):
        host.send("item", n, id=id)
    host.send("end", id=id)
    assert host.answer(id)["body"] == 10
    host.call("log")
    assert host.logs("an info")
    assert host.logs("an error")
    if library != "stand-in":
        assert host.call("together") == ["abc"]
    if kind == "async":
        assert host.call("asynchronous") == "done"
    id = host.open("spin")
    host.send("ping", id=1)
    while not any(call["name"] == "spin" for call in host.wait_for("pong")["body"]["running"]):
        host.send("ping", id=1)
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.bye() == 0
