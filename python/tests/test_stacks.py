"""A worker shows the stacks of its threads, by a pong and by a signal."""

import json
import os
import subprocess
import sys
import threading

import pytest
from host import ROOT

from snakepit_bridge import _stacks

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has real-time signals and /proc")

SPIN = """
@worker.command
def spin(ctx):
    while not ctx.cancelled: pass
"""

HOLD = """
@worker.command
def hold():
    print("begun", flush=True)
    sum(range(10**12))  # holds the interpreter's lock
"""


def threads_of(text):
    """Returns the functions of each thread, by the thread's name. The innermost is the first."""
    threads = {}
    for part in text.rstrip("\n").split("\n\n"):
        head, *lines = part.split("\n")
        assert head.startswith("Thread 0x")
        assert head.endswith("(most recent call first):")
        name = head[head.index("[") + 1 : head.rindex("]")] if "[" in head else head
        threads[name] = [line.rpartition(" in ")[2] for line in lines]
    return threads


def test_a_pong_has_the_stacks_if_the_ping_asks_for_them(everywhere):
    host = everywhere(SPIN)
    id = host.open("spin")
    found = []
    while not found:  # the call may not have begun when the first ping comes
        host.send("ping", id=1, name="stacks")
        threads = threads_of(host.wait_for("pong", 1)["body"]["stacks"])
        found = [name for name, functions in threads.items() if "spin" in functions]
        assert next(iter(threads)) == "MainThread"
    assert found[0] == "MainThread" or found[0].startswith("snakepit-")
    host.send("ping", id=2)
    assert "stacks" not in host.wait_for("pong", 2)["body"]
    host.cancel(id)
    host.answer(id)


def test_a_pong_lists_the_oldest_calls_first_and_counts_the_rest(serve):
    host = serve(
        """
        import asyncio

        @worker.command
        async def wait(): await asyncio.sleep(1000)
        """,
        "concurrency=70",
        hello={"concurrency": 70},
    )
    ids = [host.open("wait") for _ in range(70)]
    body = {}
    while body.get("more") != 6:
        host.send("ping", id=1)
        body = host.wait_for("pong", 1)["body"]
    assert [call["id"] for call in body["running"]] == ids[:64]
    times = [call["ms"] for call in body["running"]]
    assert times == sorted(times, reverse=True)


def test_stacks_and_calls_fit_into_the_smallest_frame(serve):
    source = "".join(f"@worker.command('{'n' * 300}{n}')\ndef f{n}(ctx):\n while 1: ctx.check()\n" for n in range(9))
    host = serve(source, "concurrency=9", hello={"max_frame": 4096, "concurrency": 9})
    for n in range(9):
        host.open("n" * 300 + str(n))
    body = {}
    while body.get("more", 0) + len(body.get("running", ())) != 9:
        host.send("ping", id=1, name="stacks")
        body = host.wait_for("pong", 1)["body"]
    assert body["running"]
    assert body["more"]
    assert 500 < len(json.dumps(body)) < 4096 - 256


def test_text_of_odd_threads():
    source = f"def f{'x' * 600}(stop): stop.wait()\n"
    names = {}
    exec(compile(source, 'a\n"b"\ud800.py', "exec"), names)

    class Odd(threading.Thread):
        name = property(lambda self: 1 / 0, lambda self, value: None)

    def deep(n):
        return deep(n - 1) if n else stop.wait()

    stop = threading.Event()
    (odd,) = (function for name, function in names.items() if name.startswith("f"))
    threads = [
        threading.Thread(target=odd, args=(stop,), name="a\nb\ud800"),
        threading.Thread(target=deep, args=(200,), name="deep"),
        Odd(target=stop.wait),
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            text = _stacks.text(1 << 20)
            if text.count("line 1 in fxxx") and text.count(" in deep\n") > 90:
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    text.encode()
    assert '  File "a?"b"?.py", line 1 in fxxx' in text
    assert "x... (101 characters more)\n" in text
    assert " [a?b?] (most recent call first):\n" in text
    assert "\n  ...\n" in text
    for limit in (0, 50, 300, 1000):
        cut = _stacks.text(limit)
        assert len(json.dumps(cut)) <= max(limit, 2)


@linux
@pytest.mark.parametrize(
    "before",
    [
        "",
        "import faulthandler, sys; faulthandler.enable(sys.__stderr__); faulthandler.register(58, sys.__stderr__)",
        "import signal; signal.signal(58, lambda *_: None)",
        "import signal; signal.signal(58, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, {57})",
    ],
)
def test_a_signal_writes_the_stacks_to_a_file(serve, tmp_path, before):
    host = serve(before + HOLD, env={"SNAKEPIT_DIR": str(tmp_path)}, start_new_session=True)
    offered = host.hello["stacks"]
    assert offered["signal"] == (58 if not before else 56 if "BLOCK" in before else 57)
    path = tmp_path / f"stacks.{host.process.pid}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == ""
    host.open("hold")
    host.wait_line("begun")
    os.kill(host.process.pid, offered["signal"])
    text = ""
    while "in hold\n" not in text or not text.endswith("\n"):
        text = path.read_text()
    assert f"hread 0x{offered['main']:016x} " in text
    assert host.process.poll() is None


@linux
def test_children_do_not_take_part(serve, tmp_path):
    host = serve(
        """
        import os, subprocess

        @worker.command
        def child():
            return subprocess.check_output(["ls", "-l", "/proc/self/fd"], close_fds=False).decode()

        @worker.command
        def files():
            return subprocess.check_output(["ls", "-l", f"/proc/{os.getpid()}/fd"]).decode()
        """,
        env={"SNAKEPIT_DIR": str(tmp_path)},
        start_new_session=True,
    )
    assert host.call("files").count("/stacks.") == 1
    assert "stacks." not in host.call("child")


def test_without_a_directory_nothing_is_offered():
    assert _stacks.offer("") is None
    assert _stacks.offer("/no/such/directory") is None


@linux
def test_without_a_free_signal_nothing_is_offered(tmp_path):
    program = """
import signal, sys
from snakepit_bridge import _stacks
for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
    signal.signal(number, lambda *_: None)
print(_stacks.offer(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"None\n"
    assert list(tmp_path.iterdir()) == []
