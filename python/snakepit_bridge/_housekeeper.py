"""The thread that does what has to be done later: it sleeps until something is, and then looks every few milliseconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List, Optional

from ._calls import Call
from ._errors import describe, render
from ._native import SimpleQueue, monotonic, say, sleep, spawn

if TYPE_CHECKING:
    from ._runner import Runner

TICK = 0.005
GRACE = 3.0
"""After so many seconds a handler that swallowed its interrupt gets another one; soon after that the host stops the process."""

_IDLE_TICKS = 20


class Housekeeper:
    """Writes frames that wait for more to come, repeats interrupts that had to be put off, and ends a process that outlives its host."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.awake = False
        self.pursued: List[Call] = []
        self.doom: Optional[float] = None
        self._bell: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        spawn(self._work, "snakepit-housekeeper")

    def wake(self) -> None:
        """May be called from a signal handler or a finalizer: it takes no lock of Python code."""
        if not self.awake:
            self.awake = True
            self._bell.put(None)

    def pursue(self, call: Call) -> None:
        """Interrupts the call, now or as soon as that can be done, and again after a grace, until it has ended."""
        self._interrupt(call)
        self.pursued.append(call)
        self.wake()

    def doom_after(self, seconds: float) -> None:
        """Ends the process in so many seconds, unless it has ended by then."""
        self.doom = monotonic() + seconds
        self.wake()

    def _interrupt(self, call: Call) -> None:
        try:
            call.interrupter.interrupt(call)
        except Exception as exc:  # such as a loop that the program has closed
            call.interrupted = monotonic()  # tries again after the grace
            say(f"snakepit_bridge: {call.name} can't be interrupted\n{render(describe(exc))}")

    def _work(self) -> None:
        idle = 0
        while True:
            if idle > _IDLE_TICKS:
                self.awake = False
                if not self._work_waits():
                    self._bell.get()
                self.awake = True
                idle = 0
            sleep(TICK)
            try:
                idle = 0 if self._tick() else idle + 1
            except BaseException as exc:  # there is no other housekeeper
                self.runner.broken(exc)

    def _work_waits(self) -> bool:
        return bool(self.runner.outbox or self.pursued or self.doom is not None)

    def _tick(self) -> bool:
        busy = False
        if self.runner.outbox:
            self.runner.outbox.flush()
            busy = True
        now = monotonic()
        for call in self.pursued[:]:
            if call.ended:
                self.pursued.remove(call)
                continue
            busy = True
            if call.interrupted and now - call.interrupted > GRACE:
                call.interrupted = call.asked = 0.0
            if not call.interrupted:
                self._interrupt(call)
        if self.doom is not None:
            busy = True
            if now > self.doom:
                names = ", ".join(sorted({call.name for call in list(self.runner.calls.values())})) or "tear-down"
                say(f"snakepit_bridge: {self.runner.fate} and {names} did not end: exiting\n")
                os._exit(self.runner.exit_code or 1)
        return busy
