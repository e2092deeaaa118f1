"""What a handler asks of the host: calls of the host's functions, and the items of its own input."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, Mapping, Sequence

from ._answers import too_large
from ._calls import WINDOW_BYTES, WINDOW_ITEMS, Call, HostCall, Inbox
from ._errors import SATURATED, BadValue, Disconnected, ItemError, RemoteError, shown, simple_error
from ._frames import CALL, CANCEL, CREDIT, FAILED, NO_INPUT, Frame, weight
from ._memory import LARGE
from ._outbox import Outbox
from ._terms import Terms
from ._tracing import outgoing
from ._unpatched import RLock, monotonic


class HostCalls:
    """The calls to the host. Any number of threads may use it at once.

    Attributes:
        live: The calls that the host has not answered, by id.
        next_id: The id of the next call.
        forked: This is a forked child, which has no host.
        inside: Returns whether the calling thread is inside of the bridge's own work.
    """

    def __init__(self, terms: Terms, outbox: Outbox) -> None:
        self.live: Dict[int, HostCall] = {}
        self.next_id = 2
        self.forked = False
        self._terms = terms
        self._outbox = outbox
        self.inside: Callable[[], bool] = _outside
        self._opening: Any = RLock()  # makes taking an id and queueing its frame one step; it knows its owner

    def open(self, call: Call, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], streams: bool) -> HostCall:
        """Queues a call of the host's function for a handler's call, and returns it.

        Args:
            call: The call that the handler serves.
            name: The function's name.
            args: At most one value: the argument.
            kwargs: The argument as a map, if there is no positional one.
            streams: Whether the handler takes items.

        Raises:
            TypeError: The name is not text, or there are too many arguments.
            BadValue: The argument can't travel or is too large.
            RemoteError: Too many calls to the host are open.
            Cancelled: The call was cancelled.
            Disconnected: The call has ended, or this is a forked child.
            RuntimeError: See `may_wait`.
        """
        self.usable(call)
        self.may_wait()
        try:
            name = str.__str__(name)
            name.encode()
        except (TypeError, UnicodeEncodeError):
            raise TypeError(f"{shown(name, 60)} is not a function's name") from None
        if len(args) > 1 or (args and kwargs):
            raise TypeError(f"{name} takes either keyword arguments or one positional argument")
        frame: Frame = {"kind": CALL, "flags": NO_INPUT, "parent": call.id, "name": name}
        if args or kwargs:
            frame["body"] = self._terms.encode(args[0] if args else dict(kwargs))
        if call.frame.get("session"):
            frame["session"] = call.frame["session"]
        if call.frame.get("meta") or "opentelemetry.trace" in sys.modules:
            headers = outgoing(call)
            if headers:
                frame["meta"] = headers
        size = weight(frame)
        if size > self._terms.max_frame:
            raise BadValue(f"value: {too_large('the arguments', size, self._terms.max_frame)}")
        if size > LARGE:
            self._terms.large(size)
        if call.deadline is not None:
            frame["ttl"] = max(1, int((call.deadline - monotonic()) * 1000))
        host_call = HostCall(call, streams)
        with self._opening:
            if len(self.live) >= self._terms.max_host_calls:
                raise RemoteError(
                    simple_error(SATURATED, f"more than {self._terms.max_host_calls} calls to the host at once")
                )
            host_call.id = frame["id"] = self.next_id
            self.next_id += 2
            self.live[host_call.id] = host_call
            self._outbox.append(frame)
        if call.host_calls is None:
            call.host_calls = {}
        call.host_calls[host_call.id] = host_call
        return host_call

    def abandon(self, host_call: HostCall) -> None:
        """Gives up a call to the host. If it still runs, the host is told to cancel it."""
        if host_call.call.host_calls is not None:
            host_call.call.host_calls.pop(host_call.id, None)
        if host_call.answer is None and self.live.get(host_call.id) is host_call and not self.forked:
            self._outbox.append({"kind": CANCEL, "id": host_call.id, "name": "abandoned"})
            host_call.inbox = None  # items that still arrive are dropped, and credited
            self._outbox.flush_soon()

    def answer(self, host_call: HostCall) -> Any:
        """Returns the result of a call to the host that has ended.

        Raises:
            RemoteError: The function failed.
            BadValue: The result can't be decoded.
            Cancelled: The call was cancelled.
            Disconnected: The call has ended, or this is a forked child.
        """
        self.usable(host_call.call)
        if host_call.call.host_calls is not None:
            host_call.call.host_calls.pop(host_call.id, None)
        value = self._terms.codec.decode(host_call.answer) if host_call.answer else None
        if host_call.failed:
            raise _remote_error(value)
        return value

    def consume(self, id_: int, inbox: Inbox, live: bool) -> Any:
        """Takes the next item out of an inbox that has one. Grants new credit whenever half of the window is owed.

        Args:
            id_: The id for the credit.
            inbox: The inbox.
            live: Whether the sender may still send.

        Raises:
            BadValue: The item can't be decoded.
        """
        frame = inbox.queue.popleft()
        body = frame.get("body", b"")
        inbox.owed_items += 1
        inbox.owed_bytes += len(body)
        if live and (inbox.owed_items * 2 >= WINDOW_ITEMS or inbox.owed_bytes * 2 >= WINDOW_BYTES):
            items, bytes_ = inbox.owed_items, inbox.owed_bytes
            inbox.owed_items = inbox.owed_bytes = 0
            inbox.granted_items += items
            inbox.granted_bytes += bytes_
            self._outbox.append({"kind": CREDIT, "id": id_, "items": items, "bytes": bytes_})
            self._outbox.flush_soon()
        value = self._terms.codec.decode(body)
        if frame.get("flags", 0) & FAILED:
            return ItemError(_remote_error(value))
        return value

    def stop_input(self, call: Call) -> None:
        """Tells the caller to send no more input, and drops the items that have arrived."""
        if call.inbox.open and not call.ended:
            call.inbox.unwanted = True
            call.inbox.open = False
            self._outbox.append({"kind": CANCEL, "id": call.id, "name": "no more input is wanted"})
            self._outbox.flush_soon()
        call.inbox.queue.clear()

    def may_wait(self) -> None:
        """Checks that the calling thread may wait for the host.

        A signal handler or a finalizer may interrupt the bridge's own work at any step. It must not wait there for an
        answer that only the interrupted work can bring.

        Raises:
            RuntimeError: It may not.
            Disconnected: The host is gone.
        """
        if self._outbox.closed:
            raise Disconnected("the host is gone")
        if self._opening._is_owned() or self.inside():
            raise RuntimeError(
                "the host can't be called here: this code, such as a finalizer or a signal handler, interrupts the "
                "bridge's own work; let the handler make the call"
            )

    def usable(self, call: Call) -> None:
        """Checks that the handler may still use its call.

        Raises:
            Cancelled: The call was cancelled.
            Disconnected: The call has ended, or this is a forked child.
        """
        if self.forked:
            raise Disconnected("a forked child has no host; hand what it found to its parent")
        call.check()
        if call.ended:
            raise Disconnected(f"the call of {call.name} has ended")

    def in_child(self) -> None:
        """Called in a forked child."""
        self.forked = True
        self._opening = RLock()


def _outside() -> bool:
    """Returns False, because there is no runner yet."""
    return False


def _remote_error(value: Any) -> RemoteError:
    """Returns the exception for a decoded error of the host. It should be a structured error, but may be any value."""
    return RemoteError(value if isinstance(value, dict) else {"type": "Error", "message": str(value)})
