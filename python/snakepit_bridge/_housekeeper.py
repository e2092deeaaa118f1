"""The housekeeper: a thread for work that is done later. It sleeps while there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List, Optional

from ._calls import Call
from ._description import describe
from ._errors import render
from ._unpatched import SimpleQueue, get_ident, monotonic, say, sleep, spawn

if TYPE_CHECKING:
    from ._runner import Runner

TICK = 0.005
"""How many seconds the thread sleeps between two looks at its work."""

GRACE = 3.0
"""A handler that swallowed its interrupt gets another one after so many seconds. Soon after that, the host stops the
process."""

_IDLE_TICKS = 20


class Housekeeper:
    """Does the work of a runner that is done later.

    It writes frames that waited for others. It has somebody read while a handler runs for long. It repeats interrupts
    that were impossible before. It ends a process that outlives its host.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.awake = False
        self.ident = 0  # of the thread
        self.to_interrupt: List[Call] = []
        self.exit_at: Optional[float] = None  # when the process is to be ended
        self._wakeups: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        """Starts the thread."""
        spawn(self._work, "snakepit-housekeeper")

    def wake(self) -> None:
        """Wakes the thread. Signal handlers and finalizers may call it, because it takes no lock of Python code."""
        if not self.awake:
            self.awake = True
            self._wakeups.put(None)

    def keep_interrupting(self, call: Call) -> None:
        """Interrupts the call as soon as that is possible, and again after each `GRACE`, until it has ended."""
        self._interrupt(call)
        self.to_interrupt.append(call)
        self.wake()

    def exit_after(self, seconds: float) -> None:
        """Ends the process after so many seconds, unless it has ended by then."""
        self.exit_at = monotonic() + seconds
        self.wake()

    def _interrupt(self, call: Call) -> None:
        interrupter = call.interrupter
        if interrupter is None:  # the handler has not begun
            return
        try:
            interrupter.interrupt(call)
        except Exception as exc:  # for instance, the program has closed the loop
            call.interrupted_at = monotonic()  # so that the next attempt comes after GRACE
            say(f"snakepit_bridge: {call.name} can't be interrupted\n{render(describe(exc))}")

    def _work(self) -> None:
        self.ident = get_ident()
        idle = 0
        while True:
            if idle > _IDLE_TICKS:
                self.awake = False
                if not self._work_waits():
                    self._wakeups.get()
                self.awake = True
                idle = 0
            sleep(TICK)
            try:
                idle = 0 if self._tick() else idle + 1
            except BaseException as exc:  # this thread must go on, because no other one does its work
                self.runner.broken(exc)

    def _work_waits(self) -> bool:
        runner = self.runner
        return bool(runner.outbox or self.to_interrupt or self.exit_at is not None or runner.executor.tick())

    def _tick(self) -> bool:
        busy = self.runner.executor.tick()
        if self.runner.outbox:
            self.runner.outbox.flush()
            busy = True
        now = monotonic()
        for call in self.to_interrupt[:]:
            if call.ended:
                self.to_interrupt.remove(call)
                continue
            busy = True
            if call.interrupted_at and now - call.interrupted_at > GRACE:
                call.interrupted_at = call.cancel_asked_at = 0.0
            if not call.interrupted_at:
                self._interrupt(call)
        if self.exit_at is not None:
            busy = True
            if now > self.exit_at:
                names = ", ".join(sorted({call.name for call in list(self.runner.calls.values())})) or "tear-down"
                say(f"snakepit_bridge: {self.runner.end_reason} and {names} did not end: exiting\n")
                os._exit(self.runner.exit_code or 1)
        return busy
