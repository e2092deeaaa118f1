"""``python -m snakepit_bridge.ray worker.py`` starts workers in a Ray cluster for Go programs elsewhere."""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import ssl
import sys
import threading
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Any, Dict, List, NoReturn, Sequence

from ._errors import Unavailable
from ._remedy import install
from .launch import keys
from .launch.command import (
    CLOSE_SECONDS,
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

PACKAGES = "'ray[default]>=2.49' 'grpcio>=1.50' 'protobuf>=3.20.3' 'cryptography>=42'"

CLIENTS = "SNAKEPIT_LAUNCH_CLIENTS"
"""The variable with the certificates that --clients may have instead."""

WORKERS = 1000
"""How many workers there may be at once, unless --workers says another number. The cluster's room is the real limit."""

HOLD_SECONDS = 60.0
"""How long a back end for one host waits for it."""

CONNECT_SECONDS = 10.0
"""How long the cluster may take to accept a connection."""

RELEASED, LATE = -1, -2
"""What ends the command beside the numbers of signals: its host is gone; its host has not come."""

_EXAMPLE = """\
example, on a node of the cluster whose nodes all have this package, the worker file and its packages:
  python -m snakepit_bridge.ray worker.py --num-gpus 1 --listen :7000 --certificates certs -- --model large

SIGTERM ends it: it grants no more workers. Those that run may go on for --grace seconds. A second signal ends them at
once. The exit code is 0 after a signal or the end of the one host, 2 after wrong arguments, and 1 after any other
failure.
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command until a signal ends it, or the end of its one host.

    Args:
        argv: The arguments without the program's name.

    Returns:
        The process's exit code.
    """
    own, given = split(argv)
    parser = _parser()
    parser.announce = next((after for option, after in zip(own, own[1:]) if option == "--announce"), "")
    options = parser.parse_args(own)
    _check(parser, options)
    try:
        return _serve(options, [options.worker, *given])
    except Failure as failure:
        tell(parser, failure)
        text, hint = failure.args
        _announce(options.announce, error=text, remedy=hint)
        return 1
    except Exception as error:
        _announce(options.announce, error=f"{type(error).__name__}: {_line(error)}", remedy="")
        raise


class _Parser(argparse.ArgumentParser):
    """A parser that announces wrong arguments, too."""

    announce = ""

    def error(self, message: str) -> NoReturn:
        _announce(self.announce, error=message, remedy="")
        super().error(message)


def _parser() -> _Parser:
    parser = _Parser(
        prog=os.environ.pop(COMMAND, "python -m snakepit_bridge.ray"),
        usage="%(prog)s [options] worker.py [-- arguments of the worker]",
        description="Starts workers on the nodes of a Ray cluster for Go programs elsewhere. Run it on a node.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("worker", help="the worker file, on each node; what follows -- are its arguments")
    room = parser.add_argument_group("what Ray reserves for each worker")
    room.add_argument("--num-cpus", metavar="X", type=float, default=1.0, help="processors (default: 1)")
    room.add_argument("--num-gpus", metavar="X", type=float, default=0.0, help="GPUs (default: 0)")
    room.add_argument("--memory", metavar="BYTES", type=int, default=0, help="memory (default: none)")
    room.add_argument(
        "--resources", metavar="JSON", default="{}", help="more of Ray's resources, such as '{\"TPU\": 1}'"
    )
    room.add_argument("--labels", metavar="JSON", default="{}", help='labels of its node, such as \'{"zone": "a"}\'')
    room.add_argument(
        "--strategy",
        choices=["DEFAULT", "SPREAD"],
        default="DEFAULT",
        help="SPREAD prefers the node with the fewest workers of this command",
    )
    add(
        "--workers",
        metavar="N",
        type=int,
        default=WORKERS,
        help="how many workers may run at once (default: %(default)s, if the cluster has room)",
    )
    add("--worker-ports", metavar="FIRST-LAST", default="", help="ports for the workers of each node (default: any)")
    add("--listen", metavar="HOST:PORT", help="where to listen (default: this node's address and any port)")
    add(
        "--clients",
        metavar="PEM",
        help="certificates of the programs that may connect, or of their authorities, or a file that has them "
        f"(default: the variable {CLIENTS})",
    )
    add(
        "--certificates",
        metavar="DIR",
        help="directory of `snakepit certificates`, for one that stays the same",
    )
    add("--certificate", metavar="FILE", help="the certificate to show, in PEM (default: a new one)")
    add("--key", metavar="FILE", help="its private key, in PEM")
    add("--plaintext", action="store_true", help="no TLS; only on a loopback address, for a cluster of one machine")
    add(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=20.0,
        help="how long workers may go on after a signal (default: %(default)g)",
    )
    add("--for-one-host", action="store_true", help="serve one host, and end with it")
    add(
        "--announce",
        metavar="TOKEN",
        default="",
        help="print the line 'snakepit-backend TOKEN JSON' when ready, with the endpoint and the certificate, "
        "or with the error",
    )
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Checks the arguments, and sets ``host``, ``port`` and ``need``. The host "" is this node's.

    If an argument is wrong, the process ends with exit code 2.
    """
    options.host, options.port = "127.0.0.1" if options.plaintext else "", 0
    if options.listen is not None:
        options.host, options.port = parse_listen(parser, options.listen, 0)
    check(parser, options)
    if options.worker_ports:
        need_ports(parser, options.worker_ports)
    amounts = {"CPU": options.num_cpus, "GPU": options.num_gpus, "memory": options.memory}
    for option, amount in zip(("--num-cpus", "--num-gpus", "--memory"), amounts.values()):
        if not 0 <= amount < float("inf"):
            parser.error(f"{option} {amount:g}: it must not be negative")
    if options.num_gpus > 1 and options.num_gpus % 1:
        parser.error(f"--num-gpus {options.num_gpus:g}: more than one must be a whole number")
    for name, amount in _object(parser, "--resources", options.resources).items():
        if name in amounts:
            parser.error(f"--resources: {name} has an option of its own")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < float("inf"):
            parser.error(f"--resources: the amount of {name} must be a number that is not negative")
        amounts[name] = amount
    options.need = {name: float(amount) for name, amount in amounts.items() if amount}
    if not options.need:
        parser.error("a worker must need something: --num-cpus, --num-gpus, --memory or --resources")
    options.labels = _object(parser, "--labels", options.labels)
    if not all(isinstance(value, str) for value in options.labels.values()):
        parser.error("--labels: the values must be strings")
    if options.certificates or options.certificate or options.key:
        keys.check(parser, options)
    elif options.clients is None:
        options.clients = os.environ.get(CLIENTS, "")
    if not options.plaintext and not options.clients:
        parser.error(
            f"--clients or the variable {CLIENTS} is required. On a loopback address --plaintext turns TLS off"
        )


def _object(parser: argparse.ArgumentParser, option: str, text: str) -> Dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        parser.error(f"{option}: it is no JSON: {error}")
    if not isinstance(value, dict):
        parser.error(f"{option}: it must be an object of JSON")
    return value


def _serve(options: argparse.Namespace, program: List[str]) -> int:
    if os.name != "posix":
        raise Failure("it needs Linux or another Unix", "")
    if not os.path.isfile(options.worker):
        raise Failure(f"{options.worker}: no such file (the working directory is {os.getcwd()})", "")
    own = keys.read(options) if options.certificate else None
    clients = b"" if options.plaintext or own is not None else _read_clients(options.clients)
    # grpcio reads these when it is imported. It would print warnings about harmless things.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        import grpc
        import ray

        from .launch.certificate import make_certificate
        from .launch.cluster import Cluster, Need
        from .launch.service import Service

        made = None if options.plaintext else make_certificate()  # also tells whether its package is there
    except Unavailable as error:
        raise Failure(str(error), error.remedy) from None
    except ImportError as error:
        raise Failure(f"a package is missing: {error}", install(PACKAGES)) from error
    _connect(ray)
    try:
        if not ray.get_runtime_context().runtime_env.get("working_dir"):
            program[0] = os.path.abspath(
                program[0]
            )  # otherwise it is in the copy of the working directory on each node
        need = Need(options.need, options.labels, options.strategy == "SPREAD")
        address = options.host if options.plaintext else ""
        cluster = Cluster(program, options.workers, need, address, options.worker_ports)
        ends: SimpleQueue[int] = SimpleQueue()  # signals, RELEASED and LATE
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray has set handlers of its own
            signal.signal(number, lambda number, frame: ends.put(number))
        held = threading.Event()

        def hold(began: bool) -> None:
            if began:
                held.set()
            elif options.for_one_host:
                ends.put(RELEASED)

        service = Service(cluster, options.workers, options.plaintext, hold)
        credentials = None
        if own is None and made is not None:
            own = keys.Keys(made.key.encode(), made.pem.encode(), clients)
        if own is not None:
            credentials = grpc.ssl_server_credentials([(own.key, own.certificate)], own.clients, True)
        node = ray.util.get_node_ip_address()
        host = options.host or node
        need_port(host, options.port)
        port = service.start(f"{bracketed(host)}:{options.port}", credentials)
        if not port:
            raise Failure(
                f"grpcio does not listen on {bracketed(host)}:{options.port}",
                "set GRPC_VERBOSITY=debug to see what gRPC says",
            )
        endpoint = f"{bracketed(node if ip_address(host.partition('%')[0]).is_unspecified else host)}:{port}"
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(_first(own.certificate))).decode() if own is not None else ""
        _announce(options.announce, endpoint=endpoint, certificate=der)
        say(f"serving {options.worker} at {endpoint}, {count(options.workers)} at most")
        if options.for_one_host:
            late = threading.Timer(HOLD_SECONDS, lambda: None if held.is_set() else ends.put(LATE))
            late.daemon = True
            late.start()
        what = ends.get()
        if what >= 0:
            end(service, options.grace, ends)
        else:
            service.close(CLOSE_SECONDS)
        if what == LATE:
            raise Failure(f"no host has come within {HOLD_SECONDS:g} s", "")
        return 0
    finally:
        ray.shutdown()


def _connect(ray: Any) -> None:
    """Connects to the cluster of this node."""
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        raise Failure(
            f"RAY_ADDRESS is {address}, and this command has to run in the cluster",
            "run it on a node without RAY_ADDRESS, or by `ray job submit`",
        )
    host, _, port = address.rpartition(":")
    if port.isdigit():  # Ray would try for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise Failure(
                f"no Ray cluster answers at RAY_ADDRESS, {address}: {error}", "start it, or correct it"
            ) from None
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise Failure(
            f"no Ray cluster answers: {_line(error)}",
            "run it on a node, after `ray start`, or by `ray job submit`",
        ) from None
    except Exception as error:
        differ = "ersion mismatch" in str(error)
        hint = "run it with the cluster's versions of Ray and Python, or by `ray job submit`" if differ else ""
        raise Failure(f"Ray does not connect: {_line(error)}", hint) from error


def _read_clients(text: str) -> bytes:
    """Returns the certificates of --clients, which has them or names a file. grpcio would not say what is wrong."""
    where = "--clients"
    if "-----BEGIN" not in text:
        where += f" {text}"
        try:
            with open(text, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            raise Failure(f"{where}: {error.strerror}", "") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise Failure(f"{where}: it has no certificate in PEM ({error})", "") from None
    return text.encode()


def _first(certificates: bytes) -> str:
    """Returns the first certificate of a file in PEM, which may have its chain behind it."""
    text, end = certificates.decode(errors="replace"), "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN") : text.index(end) + len(end)]


def _announce(token: str, **facts: str) -> None:
    """Prints the line for the host, which reads what the command prints."""
    if token:
        print(f"snakepit-backend {token} {json.dumps(facts)}", flush=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    code = 1
    try:
        code = main(sys.argv[1:])
    except SystemExit as wrong:  # of the parser
        code = wrong.code if isinstance(wrong.code, int) else 1
    sys.stderr.flush()
    os._exit(code)  # a thread of Ray's must not keep this process
