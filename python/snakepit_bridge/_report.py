"""The report of a process to the host: the endpoint, or why there is none. It has a pipe of its own."""

from __future__ import annotations

import json
import os
from typing import Any, Dict

from ._description import as_json, encode_error
from ._errors import attempt
from ._unpatched import say, write
from .transport import Launch

_SIZE = 60 << 10  # bytes of a report, which the host limits


def begin_report(launch: Launch) -> None:
    """Writes the first byte. If the process ends after it, the host knows that the transport has ended it."""
    _write(launch, b" ")


def report(launch: Launch, content: Dict[str, Any]) -> None:
    """Writes the report, and closes its pipe. A later failure goes to standard error."""
    line = as_json(content) + b"\n"
    if launch.control_fd is None:
        if "unavailable" in content:
            hint = f"\nhint: {content['remedy']}" if content.get("remedy") else ""
            say(f"snakepit: protocol unavailable: {content['unavailable']}{hint}\n")
        elif "failed" in content:
            say(line.decode())
        return
    _write(launch, line)
    attempt(None, os.close, launch.control_fd)
    launch.control_fd = None


def report_failure(launch: Launch, error: Dict[str, Any]) -> None:
    """Reports an error of the program."""
    report(launch, {"failed": json.loads(encode_error(error, as_json, _SIZE))})


def _write(launch: Launch, data: bytes) -> None:
    try:
        while launch.control_fd is not None and data:
            data = data[write(launch.control_fd, data) :]
    except OSError:  # the host is gone, so the connection will end, too
        pass
