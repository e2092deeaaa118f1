"""Makes the seats of one machine."""

from __future__ import annotations

import threading
from time import monotonic
from typing import List, Sequence

from .memory import OomCounter
from .seat import Seat, Start

__all__ = ["Lost", "NoRoom", "Room"]

ENDING_SECONDS = 1.0
"""How long a new worker waits for the end of one that is being killed."""

LOOK_SECONDS = 0.02
"""How often it looks whether another one has ended before."""


class NoRoom(Exception):
    """There is no room for another worker. The message says what is missing."""


class Lost(Exception):
    """The machine of a worker is gone, or the program there that holds it. The message says which, and why."""


class Room:
    """Makes seats that hold workers of one program. Any thread may call the methods.

    It does not wait for room: while all workers are leased, it refuses.

    Args:
        program: The worker file and its arguments.
        workers: How many workers there may be at once.
        address: The IP address that they listen on.
        ports: The ports that they may choose from, such as "50051-50151"; "": any.
    """

    def __init__(self, program: Sequence[str], workers: int, address: str, ports: str = "") -> None:
        self._program = program
        self._workers = workers
        self._address = address
        self._ports = ports
        self._memory = OomCounter()
        self._lock = threading.Lock()  # guards the fields below
        self._seats: List[Seat] = []
        self._starting = 0

    def take(self, start: Start) -> Seat:
        """Starts a worker.

        Raises:
            NoRoom: All workers are leased.
            OSError: The process could not be started.
            Unavailable: The certificate could not be made.
        """
        self._reserve()
        seat = None
        try:
            seat = Seat(self._program, self._address, self._ports, start, self._memory)
        finally:
            with self._lock:
                self._starting -= 1
                if seat is not None:
                    self._seats.append(seat)
        return seat

    def _reserve(self) -> None:
        """Counts another worker, if there is room. A host that ends a lease may ask for the next one at once.

        Raises:
            NoRoom: All workers are leased.
        """
        until = monotonic() + ENDING_SECONDS
        while True:
            with self._lock:
                self._seats = [seat for seat in self._seats if not seat.wait(0)]
                if len(self._seats) + self._starting < self._workers:
                    self._starting += 1
                    return
                ending = next((seat for seat in self._seats if seat.ending), None)
            if ending is None or monotonic() >= until:
                raise NoRoom(f"all {self._workers} workers are leased")
            ending.wait(LOOK_SECONDS)  # another one may end before it
