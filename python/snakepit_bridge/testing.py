"""Tests a worker file without a host, for instance in pytest.

    import snakepit_bridge.testing

    def test_compute():
        with snakepit_bridge.testing.load("worker.py") as worker:
            assert worker.call("compute", operation="add", a=1, b=2) == 3

Calls go through the same codec and the same runner as under a host, so values arrive as they would there. Handlers run
in a thread of this process, so breakpoints and coverage work. A cancel does not interrupt a handler that blocks in C
code.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from queue import Empty, SimpleQueue
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from ._codecs import get_codec
from ._description import describe, encode_error
from ._errors import UNKNOWN_COMMAND, ItemError, ProtocolError, RemoteError, shown, simple_error
from ._executors import choose
from ._frames import BASE_WEIGHT
from ._runner import Runner
from ._server import set_up, tear_down
from ._worker import Worker, only_worker
from .transport import (
    BYE,
    CALL,
    CANCEL,
    CREDIT,
    END,
    ERROR,
    FAILED,
    HELLO,
    ITEM,
    NO_INPUT,
    NOT_STARTED,
    Frame,
    Launch,
    Transport,
)

__all__ = ["Caller", "HandlerTraceback", "Stream", "load"]

_WINDOW = {"items": 64, "bytes": 1 << 20}


@contextmanager
def load(
    worker: Union[str, os.PathLike[str], Worker],
    *,
    functions: Optional[Mapping[str, Callable[..., Any]]] = None,
    timeout: float = 30.0,
    codec: str = "json",
) -> Iterator[Caller]:
    """Serves a worker inside of ``with``, and tears it down afterwards.

    Args:
        worker: A worker's file, or a `Worker`. A file runs as a module with the file's name, so
            ``if __name__ == "__main__"`` is false. A relative path is relative to the working directory.
        functions: The host's functions, which the worker may call. A generator function answers with a stream.
        timeout: How many seconds a call may take. The handler sees what is left in ``ctx.remaining()``.
        codec: The codec for values, "json" or "msgpack".

    Yields:
        A `Caller` for the worker's commands.
    """
    switch_interval = sys.getswitchinterval()
    with _program(worker) as program:
        host = _Host(program, functions or {}, codec)
        try:
            yield Caller(host, timeout)
        finally:
            host.close()
            sys.setswitchinterval(switch_interval)


class Caller:
    """Calls a worker's commands. Several threads may use it at once."""

    def __init__(
        self,
        host: _Host,
        timeout: float,
        session: str = "",
        metadata: Optional[Mapping[str, str]] = None,
        inputs: Optional[Iterable[Any]] = None,
    ) -> None:
        self._host = host
        self._timeout = timeout
        self._session = session
        self._metadata = metadata
        self._inputs = inputs

    def session(self, name: str) -> Caller:
        """Returns a caller whose calls belong to that session."""
        return self.options(session=name)

    def options(
        self,
        *,
        timeout: Optional[float] = None,
        session: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        input: Optional[Iterable[Any]] = None,
    ) -> Caller:
        """Returns a caller with other options. An option that is not given stays the same.

        Args:
            timeout: How many seconds a call may take.
            session: The session that calls belong to.
            metadata: The handler's ``ctx.metadata``.
            input: The items of ``ctx.input``, for one call. An `ItemError` is a failed item.
        """
        return Caller(
            self._host,
            self._timeout if timeout is None else timeout,
            self._session if session is None else session,
            self._metadata if metadata is None else metadata,
            self._inputs if input is None else input,
        )

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Calls a command and returns its result.

        Args:
            name: The command.
            *args: At most one value: the argument.
            **kwargs: The argument as a map, if there is no positional one.

        Raises:
            RemoteError: The handler raised.
            TimeoutError: The call took too long and was cancelled.
            TypeError: The command sends a stream, and its items would be lost.
        """
        __tracebackhide__ = True  # pytest shows the test's line
        refusal = f"{name} sends a stream: use stream()"
        if self._host.streams.get(name):
            raise TypeError(refusal)
        with self._open(name, args, kwargs, False) as stream:
            for _ in stream:
                raise TypeError(refusal)
        return stream.result

    def stream(self, name: str, /, *args: Any, **kwargs: Any) -> Stream:
        """Calls a command and returns the stream of its items. It takes the arguments of `call`.

        If the command does not stream, its result is the one item.
        """
        return self._open(name, args, kwargs, not self._host.streams.get(name))

    def _open(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], as_item: bool) -> Stream:
        if len(args) > 1 or (args and kwargs):
            raise TypeError(f"{name} takes either keyword arguments or one positional argument")
        frame: Frame = {"kind": CALL, "name": name, "ttl": max(1, int(self._timeout * 1000))}
        if args or kwargs:
            frame["body"] = self._host.codec.encode(args[0] if args else kwargs)
        if self._session:
            frame["session"] = self._session
        if self._metadata:
            frame["meta"] = dict(self._metadata)
        return Stream(self._host, frame, self._timeout, self._inputs, as_item)


class HandlerTraceback(Exception):
    """The cause of a `RemoteError`: the handler's traceback as text, so that pytest shows the handler's line."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Stream(Iterator[Any]):
    """The items of one call. A failed item is an `ItemError` in its place.

    An error of the call is raised after the items.

    Attributes:
        result: The handler's return value, once the stream has ended.
    """

    def __init__(
        self, host: _Host, frame: Frame, timeout: float, inputs: Optional[Iterable[Any]], as_item: bool
    ) -> None:
        self.result: Any = None
        self._as_item = as_item  # the result becomes an item, unless an item comes before it
        self._host = host
        self._deadline = time.monotonic() + timeout
        self._done = False
        self._answers: SimpleQueue[Frame] = SimpleQueue()
        if inputs is None:
            frame["flags"] = NO_INPUT
        self._id = host.open(frame, self._answers)
        if inputs is not None:
            host.send_items(
                self._id,
                inputs,
                lambda: {"kind": END, "id": self._id},
                lambda exc: {"kind": CANCEL, "id": self._id, "name": f"its input raised {shown(exc)}"},
            )

    def __next__(self) -> Any:
        __tracebackhide__ = True
        if self._done:
            raise StopIteration
        try:
            frame = self._answers.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except Empty:
            self.close("deadline exceeded")
            raise TimeoutError("the call took too long and was cancelled") from None
        body = frame.get("body", b"")
        if frame["kind"] == ITEM:
            self._as_item = False
            self._host.put({"kind": CREDIT, "id": self._id, "items": 1, "bytes": len(body)})
            value = self._host.codec.decode(body)
            return ItemError(RemoteError(value)) if frame.get("flags", 0) & FAILED else value
        self._done = True
        value = self._host.codec.decode(body) if body else None
        if frame["kind"] == ERROR:
            error = RemoteError(value or {})
            raise error from (HandlerTraceback(error.traceback()) if error.error.get("frames") else None)
        self.result = value
        if self._as_item and body:
            return value
        raise StopIteration

    def close(self, reason: str = "the caller left") -> None:
        """Cancels the call if it still runs, and waits a few seconds for its answer.

        Raises:
            TimeoutError: The handler did not end.
        """
        if self._done:
            return
        self._done = True
        self._host.put({"kind": CANCEL, "id": self._id, "name": reason})
        try:
            while self._answers.get(timeout=5.0)["kind"] == ITEM:
                pass
        except Empty:
            raise TimeoutError("the handler did not end within 5 s after its call was cancelled") from None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Memory(Transport):
    """A connection inside of the process."""

    def __init__(self, codec: str) -> None:
        self.codecs = (codec,)
        self.to_worker: SimpleQueue[List[Frame]] = SimpleQueue()
        self.to_host: SimpleQueue[List[Frame]] = SimpleQueue()

    def read(self) -> List[Frame]:
        return self.to_worker.get()

    def write(self, frames: Sequence[Frame]) -> None:
        self.to_host.put(list(frames))

    def close(self) -> None:
        self.to_host.put([])

    def close_in_child(self) -> None:
        """There is no descriptor to close."""


class _Sender:
    """Sends the items of one direction, within the worker's credit."""

    def __init__(self, window: Mapping[str, int]) -> None:
        self.items, self.bytes = window["items"], window["bytes"]
        self.stopped = False
        self.changed = threading.Condition()

    def grant(self, items: int, bytes_: int) -> None:
        with self.changed:
            self.items += items
            self.bytes += bytes_
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def spend(self, size: int) -> bool:
        """Waits for credit. Returns whether the item may be sent."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or (self.items > 0 and self.bytes > 0))
            self.items -= 1
            self.bytes -= size
            return not self.stopped


class _Host:
    """The host's side of a connection in memory."""

    def __init__(self, worker: Worker, functions: Mapping[str, Callable[..., Any]], codec: str) -> None:
        self.codec = get_codec(codec)
        self._functions = functions
        self._transport = _Memory(codec)
        self._ids = itertools.count(1, 2)
        self._lock = threading.Lock()  # guards the order of ids, and the two fields below
        self._answers: Dict[int, SimpleQueue[Frame]] = {}
        self._senders: Dict[int, _Sender] = {}
        self._failure: Optional[BaseException] = None
        self._runner = Runner(
            self._transport, worker._commands(), worker.concurrency, worker.queue, Launch({}), worker._snapshots()
        )
        self._thread = threading.Thread(target=self._serve, args=(worker,), name="snakepit-worker", daemon=True)
        self._thread.start()
        hello = self._transport.to_host.get()
        if not hello:
            self._thread.join()
            assert self._failure is not None
            raise self._failure
        said = json.loads(hello[0]["body"])
        self._window: Mapping[str, int] = said["window"]
        self.streams: Dict[str, bool] = {command["name"]: command["stream"] for command in said["commands"]}
        body = {
            "version": 1,
            "codec": codec,
            "window": _WINDOW,
            "concurrency": worker.concurrency + worker.queue,
            "calls": 64,
        }
        self.put({"kind": HELLO, "body": json.dumps(body).encode()})
        self._receiver = threading.Thread(target=self._receive, name="snakepit-host", daemon=True)
        self._receiver.start()

    def _serve(self, worker: Worker) -> None:
        runner = self._runner
        closing: List[Callable[[], Any]] = []
        try:
            runner.executor = choose(runner, worker._needs_loop())
            set_up(runner, worker, closing)
            runner.greet()
            runner.executor.serve()
            tear_down(runner, closing)
        except BaseException as exc:  # `load` or `close` raises it in the test's thread
            self._failure = exc
        runner.close()

    def close(self) -> None:
        self.put({"kind": BYE})
        self._transport.to_worker.put([])
        self._thread.join(10.0)
        if self._thread.is_alive():
            raise TimeoutError("the worker did not end within 10 s")
        self._receiver.join()
        with self._lock:
            senders = list(self._senders.values())
        for sender in senders:
            sender.stop()
        if self._failure is not None:
            raise self._failure
        if self._runner.exit_code:
            raise ProtocolError("the worker ended because of a protocol error; see its standard error")

    def put(self, frame: Frame) -> None:
        self._transport.to_worker.put([frame])

    def open(self, frame: Frame, answers: SimpleQueue[Frame]) -> int:
        with self._lock:
            id_ = frame["id"] = next(self._ids)
            self._answers[id_] = answers
            self.put(frame)
        return id_

    def send_items(
        self, id_: int, items: Iterable[Any], last: Callable[[], Frame], broken: Callable[[BaseException], Frame]
    ) -> None:
        """Sends the items in a thread of their own, and then the frame of last(), or of broken() if the items raise."""
        sender = _Sender(self._window)
        with self._lock:
            self._senders[id_] = sender

        def send() -> None:
            try:
                for item in items:
                    failed = isinstance(item, ItemError)
                    body = self._error_body(item.error) if failed else self.codec.encode(item)
                    if not sender.spend(len(body)):
                        return
                    self.put({"kind": ITEM, "id": id_, "body": body, "flags": FAILED if failed else 0})
                self.put(last())
            except BaseException as exc:
                self.put(broken(exc))

        threading.Thread(target=send, name=f"snakepit-send-{id_}", daemon=True).start()

    def _receive(self) -> None:
        while True:
            frames = self._transport.to_host.get()
            if not frames:
                break
            for frame in frames:
                self._handle(frame)
        with self._lock:
            left = list(self._answers.values())
        gone = self.codec.encode({"type": "Disconnected", "message": "the worker ended"})
        for answers in left:
            answers.put({"kind": ERROR, "body": gone})

    def _handle(self, frame: Frame) -> None:
        kind, id_ = frame["kind"], frame.get("id", 0)
        with self._lock:
            answers, sender = self._answers.get(id_), self._senders.get(id_)
            if kind in (END, ERROR):
                self._answers.pop(id_, None)
                self._senders.pop(id_, None)
        if kind == CALL:
            threading.Thread(target=self._answer, args=(frame,), name=f"snakepit-function-{id_}", daemon=True).start()
        elif kind == CREDIT and sender is not None:
            sender.grant(frame["items"], frame["bytes"])
        elif kind == CANCEL and sender is not None:
            sender.stop()
        elif kind in (ITEM, END, ERROR) and answers is not None:
            if kind != ITEM and sender is not None:
                sender.stop()
            answers.put(frame)

    def _answer(self, frame: Frame) -> None:
        """Runs a function for the worker."""
        id_, name = frame["id"], frame["name"]
        function = self._functions.get(name)
        if function is None:
            error = simple_error(UNKNOWN_COMMAND, f"no function {name!r}; give load(functions=...)")
            self.put({"kind": ERROR, "flags": NOT_STARTED, "id": id_, "body": self.codec.encode(error)})
            return
        try:
            value = self.codec.decode(frame["body"]) if frame.get("body") else {}
            result = function(**value) if isinstance(value, dict) else function(value)
            if isinstance(result, Iterator):
                returned: List[Any] = []
                self.send_items(
                    id_,
                    _keep_result(result, returned),
                    lambda: self._end(id_, returned[0]),
                    lambda exc: self._failed(id_, exc),
                )
            else:
                self.put(self._end(id_, result))
        except BaseException as exc:
            self.put(self._failed(id_, exc))

    def _failed(self, id_: int, exc: BaseException) -> Frame:
        return {"kind": ERROR, "id": id_, "body": self._error_body(exc)}

    def _error_body(self, exc: BaseException) -> bytes:
        return encode_error(describe(exc, self.codec), self.codec.encode, self._runner.terms.max_frame - BASE_WEIGHT)

    def _end(self, id_: int, result: Any) -> Frame:
        return (
            {"kind": END, "id": id_} if result is None else {"kind": END, "id": id_, "body": self.codec.encode(result)}
        )


def _keep_result(items: Any, returned: List[Any]) -> Iterator[Any]:
    returned.append((yield from items))


@contextmanager
def _program(worker: Union[str, os.PathLike[str], Worker]) -> Iterator[Worker]:
    if isinstance(worker, Worker):
        yield worker
        return
    path = os.path.abspath(os.fspath(worker))
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"there is no file {os.fspath(worker)!r} (the working directory is {os.getcwd()}); "
            "best name it by its absolute path"
        )
    name = os.path.splitext(os.path.basename(path))[0]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # pickle looks there
    sys.path.insert(0, os.path.dirname(path))
    try:
        spec.loader.exec_module(module)
        yield only_worker(vars(module), os.path.basename(path))
    finally:
        sys.path.remove(os.path.dirname(path))
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
