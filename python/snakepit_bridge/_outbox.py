"""The queue of frames and log records for the host."""

from __future__ import annotations

from collections import deque
from time import time
from typing import Any, Callable, Deque, Dict, List, Optional

from ._frames import BASE_WEIGHT, LOG, Frame
from ._logging import line_of
from ._pieces import Splitter
from ._terms import Terms
from ._unpatched import MAIN_THREAD, RLock, SimpleQueue, get_ident, monotonic, say, sleep, spawn
from .transport import Transport

BATCH_DELAY = 200e-6
"""How many seconds frames may wait for others before they are written together, if a write is fast."""

_WRITE_SHARE = 8
"""Frames wait for so many times as long as the last write took, so writing takes a ninth of the time at most."""

_LONGEST_DELAY = 0.002
"""They wait no longer than that, in seconds, after a write that had to wait for the host."""

SYNC_TIMEOUT = 3.0
"""How many seconds an error record may wait until it has left the process."""

_OTHERS = 0.1
"""How many seconds an error record waits for another thread, where the main thread can't write it."""

_MAX_LOGS = 1000


class Outbox:
    """The frames and the log records for the host. Log records are written first.

    Any thread, signal handler or finalizer may add to it. One thread at a time writes. Large bodies are left to a
    thread of their own, because the thread that has something to write may be the one that reads.

    It is true while frames or log records wait. The pieces of large bodies do not count.

    Attributes:
        frames: The frames. ``append`` adds one without writing it.
        logs: The log records.
        closed: The connection has ended. Log records go to standard error, and frames are dropped.
        leaving: The exception that ends the process once the current write is done.
        wake: Wakes the housekeeper, which writes a little later.
    """

    def __init__(
        self, transport: Transport, terms: Terms, lost: Callable[[], None], broken: Callable[[BaseException], None]
    ) -> None:
        """Makes an empty outbox.

        Args:
            transport: Writes the frames.
            terms: The terms of the connection. Log records wait until the hellos have set them.
            lost: Called when the host is gone.
            broken: Called when the transport has failed.
        """
        self.frames: Deque[Frame] = deque()
        self.append = self.frames.append
        self.logs: Deque[Dict[str, Any]] = deque()
        self.closed = False
        self.leaving: Optional[BaseException] = None
        self.wake: Callable[[], None] = _nobody
        self._transport = transport
        self._terms = terms
        self._lost = lost
        self._broken = broken
        self._writing: Any = RLock()  # guards transport.write; an RLock because that knows its owner
        self._flushed = 0.0  # the time of the last write
        self._delay = BATCH_DELAY
        self._due = 0.0  # when the frames that flush_soon has left are written
        self._stuck = -1.0  # the value of _flushed when an error record waited in vain
        self._dropped = 0
        self._splitter = Splitter(transport.takes_parts)
        self._splits: SimpleQueue[None] = SimpleQueue()  # an entry for each write that has left pieces
        self._splits_thread = 0  # the ident of the thread that writes pieces

    def __bool__(self) -> bool:
        return bool(self.frames or self.logs)

    def is_writing(self) -> bool:
        """Reports whether the calling thread is inside of a write."""
        return bool(self._writing._is_owned()) or get_ident() == self._splits_thread

    def flush_soon(self) -> None:
        """Writes the outbox, or leaves that to the housekeeper if the last write was just now."""
        if monotonic() > self._due:
            self.flush()
        else:
            self.wake()

    def start_batch(self) -> None:
        """Called before a batch of calls: their first frames may wait for others, too."""
        self._due = monotonic() + self._delay

    def flush(self) -> None:
        """Writes the outbox. If another thread is writing, that thread does it.

        On a thread of the transport, the housekeeper does it, because a write would wait for this thread.
        """
        if self._transport.is_own_thread():
            self.wake()
            return
        frames = self.frames
        writing = self._writing
        while frames or (self.logs and (self._terms.codec is not None or self.closed)):
            if self.closed:
                self._drain_to_stderr()
            elif writing._is_owned() or not writing.acquire(False):
                return
            else:
                try:
                    self._write()
                finally:
                    writing.release()
                self._leave_now()

    def sync(self, pieces: bool = False) -> None:
        """Writes the outbox before it returns, unless this call interrupts a write.

        If pieces is true, it also writes what is left of large bodies, as long as that takes.

        On a thread of the transport, the housekeeper writes it. Only the main thread waits for that, and only a moment:
        there it is a signal handler that logs, and perhaps ends the process next.

        It waits at most `SYNC_TIMEOUT` seconds for the write of another thread and for the transport's `sync`.
        """
        writing = self._writing
        if writing._is_owned():  # this call interrupts a write, which goes on until everything is written
            return
        if self._transport.is_own_thread():
            self.wake()
            if get_ident() == MAIN_THREAD:
                self._await_others()
            return
        until = monotonic() + SYNC_TIMEOUT
        if self._stuck != self._flushed:  # otherwise a host that does not read would delay every error record
            if writing.acquire(True, SYNC_TIMEOUT):
                try:  # frames that another thread took out of the outbox are written by now
                    while not self.closed and (self._is_due() or (pieces and self._splitter)):
                        self._write(pieces)
                finally:
                    writing.release()
            else:
                self._stuck = self._flushed
        self.flush()
        if not self.closed:
            self._transport.sync(max(0.0, until - monotonic()))
        self._leave_now()

    def _is_due(self) -> bool:
        """Reports whether there is something to write. Log records wait for the hellos."""
        return bool(self.frames or (self.logs and self._terms.codec is not None))

    def _await_others(self) -> None:
        """Waits a moment until another thread has written what is queued."""
        before, until = self._flushed, monotonic() + _OTHERS
        while (self.logs or self._flushed == before) and not self.closed and monotonic() < until:
            sleep(0.001)

    def _leave_now(self) -> None:
        """Raises the exception that is to end the process, if this is the main thread. Only that one can end it."""
        if self.leaving is not None and get_ident() == MAIN_THREAD:
            leaving, self.leaving = self.leaving, None
            raise leaving

    def _write(self, pieces: bool = False) -> None:
        """Writes the frames and the log records, and the next pieces if pieces is true."""
        records: List[Dict[str, Any]] = []
        try:
            frames = self._log_frames(records) if self.logs and self._terms.codec is not None else None
            waiting = self.frames
            if self._terms.splits:
                batch = self._take(pieces)
            else:
                batch = [waiting.popleft() for _ in range(len(waiting))]
            if frames:
                batch[:0] = frames
            began = monotonic()
            if batch:
                self._transport.write(batch)
            self._flushed = monotonic()
            self._delay = min(max(BATCH_DELAY, _WRITE_SHARE * (self._flushed - began)), _LONGEST_DELAY)
            self._due = self._flushed + self._delay
        except BaseException as exc:
            self.logs.extendleft(reversed(records))
            if isinstance(exc, ConnectionError):
                self._lost()
            else:
                self._broken(exc)

    def _take(self, pieces: bool) -> List[Frame]:
        """Takes the frames out of the outbox. Returns those to write next. Leaves pieces to their thread."""
        batch = self._splitter.take(self.frames)
        if pieces:
            batch += self._splitter.pieces()
        elif self._splitter:
            if not self._splits_thread:
                self._splits_thread = -1  # until it has begun
                spawn(self._write_pieces, "snakepit-pieces")
            self._splits.put(None)
        return batch

    def _write_pieces(self) -> None:
        """Writes pieces whenever there are some. Other threads can write between them."""
        self._splits_thread = get_ident()
        while True:
            self._splits.get()
            while self._splitter and not self.closed:
                with self._writing:
                    self._write(pieces=True)
            self.flush()  # what other threads have left because this one was writing

    def _drain_to_stderr(self) -> None:
        """Writes the log records to standard error and drops the frames, because the connection has ended."""
        self.frames.clear()
        self._splitter.clear()
        try:
            while True:
                say(line_of(self.logs.popleft()))
        except IndexError:
            pass

    def log(self, record: Dict[str, Any]) -> None:
        """Queues a log record, or drops it if too many are queued. Any thread, signal handler or finalizer may call it.

        Only an error record waits until it has left the process. See `sync`.
        """
        if len(self.logs) >= _MAX_LOGS:
            self._dropped += 1
            return
        self.logs.append(record)
        if self.closed:
            self.flush()
        elif self._terms.codec is not None:  # the hellos have been exchanged
            if record["level"] == "error":  # this may be the last record before a crash
                self.sync()
            else:
                self.flush_soon()

    def _log_frames(self, records: List[Dict[str, Any]]) -> List[Frame]:
        """Returns the frames of the queued records. Moves the records to the given list."""
        frames: List[Frame] = []
        for _ in range(len(self.logs)):
            record = self.logs.popleft()
            records.append(record)
            try:
                body = self._terms.codec.encode(record)
            except Exception:  # every record can travel, but memory may be short
                body = None
            if body is not None and len(body) + BASE_WEIGHT <= self._terms.max_frame:
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
        """Called in a forked child. The child must not touch the connection."""
        self.closed = True
        self.frames.clear()
        self._splitter.clear()
        self.logs.clear()
        self._writing = RLock()


def _nobody() -> None:
    """Does nothing, because there is no housekeeper yet."""


WRITE = Outbox._write.__code__
"""The code object of the method that writes. A signal handler must not end it midway."""
