"""The data of a call, and of the calls that it makes to the host. The other modules share them."""

from __future__ import annotations

import sys
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional

from ._command import Command
from ._errors import Cancelled, ProtocolError
from ._frames import NO_INPUT, Frame
from ._unpatched import Lock, get_ident, monotonic

if TYPE_CHECKING:
    import asyncio
    from queue import SimpleQueue

    from ._interrupt import Interrupter
    from ._sessions import Session
    from ._tracing import Trace

WINDOW_ITEMS = 1024
WINDOW_BYTES = 1 << 20


class Inbox:
    """The receiving end of a stream. Items wait here until the handler takes them."""

    __slots__ = (
        "bytes",
        "granted_bytes",
        "granted_items",
        "items",
        "open",
        "owed_bytes",
        "owed_items",
        "queue",
        "unwanted",
    )

    def __init__(self, is_open: bool) -> None:
        self.queue: Deque[Frame] = deque()
        self.open = is_open
        # This worker wants no more items: those that still arrive are dropped. It is set before open is cleared, and
        # read after open.
        self.unwanted = False
        self.items = self.bytes = 0  # received
        self.granted_items, self.granted_bytes = WINDOW_ITEMS, WINDOW_BYTES
        self.owed_items = self.owed_bytes = 0  # consumed since the last credit

    def put(self, frame: Frame) -> None:
        """Queues an item. Raises `ProtocolError` if the sender had no credit for it."""
        if self.items >= self.granted_items or self.bytes >= self.granted_bytes:
            raise ProtocolError(f"more items for call {frame['id']} than granted")
        self.items += 1
        self.bytes += len(frame.get("body", b""))
        self.queue.append(frame)


class Call:
    """One call of the host, from its call frame to its end or error.

    Most calls change few of these attributes, so their first values are those of the class.

    Attributes:
        deadline: The time when the host's limit is reached, or None.
        session: Its session, from its begin on, also if the host forgets it meanwhile; None if it belongs to none.
        raised: The exception of a signal handler of the program that ran while code of the bridge ran for this call.
        interrupted_at: The time of the last interrupt, or the time from which an interrupt is too late. While it is 0,
            the call may be interrupted.
        cancel_asked_at: When the cancellation of its task was last requested.
        interrupter: None until the handler begins.
        handler_thread: The thread that runs the handler.
        interruptible_thread: The same thread, while an exception may be injected there.
        lock: Guards ``interruptible_thread``. `Threads` gives each call its own.
        trace: Its trace, if the caller has one and the program has OpenTelemetry; otherwise None.
    """

    deadline: Optional[float] = None
    session: Optional[Session] = None
    used_items = used_bytes = 0
    cancelled = False
    reason = ""
    raised: Optional[BaseException] = None
    interrupted_at = 0.0
    cancel_asked_at = 0.0
    ended = False
    started_at = 0.0
    interrupter: Optional[Interrupter] = None
    handler_thread = 0
    interruptible_thread = 0
    lock = Lock()
    task: Optional[asyncio.Task[Any]] = None
    context: Any = None
    host_calls: Optional[Dict[int, HostCall]] = None
    trace: Optional[Trace] = None

    def __init__(self, frame: Frame, command: Command, items: int, bytes_: int) -> None:
        self.frame = frame
        self.id: int = frame["id"]
        self.name = command.name
        self.command = command
        ttl = frame.get("ttl", 0)
        if ttl:
            self.deadline = monotonic() + ttl / 1000
        self.inbox = ENDED if frame.get("flags", 0) & NO_INPUT else Inbox(True)
        self.granted_items, self.granted_bytes = items, bytes_
        self.waiters: List[SimpleQueue[None]] = []

    def may_send(self) -> bool:
        """Reports whether the call need not wait for credit: it has some, or it was cancelled."""
        return self.cancelled or (self.granted_items > self.used_items and self.granted_bytes > self.used_bytes)

    def wake(self) -> None:
        """Wakes the threads and tasks that wait for this call. Any thread and any signal handler may call it."""
        for waiter in tuple(self.waiters):
            waiter.put(None)

    def check(self) -> None:
        """Raises the exception of a signal handler, if there is one, or `Cancelled` if the call was cancelled."""
        if self.raised is not None:
            raised, self.raised = self.raised, None
            raise raised
        if self.cancelled:
            if self._in_handler():
                # The code that cleans up after this exception gets no second one.
                self.interrupted_at = self.interrupted_at or monotonic()
            raise Cancelled(self.reason)

    def _in_handler(self) -> bool:
        """Reports whether the calling thread and task are the handler's own, and not ones that it started."""
        if get_ident() != self.handler_thread:
            return False
        return self.task is None or sys.modules["asyncio"].current_task() is self.task


class HostCall:
    """A call to the host, made for a call that this worker serves."""

    __slots__ = ("answer", "call", "failed", "id", "inbox")

    def __init__(self, call: Call, streams: bool) -> None:
        self.id = 0
        self.call = call
        self.inbox = Inbox(True) if streams else None
        self.answer: Any = None  # the body of its end or error; None while the host has not answered
        self.failed = False

    def settled(self) -> bool:
        """Reports whether waiting is over: an item or the answer has arrived, or the call was cancelled."""
        return self.answer is not None or self.call.cancelled or bool(self.inbox and self.inbox.queue)


ENDED = Inbox(False)  # shared by all calls without input

CURRENT: ContextVar[Optional[Call]] = ContextVar("snakepit_call", default=None)
"""The call that the running code serves, or None."""
