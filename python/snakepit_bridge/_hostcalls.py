"""A handler's requests to the host: calls of the host's functions, and the input of its own call."""

from __future__ import annotations

from time import monotonic
from typing import Any, Dict, Mapping, Sequence

from ._answers import too_large
from ._calls import WINDOW_BYTES, WINDOW_ITEMS, Call, Inbox, Request
from ._errors import SATURATED, BadValue, Disconnected, ItemError, RemoteError, plain, shown
from ._frames import CALL, CANCEL, CREDIT, FAILED, NO_INPUT, Frame, weight
from ._outbox import Outbox
from ._terms import Terms
from ._unpatched import Lock


class Requests:
    """The calls to the host. Any number of threads may use it at once.

    Attributes:
        live: The requests that the host has not answered, by id.
        next_id: The id of the next request.
        forked: This is a forked child, which has no host.
    """

    def __init__(self, terms: Terms, outbox: Outbox) -> None:
        self.live: Dict[int, Request] = {}
        self.next_id = 2
        self.forked = False
        self._terms = terms
        self._outbox = outbox
        self._opening = Lock()  # makes taking an id and queueing its frame one step

    def open(self, call: Call, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], streams: bool) -> Request:
        """Queues a call of the host's function for a handler's call, and returns the request.

        Args:
            call: The call that the handler serves.
            name: The function's name.
            args: At most one value: the argument.
            kwargs: The argument as a map, if there is no positional one.
            streams: Whether the handler takes items.

        Raises:
            TypeError: The name is no text, or there are too many arguments.
            BadValue: The argument can't travel or is too large.
            RemoteError: Too many calls to the host are open.
            Cancelled: The call was cancelled.
            Disconnected: The call has ended, or this is a forked child.
        """
        self.usable(call)
        try:
            name = str.__str__(name)
            name.encode()
        except (TypeError, UnicodeEncodeError):
            raise TypeError(f"{shown(name, 60)} is no function's name") from None
        if len(args) > 1 or (args and kwargs):
            raise TypeError(f"{name} takes either keyword arguments or one positional argument")
        frame: Frame = {"kind": CALL, "flags": NO_INPUT, "parent": call.id, "name": name}
        if args or kwargs:
            frame["body"] = self._terms.codec.encode(args[0] if args else dict(kwargs))
        if call.frame.get("session"):
            frame["session"] = call.frame["session"]
        size = weight(frame)
        if size > self._terms.max_frame:
            raise BadValue(f"value: {too_large('the arguments', size, self._terms.max_frame)}")
        if call.deadline is not None:
            frame["ttl"] = max(1, int((call.deadline - monotonic()) * 1000))
        request = Request(call, streams)
        with self._opening:
            if len(self.live) >= self._terms.requests:
                raise RemoteError(plain(SATURATED, f"more than {self._terms.requests} calls to the host at once"))
            request.id = frame["id"] = self.next_id
            self.next_id += 2
            self.live[request.id] = request
            self._outbox.append(frame)
        if call.requests is None:
            call.requests = {}
        call.requests[request.id] = request
        return request

    def abandon(self, request: Request) -> None:
        """Gives up a request. If it still runs, the host is told to cancel it."""
        if request.call.requests is not None:
            request.call.requests.pop(request.id, None)
        if request.answer is None and self.live.get(request.id) is request and not self.forked:
            self._outbox.append({"kind": CANCEL, "id": request.id, "name": "abandoned"})
            request.inbox = None  # items that still arrive are dropped, and credited
            self._outbox.settle()

    def answer(self, request: Request) -> Any:
        """Returns the result of a request that has ended.

        Raises:
            RemoteError: The function failed.
            BadValue: The result can't be decoded.
            Cancelled: The call was cancelled.
            Disconnected: The call has ended, or this is a forked child.
        """
        self.usable(request.call)
        if request.call.requests is not None:
            request.call.requests.pop(request.id, None)
        value = self._terms.codec.decode(request.answer) if request.answer else None
        if request.failed:
            raise RemoteError(value if isinstance(value, dict) else {"type": "Error", "message": str(value)})
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
            self._outbox.settle()
        value = self._terms.codec.decode(body)
        if frame.get("flags", 0) & FAILED:
            return ItemError(
                RemoteError(value if isinstance(value, dict) else {"type": "Error", "message": str(value)})
            )
        return value

    def stop_input(self, call: Call) -> None:
        """Tells the caller to send no more input, and drops the items that have arrived."""
        if call.inbox.open and not call.ended:
            call.inbox.unwanted = True
            call.inbox.open = False
            self._outbox.append({"kind": CANCEL, "id": call.id, "name": "no more input is wanted"})
            self._outbox.settle()
        call.inbox.queue.clear()

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
        self._opening = Lock()
