"""``python -m snakepit_bridge.serve worker.py`` starts workers on this machine for Go programs on other machines."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from queue import SimpleQueue
from typing import List, Sequence

from ._errors import Unavailable
from ._remedy import install
from .launch import keys
from .launch.command import (
    COMMAND,
    Failure,
    bracketed,
    check,
    count,
    end,
    need_port,
    need_ports,
    parse_listen,
    say,
    split,
    tell,
)

__all__ = ["main"]

PACKAGES = "'grpcio>=1.50' 'protobuf>=3.20.3' 'cryptography>=42'"

PORT = 7000
"""The port to listen on, unless --listen says another."""

_EXAMPLE = """\
example:
  snakepit certificates certs --host gpu-1
  python -m snakepit_bridge.serve worker.py --listen :7000 --workers 8 --certificates certs -- --model large

SIGTERM ends it: it grants no more workers. Those that run may go on for --grace seconds. A second signal ends them at
once. The exit code is 0 after a signal, 2 after wrong arguments, and 1 after any other failure.
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command until a signal ends it.

    Args:
        argv: The arguments without the program's name.

    Returns:
        The process's exit code.
    """
    parser = _parser()
    own, given = split(argv)
    options = parser.parse_args(own)
    _check(parser, options)
    try:
        return _serve(options, [options.worker, *given])
    except Failure as failure:
        tell(parser, failure)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=os.environ.pop(COMMAND, "python -m snakepit_bridge.serve"),
        usage="%(prog)s [options] worker.py [-- arguments of the worker]",
        description="Starts workers on this machine for Go programs on other machines.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("worker", help="the worker file; what follows -- are its arguments")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=f"127.0.0.1:{PORT}",
        help="where to listen; workers listen on the same address (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=os.cpu_count() or 1,
        help="how many workers may run at once (default: the processors, here %(default)s)",
    )
    parser.add_argument("--worker-ports", metavar="FIRST-LAST", default="", help="ports for workers (default: any)")
    keys.add_arguments(parser)
    parser.add_argument("--plaintext", action="store_true", help="no TLS; only on a loopback address")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=20.0,
        help="how long workers may go on after a signal (default: %(default)g)",
    )
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Checks the arguments, and sets ``host`` and ``port``. If one is wrong, the process ends with exit code 2."""
    options.host, options.port = parse_listen(parser, options.listen, PORT)
    check(parser, options)
    if options.worker_ports:
        ports = need_ports(parser, options.worker_ports)
        if ports < options.workers:
            parser.error(
                f"--worker-ports {options.worker_ports}: {ports} are too few for {options.workers} workers; name more, "
                "or set --workers"
            )
    keys.check(parser, options)


def _serve(options: argparse.Namespace, program: List[str]) -> int:
    if os.name != "posix":
        raise Failure("it needs Linux or another Unix", "")
    if not os.path.isfile(options.worker):
        raise Failure(f"{options.worker}: no such file (the working directory is {os.getcwd()})", "")
    own = None if options.plaintext else keys.read(options)
    # grpcio reads these when it is imported. It would print warnings about harmless things, and its fork support would
    # hinder the start of workers.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        import grpc

        from .launch.certificate import make_certificate
        from .launch.room import Room
        from .launch.service import Service

        if own is not None:
            make_certificate()
    except Unavailable as error:
        raise Failure(str(error), error.remedy) from None
    except ImportError as error:
        raise Failure(f"a package is missing: {error}", install(PACKAGES)) from error

    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signals.put(number))
    room = Room(program, options.workers, options.host, options.worker_ports)
    service = Service(room, options.workers, options.plaintext)
    credentials = None
    if own is not None:
        credentials = grpc.ssl_server_credentials([(own.key, own.certificate)], own.clients, True)
    shown = bracketed(options.host)
    need_port(options.host, options.port)
    port = service.start(f"{shown}:{options.port}", credentials)
    if not port:
        raise Failure(
            f"grpcio does not listen on {shown}:{options.port}", "set GRPC_VERBOSITY=debug to see what gRPC says"
        )
    say(f"serving {options.worker} at {shown}:{port}, {count(options.workers)}")
    signals.get()
    end(service, options.grace, signals)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # a worker that can't be killed must not keep this process
