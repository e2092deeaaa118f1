"""One call as the worker sees it, and what it asks of the host. Data that the other modules share."""

from __future__ import annotations

import sys
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional

from ._errors import Cancelled, ProtocolError
from ._frames import NO_INPUT, Frame
from ._native import Lock, get_ident, monotonic
from ._plan import Plan

if TYPE_CHECKING:
    import asyncio
    from queue import SimpleQueue

OVERHEAD = 256
"""What a frame weighs beside its variable parts."""

WINDOW_ITEMS = 1024
WINDOW_BYTES = 1 << 20


class Inbox:
    """A direction that is received: items wait here until they are consumed."""

    __slots__ = ("bytes", "granted_bytes", "granted_items", "items", "open", "owed_bytes", "owed_items", "queue", "unwanted")

    def __init__(self, is_open: bool) -> None:
        self.queue: Deque[Frame] = deque()
        self.open = is_open
        self.unwanted = False  # what comes behind our end of it is dropped; set before open is cleared, and read after it
        self.items = self.bytes = 0  # received
        self.granted_items, self.granted_bytes = WINDOW_ITEMS, WINDOW_BYTES
        self.owed_items = self.owed_bytes = 0  # consumed since the last credit

    def put(self, frame: Frame) -> None:
        if self.items >= self.granted_items or self.bytes >= self.granted_bytes:
            raise ProtocolError(f"more items for call {frame['id']} than granted")
        self.items += 1
        self.bytes += len(frame.get("body", b""))
        self.queue.append(frame)


class Call:
    """One call of the host, from its call frame to its end or error."""

    __slots__ = (
        "asked",
        "cancelled",
        "context",
        "deadline",
        "ended",
        "frame",
        "granted_bytes",
        "granted_items",
        "id",
        "ident",
        "inbox",
        "interrupted",
        "interrupter",
        "lock",
        "name",
        "plan",
        "raised",
        "reason",
        "requests",
        "started",
        "task",
        "thread",
        "used_bytes",
        "used_items",
        "waiters",
    )

    def __init__(self, frame: Frame, plan: Plan, items: int, bytes_: int) -> None:
        self.frame = frame
        self.id: int = frame["id"]
        self.name = plan.name
        self.plan = plan
        ttl = frame.get("ttl", 0)
        self.deadline: Optional[float] = monotonic() + ttl / 1000 if ttl else None
        self.inbox = ENDED if frame.get("flags", 0) & NO_INPUT else Inbox(True)
        self.granted_items, self.granted_bytes = items, bytes_
        self.used_items = self.used_bytes = 0
        self.cancelled = False
        self.reason = ""
        self.raised: Optional[BaseException] = None  # by a signal handler of the program's, while code of the bridge ran for the call
        self.interrupted = 0.0  # when an exception was last raised in it
        self.asked = 0.0  # when its task's cancellation was last requested
        self.ended = False
        self.started = 0.0
        self.interrupter = _NOWHERE
        self.ident = 0  # of the thread that runs the handler
        self.thread = 0  # the same, while an exception may be injected there
        self.lock = Lock()
        self.task: Optional[asyncio.Task[Any]] = None
        self.context: Any = None
        self.waiters: List[SimpleQueue[None]] = []
        self.requests: Optional[Dict[int, Request]] = None

    def may_send(self) -> bool:
        """Reports whether there is credit for an item, or no reason to wait for it."""
        return self.cancelled or (self.granted_items > self.used_items and self.granted_bytes > self.used_bytes)

    def wake(self) -> None:
        for bell in tuple(self.waiters):
            bell.put(None)

    def check(self) -> None:
        if self.raised is not None:
            raised, self.raised = self.raised, None
            raise raised
        if self.cancelled:
            if self._in_handler():
                self.interrupted = self.interrupted or monotonic()  # no second exception in what cleans up after this one
            raise Cancelled(self.reason)

    def _in_handler(self) -> bool:
        """Reports whether this is the handler's own thread and task, and not one that it has started."""
        if get_ident() != self.ident:
            return False
        return self.task is None or sys.modules["asyncio"].current_task() is self.task


class Request:
    """One call of this worker to the host, for the call that it serves."""

    __slots__ = ("answer", "call", "failed", "id", "inbox")

    def __init__(self, call: Call, streams: bool) -> None:
        self.id = 0
        self.call = call
        self.inbox = Inbox(True) if streams else None
        self.answer: Optional[bytes] = None  # set when it has ended
        self.failed = False

    def settled(self) -> bool:
        """Reports whether there is something to take, or no reason to wait for it."""
        return self.answer is not None or self.call.cancelled or bool(self.inbox and self.inbox.queue)


class Interrupter:
    """Where handlers run, and how they are interrupted there."""

    def begin(self, call: Call) -> None:
        """Called by the thread that is about to run the call's handler."""

    def leave(self, call: Call) -> None:
        """Called by the same thread afterwards. From then on no interrupt of this call arrives."""

    def interrupt(self, call: Call) -> None:
        """Called by another thread: interrupts the call if it can be done now. It sets ``call.interrupted`` to the time if it was."""


_NOWHERE = Interrupter()
ENDED = Inbox(False)  # of all calls that have no input

CURRENT: ContextVar[Optional[Call]] = ContextVar("snakepit_call", default=None)
"""The call that the running code serves."""
