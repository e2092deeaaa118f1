"""What waits to be written to the host."""

from __future__ import annotations

from collections import deque
from time import monotonic, time
from typing import Any, Callable, Deque, Dict, List, Optional

from ._calls import OVERHEAD
from ._frames import LOG, Frame
from ._logging import line_of
from ._native import MAIN_THREAD, RLock, get_ident, say
from ._terms import Terms
from .transport import Transport

HOLD = 200e-6
"""How many seconds frames may wait for others before they are written together."""

SYNC = 3.0
"""How many seconds a record of an error may wait until it has left the process."""

_MAX_LOGS = 1000


class Outbox:
    """Frames for the host, and log records, which go in front of them.

    Any thread adds to it, and so may a signal handler or a finalizer. One thread at a time writes.

    Attributes:
        frames: The frames; ``append`` adds one without writing it.
        logs: The log records.
        closed: Nothing can be written any more: log records go to standard error, and frames nowhere.
        leaving: The exception that ends the process once the current write is done.
    """

    def __init__(self, transport: Transport, terms: Terms, lost: Callable[[], None], broken: Callable[[BaseException], None]) -> None:
        """Args:
        transport: What writes.
        terms: What the hellos agreed on. Before them log records wait.
        lost: Called when the host is gone.
        broken: Called when the transport has failed.
        """
        self.frames: Deque[Frame] = deque()
        self.append = self.frames.append
        self.logs: Deque[Dict[str, Any]] = deque()
        self.closed = False
        self.leaving: Optional[BaseException] = None
        self.wake: Callable[[], None] = _nobody  # the housekeeper, which writes a little later
        self._transport = transport
        self._terms = terms
        self._lost = lost
        self._broken = broken
        self._writing: Any = RLock()  # guards transport.write; reentrant only so that it knows its owner
        self._flushed = 0.0
        self._stuck = -1.0  # _flushed when a record of an error had waited in vain
        self._dropped = 0

    def __bool__(self) -> bool:
        """Reports whether anything waits."""
        return bool(self.frames or self.logs)

    def settle(self) -> None:
        """Writes what is in the outbox, or leaves that to the housekeeper if something was written just now."""
        if monotonic() - self._flushed > HOLD:
            self.flush()
        else:
            self.wake()

    def gather(self) -> None:
        """Starts a batch: what it sends may wait a moment."""
        self._flushed = monotonic()

    def flush(self) -> None:
        """Writes what is in the outbox. If another thread is writing, that one will."""
        frames = self.frames
        writing = self._writing
        while frames or (self.logs and (self._terms.codec is not None or self.closed)):
            if self.closed:
                self._spill()
            elif writing._is_owned() or not writing.acquire(False):
                return
            else:
                try:
                    self._write()
                finally:
                    writing.release()
                self._leave_now()

    def sync(self) -> None:
        """Writes what is in the outbox before it returns, as far as that is possible without waiting for itself or for long."""
        writing = self._writing
        if writing._is_owned():  # the write that this interrupts goes on until all is written
            return
        if self._transport.is_own_thread():  # others wait for it, also those who write
            self.flush()
            return
        until = monotonic() + SYNC
        if self._stuck != self._flushed:  # else a host that does not read would hold up each record
            if writing.acquire(True, SYNC):
                try:  # what another thread had taken from the outbox is written by now
                    while not self.closed and (self.frames or (self.logs and self._terms.codec is not None)):
                        self._write()
                finally:
                    writing.release()
            else:
                self._stuck = self._flushed
        self.flush()
        if not self.closed:
            self._transport.sync(max(0.0, until - monotonic()))
        self._leave_now()

    def _leave_now(self) -> None:
        """Raises what is to end the process, on the main thread, which alone can end it."""
        if self.leaving is not None and get_ident() == MAIN_THREAD:
            leaving, self.leaving = self.leaving, None
            raise leaving

    def _write(self) -> None:
        records: List[Dict[str, Any]] = []
        try:
            frames = self._log_frames(records) if self.logs and self._terms.codec is not None else None
            waiting = self.frames
            batch = [waiting.popleft() for _ in range(len(waiting))]
            if frames:
                batch[:0] = frames
            self._transport.write(batch)
            self._flushed = monotonic()
        except BaseException as exc:
            self.logs.extendleft(reversed(records))
            if isinstance(exc, ConnectionError):
                self._lost()
            else:
                self._broken(exc)

    def _spill(self) -> None:
        """Writes the log records to standard error, as there is no connection any more. Nobody waits for the rest."""
        self.frames.clear()
        try:
            while True:
                say(line_of(self.logs.popleft()))
        except IndexError:
            pass

    def log(self, record: Dict[str, Any]) -> None:
        """Queues a log record, and drops it if too many wait already. It may be called from anywhere.

        Only a record of an error waits, until it has left the process; see `sync`.
        """
        if len(self.logs) >= _MAX_LOGS:
            self._dropped += 1
            return
        self.logs.append(record)
        if self.closed:
            self.flush()
        elif self._terms.codec is not None:  # else there was no hello yet
            if record["level"] == "error":  # perhaps the last one before a crash
                self.sync()
            else:
                self.settle()

    def _log_frames(self, records: List[Dict[str, Any]]) -> List[Frame]:
        """Returns the frames of the queued records, which it moves to the given list."""
        frames: List[Frame] = []
        for _ in range(len(self.logs)):
            record = self.logs.popleft()
            records.append(record)
            try:
                body = self._terms.codec.encode(record)
            except Exception:  # there is nothing in it that does not travel, but memory may be short
                body = None
            if body is not None and len(body) + OVERHEAD <= self._terms.max_frame:
                frames.append({"kind": LOG, "body": body})
            else:
                self._dropped += 1
        if self._dropped and len(self.logs) < _MAX_LOGS:
            dropped, self._dropped = self._dropped, 0
            message = f"{dropped} log records were dropped"
            record = {"level": "warn", "logger": "snakepit_bridge", "message": message, "time": time()}
            frames.append({"kind": LOG, "body": self._terms.codec.encode(record)})
        return frames

    def in_child(self) -> None:
        """Called in a forked child, which must not touch the connection."""
        self.closed = True
        self.frames.clear()
        self.logs.clear()
        self._writing = RLock()


def _nobody() -> None:
    """Wakes nobody: the housekeeper has not started."""


WRITE = Outbox._write.__code__
"""The code of the function that writes. A signal handler must not end it midway."""
