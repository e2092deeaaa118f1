"""Keeps what the program prints, and its children print, away from the connection."""

from __future__ import annotations

import os
import sys
from typing import Any


def redirect() -> None:
    """Makes standard input empty and sends standard output, line by line, where standard error goes, which the host captures."""
    _by_line(sys.stdout)  # while its descriptor is what it was: that of a file can seek, and the new one perhaps not
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
    # A start-up hook may have replaced it by something else, or by None.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
