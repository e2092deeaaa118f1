"""Serves Python functions to a Snakepit host.

    from snakepit_bridge import Worker

    worker = Worker()

    @worker.command
    def compute(operation: str, a: float, b: float) -> float: ...

    if __name__ == "__main__":
        worker.run()

`Worker` says which functions can be commands. `Context` gives a command access to its call.
"""

from ._arrays import Array
from ._context import AsyncContext, AsyncInput, AsyncStream, Context, Input, Stream
from ._errors import BadValue, Cancelled, Disconnected, ItemError, RemoteError, SnakepitError
from ._sessions import Session
from ._version import __version__
from ._worker import Worker, command

__all__ = [
    "Array",
    "AsyncContext",
    "AsyncInput",
    "AsyncStream",
    "BadValue",
    "Cancelled",
    "Context",
    "Disconnected",
    "Input",
    "ItemError",
    "RemoteError",
    "Session",
    "SnakepitError",
    "Stream",
    "Worker",
    "__version__",
    "command",
]
