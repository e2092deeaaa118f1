"""Interrupts handlers whose call was cancelled.

A signal interrupts a handler on the main thread. It also ends calls that block: sleep, recv, lock.acquire,
subprocess.wait. In other threads, only PyThreadState_SetAsyncExc is available. It takes effect when Python code runs
again. A task of asyncio is cancelled.

The exception may be raised only inside of the cancelled call, and only where user code runs. In code of the bridge it
would break the protocol, in importlib it would leave a half-imported module, and in logging a locked lock. There the
interrupt is put off.
"""

from __future__ import annotations

import os
import signal
import sys
from signal import signal as set_handler
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Collection, Mapping, Optional, Sequence, Set, Tuple, Union

from ._calls import CURRENT, Call
from ._errors import HERE, Cancelled
from ._stdlib import stdlib_first
from ._unpatched import MAIN_THREAD, Lock, get_ident, monotonic

if TYPE_CHECKING:
    import asyncio


def enter(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs user code. Only the frames above this function's frame may be interrupted."""
    return function(*args, **kwargs)


async def enter_async(awaitable: Awaitable[Any]) -> Any:
    """Awaits user code, like `enter`."""
    return await awaitable


TRANSPARENT: Set[Any] = set()
"""The code objects of those functions of the bridge that only call functions of the program."""

_TRAMPOLINES = (enter.__code__, enter_async.__code__)
_UNINTERRUPTIBLE = (
    HERE,
    "<frozen importlib",
    os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "logging") + os.sep,
)


def interruptible(frame: Optional[Any]) -> bool:
    """Reports whether an interrupt may be raised in this innermost frame.

    It may, if user code of a call runs there, and no frame in between belongs to code that must not be interrupted.
    """
    return first_found(frame, _TRAMPOLINES, _UNINTERRUPTIBLE, False)


def first_found(
    frame: Optional[Any], allowed: Collection[Any], forbidden: Union[str, Tuple[str, ...]], neither: bool
) -> bool:
    """Reports whether the stack, from the innermost frame outwards, has allowed code before any forbidden code.

    Args:
        frame: The innermost frame.
        allowed: Code objects.
        forbidden: The beginnings of the names of files. All of their code is forbidden, except `TRANSPARENT` code.
        neither: The answer for a stack that has neither.
    """
    while frame is not None:
        code = frame.f_code
        if code in allowed:
            return True
        if code.co_filename.startswith(forbidden) and code not in TRANSPARENT:
            return False
        frame = frame.f_back
    return neither


class Interrupter:
    """Interrupts handlers, in a way that suits the threads or tasks that run them."""

    def begin(self, call: Call) -> None:
        """Called by the thread that is about to run the call's handler."""

    def leave(self, call: Call) -> None:
        """Called by the same thread afterwards. Once it has returned, no interrupt of this call arrives."""

    def interrupt(self, call: Call) -> None:
        """Interrupts the call if that is possible now. The interrupt sets ``call.interrupted_at`` to its time.

        Any thread may call it.
        """


class MainThread(Interrupter):
    """Interrupts handlers on the main thread, by a signal. They run one at a time."""

    def __init__(self) -> None:
        self.current: Optional[Call] = None
        self.ident = get_ident()
        set_handler(signal.SIGURG, self._on_signal)

    @staticmethod
    def possible() -> bool:
        """Reports whether the calling thread can be interrupted by a signal."""
        return hasattr(signal, "pthread_kill") and get_ident() == MAIN_THREAD

    def begin(self, call: Call) -> None:
        self.current = call

    def leave(self, call: Call) -> None:
        self.current = None

    def interrupt(self, call: Call) -> None:
        if self.current is call:
            signal.pthread_kill(self.ident, signal.SIGURG)

    def _on_signal(self, number: int, frame: Optional[Any]) -> None:
        call = self.current
        if call is not None and call.cancelled and not call.interrupted_at and interruptible(frame):
            call.interrupted_at = monotonic()
            raise Cancelled(call.reason)


class Threads(Interrupter):
    """Interrupts handlers on any threads. ``call.lock`` ensures that no exception is injected after `leave`."""

    def begin(self, call: Call) -> None:
        call.lock = Lock()
        call.interruptible_thread = get_ident()

    def leave(self, call: Call) -> None:
        while True:
            try:
                with call.lock:
                    if call.interrupted_at:
                        _inject(call.interruptible_thread, None)  # withdraws an exception that has not arrived yet
                    call.interruptible_thread = 0
                return
            except Cancelled:  # it arrived here, and there is at most one
                continue

    def interrupt(self, call: Call) -> None:
        with stdlib_first():
            import ctypes  # noqa: F401  imported here: during an import below, the handler could run on
        if not call.interruptible_thread:  # perhaps the call has no lock of its own yet
            return
        with call.lock:
            if (
                call.interruptible_thread
                and not call.interrupted_at
                and interruptible(sys._current_frames().get(call.interruptible_thread))
            ):
                call.interrupted_at = monotonic()
                _inject(call.interruptible_thread, Cancelled)


class Tasks(MainThread):
    """Interrupts async handlers, which are tasks of a loop, and plain ones, which run while the loop is stopped.

    All of them run on the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.signals = MainThread.possible()
        if self.signals:  # without signals, a handler that blocks the loop can't be interrupted
            super().__init__()

    def interrupt(self, call: Call) -> None:
        if call.task is None:
            super().interrupt(call)
        elif not call.cancel_asked_at:
            call.cancel_asked_at = monotonic()
            self.loop.call_soon_threadsafe(self._cancel, call)
        elif self.signals and monotonic() - call.cancel_asked_at > 0.05:  # something blocks the loop
            signal.pthread_kill(self.ident, signal.SIGURG)

    def _cancel(self, call: Call) -> None:
        if call.task is not None and not call.interrupted_at:
            call.interrupted_at = monotonic()
            call.task.cancel()

    def _on_signal(self, number: int, frame: Optional[Any]) -> None:
        asyncio = sys.modules["asyncio"]
        call = CURRENT.get()
        if call is None or call.task is None:
            super()._on_signal(number, frame)
        elif (
            call.task is asyncio.current_task(self.loop)
            and call.cancelled
            and not call.interrupted_at
            and interruptible(frame)
        ):
            call.interrupted_at = monotonic()
            raise asyncio.CancelledError(call.reason)


def _inject(thread: int, exception: Optional[type]) -> None:
    with stdlib_first():
        import ctypes
    value = None if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
