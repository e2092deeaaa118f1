"""Holds one worker process: starts it, passes on what it says, and ends it together with its children."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

from .certificate import Certificate, make_certificate
from .directory import Directory
from .memory import OomCounter, resident_memory

# Windows has no process groups and no descriptors to inherit.
fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

__all__ = ["Ending", "Event", "Exited", "Memory", "Output", "Report", "Seat", "Start", "Started"]

CHUNK_BYTES = 64 << 10
"""The size of one `Output`, at most."""

REPORT_BYTES = 64 << 10
"""The size of the report, at most."""

OUTPUT_GRACE = 0.1
"""How long the last output of an ended process may take to arrive, in seconds. The whole time passes only if another
process outside the group still holds the pipe."""

LAST_BYTES = 1 << 20
"""How much is read after the end. This is the size of the largest pipe. More comes from another process."""

MEMORY_SECONDS = 1.0
"""How often a seat tells the memory of its worker."""

CONTRACT = frozenset(
    "SNAKEPIT_" + name
    for name in (
        "PROTOCOL",
        "RUN_ID",
        "WORKER_INDEX",
        "CONN_FD",
        "CONTROL_FD",
        "LIFELINE_FD",
        "DIR",
        "MAX_FRAME",
        "HOST_TOKEN",
        "WORKER_TOKEN",
        "FORK_SERVER",
        "GRPC_HOST",
        "GRPC_PORTS",
        "GRPC_TLS",
        "GRPC_CLIENT_TOKEN",
        "CACHE",
    )
)
"""The variables of the launch contract. A back end that is itself a worker's child must not pass on its own values."""

_MAIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__main__.py")


@dataclass(frozen=True)
class Start:
    """What a host says about one worker. The variables of docs/protocol.md have the same names."""

    run_id: str
    index: int
    max_frame: int
    host_token: str
    worker_token: str
    certificate: str = ""  # of the host, in PEM; "": the worker serves plain text
    env: Tuple[str, ...] = ()  # more variables, "KEY=value"
    wait: bool = False  # wait for room
    watch_memory: bool = False  # tell the worker's memory


class Started(NamedTuple):
    """There is a process."""

    host: str  # the name of this machine
    pid: int
    certificate: bytes  # what the worker will show, in DER; empty: plain text


class Output(NamedTuple):
    """The worker has printed something."""

    data: bytes


class Report(NamedTuple):
    """The worker has written its report, or has closed its pipe without one."""

    data: bytes


class Memory(NamedTuple):
    """The worker and its children have so much resident memory."""

    size: int  # in bytes


class Ending(NamedTuple):
    """The back end is about to end, and with it the worker."""

    reason: str


class Exited(NamedTuple):
    """The process has ended, and its children have been killed."""

    code: int  # -1 if a signal ended it
    signal: int  # the number of that signal, or 0
    oom: bool  # the kernel killed it because memory ran out


Event = Union[Started, Output, Report, Memory, Ending, Exited]


class Seat:
    """A worker process and its process group. The constructor starts it.

    Any thread may call the methods. The process also ends when this program ends, in whatever way. On Linux its
    children then end with it.

    Args:
        program: The worker file and its arguments.
        address: The IP address that the worker listens on.
        ports: The ports that it may choose from, such as "50051-50151"; "": any.
        start: What the host says.
        memory: The counter that all seats of this program share; None: a new one.

    Raises:
        OSError: The process could not be started.
        Unavailable: The certificate could not be made.
    """

    def __init__(
        self, program: Sequence[str], address: str, ports: str, start: Start, memory: Optional[OomCounter] = None
    ) -> None:
        self._memory = memory or OomCounter()
        self._memory_base = self._memory.base()
        self._lock = threading.Lock()  # held for each signal, so that no reaped process gets one; guards _killed
        self._killed = False  # we sent SIGKILL
        self._ended = False  # the process has ended
        self._done = threading.Event()  # its group has been killed too, and it has been reaped
        self._exit = Exited(-1, 0, False)  # how it ended; set before _done
        self._reading = threading.Lock()  # held while the pipes are read or closed; guards what follows
        self._closed = False  # read without the lock, too
        self._report: Optional[bytes] = b""  # as far as it has arrived; None once it was passed on
        self._printing = True  # the output has not ended
        self._until: Optional[float] = None  # when its last part must have arrived; None while the process runs
        self._left = LAST_BYTES  # how much of that part may still arrive
        # when the memory is to be told
        self._memory_due = monotonic() + MEMORY_SECONDS if start.watch_memory else float("inf")
        self._reason = ""  # why the back end is about to end
        with ExitStack() as failed, ExitStack() as theirs:
            self._directory = Directory()
            failed.callback(self._directory.remove)
            self._output, printed = _pipe(failed, theirs)
            self._control, reported = _pipe(failed, theirs)
            # _awake gets a byte when the back end is about to end, and is closed when the process has ended.
            self._wake, self._awake = _pipe(failed, failed)
            self._lifeline = _lifeline(failed)
            watched = _reopen(self._lifeline[0], theirs)
            given, keys = _pipe(theirs, failed) if start.certificate else (subprocess.DEVNULL, -1)
            env = _environ(start)
            env.update(
                SNAKEPIT_PROTOCOL="grpc",
                SNAKEPIT_RUN_ID=start.run_id,
                SNAKEPIT_WORKER_INDEX=str(start.index),
                SNAKEPIT_CONTROL_FD=str(reported),
                SNAKEPIT_LIFELINE_FD=str(watched),
                SNAKEPIT_DIR=self._directory.path,
                SNAKEPIT_MAX_FRAME=str(start.max_frame),
                SNAKEPIT_HOST_TOKEN=start.host_token,
                SNAKEPIT_WORKER_TOKEN=start.worker_token,
                SNAKEPIT_GRPC_HOST=address,
                SNAKEPIT_GRPC_TLS="stdin" if start.certificate else "off",
            )
            if ports:
                env["SNAKEPIT_GRPC_PORTS"] = ports
            self._process = subprocess.Popen(
                [sys.executable, _MAIN, *program],
                stdin=given,
                stdout=printed,
                stderr=printed,
                env=env,
                pass_fds=(reported, watched),
                start_new_session=True,  # so it leads a process group
            )
            try:
                _arm(self._lifeline[0], self._process.pid)
                own = make_certificate() if start.certificate else None  # while the process starts
                self._started = Started(socket.gethostname(), self._process.pid, own.der if own is not None else b"")
                self._poll = select.poll()
                for fd in (self._output, self._control, self._wake):
                    self._poll.register(fd, select.POLLIN)
                feed = partial(_feed, keys, own, start.certificate) if own is not None else None
                supervisor = threading.Thread(target=self._supervise, args=(feed,), name="snakepit-seat", daemon=True)
                supervisor.start()
            except BaseException:
                self._signal_group(signal.SIGKILL)
                self._process.wait()
                raise
            failed.pop_all()  # the supervisor and close do the rest

    @property
    def ending(self) -> bool:
        """Whether the process has ended, or was killed and is about to end."""
        return self._killed or self._ended

    def events(self) -> Iterator[Event]:
        """Yields what happens: `Started`, then any other events with one `Report` among them, and at last `Exited`.

        While nobody takes the output, the worker waits as soon as its pipe is full. After `close`, only `Exited`
        follows. It may be called once.
        """
        yield self._started
        while True:
            event = self._next()
            yield event
            if isinstance(event, Exited):
                return

    def signal(self, kill: bool) -> None:
        """Sends SIGKILL or SIGTERM to the process and its children. It returns at once."""
        with self._lock:
            if not self._ended:
                self._killed = self._killed or kill
                self._signal_group(signal.SIGKILL if kill else signal.SIGTERM)

    def announce_end(self, reason: str) -> None:
        """Adds an `Ending` to the events. It returns at once."""
        with self._lock:
            if not self._ended:
                self._reason = reason
                os.write(self._awake, b".")

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until the process has ended and was cleaned up after, at most so many seconds.

        Returns:
            Whether it has.
        """
        return self._done.wait(timeout)

    def close(self) -> None:
        """Kills the process and its children, waits for its end and releases everything. It may be called twice."""
        self._closed = True
        self.signal(kill=True)
        self._done.wait()
        with self._reading:
            if self._wake >= 0:
                for fd in (self._output, self._control, self._wake):
                    if fd >= 0:
                        os.close(fd)
                self._wake = -1

    def _supervise(self, feed: Optional[Callable[[], None]]) -> None:
        """Gives the process its keys, waits for its end and cleans up after it."""
        if feed is not None:
            feed()
        code, number = -1, 0
        reaped = False
        try:
            if hasattr(os, "waitid"):  # until it is reaped, no other process or group can get its id
                ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
                if ended is not None and ended.si_code == os.CLD_EXITED:
                    code = ended.si_status
                elif ended is not None:
                    number = ended.si_status
            else:
                status = self._process.wait()
                code, number = (status, 0) if status >= 0 else (-1, -status)
        except ChildProcessError:  # other code in this program has reaped it
            reaped = True
        self._ended = True
        with self._lock:
            if not reaped:
                self._signal_group(signal.SIGKILL)
                self._process.wait()
        oom = number == signal.SIGKILL and not self._killed and self._memory.claim(self._memory_base)
        read, write = self._lifeline
        # If the read end closes first, the kernel sends no signal. It still knows the group if the id was used again.
        for fd in (write, read) if reaped else (read, write):
            os.close(fd)
        self._directory.remove()
        self._exit = Exited(code, number, oom)
        os.close(self._awake)
        self._done.set()

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except OSError:  # no process is left
            pass

    def _next(self) -> Event:
        with self._reading:
            while not self._closed:
                if self._until is not None and not self._printing and self._report is None:
                    break
                if self._until is None and monotonic() >= self._memory_due:
                    self._memory_due = monotonic() + MEMORY_SECONDS
                    return Memory(resident_memory(self._process.pid))
                ready = [fd for fd, _ in self._poll.poll(self._patience())]
                if self._wake in ready:
                    if os.read(self._wake, 1):
                        return Ending(self._reason)
                    self._poll.unregister(self._wake)
                    self._until = monotonic() + OUTPUT_GRACE
                if self._control in ready:
                    data = os.read(self._control, REPORT_BYTES)
                    self._report = (self._report or b"") + data
                    if not data or b"\n" in data or len(self._report) >= REPORT_BYTES:
                        return self._take_report()
                if self._output in ready:
                    data = os.read(self._output, min(CHUNK_BYTES, self._left))
                    if self._until is not None:
                        self._left -= len(data)
                    if data:
                        return Output(data)
                    self._poll.unregister(self._output)
                    self._printing = False
                if not ready and self._until is not None:  # the process has ended, and another one holds its pipes
                    if self._report is not None:
                        return self._take_report()
                    break
        self._done.wait()
        return self._exit

    def _patience(self) -> Optional[float]:
        """Returns how long to wait for the next event, in milliseconds, or None if only an event ends the wait."""
        until = self._memory_due if self._until is None else self._until
        return None if until == float("inf") else max(0.0, until - monotonic()) * 1000

    def _take_report(self) -> Report:
        """Returns the report, and closes its pipe. The worker may be about to write more."""
        report = self._report or b""
        end = report.find(b"\n") + 1 or REPORT_BYTES
        self._report = None
        self._poll.unregister(self._control)
        os.close(self._control)
        self._control = -1
        return Report(report[:end])


def _pipe(reads: ExitStack, writes: ExitStack) -> Tuple[int, int]:
    """Makes a pipe. The stacks close its ends."""
    read, write = os.pipe()
    reads.callback(os.close, read)
    writes.callback(os.close, write)
    return read, write


def _lifeline(failed: ExitStack) -> Tuple[int, int]:
    """Makes the pipe whose closing ends the process and its group. Both ends stay open here.

    The write end has the higher number: an ending process closes its files from the highest descriptor down, and the
    settings of `_arm` belong to the read end.
    """
    read, write = os.pipe()
    if write < read:
        low, write = write, fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, read)
        os.close(low)
    failed.callback(os.close, write)
    failed.callback(os.close, read)
    return read, write


def _reopen(read: int, theirs: ExitStack) -> int:
    """Returns a second open file of a pipe's read end, for the worker. Without /proc the worker shares the first one.

    If only the worker held a read end, the kernel could end it first, and its group would survive.
    """
    try:
        again = os.open(f"/proc/self/fd/{read}", os.O_RDONLY)
    except OSError:
        again = os.dup(read)
    theirs.callback(os.close, again)
    return again


def _arm(read: int, group: int) -> None:
    """Makes the kernel kill a process group when the write end of a pipe closes.

    It closes when this program ends, in whatever way. On other systems only the worker itself notices the end.
    """
    if sys.platform == "linux":
        fcntl.fcntl(read, fcntl.F_SETOWN, -group)
        fcntl.fcntl(read, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)


def _environ(start: Start) -> Dict[str, str]:
    """Returns the environment of this program and the host's variables, without those of the launch contract."""
    env = {name: value for name, value in os.environ.items() if name not in CONTRACT}
    for entry in start.env:
        name, _, value = entry.partition("=")
        if name not in CONTRACT:
            env[name] = value
    return env


def _feed(pipe: int, own: Certificate, client: str) -> None:
    """Writes the keys to the worker's standard input. They fit into the pipe unless the host's certificate is huge."""
    data = json.dumps({"key": own.key, "certificate": own.pem, "client": client}).encode()
    try:
        while data:
            data = data[os.write(pipe, data) :]
    except OSError:  # the worker has ended, or has closed its standard input
        pass
    finally:
        os.close(pipe)
