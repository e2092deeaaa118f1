"""Threads, locks, clocks and the like as Python has them.

Libraries such as gevent and eventlet replace those of the standard library in place, when the program is imported. The
bridge's own threads must not become green ones of the main thread, which waits in C. This module is imported before the
program, so it has the originals.
"""

from __future__ import annotations

import _thread
import os
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
    "get_ident",
    "monotonic",
    "read",
    "say",
    "sleep",
    "spawn",
    "untouched",
    "write",
]

MAIN_THREAD = threading.main_thread().ident
"""The main thread's ident, which gevent changes in the threading module."""

_start = _thread.start_new_thread
read, write = os.read, os.write


def spawn(work: Callable[[], Any], name: str) -> None:
    """Runs work in a daemon thread."""
    if _thread.start_new_thread is _start:
        threading.Thread(target=work, name=name, daemon=True).start()
    else:  # threading starts green threads here
        _start(work, ())


def untouched(name: str) -> Any:
    """Returns a copy of a module of the standard library.

    It is in no list of modules, so that nobody replaces its parts.
    """
    spec: Any = import_module(name).__spec__
    module = ModuleType(name)
    module.__spec__ = spec
    exec(spec.loader.get_code(name), module.__dict__)
    return module


def say(text: str) -> None:
    """Writes text to standard error, from where it reaches the host's log whatever became of the connection.

    It never raises. It writes to the descriptor: ``sys.stderr`` may be anything by now, and have a lock that what this
    call interrupts holds.
    """
    try:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[write(2, data) :]
    except (OSError, ValueError):  # nobody listens
        pass
