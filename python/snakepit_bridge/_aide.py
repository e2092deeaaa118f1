"""The thread that does what has to be done later: it sleeps until something is, and then looks every few milliseconds."""

from __future__ import annotations

import os
import sys
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, List, Optional

if TYPE_CHECKING:
    from ._runner import Call, Runner

TICK = 0.005
GRACE = 3.0
"""After so many seconds a handler that swallowed its interrupt gets another one; soon after that the host stops the process."""

_IDLE_TICKS = 20


class Aide:
    """Writes frames that wait for more to come, repeats interrupts that had to be put off, and ends a process that outlives its host."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.awake = False
        self.pursued: List[Call] = []
        self.doom: Optional[float] = None
        self._bell: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._work, name="snakepit-aide", daemon=True).start()

    def wake(self) -> None:
        """May be called from a signal handler or a finalizer: it takes no lock of Python code."""
        if not self.awake:
            self.awake = True
            self._bell.put(None)

    def pursue(self, call: Call) -> None:
        """Interrupts the call, now or as soon as that can be done, and again after a grace, until it has ended."""
        call.site.poke(call)
        self.pursued.append(call)
        self.wake()

    def doom_after(self, seconds: float) -> None:
        """Ends the process in so many seconds, unless it has ended by then."""
        self.doom = time.monotonic() + seconds
        self.wake()

    def _work(self) -> None:
        idle = 0
        while True:
            if idle > _IDLE_TICKS:
                self.awake = False
                if not self._work_waits():
                    self._bell.get()
                self.awake = True
                idle = 0
            time.sleep(TICK)
            idle = 0 if self._tick() else idle + 1

    def _work_waits(self) -> bool:
        return bool(self.runner.outbox or self.runner.logs or self.pursued or self.doom is not None)

    def _tick(self) -> bool:
        busy = False
        if self.runner.outbox or self.runner.logs:
            self.runner.flush()
            busy = True
        now = time.monotonic()
        for call in self.pursued[:]:
            if call.ended:
                self.pursued.remove(call)
                continue
            busy = True
            if call.interrupted and now - call.interrupted > GRACE:
                call.interrupted = call.asked = 0.0
            if not call.interrupted:
                call.site.poke(call)
        if self.doom is not None:
            busy = True
            if now > self.doom:
                names = ", ".join(sorted({call.name for call in list(self.runner.calls.values())})) or "tear-down"
                print(f"snakepit_bridge: the host is gone and {names} did not end: exiting", file=sys.stderr, flush=True)
                os._exit(1)
        return busy
