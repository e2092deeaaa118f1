"""What the commands of the back ends share: checks of their arguments, and how they end."""

from __future__ import annotations

import argparse
import re
import socket
import sys
import threading
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Any, List, Sequence, Tuple

__all__ = [
    "CLOSE_SECONDS",
    "COMMAND",
    "Failure",
    "bracketed",
    "check",
    "count",
    "end",
    "need_port",
    "need_ports",
    "parse_listen",
    "say",
    "split",
    "tell",
]

COMMAND = "SNAKEPIT_COMMAND"
"""The environment variable with the name of the command, for messages. The program ``snakepit`` sets it."""

TERMINATE_SECONDS = 2.0
"""How long workers may take to end after SIGTERM."""

CLOSE_SECONDS = 3.0
"""How long the workers' ends may take to reach their hosts."""


class Failure(Exception):
    """Something that the caller has to change. The second argument says how, or is ""."""


def split(argv: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Returns the command's own arguments, and those of the worker, which follow --."""
    own, given = list(argv), []
    if "--" in own:
        at = own.index("--")
        own, given = own[:at], own[at + 1 :]
    return own, given


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Checks --workers, --grace and --plaintext. If one is wrong, the process ends with exit code 2."""
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: there must be one at least")
    if not options.grace >= 0:
        parser.error(f"--grace {options.grace:g}: it must not be negative")
    if options.plaintext and not ip_address(options.host.partition("%")[0]).is_loopback:
        parser.error(f"--plaintext: others could listen in at {options.host}; use TLS, or listen on 127.0.0.1")


def tell(parser: argparse.ArgumentParser, failure: Failure) -> None:
    """Prints a failure and its remedy."""
    text, hint = failure.args
    print(f"{parser.prog}: {text}" + (f"\nhint: {hint}" if hint else ""), file=sys.stderr, flush=True)


def parse_listen(parser: argparse.ArgumentParser, text: str, port: int) -> Tuple[str, int]:
    """Returns the address and the port of --listen. Without a port in it, it is the given one."""
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::([0-9]{1,9}))?", text)
    if found is None or text.isdigit():
        parser.error(f"--listen {text}: write HOST:PORT or :PORT, and an IPv6 address as [ADDRESS]:PORT")
    if int(found.group(2) or 0) > 65535:
        parser.error(f"--listen {text}: a port is at most 65535")
    host = found.group(1).strip("[]") or "0.0.0.0"
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        parser.error(f"--listen {text}: {error.strerror}; name this machine, or one of its addresses")
    return str(addresses[0][4][0]), port if found.group(2) is None else int(found.group(2))


def need_ports(parser: argparse.ArgumentParser, text: str) -> int:
    """Returns how many ports --worker-ports names. If it is wrong, the process ends with exit code 2."""
    ports = re.fullmatch("([0-9]{1,5})-([0-9]{1,5})", text)
    first, last = map(int, ports.groups()) if ports else (0, 0)
    if not 0 < first <= last <= 65535:
        parser.error(f"--worker-ports {text}: write FIRST-LAST, such as 50051-50151")
    return last - first + 1


def need_port(host: str, port: int) -> None:
    """Fails if the port can't be bound. If grpcio tried in vain, it would print an error of its own."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise Failure(f"it can't listen on {host} port {port}: {error.strerror}", "choose another --listen") from None


def end(service: Any, grace: float, signals: SimpleQueue[int]) -> None:
    """Ends the service. It returns when no worker is left, after the grace or after another signal."""
    service.end()
    running = service.leases
    if running:
        say(f"ending: {count(running)} may go on for {grace:g} s; a second signal ends them now")

    def ladder() -> None:
        if not service.wait(grace):
            service.signal(kill=False)
            service.wait(TERMINATE_SECONDS)
        signals.put(0)

    threading.Thread(target=ladder, name="snakepit-end", daemon=True).start()
    signals.get()
    service.close(CLOSE_SECONDS)


def bracketed(host: str) -> str:
    """Returns an IP address as it is written before a port."""
    return f"[{host}]" if ":" in host else host


def count(workers: int) -> str:
    """Returns "1 worker" or "2 workers"."""
    return "1 worker" if workers == 1 else f"{workers} workers"


def say(text: str) -> None:
    """Prints a line for people."""
    print(text, file=sys.stderr, flush=True)
