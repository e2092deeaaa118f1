"""Sends an exception that ends a thread of the program as one log record, not as lines of output."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ._description import describe
from ._errors import attempt, render, text_of

if TYPE_CHECKING:
    from ._server import Server


def report_threads(server: Server) -> None:
    """Reports uncaught exceptions of threads from now on. A hook of the program's own replaces this one."""
    default = threading.excepthook
    servers = (server,)  # a tuple for the same reason as _server.servers

    def hook(args: Any) -> None:
        if args.exc_type is SystemExit:  # it ends the thread; the default hook ignores it, too
            return
        if args.exc_value is None:
            default(args)
            return
        try:
            error = describe(args.exc_value)
            thread = attempt("", text_of, getattr(args.thread, "name", ""))
            servers[0].log(
                {
                    "level": "error",
                    "logger": "threading",
                    "message": f"an exception has ended the thread {thread}",
                    "fields": {"exception": (error.get("traceback") or render(error)).rstrip("\n")},
                    "time": time.time(),
                }
            )
        except Exception:  # there is no host any more
            default(args)

    threading.excepthook = hook
