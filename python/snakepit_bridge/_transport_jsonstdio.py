"""The transport jsonstdio. A frame is a line on standard input or output. It needs only the standard library."""

from __future__ import annotations

import errno
import os
import signal
from typing import List, Sequence

from ._unpatched import Lock, get_ident, no_signal, read
from .transport import Frame, JsonFrames, Launch, Transport, Unavailable, write_all

_CHUNK = 64 << 10  # the capacity of a pipe
_HIGH = 64  # user code may open and close low descriptors by number, so the connection has high ones


class JsonStdio(Transport):
    """Lines on standard input and output.

    The constructor moves both to high descriptors that children do not inherit. Afterwards descriptor 0 is empty, and
    descriptor 1 is a copy of 2. So prints reach the log and not the connection.

    A signal handler that raised inside of `read` or `write` could lose a frame, or cut one in half on the wire. The
    runner's handlers do not raise while code of this package is on the stack.

    Attributes:
        encoding: Turns frames into lines and back. Its max_frame is the largest weight that is accepted.
    """

    codecs = ("json",)

    def __init__(self, launch: Launch) -> None:
        self.encoding = JsonFrames(launch.max_frame)
        try:
            self._in, self._out = _moved(0), _moved(1)
        except OSError as exc:
            if exc.errno != errno.EBADF:
                raise
            raise Unavailable(f"standard input or output is closed: {exc}") from None
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # there is no standard error
            os.dup2(null, 1)
        os.close(null)
        self._pending: List[bytes] = []  # the beginning of a line
        self._pending_size = self._pending_limit = 0
        self._begun = False  # something was written
        self._closed = self._writing = False
        self._reader = 0  # the ident of the thread that is inside of read
        self._input = Lock()  # held where the descriptor of the input changes
        if hasattr(signal, "SIGURG") and signal.getsignal(signal.SIGURG) is signal.SIG_DFL:
            try:
                signal.signal(signal.SIGURG, no_signal)  # see _interrupt_read
            except ValueError:  # this is not the main thread
                pass

    def fileno(self) -> int:
        return self._in

    def read(self) -> List[Frame]:
        self._reader = get_ident()
        try:
            while not self._closed:
                data = read(self._in, _CHUNK)
                if self._closed:
                    break
                if not data:
                    if self._pending:
                        raise ValueError(
                            f"the host's connection ended inside of a frame: {b''.join(self._pending)[:64]!r}"
                        )
                    break
                if b"\n" in data:  # the search is much faster than a split
                    return self._frames(data.split(b"\n"))
                self._keep(data)
            return []
        finally:
            self._reader = 0
            if self._closed:
                self._close_input()

    def _frames(self, lines: List[bytes]) -> List[Frame]:
        if self._pending:
            self._pending.append(lines[0])
            lines[0] = b"".join(self._pending)
            self._pending = []
            self._pending_size = 0
        rest = lines.pop()
        frames = [self.encoding.parse(line) for line in lines]
        if rest:
            self._keep(rest)
        return frames

    def _keep(self, data: bytes) -> None:
        if not self._pending:
            tab = data.find(b"\t")  # in a header, JSON may escape each byte of a name as six
            self._pending_limit = self.encoding.max_frame + tab + 1 if tab >= 0 else 6 * self.encoding.max_frame
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size > self._pending_limit:
            raise ValueError(f"a frame of more than {self.encoding.max_frame} bytes: {self._pending[0][:64]!r}")

    def write(self, frames: Sequence[Frame]) -> None:
        parts: List[bytes] = []
        if not self._begun:  # a start-up hook may have printed an unfinished line
            parts.append(b"\n")
        dump = self.encoding.dump
        for frame in frames:
            parts += dump(frame)
        self._writing = True
        try:
            if self._closed:
                raise BrokenPipeError("the connection is closed")
            write_all(self._out, parts)
            self._begun = True
        finally:
            self._writing = False
            if self._closed:
                self._close_output()

    def close(self) -> None:
        # A descriptor is closed only when no thread is inside of read or write with it, because its number may be
        # reused at once.
        self._closed = True
        reader = self._reader
        if reader:
            self._interrupt_read(reader)
        else:
            self._close_input()
        if not self._writing:
            self._close_output()

    def _interrupt_read(self, reader: int) -> None:
        """Ends a read of another thread, which waits for the host.

        After a signal, Python reads again from the same descriptor. By then it is /dev/null, where the end of file is.
        """
        if hasattr(signal, "pthread_kill"):
            try:
                null = os.open(os.devnull, os.O_RDONLY)
            except OSError:  # there are too few descriptors
                return
            with self._input:
                if self._in >= 0:  # the reader has not left meanwhile
                    os.dup2(null, self._in, inheritable=False)
                    signal.pthread_kill(reader, signal.SIGURG)
            os.close(null)

    def close_in_child(self) -> None:
        self._closed = True
        self._close_input()
        self._close_output()

    def _close_input(self) -> None:
        with self._input:
            descriptor, self._in = self._in, -1
            _close(descriptor)

    def _close_output(self) -> None:
        descriptor, self._out = self._out, -1
        _close(descriptor)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        try:
            os.close(descriptor)
        except OSError:
            pass


def _moved(descriptor: int) -> int:
    """Returns a copy of the descriptor that children do not inherit. Its number is high, if the system allows that."""
    try:
        import fcntl
    except ImportError:  # Windows
        return os.dup(descriptor)
    try:
        copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EMFILE):  # these mean that _HIGH is above the limit of open files
            raise
        copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.set_blocking(copy, True)
    return copy
