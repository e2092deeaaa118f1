"""The RPCs for gRPC clients other than the host: Execute, ExecuteStream and the standard health service.

The transport has checked the token when an RPC arrives here.

A client's call becomes frames with a negative id. The runner takes them like the host's (see `Transport.opened`). At
any time, it has at most as many of these calls as the worker's concurrency, so the host's calls never wait behind more.
The others wait here.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import closing
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, Mapping, NoReturn, Sequence, Union

from snakepit_bridge._codec import Codec
from snakepit_bridge._codecs import get_codec
from snakepit_bridge._errors import BAD_ARGUMENTS, BAD_RESULT, CANCELLED, DRAINING, SATURATED, UNKNOWN_COMMAND, BadValue
from snakepit_bridge._frames import weight
from snakepit_bridge._unpatched import RLock, SimpleQueue
from snakepit_bridge.grpc.health import Health
from snakepit_bridge.transport import CALL, CANCEL, CREDIT, END, ERROR, FAILED, ITEM, NO_INPUT, Frame, Unavailable

__all__ = ["Clients"]

CREDIT_ITEMS = 64
"""After so many items, or `CREDIT_BYTES` bytes, the runner gets new credit for a stream."""

CREDIT_BYTES = 256 << 10

DETAIL = 1000
"""How many characters of a message go into a status. A status travels in headers, and peers accept 8 KiB of them."""

ERROR_BYTES = 4000
"""How many bytes the structured error in the trailing metadata may have."""

_CODES = {
    UNKNOWN_COMMAND: "NOT_FOUND",
    BAD_ARGUMENTS: "INVALID_ARGUMENT",
    SATURATED: "RESOURCE_EXHAUSTED",
    DRAINING: "UNAVAILABLE",
    CANCELLED: "CANCELLED",
}

_Event = Union[Frame, str]
_START, _LEFT, _STOPPED = "start", "left", "stopped"


class _Call:
    """One RPC. Its events are frames from the runner, and the words above."""

    __slots__ = ("events", "id")

    def __init__(self) -> None:
        self.id = 0
        self.events: SimpleQueue[_Event] = SimpleQueue()


class Clients:
    """Serves the RPCs.

    Args:
        grpc: The module grpc.
        pb2: The module snakepit_pb2.
        max_frame: The largest weight of a frame that the runner takes, in bytes.
    """

    def __init__(self, grpc: Any, pb2: Any, max_frame: int) -> None:
        self._grpc = grpc
        self._code = grpc.StatusCode
        self._pb2 = pb2
        self._max_frame = max_frame
        # Guards what follows. It is reentrant because a finalizer may log, and so write, while it is held.
        self._lock = RLock()
        self._take: Callable[[Sequence[Frame]], None]
        self._codec: Codec
        self._slots = 0  # 0 until the host has attached; calls wait for that
        self._ended = False
        self._next_id = -1
        self._running: Dict[int, _Call] = {}  # the calls that the runner has not answered
        self._waiting: Deque[_Call] = deque()
        self._health = Health(grpc, "snakepit.v1.Worker")

    def methods(self) -> Dict[str, Any]:
        """Returns the handlers of the service snakepit.v1.Worker."""
        pb2, grpc = self._pb2, self._grpc
        parse = pb2.ExecuteRequest.FromString
        return {
            "Execute": grpc.unary_unary_rpc_method_handler(self._execute, parse, pb2.ExecuteResponse.SerializeToString),
            "ExecuteStream": grpc.unary_stream_rpc_method_handler(
                self._execute_stream, parse, pb2.ExecuteChunk.SerializeToString
            ),
        }

    def health_methods(self) -> Dict[str, Any]:
        """Returns the handlers of the service grpc.health.v1.Health."""
        return self._health.methods()

    # --- the connection

    def begin(self, take: Callable[[Sequence[Frame]], None], codec: str, concurrency: int) -> None:
        """Begins to serve. The arguments are those of `Transport.opened`."""
        with self._lock:
            self._take, self._codec, self._slots = take, get_codec(codec), concurrency
            while self._waiting and len(self._running) < self._slots:
                self._let_run(self._waiting.popleft())
            self._health.serve(not self._ended)

    def end(self) -> None:
        """Ends all RPCs and serves no more of them, because the host's connection has ended. It does not wait."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            for call in (*self._running.values(), *self._waiting):
                call.events.put(_STOPPED)
            self._waiting.clear()
            self._health.serve(False)

    def pick(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Delivers the frames that are for clients, and returns the others."""
        if not self._running:  # one read needs no lock, because a call is in there before the runner knows it
            return frames
        others: List[Frame] = []
        for frame in frames:
            if frame.get("id", 0) < 0:
                self._deliver(frame)
            else:
                if frame.get("parent", 0) < 0:
                    frame["parent"] = 0  # the host does not know the client's call
                others.append(frame)
        return others

    def _deliver(self, frame: Frame) -> None:
        with self._lock:
            call = self._running.get(frame["id"])
            if call is None:  # the runner has failed to take the call, and its slot was given back
                return
            if frame["kind"] in (END, ERROR):
                del self._running[call.id]
                self._next()
        if "body" in frame:
            frame["body"] = bytes(frame["body"])  # perhaps parts
        call.events.put(frame)

    def _next(self) -> None:
        if self._waiting:
            self._let_run(self._waiting.popleft())

    def _let_run(self, call: _Call) -> None:
        call.id, self._next_id = self._next_id, self._next_id - 2
        self._running[call.id] = call
        call.events.put(_START)

    # --- Execute and ExecuteStream

    def _execute(self, request: Any, context: Any) -> Any:
        codec = self._request_codec(request, context)
        with closing(self._frames(request, codec, context)) as frames:
            for frame in frames:
                if frame["kind"] == ITEM:
                    context.abort(
                        self._code.FAILED_PRECONDITION, f"{request.command} sends a stream: use ExecuteStream"
                    )
                return self._pb2.ExecuteResponse(result=self._recode(frame, codec, context))
        return self._pb2.ExecuteResponse()  # the client has left and does not receive this

    def _execute_stream(self, request: Any, context: Any) -> Iterator[Any]:
        codec = self._request_codec(request, context)
        chunk = self._pb2.ExecuteChunk
        with closing(self._frames(request, codec, context)) as frames:
            for frame in frames:
                value = self._recode(frame, codec, context)
                if frame["kind"] == END:
                    yield chunk(result=value)
                elif frame.get("flags", 0) & FAILED:
                    yield chunk(item_error=value)
                else:
                    yield chunk(item=value)

    def _frames(self, request: Any, codec: Codec, context: Any) -> Generator[Frame, None, None]:
        """Makes the call and yields the frames that answer it: items and the end.

        If the client leaves, it yields nothing more. If the call fails or the worker stops, it aborts the RPC.
        """
        call = _Call()
        if not context.add_callback(lambda: call.events.put(_LEFT)):
            return
        with self._lock:
            if self._ended:
                call.events.put(_STOPPED)
            elif len(self._running) < self._slots:
                self._let_run(call)
            else:
                self._waiting.append(call)
        sent = answered = False
        items = size = 0
        try:
            while True:
                event = call.events.get()
                if event == _LEFT:
                    return
                if event == _STOPPED:
                    answered = True
                    context.abort(self._code.UNAVAILABLE, "the worker stops, or its host has left")
                if event == _START:
                    self._take([self._call_frame(request, codec, call.id, context)])
                    sent = True
                    continue
                assert not isinstance(event, str)
                if event["kind"] == ERROR:
                    answered = True
                    self._fail(event, context)
                elif event["kind"] == END:
                    answered = True
                    yield event
                    return
                elif event["kind"] == ITEM:
                    yield event
                    items, size = items + 1, size + len(event["body"])
                    if items >= CREDIT_ITEMS or size >= CREDIT_BYTES:
                        self._take([{"kind": CREDIT, "id": call.id, "items": items, "bytes": size}])
                        items = size = 0
                # The other kinds are about the call's input, and there is none.
        finally:
            if not sent:
                self._withdraw(call)
            elif not answered:
                self._take([{"kind": CANCEL, "id": call.id, "name": "the client has left"}])

    def _withdraw(self, call: _Call) -> None:
        """Gives back the slot of a call that the runner has not seen."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
            elif self._running.pop(call.id, None) is not None:
                self._next()

    def _call_frame(self, request: Any, codec: Codec, id_: int, context: Any) -> Frame:
        body = self._arguments(request, codec, context)
        frame: Frame = {"kind": CALL, "flags": NO_INPUT, "id": id_, "name": request.command, "body": body}
        left = context.time_remaining()
        if left is not None:
            frame["ttl"] = max(1, int(left * 1000))
        if request.session:
            frame["session"] = request.session
        if request.metadata:
            frame["meta"] = dict(request.metadata)
        size = weight(frame)
        if size > self._max_frame:
            message = (
                f"the request makes a frame of {size} bytes, and the limit is {self._max_frame}; raise Options.MaxFrame"
            )
            context.abort(self._code.RESOURCE_EXHAUSTED, message)
        return frame

    def _request_codec(self, request: Any, context: Any) -> Codec:
        try:
            return get_codec(request.encoding or "json")
        except (ValueError, Unavailable) as error:
            self._abort({"type": BAD_ARGUMENTS, "message": f"encoding {request.encoding!r}: {error}"}, context)

    def _arguments(self, request: Any, codec: Codec, context: Any) -> bytes:
        body: bytes = request.args
        if not body or codec.name == self._codec.name:
            return body
        try:
            return self._codec.encode(codec.decode(body))
        except BadValue as error:
            self._abort({"type": BAD_ARGUMENTS, "message": str(error)}, context)

    def _recode(self, frame: Frame, codec: Codec, context: Any) -> bytes:
        body: bytes = frame.get("body", b"")
        if body and codec.name == self._codec.name:
            return body
        try:
            return codec.encode(self._codec.decode(body) if body else None)
        except BadValue as error:
            self._abort({"type": BAD_RESULT, "message": str(error)}, context)

    def _fail(self, frame: Frame, context: Any) -> NoReturn:
        error = self._codec.decode(frame["body"])
        self._abort(error, context)

    def _abort(self, error: Mapping[str, Any], context: Any) -> NoReturn:
        error_type, message = error["type"], error["message"]
        name = _CODES.get(error_type, "INTERNAL")
        context.set_trailing_metadata((("snakepit-error-bin", _short(error)),))
        context.abort(getattr(self._code, name), f"{error_type}: {message}"[:DETAIL])
        raise AssertionError("abort has returned")


def _short(error: Mapping[str, Any]) -> bytes:
    """Returns as much of the error as fits into a header, as JSON."""
    error_type, message, frames = error["type"], error["message"], error.get("frames") or []
    attempts: List[Mapping[str, Any]] = [
        error,
        {**error, "cause": None},
        {"type": error_type, "message": message[:DETAIL], "frames": frames[-8:]},
        {"type": error_type, "message": message[:DETAIL], "frames": frames[-1:]},
    ]
    for attempt in attempts:
        data = json.dumps({key: value for key, value in attempt.items() if value}).encode()
        if len(data) <= ERROR_BYTES:
            return data
    return json.dumps({"type": error_type[:200], "message": message[: DETAIL // 4]}).encode()
