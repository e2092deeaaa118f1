"""The API for the authors of transports: the frame, the transport's contract and its launch.

A transport carries frames between the runner and one host. It knows no calls, and the runner knows no protocols. The
frames are those of ``docs/protocol.md``, as plain dicts with its field names. The encodings take and return dicts, so
nothing is copied.

`JsonFrames` and `MsgpackFrames` turn frames into bytes and back. A transport with an encoding of its own passes each
frame that it has read to `check`, and compares its `weight` with ``Launch.max_frame``. A transport with a descriptor
writes with `write_all`.
"""

from __future__ import annotations

import os
from typing import Callable, List, Mapping, Optional, Sequence

from ._codec import Parts
from ._errors import Unavailable
from ._frames import (
    BYE,
    CALL,
    CANCEL,
    CREDIT,
    END,
    ERROR,
    FAILED,
    HELLO,
    ITEM,
    KEEP_STATE,
    KINDS,
    LOG,
    NO_INPUT,
    NOT_STARTED,
    PIECE,
    PING,
    PONG,
    STATE,
    Frame,
    check,
    weight,
)
from ._frames_json import JsonFrames
from ._frames_msgpack import MsgpackFrames
from ._write import write_all

__all__ = [
    "BYE",
    "CALL",
    "CANCEL",
    "CREDIT",
    "END",
    "ERROR",
    "FAILED",
    "HELLO",
    "ITEM",
    "KEEP_STATE",
    "KINDS",
    "LOG",
    "NOT_STARTED",
    "NO_INPUT",
    "PIECE",
    "PING",
    "PONG",
    "STATE",
    "Frame",
    "JsonFrames",
    "Launch",
    "MsgpackFrames",
    "Parts",
    "Transport",
    "Unavailable",
    "check",
    "weight",
    "write_all",
]


class Launch:
    """The host's settings in the environment. Tokens and descriptors have been removed from ``os.environ`` already.

    Attributes:
        protocol: SNAKEPIT_PROTOCOL.
        conn_fd: The connection's descriptor, or None.
        control_fd: The descriptor for the report, or None. Transports do not use it.
        lifeline_fd: The descriptor that reads end of file when the host is gone, or None. Transports do not use it.
        directory: A private directory for sockets, or "".
        max_frame: The largest weight of a frame that either side may send, in bytes. See "Limits" in docs/protocol.md.
        index: The worker's index in the pool.
        run_id: The name of this pool.
        host_token: The token that a host has to show when it dials, or "".
        worker_token: The token that this worker's hello has to show, or "".
        environ: All variables as they were.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        def number(name: str) -> Optional[int]:
            text = environ.get(name, "")
            return int(text) if text else None

        self.protocol = environ.get("SNAKEPIT_PROTOCOL", "")
        self.conn_fd = number("SNAKEPIT_CONN_FD")
        self.control_fd = number("SNAKEPIT_CONTROL_FD")
        self.lifeline_fd = number("SNAKEPIT_LIFELINE_FD")
        self.directory = environ.get("SNAKEPIT_DIR", "")
        self.max_frame = number("SNAKEPIT_MAX_FRAME") or 64 << 20
        self.index = number("SNAKEPIT_WORKER_INDEX") or 0
        self.run_id = environ.get("SNAKEPIT_RUN_ID", "")
        self.host_token = environ.get("SNAKEPIT_HOST_TOKEN", "")
        self.worker_token = environ.get("SNAKEPIT_WORKER_TOKEN", "")
        self.environ = environ

    PRIVATE = (
        "SNAKEPIT_CONN_FD",
        "SNAKEPIT_CONTROL_FD",
        "SNAKEPIT_LIFELINE_FD",
        "SNAKEPIT_HOST_TOKEN",
        "SNAKEPIT_WORKER_TOKEN",
    )
    """Variables that user code and its children must not see."""

    @classmethod
    def take(cls) -> Launch:
        """Reads the environment and removes the private variables from it."""
        environ = dict(os.environ)
        for name in cls.PRIVATE:
            os.environ.pop(name, None)
        return cls(environ)


class Transport:
    """Carries frames. Subclass it and name the class as ``module:Class`` in SNAKEPIT_PROTOCOL.

    The constructor is called once, before the user's program is imported. It imports the modules that the transport
    needs, and binds or adopts the descriptor. It raises `Unavailable` if that is impossible here.

    Attributes:
        codecs: The names of the codecs that bodies may use, in order of preference. "json" works everywhere. "msgpack"
            needs the package msgpack.
        endpoint: The address that the host is to dial, for the report; "" if the connection is inherited.
        takes_parts: Whether `write` takes bodies that are `Parts` or memoryviews, too.
        takes_clients: Whether clients other than the host may call the worker (see `opened`). The thread that runs
            handlers then does not read.
    """

    codecs: Sequence[str] = ("json",)
    endpoint: str = ""
    takes_parts: bool = False
    takes_clients: bool = False

    def __init__(self, launch: Launch) -> None:
        raise NotImplementedError

    @classmethod
    def preload(cls) -> None:
        """Imports the modules that the constructor needs. A process that forks workers calls it, before the program."""

    def fileno(self) -> int:
        """Returns a descriptor that polls readable exactly when `read` would not block, or -1 if there is none.

        With a descriptor, a handler that waits for the host can read by itself. Without one, it waits for another
        thread that reads.
        """
        return -1

    def read(self) -> List[Frame]:
        """Blocks until at least one frame has arrived. Returns all frames that have, or an empty list at end of file.

        The body of a PIECE may be a view that the next `read` overwrites. Other bodies are the caller's.

        One thread reads at a time, but not always the same one. Frames that were received but not returned must not be
        lost when a signal handler raises. A system call that a signal interrupts has to be retried, as Python does.

        Raises:
            ValueError: The host sent something that is not a frame. The message shows its first bytes. The connection
                can't be used any more.
            ConnectionError: The host is gone. Any other exception is printed with its traceback before the worker ends.
        """
        raise NotImplementedError

    def write(self, frames: Sequence[Frame]) -> None:
        """Sends the frames in order, in as few system calls as it can. Blocks while the host does not read.

        The runner holds a lock, so one thread writes at a time.

        Raises:
            ConnectionError: The host is gone. Any other exception is printed with its traceback before the worker ends.
        """
        raise NotImplementedError

    def sync(self, timeout: float) -> None:
        """Waits until all frames that `write` took have left this process, at most so many seconds.

        From then on, the end of this process does not lose them. The runner calls this after error records. A transport
        whose `write` returns only then, because it makes the system call itself, has nothing to do here. Any thread may
        call it, also from a finalizer or a signal handler, but neither inside of `write` nor where `is_own_thread` is
        true.
        """

    def is_own_thread(self) -> bool:
        """Reports whether the calling thread is one of the transport's own, for which `write` and `sync` wait.

        A finalizer that logs may run on such a thread, so what it writes is left to another thread. A thread that is
        inside of `read` is such a thread if it may hold a lock there that `write` needs.
        """
        return False

    def opened(self, take: Callable[[Sequence[Frame]], None], codec: str, concurrency: int) -> None:
        """Called after the hellos have been exchanged. Does nothing unless overridden.

        A transport that takes clients passes their frames to ``take``, as if `read` had returned them. The ids of such
        calls are negative and odd, and each is used for one call. Then `write` gets frames with these ids, too. If such
        a call opens a call to the host, its id is the ``parent`` of that one. Any thread may call ``take``, until the
        connection ends. Like `write`, it blocks while the host does not read.

        Args:
            take: Takes the frames.
            codec: The name of the codec of all bodies.
            concurrency: How many calls the worker runs at once. Further calls of clients wait in the runner, and later
                calls of the host wait behind them.
        """

    def close(self) -> None:
        """Delivers all frames that `write` took, and closes the connection.

        It may be called twice. Another thread may call it while `read` blocks, and then it unblocks `read`.
        """
        raise NotImplementedError

    def close_in_child(self) -> None:
        """Called in a forked child. Closes this process's copies of the descriptors and sends nothing."""
