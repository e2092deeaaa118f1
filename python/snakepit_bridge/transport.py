"""What the author of a transport reads: the frame, the transport's contract and its launch.

A transport carries frames between the runner and one host, and knows no calls; the runner knows no protocols. The frames are those of
``docs/protocol.md``, as plain dicts with its field names, because a dict is what the encodings give and take without a copy.

`JsonFrames` and `MsgpackFrames` turn frames into bytes and back. A transport with an encoding of its own has `check` look at what it
has read, and compares `weight` with ``Launch.max_frame``. One with a descriptor writes by `write_all`.
"""

from __future__ import annotations

import os
from typing import Callable, List, Mapping, Optional, Sequence

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
    KINDS,
    LOG,
    NO_INPUT,
    NOT_STARTED,
    PING,
    PONG,
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
    "KINDS",
    "LOG",
    "NOT_STARTED",
    "NO_INPUT",
    "PING",
    "PONG",
    "Frame",
    "JsonFrames",
    "Launch",
    "MsgpackFrames",
    "Transport",
    "Unavailable",
    "check",
    "weight",
    "write_all",
]


class Launch:
    """What the host said in the environment. Tokens and descriptors have been taken out of ``os.environ`` already.

    Attributes:
        protocol: SNAKEPIT_PROTOCOL.
        conn_fd: The connection's descriptor, or None.
        control_fd: Where the report goes, or None. The boot code's business, not a transport's.
        lifeline_fd: Reads end of file when the host is gone, or None. Likewise.
        directory: A private directory for sockets, or "".
        max_frame: The largest frame that either side may send, as measured under "Limits" of docs/protocol.md.
        index: The worker's place in the pool.
        run_id: Names the pool.
        host_token: What a host that dials has to show, or "".
        worker_token: What this worker's hello has to show, or "".
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
        """Reads the environment and removes from it what is private."""
        environ = dict(os.environ)
        for name in cls.PRIVATE:
            os.environ.pop(name, None)
        return cls(environ)


class Transport:
    """Carries frames. Subclass it and name the class as ``module:Class`` in SNAKEPIT_PROTOCOL.

    The constructor is called once, before the user's program is imported, and gets everything ready: it imports what it needs, binds
    or adopts its descriptor, and raises `Unavailable` if that is impossible here.

    Attributes:
        codecs: Names of the codecs that bodies may use, in order of preference: "json", which works everywhere, and "msgpack", which needs
            the package msgpack.
        endpoint: Where the host is to dial, for the report; "" if the connection is inherited.
    """

    codecs: Sequence[str] = ("json",)
    endpoint: str = ""

    def __init__(self, launch: Launch) -> None:
        raise NotImplementedError

    def fileno(self) -> int:
        """Returns a descriptor that polls readable exactly when `read` would not block, or -1 if there is none.

        With a descriptor the runner may let the thread that reads run handlers too (see docs/design.md); without one it reads in a
        thread of its own.
        """
        return -1

    def read(self) -> List[Frame]:
        """Blocks until at least one frame has come and returns all that are there; an empty list at end of file.

        One thread reads at a time, not always the same. Frames that were received but not returned must not be lost when a signal
        handler raises; retry what a signal interrupts (Python does).

        Raises:
            ValueError: Something that is not a frame; the message shows its first bytes. The connection is of no use then.
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
        """Waits until what `write` took has left this process, so that its end loses nothing of it; at most so many seconds.

        Called after records of errors. A transport whose `write` returns only then, as one that makes the system call
        itself, has nothing to do here. It may be called from any thread, also from a finalizer or a signal handler, but
        neither inside of `write` nor where `is_own_thread` is true.
        """

    def is_own_thread(self) -> bool:
        """Reports whether the calling thread is one of the transport's own, which `write` and `sync` wait for.

        A finalizer that logs may run on it. What it logs is written, and not waited for; `write` must not block there.
        """
        return False

    def opened(self, take: Callable[[Sequence[Frame]], None], codec: str, concurrency: int) -> None:
        """Called once the hellos have been exchanged; does nothing unless overridden.

        A transport that lets others than the host call the worker hands their frames to ``take``, as if `read` had returned them, with
        negative odd ids, each used for one call. Frames with these ids are then among those that `write` gets, and a call that such a
        call opens to the host has its id as ``parent``. ``take`` may be called from any thread, until the connection ends; like `write`
        it blocks while the host does not read.

        Args:
            take: Takes the frames.
            codec: The name of the codec of all bodies.
            concurrency: How many calls the worker runs at once; more of them wait in the runner, in front of the host's.
        """

    def close(self) -> None:
        """Delivers what `write` took and closes. It may be called twice, and from another thread, and then unblocks `read`."""
        raise NotImplementedError

    def close_in_child(self) -> None:
        """Called in a forked child: closes this process's copies of the descriptors and sends nothing."""
