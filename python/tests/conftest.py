"""Fixtures for tests with real worker processes."""

from __future__ import annotations

import os
import textwrap
from functools import partial
from importlib.util import find_spec
from typing import Any, Callable, Dict, Iterator, List, Sequence

import pytest
from host import ROOT, Host
from hypothesis import settings

# The tests are gRPC clients and fork. With grpcio's fork support, a child restarts its threads between fork and exec.
# That may abort it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# `make fuzz` takes the second one.
settings.register_profile("quick", deadline=None, max_examples=150)
settings.register_profile("fuzz", deadline=None, max_examples=2_000)
settings.load_profile("quick")

PROLOGUE = """\
from snakepit_bridge import *
worker = Worker({options})
"""


@pytest.fixture
def script(tmp_path: Any) -> Callable[..., Any]:
    """Writes a worker file, with an import and a worker before the given source, and returns its path."""

    def write(source: str, options: str = "", name: str = "worker.py") -> Any:
        path = tmp_path / name
        path.write_text(PROLOGUE.format(options=options) + textwrap.dedent(source))
        return path

    return write


@pytest.fixture
def launch() -> Iterator[Callable[..., Host]]:
    """Starts a worker file and ends it with the test."""
    hosts: List[Host] = []

    def start(path: Any, *args: Any, flags: Sequence[str] = (), **options: Any) -> Host:
        hosts.append(Host(*flags, ROOT / "__main__.py", path, *args, **options))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


@pytest.fixture
def serve(script: Callable[..., Any], launch: Callable[..., Host]) -> Callable[..., Host]:
    """Starts a worker of the given source and exchanges hellos with it. The keyword "hello" changes the host's."""

    def start(source: str, options: str = "", hello: Any = None, **launching: Any) -> Host:
        host = launch(script(source, options), **launching)
        host.greet(**(hello or {}))
        return host

    return start


EXECUTORS = {
    "leader": ("", ""),
    "reader": ("", "import snakepit_bridge._executors as e; e.Leader = e.ReaderAndMain\n"),
    "pool": ("concurrency=2", ""),
    "loop": ("", "@worker.command\nasync def asynchronous(): pass\n"),
    "loop and pool": ("concurrency=2", "@worker.command\nasync def asynchronous(): pass\n"),
}


@pytest.fixture(params=EXECUTORS)
def each_executor(request: Any, serve: Callable[..., Host]) -> Callable[..., Host]:
    """Like `serve`, once with each executor."""
    options, before = EXECUTORS[request.param]

    def start(source: str, **launching: Any) -> Host:
        host = serve(before + textwrap.dedent(source), options, **launching)
        host.executor = request.param  # type: ignore[attr-defined]
        return host

    return start


def transports() -> List[str]:
    """Returns the names of the transports that this interpreter has the packages for."""
    packages = {"jsonstdio": (), "msgpack": ("msgpack",), "grpc": ("grpc", "google.protobuf")}
    return [name for name, needed in packages.items() if all(map(find_spec, needed))]


@pytest.fixture(params=transports())
def each_transport(request: Any, serve: Callable[..., Host]) -> Callable[..., Host]:
    """Like `serve`, once with each transport."""
    return partial(serve, protocol=request.param)


@pytest.fixture(params=EXECUTORS)
def everywhere(request: Any, each_transport: Callable[..., Host]) -> Callable[..., Host]:
    """Like `serve`, once with each transport and each executor."""
    options, before = EXECUTORS[request.param]

    def start(source: str, **launching: Any) -> Host:
        return each_transport(before + textwrap.dedent(source), options, **launching)

    return start


@pytest.fixture
def environ(tmp_path_factory: Any) -> Dict[str, str]:
    """Returns the environment of a gRPC transport that listens on a socket."""
    # Not in tmp_path, whose name is too long for a socket on some systems.
    return {"SNAKEPIT_DIR": str(tmp_path_factory.mktemp("s")), "SNAKEPIT_HOST_TOKEN": "host's"}
