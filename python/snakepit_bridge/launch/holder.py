"""Holds a worker on a node of a Ray cluster. Ray makes an actor of it there."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Iterator, NamedTuple, Optional, Sequence

import ray

# Ray imports pydantic before an actor gets its first argument. This import takes longer than the rest of the start of
# this actor. The actor needs no models, and Ray works without pydantic.
if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
    sys.modules.setdefault("pydantic", None)  # type: ignore[arg-type]

from .seat import Seat, Start

__all__ = ["Holder", "Place"]


class Place(NamedTuple):
    """Where a holder is."""

    node: str  # Ray's id of the node
    host: str  # the name of the machine
    address: str  # its IP address, as Ray knows it

    def __str__(self) -> str:
        return self.host if self.host == self.address else f"{self.host}/{self.address}"


class Holder:
    """Holds one worker. `events` runs in one thread of the actor, and `signal` in another."""

    def __init__(self) -> None:
        self._seat: Optional[Seat] = None

    def events(self, program: Sequence[str], address: str, ports: str, start: Start) -> Iterator[Any]:
        """Starts a worker. Yields the `Place`, and then the events of the worker's seat.

        The start is not an argument of the constructor: Ray would store it, and there are secrets in it.

        Args:
            program: The worker file and its arguments.
            address: The IP address that the worker listens on; "": that of the node.
            ports: The ports that it may choose from.
            start: What the host says.

        Raises:
            OSError: The process could not be started. So does ValueError, and RuntimeError.
            Unavailable: The certificate could not be made.
        """
        own = ray.util.get_node_ip_address()
        node = os.environ["SNAKEPIT_NODE"] = ray.get_runtime_context().get_node_id()  # the worker inherits it
        self._seat = Seat(program, address or own, ports, start)
        yield Place(node, socket.gethostname(), own)
        yield from self._seat.events()
        self._seat.close()

    def announce_end(self, reason: str) -> None:
        """Adds an `Ending` to the events, if there is a worker."""
        if self._seat is not None:
            self._seat.announce_end(reason)

    def signal(self, kill: bool) -> None:
        """Sends SIGKILL or SIGTERM to the worker and its children, if there is one."""
        if self._seat is not None:
            self._seat.signal(kill)
