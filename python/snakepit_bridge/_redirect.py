"""Keeps the output of the program and of its children away from the connection."""

from __future__ import annotations

import os
import sys
from typing import Any

from ._errors import attempt


def redirect() -> None:
    """Makes standard input empty, and sends standard output to standard error, line by line.

    The host captures standard error.
    """
    # Before the descriptor is replaced: a stream to a file seeks, and its new descriptor may be unable to.
    _by_line(sys.stdout)
    _by_line(sys.stderr)
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(0, 1)


def _by_line(stream: Any) -> None:
    # A start-up hook may have replaced the stream by another object or by None.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")


def flush_output() -> None:
    """Flushes the program's standard output and standard error. It never raises."""
    attempt(None, lambda: sys.stdout.flush())
    attempt(None, lambda: sys.stderr.flush())
