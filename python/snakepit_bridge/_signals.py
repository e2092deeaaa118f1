"""Guards the signal handlers of the program.

They run between any two steps of the main thread. In code of the bridge, an exception from them would lose frames or
end the worker.
"""

from __future__ import annotations

import os
import signal
from functools import partial, wraps
from signal import getsignal as get_handler
from signal import signal as set_handler
from typing import TYPE_CHECKING, Any, Callable, Optional, Set, TypeVar

from ._errors import HERE
from ._interrupt import TRANSPARENT, enter, enter_async, first_found
from ._unpatched import MAIN_THREAD, get_ident, no_signal, read, sleep, spawn

if TYPE_CHECKING:
    from ._runner import Runner

_F = TypeVar("_F", bound=Callable[..., Any])

_MAY_RAISE: Set[Any] = {enter.__code__, enter_async.__code__}


def may_raise(function: _F) -> _F:
    """Marks a function, but not those that it calls, as a place where a signal handler of the program may raise."""
    _MAY_RAISE.add(function.__code__)
    return function


class _Handler:
    """A signal handler of the program.

    Its exceptions are raised where user code runs. Elsewhere the runner takes them.
    """

    def __init__(self, function: Callable[..., Any], runner: Callable[[], Optional[Runner]]) -> None:
        self.function = function
        self.runner = runner

    def __call__(self, number: int, frame: Optional[Any]) -> None:
        try:
            self.function(number, frame)
        except BaseException as exc:
            runner = self.runner()
            if runner is None or _may_raise_in(frame):
                raise
            runner.signalled(exc, frame, number)


TRANSPARENT.add(_Handler.__call__.__code__)


def _may_raise_in(frame: Optional[Any]) -> bool:
    return first_found(frame, _MAY_RAISE, HERE, True)  # true also if no code of the bridge is running


class Signals:
    """Guards the signal handlers that exist, and those that the program installs from now on.

    The program still sees its own handlers.
    """

    def __init__(self, runner: Callable[[], Optional[Runner]]) -> None:
        self.runner = runner
        self.serving = self.handled = self.nudging = False

        def bare(handler: Any) -> Any:
            return handler.function if type(handler) is _Handler else handler

        @wraps(set_handler)
        def signal_(signalnum: Any, handler: Any) -> Any:
            return bare(set_handler(signalnum, self._guarded(handler)))

        @wraps(get_handler)
        def getsignal(signalnum: Any) -> Any:
            return bare(get_handler(signalnum))

        signal.signal, signal.getsignal = signal_, getsignal
        if get_ident() == MAIN_THREAD:
            for number in signal.valid_signals() - {signal.SIGINT}:  # the bridge itself handles SIGINT
                if callable(get_handler(number)) and get_handler(number) is not no_signal:
                    signal_(number, get_handler(number))

    def _guarded(self, handler: Any) -> Any:
        if not callable(handler) or type(handler) is _Handler:
            return handler
        self.handled = True
        if self.serving:
            self._nudge()
        return _Handler(handler, self.runner)

    def serve(self) -> None:
        """Called by the main thread, before it begins to read and to run calls."""
        self.serving = True
        if self.handled:
            self._nudge()

    def _nudge(self) -> None:
        """Starts a thread that wakes the main thread after each signal.

        If a signal arrives just before the main thread begins to wait, Python does not run its handler until something
        else wakes the thread.
        """
        if self.nudging or get_ident() != MAIN_THREAD or not hasattr(signal, "pthread_kill"):
            return
        self.nudging = True
        try:
            receive, send = os.pipe()
        except OSError:  # there are too few descriptors, and the thread is only a help
            return
        os.set_blocking(send, False)
        before = signal.set_wakeup_fd(send, warn_on_full_buffer=False)
        if before != -1:  # the program or asyncio has a descriptor of its own
            signal.set_wakeup_fd(before)
            os.close(send)
            os.close(receive)
            return
        if get_handler(signal.SIGURG) is signal.SIG_DFL:
            set_handler(signal.SIGURG, no_signal)
        spawn(partial(_nudge_main, receive), "snakepit-signals")


def _nudge_main(receive: int) -> None:
    while True:
        numbers = read(receive, 4096)
        if numbers.strip(bytes((signal.SIGURG,))):
            for pause in (0.002, 0.01, 0.05):
                sleep(pause)
                signal.pthread_kill(MAIN_THREAD or 0, signal.SIGURG)
