"""Runs the handlers of calls and queues the answers."""

from __future__ import annotations

import os
import sys
from contextvars import copy_context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Mapping, NoReturn, Optional, Sequence, Tuple

from ._answers import BadArguments
from ._calls import CURRENT, Call
from ._command import RESERVED
from ._context import AsyncContext, Context
from ._errors import BadValue, attempt, shown
from ._frames import Frame
from ._interrupt import Interrupter, enter, enter_async
from ._redirect import flush_output
from ._tracing import begin as begin_trace
from ._unpatched import get_ident, monotonic

if TYPE_CHECKING:
    from ._runner import Runner

_NONE: Mapping[str, Any] = {}


class Handlers:
    """Runs the handlers of one runner's calls.

    Attributes:
        base: The context variables that the program has set. Each call begins with a copy.
    """

    def __init__(self, runner: Runner) -> None:
        self.base = copy_context()
        self._runner = runner

    def run(self, call: Call, interrupter: Interrupter) -> None:
        """Runs a call's plain function or generator on the calling thread and queues its answer.

        It does nothing if the call was cancelled before.
        """
        if self._runner.unstarted.pop(call.id, None) is not None:
            try:
                self.base.copy().run(self._run, call, interrupter)
            except BaseException as exc:
                self.answered(call, exc)

    def answered(self, call: Call, exc: BaseException) -> None:
        """Answers a call with an exception, unless the call has its answer already."""
        if not call.ended:
            self._finish(call, self._runner.answers.failure(call, exc))

    def _run(self, call: Call, interrupter: Interrupter) -> None:
        self._begin(call, interrupter)
        try:
            interrupter.begin(call)
            try:
                args, kwargs = self._arguments(call)
                try:
                    value = enter(call.command.function, args, kwargs)
                    type_ = type(value)
                    if type_ is GeneratorType:
                        value = self._drive(call, value)
                except TypeError as exc:
                    _refuse_misfit(call, exc, args, kwargs)
                    raise
                if type_ is CoroutineType or type_ is AsyncGeneratorType:
                    raise TypeError(
                        f"the plain function {call.name} returned a {type_.__name__}; write it with async def"
                    )
            finally:
                interrupter.leave(call)
            answer = self._result(call, value)
        except BaseException as exc:
            answer = self._failure(call, exc)
        self._finish(call, answer)

    async def run_async(self, call: Call, interrupter: Interrupter) -> None:
        """Runs a call's async function or async generator and queues its answer. The calling task is the call's own."""
        import asyncio

        call.task = asyncio.current_task()
        self._begin(call, interrupter)
        try:
            try:
                args, kwargs = self._arguments(call)
                try:
                    value = enter(call.command.function, args, kwargs)
                    if isinstance(value, AsyncGeneratorType):
                        value = await self._drive_async(call, value)
                    elif hasattr(value, "__await__"):
                        value = await enter_async(value)
                except TypeError as exc:
                    _refuse_misfit(call, exc, args, kwargs)
                    raise
            finally:
                call.interrupted_at = call.interrupted_at or monotonic()  # from here on, an interrupt is too late
            answer = self._result(call, value)
        except BaseException as exc:
            answer = self._failure(call, exc)
        self._finish(call, answer)

    def _finish(self, call: Call, answer: Frame) -> None:
        """Ends a call. The state of its session goes before the answer, if the host keeps it."""
        runner = self._runner
        if call.trace is not None:
            call.trace.end()
        if runner.snapshots is not None and runner.snapshots.wanted(runner, call, answer):
            runner.snapshots.send(runner, call)
            if runner.forked:
                self._leave_child(None)
        runner.finish(call, answer)

    def _result(self, call: Call, value: Any) -> Frame:
        """Returns the answer of a call whose handler returned."""
        if self._runner.forked:
            self._leave_child(None)
        answer = self._runner.answers.result(call, value)
        if call.raised is not None:
            call.check()
        return answer

    def _failure(self, call: Call, exc: BaseException) -> Frame:
        """Returns the answer of a call that raised."""
        if self._runner.forked:
            self._leave_child(exc)
        if call.trace is not None:
            call.trace.fail(exc)
        return self._runner.answers.failure(call, exc)

    def _begin(self, call: Call, interrupter: Interrupter) -> None:
        CURRENT.set(call)
        call.started_at = monotonic()
        name = call.frame.get("session")
        if name and not call.name.startswith(RESERVED):  # the built-in commands do not use it
            call.session = self._runner.sessions.get(name, call.id < 0)
        call.handler_thread = get_ident()
        call.interrupter = interrupter  # the housekeeper repeats an interrupt that came earlier
        if "decimal" in sys.modules:
            _own_decimal()
        metadata = call.frame.get("meta")
        if metadata and "traceparent" in metadata:
            begin_trace(call, self._runner.index)

    def _arguments(self, call: Call) -> Tuple[Sequence[Any], Mapping[str, Any]]:
        if call.cancelled or call.raised is not None:
            call.check()
        body = call.frame.get("body")
        try:
            value = self._runner.terms.codec.decode(body) if body else None
        except BadValue as exc:
            raise BadArguments(str(exc)) from None
        command = call.command
        args, kwargs = command.arrange(value)
        if command.ctx is not None and "ctx" in kwargs:
            raise BadArguments(f"{call.name}() takes its context as ctx, so that can't be an argument's name")
        if command.checked:
            if command.convert is None:  # two threads may do this at once, and either result serves
                from . import _arguments

                _arguments.prepare(command)
            if command.convert is not None:
                args = command.convert(args, kwargs)
        if call.cancelled or call.raised is not None:  # it may have taken long to decode the arguments
            call.check()
        if command.ctx is None:
            return args, kwargs
        call.context = (AsyncContext if command.is_async else Context)(self._runner, call)
        if command.ctx:
            return (call.context, *args), kwargs
        kwargs["ctx"] = call.context
        return args, kwargs

    def _drive(self, call: Call, generator: GeneratorType[Any, Any, Any]) -> Any:
        step = generator.__next__
        runner = self._runner  # each of these names is looked up for every item
        outbox, make, may_send, check = runner.outbox, runner.answers.item, call.may_send, call.check
        try:
            while True:
                try:
                    value = enter(step, (), _NONE)
                except StopIteration as stop:
                    return stop.value
                if runner.forked:
                    self._leave_child(None)
                check()
                frame = make(call, value)
                if not may_send():
                    runner.executor.wait(call, may_send)
                    check()
                self._send_item(call, frame)
                if call.used_items == 1:
                    outbox.flush()  # the caller may be waiting for the first item
                else:
                    outbox.flush_soon()
        finally:
            if generator.gi_frame is not None:  # the generator has not finished
                call.interrupted_at = call.interrupted_at or monotonic()  # closing it is the interrupt
                enter(generator.close, (), _NONE)

    async def _drive_async(self, call: Call, generator: AsyncGeneratorType[Any, Any]) -> Any:
        try:
            while True:
                try:
                    value = await enter_async(generator.__anext__())
                except StopAsyncIteration:
                    return None
                if self._runner.forked:
                    self._leave_child(None)
                call.check()
                frame = self._runner.answers.item(call, value)
                if not call.may_send():
                    await self._runner.executor.wait_async(call, call.may_send)
                    call.check()
                self._send_item(call, frame)
                self._runner.executor.flush_soon()
        finally:
            call.interrupted_at = call.interrupted_at or monotonic()
            await enter_async(generator.aclose())

    def _send_item(self, call: Call, frame: Frame) -> None:
        call.used_items += 1
        call.used_bytes += len(frame["body"])
        self._runner.outbox.append(frame)

    def _leave_child(self, exc: Optional[BaseException]) -> NoReturn:
        """Ends a forked child that has returned from the handler. Only the parent may answer the call."""
        code = 0 if exc is None else 1
        try:
            if isinstance(exc, SystemExit):
                code, _ = exit_code(exc)
            elif exc is not None:
                attempt(None, lambda: sys.excepthook(type(exc), exc, exc.__traceback__))
            flush_output()
        finally:
            os._exit(code)


def _refuse_misfit(call: Call, exc: TypeError, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises `BadArguments` if the exception says that a function does not take these arguments.

    If the command's own function does not, it has not run, so the traceback ends in the `enter` that has called it.
    (`snakepit.restore` runs, and calls `enter` again.) A function in C may have run: it has no frames. If a function
    inside of a decorator does not, the traceback ends in the decorator.
    """
    tb: Any = exc.__traceback__
    codes = []
    while tb is not None:
        codes.append(tb.tb_frame.f_code)
        tb = tb.tb_next
    code = codes[-1] if codes else None
    not_run = code is enter.__code__ and len(codes) == 2  # the other one is the caller's
    if not_run or hasattr(call.command.function, "__wrapped__"):
        from . import _arguments

        if not_run:
            _arguments.refuse(call.command, exc, args, kwargs)
        else:
            _arguments.refuse_inside(call.command, exc, code, args, kwargs)


def _own_decimal() -> None:
    """Gives the running call a decimal context of its own.

    A decimal context can be changed, and all copies of a `contextvars.Context` share it.
    """
    decimal: Any = sys.modules["decimal"]
    try:
        decimal.setcontext(decimal.getcontext().copy())
    except AttributeError:  # another module of that name, or decimal is just being imported
        pass


def exit_code(exc: BaseException) -> Tuple[int, str]:
    """Returns Python's exit code for this exception, and a name for it, such as "sys.exit(3)"."""
    if issubclass(type(exc), KeyboardInterrupt):
        return 130, "KeyboardInterrupt"
    code: Any = attempt(1, getattr, exc, "code")
    if code is None:
        return 0, "sys.exit()"
    return int.__index__(code) & 0xFF if issubclass(type(code), int) else 1, f"sys.exit({shown(code)})"
