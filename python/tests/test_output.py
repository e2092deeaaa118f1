"""What a program prints and logs reaches the host, and does not disturb the frames."""

import os
import signal
import subprocess
import sys

import pytest
from host import ROOT


def test_prints_do_not_disturb(each_mode):
    host = each_mode(
        """
        import ctypes, os, subprocess, sys
        print("at import")
        @worker.command
        def noise(n):
            print("printed", n)
            sys.stdout.write("no line end\\n")
            print("error", file=sys.stderr)
            os.write(1, b'{"kind":"end","id":1}\\n')
            subprocess.run(["sh", "-c", "echo from a grandchild; echo error of a grandchild >&2"])
            libc = ctypes.CDLL(None)
            libc.puts(b"from C")
            libc.fflush(None)
            return [sys.stdin.read(), n]
        """
    )
    for n in range(3):
        assert host.call("noise", n) == ["", n]
    assert host.bye() == 0
    assert sorted(host.printed) == sorted(
        ["at import", *(f"printed {n}" for n in range(3))]
        + 3 * ["no line end", "error", '{"kind":"end","id":1}', "from a grandchild", "error of a grandchild", "from C"]
    )


@pytest.mark.parametrize("stdout", [os.devnull, "file"])
def test_standard_output_may_be_a_file(script, tmp_path, stdout):
    (tmp_path / "silent.py").write_text(
        "from snakepit_bridge.transport import Transport\n"
        "class Silent(Transport):\n"
        "    def __init__(self, launch): pass\n"
        "    def read(self): return []\n"
        "    def write(self, frames): pass\n"
        "    def close(self): pass\n"
    )
    environ = {**os.environ, "SNAKEPIT_PROTOCOL": "silent:Silent"}
    with open(tmp_path / stdout, "wb") as file:
        command = [sys.executable, ROOT / "__main__.py", script("print('printed')")]
        ended = subprocess.run(command, env=environ, stdout=file, stderr=subprocess.PIPE, check=False)
    assert ended.stderr.decode() == "printed\n"


def test_lines_are_not_held_back(serve):
    host = serve("@worker.command\ndef wait(ctx):\n    print('now')\n    return list(ctx.input)\n")
    id = host.open("wait", flags=0)
    host.wait_line("now")
    host.send("end", id=id)
    host.answer(id)


@pytest.mark.parametrize("at_import", [True, False])
def test_log_records(each_mode, at_import):
    host = each_mode(
        ("import logging\n" if at_import else "")
        + """
@worker.command
def log(ctx):
    import logging
    log = logging.getLogger("app.model")
    log.info("loaded %s", "x", extra={"path": "/m", "n": 5})
    log.debug("not shown")
    log.warning("odd", extra={"thing": object()})
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    ctx.logger.critical("by ctx")
    log.info("bad %d", "arguments")
"""
    )
    id = host.open("log")
    host.answer(id)
    host.send("ping", id=1)
    host.wait_for("pong")
    record = host.logs("loaded x")
    assert record.pop("time") > 1.6e9
    assert record == {"level": "info", "logger": "app.model", "message": "loaded x", "fields": {"path": "/m", "n": 5}, "call": id}
    record = host.logs("odd")
    assert record["level"] == "warn"
    assert record["fields"]["thing"].startswith("<object object at")
    assert "ZeroDivisionError" in host.logs("failed")["fields"]["exception"]
    record = host.logs("by ctx")
    assert (record["level"], record["logger"]) == ("error", "log")
    assert not any(frame["kind"] == "log" for frame in host.others)
    host.bye()
    assert any("arguments" in line for line in host.printed)  # logging's own report of the bad call


def test_records_before_hello_and_the_level(script, launch):
    host = launch(
        script(
            """
            import logging
            logging.basicConfig(level=logging.DEBUG)
            logging.debug("early")
            @worker.command
            def f(): pass
            """
        )
    )
    host.greet()
    assert host.logs("early")["level"] == "debug"
    assert host.bye() == 0
    assert host.printed == []


def test_dropped_records_are_counted(serve):
    """The worker logs more than it keeps, while nobody reads what it writes."""
    host = serve(
        """
        import logging, os, threading
        @worker.command
        def flood(ctx):
            runner = ctx._runner
            with runner._writing:
                for n in range(5000): logging.getLogger().warning("n")
        """
    )
    host.call("flood")
    message = host.wait_for("log")["body"]["message"]
    seen = 1
    while message == "n":
        message = host.wait_for("log")["body"]["message"]
        seen += message == "n"
    assert message == f"{5000 - seen} log records were dropped"
    assert seen == 1000


def test_logging_from_a_signal_handler_and_a_finalizer(serve):
    host = serve(
        """
        import gc, logging, os, signal
        signal.signal(signal.SIGTERM, lambda *_: logging.warning("in a signal handler"))
        class Loop:
            def __init__(self): self.me = self
            def __del__(self): logging.warning("in a finalizer")
        @worker.command
        def churn(n):
            gc.set_threshold(5)
            for i in range(n):
                Loop()
                yield i
        """,
        hello={"window": {"items": 100000, "bytes": 10000000}},
    )
    id = host.open("churn", 2000)
    for _ in range(50):
        host.process.send_signal(signal.SIGTERM)
        host.wait_for("log")
    assert host.answer(id)["kind"] == "end"
    assert host.bye() == 0
