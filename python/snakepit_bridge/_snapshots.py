"""Snapshots of sessions: the host keeps the state of a session, so that it survives this process."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence
from weakref import WeakKeyDictionary

from ._answers import Refused
from ._calls import Call
from ._command import Command, examine
from ._description import describe
from ._errors import render, shown, simple_error
from ._frames import FAILED, KEEP_STATE, NOT_STARTED, STATE, Frame
from ._interrupt import enter
from ._sessions import Session
from ._stdlib import stdlib_first
from ._unpatched import RLock

if TYPE_CHECKING:
    from ._context import Context
    from ._runner import Runner

FEATURE = "snapshots"
"""The feature that a worker announces in its hello if it gives snapshots and restores them."""

RESTORE = "snakepit.restore"
"""The command that restores a session. Its argument is the snapshot."""


class Snapshots:
    """Takes snapshots of sessions and restores them, by functions of the program.

    Args:
        take: Returns the snapshot of a session.
        restore: Restores a session from its snapshot; None if a snapshot is the state itself.
    """

    def __init__(self, take: Callable[[Session], Any], restore: Optional[Callable[[Session, Any], Any]]) -> None:
        self._take = take
        self._restore = restore
        self._turns: WeakKeyDictionary[Session, Any] = WeakKeyDictionary()
        """A lock for each session: taking a snapshot and queueing it is one step."""

    @staticmethod
    def wanted(runner: Runner, call: Call, answer: Frame) -> bool:
        """Reports whether the state of the call's session goes before this answer."""
        return bool(
            call.frame.get("flags", 0) & KEEP_STATE
            and call.session is not None
            and not answer.get("flags", 0) & NOT_STARTED
            and not runner.ended  # nobody gets it, and the services may be closed
        )

    def send(self, runner: Runner, call: Call) -> None:
        """Queues the snapshot of the call's session. An exception is logged, and the host then keeps no snapshot."""
        session = call.session
        assert session is not None  # see wanted
        turn = self._turns.setdefault(session, RLock())
        with turn:  # calls of the session that end at once must send their snapshots in order
            try:
                frame = self._frame(runner, call, session)
            except BaseException as exc:
                self._report(runner, call, session, exc)
                frame = {"kind": STATE, "flags": FAILED, "id": call.id}
            runner.outbox.append(frame)

    def _frame(self, runner: Runner, call: Call, session: Session) -> Frame:
        value = enter(self._take, (session,), {})
        if self._restore is None and not isinstance(value, Mapping):
            raise TypeError(
                f"the snapshot is {shown(value, 60)}, and only a map can become the state by itself: return a map, or "
                "write a function with @worker.on_restore"
            )
        return runner.answers.state(call, value)

    def _report(self, runner: Runner, call: Call, session: Session, exc: BaseException) -> None:
        error = simple_error(exc.error_type, str(exc)) if isinstance(exc, Refused) else describe(exc)
        runner.outbox.log(
            {
                "level": "error",
                "logger": "snakepit_bridge",
                "message": "the snapshot of a session failed; without one it is lost with this worker",
                "fields": {
                    "session": session.id,
                    "exception": (error.get("traceback") or render(error)).rstrip("\n"),
                },
                "call": call.id,
                "time": time(),
            }
        )

    def restored(self, name: str, value: Any) -> Session:
        """Returns a new session with the state of a snapshot."""
        session = Session(name)
        if self._restore is not None:
            enter(self._restore, (session, value), {})
        else:
            session.state.update(value)
        return session


def checked(function: Any, form: str, *arguments: str) -> Any:
    """Returns a function that is to be a hook of this form. It has to take so many arguments, by their places.

    Raises:
        TypeError: It can't be one.
    """
    if not callable(function):
        raise TypeError(f"{form} belongs on a function, and got {shown(function, 40)}")
    scope = function.__qualname__.rpartition(".")[0] if isinstance(function, FunctionType) else ""
    if scope and not scope.endswith("<locals>"):
        raise TypeError(f"{function.__qualname__} is a method and has no instance: put {form} on a function")
    _, _, streams, is_async = examine(function)
    if streams or is_async:
        kind = "async" if is_async else "a generator"
        raise TypeError(f"{form} belongs on a plain function, and {shown(function, 60)} is {kind}: write it with def")
    _check_arguments(function, form, arguments)
    return function


def _check_arguments(function: Any, form: str, arguments: Sequence[str]) -> None:
    """Raises TypeError if the function can't be called with these arguments. Some functions do not tell."""
    with stdlib_first():
        import inspect
    try:
        # Not the signature of a function that this one wraps: this one is called, and may pass on other arguments.
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # the function is written in C, or the program's code raised
        return
    try:
        signature.bind(*arguments)
    except TypeError as exc:
        name = getattr(function, "__qualname__", None) or shown(function, 60)
        raise TypeError(
            f"{form} belongs on a function that takes ({', '.join(arguments)}), and {name}{signature} does not: {exc}"
        ) from None


def _restore(ctx: Context, value: Any) -> None:
    """Restores the state of the call's session from its snapshot."""
    runner, name = ctx._runner, ctx._call.frame.get("session")
    if not name or runner.snapshots is None:
        raise ValueError("a state can be restored only in a session")
    runner.sessions.put(runner.snapshots.restored(name, value))


class RestoreCommand(Command):
    """The built-in command `RESTORE`. Its argument may be any value, also a map or None."""

    def __init__(self) -> None:
        super().__init__(RESTORE, _restore, False)

    @staticmethod
    def arrange(value: Any) -> Any:
        return (value,), {}
