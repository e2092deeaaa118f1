"""A handler's access to its call: the context, the input, and the streams of the host's functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, AsyncIterator, Iterator, Mapping, Optional, TypeVar

from ._calls import Call, HostCall
from ._sessions import Session
from ._stdlib import stdlib_first
from ._unpatched import monotonic

if TYPE_CHECKING:
    import logging

    from ._runner import Runner

_S = TypeVar("_S", bound="_BaseStream")


class _BaseContext:
    __slots__ = ("_call", "_runner")

    def __init__(self, runner: Runner, call: Call) -> None:
        self._runner = runner
        self._call = call

    @property
    def session(self) -> Optional[Session]:
        """The call's session, or None if it belongs to none."""
        return self._call.session

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata that the caller sent."""
        return self._call.frame.get("meta") or {}

    @property
    def command(self) -> str:
        """The command's name."""
        return self._call.name

    @property
    def worker_index(self) -> int:
        """This worker's index in its pool, from 0. A replacement has its predecessor's index."""
        return self._runner.index

    @property
    def logger(self) -> logging.Logger:
        """A logger with the command's name.

        While the call runs, the records of every logger name the call in the host's log.
        """
        with stdlib_first():
            import logging
        return logging.getLogger(self._call.name)

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return self._call.cancelled

    def check(self) -> None:
        """Raises `Cancelled` if the call was cancelled.

        Call it in loops in threads, where perhaps nothing else can interrupt the call.
        """
        self._call.check()

    def remaining(self) -> Optional[float]:
        """Returns how many seconds are left, or None if there is no limit. Never negative."""
        deadline = self._call.deadline
        return None if deadline is None else max(0.0, deadline - monotonic())


class Context(_BaseContext):
    """The call that a plain function or a generator serves. The handler gets it as its parameter ``ctx``.

    Any thread may call its methods until the handler returns. Methods that wait raise `Cancelled` when the call is
    cancelled.
    """

    __slots__ = ()

    @property
    def input(self) -> Input:
        """The items that the caller streams in."""
        return Input(self._runner, self._call)

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Calls a function of the host and returns its result.

        Args:
            name: The function's name.
            *args: At most one value: the argument.
            **kwargs: The argument as a map, if there is no positional one.

        Raises:
            RemoteError: The function failed.
            BadValue: The argument can't travel.
        """
        runner, call = self._runner, self._call
        host_call = runner.host_calls.open(call, name, args, kwargs, streams=False)
        runner.executor.wait(call, host_call.settled)
        return runner.host_calls.answer(host_call)

    def stream(self, name: str, /, *args: Any, **kwargs: Any) -> Stream:
        """Calls a function of the host and returns the stream of its items. It takes the arguments of `call`."""
        host_call = self._runner.host_calls.open(self._call, name, args, kwargs, streams=True)
        self._runner.outbox.flush_soon()
        return Stream(self._runner, host_call)


class AsyncContext(_BaseContext):
    """The call that an async function or async generator serves. The handler gets it as its parameter ``ctx``.

    Use it on the loop that runs the handler.
    """

    __slots__ = ()

    @property
    def input(self) -> AsyncInput:
        """The items that the caller streams in."""
        return AsyncInput(self._runner, self._call)

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Calls a function of the host and returns its result. See `Context.call`."""
        runner, call = self._runner, self._call
        host_call = runner.host_calls.open(call, name, args, kwargs, streams=False)
        try:
            await runner.executor.wait_async(call, host_call.settled)
        except BaseException:
            runner.host_calls.abandon(host_call)
            raise
        return runner.host_calls.answer(host_call)

    def stream(self, name: str, /, *args: Any, **kwargs: Any) -> AsyncStream:
        """Calls a function of the host and returns the stream of its items. It takes the arguments of `call`."""
        host_call = self._runner.host_calls.open(self._call, name, args, kwargs, streams=True)
        self._runner.outbox.flush_soon()
        return AsyncStream(self._runner, host_call)


class _BaseInput:
    def __init__(self, runner: Runner, call: Call) -> None:
        self._runner = runner
        self._call = call
        self._inbox = call.inbox

    def _ready(self) -> bool:
        return bool(self._inbox.queue) or not self._inbox.open or self._call.cancelled

    def _next_item(self) -> Any:
        return self._runner.host_calls.consume(self._call.id, self._inbox, self._inbox.open)

    def close(self) -> None:
        """Tells the caller to send no more, and drops the items that have arrived."""
        self._runner.host_calls.stop_input(self._call)


class Input(_BaseInput, Iterator[Any]):
    """Iterates over the items that the caller streams in. A failed item is an `ItemError` in its place."""

    def __next__(self) -> Any:
        self._runner.host_calls.usable(self._call)
        if not self._inbox.queue:
            self._runner.host_calls.may_wait()
            self._runner.executor.wait(self._call, self._ready)
            self._call.check()
            if not self._inbox.queue:
                raise StopIteration
        return self._next_item()


class AsyncInput(_BaseInput, AsyncIterator[Any]):
    """Iterates over the items that the caller streams in, with ``async for``.

    A failed item is an `ItemError` in its place.
    """

    async def __anext__(self) -> Any:
        self._runner.host_calls.usable(self._call)
        if not self._inbox.queue:
            await self._runner.executor.wait_async(self._call, self._ready)
            self._call.check()
            if not self._inbox.queue:
                raise StopAsyncIteration
        return self._next_item()


class _BaseStream:
    """The items that a function of the host streams.

    Attributes:
        result: The function's return value; None until the stream has ended.
    """

    def __init__(self, runner: Runner, host_call: HostCall) -> None:
        self.result: Any = None
        self._runner = runner
        self._host_call = host_call
        self._inbox = host_call.inbox
        self._done = False

    def _waiting(self) -> bool:
        """Reports whether the next item has not arrived yet."""
        self._runner.host_calls.usable(self._host_call.call)
        return not self._done and not self._host_call.settled()

    def _next_item(self, end: type) -> Any:
        self._host_call.call.check()
        if self._done or self._inbox is None:
            raise end
        if self._inbox.queue:
            return self._runner.host_calls.consume(self._host_call.id, self._inbox, self._host_call.answer is None)
        self._done = True
        self.result = self._runner.host_calls.answer(self._host_call)
        raise end

    def close(self) -> None:
        """Takes no more items. Cancels the function if it still runs."""
        if not self._done:
            self._done = True
            self._runner.host_calls.abandon(self._host_call)


class Stream(_BaseStream, Iterator[Any]):
    """Iterates over the items of a function of the host. A failed item is an `ItemError` in its place.

    If a loop ends early, the function keeps running until the handler returns. To cancel it earlier, call `close`, or
    use the stream in ``with``.
    """

    def __next__(self) -> Any:
        if self._waiting():
            self._runner.host_calls.may_wait()
            self._runner.executor.wait(self._host_call.call, self._host_call.settled)
        return self._next_item(StopIteration)

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncStream(_BaseStream, AsyncIterator[Any]):
    """Iterates over the items of a function of the host, with ``async for``. See `Stream`."""

    async def __anext__(self) -> Any:
        if self._waiting():
            await self._runner.executor.wait_async(self._host_call.call, self._host_call.settled)
        return self._next_item(StopAsyncIteration)

    async def __aenter__(self: _S) -> _S:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
