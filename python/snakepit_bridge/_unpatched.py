"""The original threads, locks and clocks of Python.

Libraries such as gevent and eventlet replace those of the standard library in place, when the program is imported. The
bridge's own threads must not become green threads: those would run on the main thread, which waits in C. This module is
imported before the program, so it has the originals.
"""

from __future__ import annotations

import _thread
import os
import select
import threading
from _thread import RLock, get_ident
from _thread import allocate_lock as Lock
from importlib import import_module
from queue import SimpleQueue
from time import monotonic, sleep
from types import ModuleType
from typing import Any, Callable

__all__ = [
    "MAIN_THREAD",
    "Lock",
    "RLock",
    "SimpleQueue",
    "fork",
    "get_ident",
    "monotonic",
    "no_signal",
    "patched",
    "poll",
    "read",
    "say",
    "sleep",
    "spawn",
    "untouched",
    "wait_child",
    "wait_select",
    "write",
]

MAIN_THREAD = threading.main_thread().ident
"""The main thread's ident. gevent changes the one in the threading module."""

_start = _thread.start_new_thread
read, write = os.read, os.write
fork: Any = getattr(os, "fork", None)
wait_child: Any = getattr(os, "waitid", None)
wait_select = select.select
poll: Any = getattr(select, "poll", None)
"""The function select.poll, or None on a system that has none."""


def patched() -> bool:
    """Returns whether a library has replaced the threads of the standard library by green ones."""
    return _thread.start_new_thread is not _start


def spawn(work: Callable[[], Any], name: str) -> None:
    """Runs work in a daemon thread, once.

    Code of the program may end a thread before it has begun: a function of ``threading.settrace`` that raises, or a
    replaced ``Thread.run``. So this waits until the thread has begun, and starts a bare one if it never does.
    """
    if patched():  # threading would start a green thread
        _start(work, ())
        return
    begun = Lock()
    begun.acquire()

    def run() -> None:
        begun.release()
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    while not begun.acquire(True, 0.01):
        if not thread.is_alive():
            if not begun.acquire(False):
                _start(work, ())
            return


def no_signal(number: int, frame: Any) -> None:
    """Handles a signal that only interrupts a system call."""


def untouched(name: str) -> Any:
    """Returns a copy of a module of the standard library.

    The copy is not in sys.modules, so no library replaces its parts.
    """
    spec: Any = import_module(name).__spec__
    module = ModuleType(name)
    module.__spec__ = spec
    exec(spec.loader.get_code(name), module.__dict__)
    return module


def say(text: str) -> None:
    """Writes text to standard error. It reaches the host's log even if the connection is gone.

    It never raises. It writes to the descriptor, because the program may have replaced ``sys.stderr``, or the code that
    this call interrupts may hold its lock.
    """
    try:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[write(2, data) :]
    except (OSError, ValueError):  # standard error is closed
        pass
