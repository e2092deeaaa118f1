"""The stacks of all threads, for a host that wants to see what this worker does.

There are two ways. While this worker answers pings, a pong has the stacks. Python code makes their text, and no other
thread runs meanwhile. While C code holds the interpreter's lock, a signal makes faulthandler write them. Its handler
needs no lock. But if the other threads run meanwhile, it reads frames that are being freed, and that can crash the
process. So it is only the second way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any, Dict, Iterator, Optional

from ._errors import attempt, text_of
from ._unpatched import MAIN_THREAD

FEATURE = "stacks"
"""The feature in the hello, the name of a ping that asks for stacks, and the name of the text in its pong."""

_THREADS = 100  # faulthandler has the same limits
_FRAMES = 100
_NAME = 500


def offer(directory: str) -> Optional[Dict[str, int]]:
    """Lets the host ask for the stacks by a signal.

    faulthandler appends them to the file ``stacks.N`` in the directory. N is the id of the process group, which the
    host has made for this worker. A forked child has the handler and the file, too. Nobody sends it the signal.

    Args:
        directory: The pool's private directory, or "".

    Returns:
        What the hello says of it: the number of the signal, and the main thread's ident. None if this system has no
        real-time signals, or if something is missing here.
    """
    if sys.platform != "linux" or not directory:
        return None
    try:
        import faulthandler

        number = _free_signal()
        path = os.path.join(directory, f"stacks.{os.getpgrp()}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        faulthandler.register(number, fd, all_threads=True, chain=False)
    except (AttributeError, ImportError, OSError, RuntimeError, ValueError):
        return None
    return {"signal": number, "main": MAIN_THREAD or 0}


def _free_signal() -> int:
    """Returns the number of a real-time signal that nobody handles, ignores or blocks."""
    taken = 0
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith((b"SigBlk:", b"SigIgn:", b"SigCgt:")):
                taken |= int(line.split()[1], 16)
    for number in range(signal.SIGRTMAX - 6, signal.SIGRTMIN, -1):
        if not taken >> (number - 1) & 1:
            return number
    raise OSError("every real-time signal is in use")


def text(limit: int) -> str:
    """Returns the stacks of all threads in the form of faulthandler, with names, the main thread first.

    Args:
        limit: The text has at most so many bytes, also as a string of JSON.
    """
    lines = []
    for line in _lines():
        limit -= (
            2 * len(line.encode("utf-8", "replace")) + 2
        )  # JSON may escape each byte of a quotation mark or backslash
        if limit < 0:
            break
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _lines() -> Iterator[str]:
    names = {ident: attempt("", getattr, thread, "_name") for ident, thread in dict(_active()).items()}
    frames = sys._current_frames()
    idents = sorted(frames, key=lambda ident: ident != MAIN_THREAD)
    for n, ident in enumerate(idents):
        if n:
            yield ""
        if n == _THREADS:
            yield "..."
            break
        name = "MainThread" if ident == MAIN_THREAD else _printable(names.get(ident, ""))
        yield f"Thread 0x{ident:016x}{f' [{name}]' if name else ''} (most recent call first):"
        frame: Any = frames[ident]
        for _ in range(_FRAMES):
            if frame is None:
                break
            code = frame.f_code
            yield f'  File "{_printable(code.co_filename)}", line {frame.f_lineno or 0} in {_printable(code.co_name)}'
            frame = frame.f_back
        else:
            yield "  ..."


def _active() -> Dict[int, Any]:
    """Returns the objects of the threads. threading.enumerate would wait for a lock."""
    active: Dict[int, Any] = getattr(threading, "_active", {})
    return active


def _printable(value: Any) -> str:
    text = text_of(value, _NAME)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
