"""The code of a user's own transport fails. The host finds the exception in the worker's output."""

import pytest
from host import Gone

TRANSPORT = """
import os
from snakepit_bridge._transport_jsonstdio import JsonStdio


class Broken(JsonStdio):
    reads = writes = 0

    def read(self):
        self.reads += 1
        if f"read {self.reads}" == os.environ["BROKEN"]:
            raise ERROR("the carrier pigeon is ill")
        return super().read()

    def write(self, frames):
        self.writes += 1
        if f"write {self.writes}" == os.environ["BROKEN"]:
            raise ERROR("the carrier pigeon is ill")
        super().write(frames)

    def fileno(self):
        return -1 if os.environ["POLLED"] == "no" else super().fileno()
"""
WORKER = """
from snakepit_bridge import Worker
worker = Worker()
@worker.command
def echo(value): return value
worker.run()
"""


@pytest.mark.parametrize("polled", ["yes", "no"])
@pytest.mark.parametrize("error", ["RuntimeError", "KeyError", "OSError", "__import__('ssl').SSLError"])
@pytest.mark.parametrize("broken", ["read 1", "read 2", "read 3", "write 2"])
def test_an_exception_of_the_transport_is_shown(launch, tmp_path, broken, error, polled):
    (tmp_path / "pigeon.py").write_text(TRANSPORT.replace("ERROR", error))
    (tmp_path / "worker.py").write_text(WORKER)
    host = launch(tmp_path / "worker.py", protocol="pigeon:Broken", env={"BROKEN": broken, "POLLED": polled})

    def use():
        host.greet()
        for _ in range(3):
            host.call("echo", {"value": 1})

    with pytest.raises((Gone, BrokenPipeError)):
        use()
    assert host.wait() != 0
    printed = "\n".join(host.printed)
    assert "the carrier pigeon is ill" in printed
    assert "pigeon.py" in printed  # where it was raised
