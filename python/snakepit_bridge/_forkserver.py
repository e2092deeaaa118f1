"""Forks workers from one process that has imported the program, so that they share its time and its memory."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import weakref
from signal import signal as set_handler
from typing import Any, Dict, List, Tuple

from ._errors import attempt
from ._redirect import flush_output
from ._report import report
from ._unpatched import fork, monotonic, patched, poll, read, sleep, wait_child
from .transport import Launch, Transport

_MESSAGE = 256 << 10  # bytes of a request
_FILES = 16  # descriptors of a request
_SETTLING = 0.5  # seconds that the system may need to end a thread that Python has joined


class Unsafe(Exception):
    """This process must not fork."""


class ForkServer:
    """Forks a worker for each request of the host. The workers return from `serve`.

    The two sides talk over a socket of whole messages, in JSON. The host sends these:

    * ``{"start": 1}``, a line feed, and the environment, in bytes: a NUL is between two variables. With it come
      descriptors: standard input, output and error, and then those that the environment names. It names them by their
      places in the message.
    * ``{"reap": 123}`` for a worker that has ended.

    It gets these:

    * ``{"started": 1, "pid": 123}`` or ``{"failed": 1, "error": "...", "errno": 11}``. Without an errno, the server
      must not fork any more.
    * ``{"exited": 123, "code": 0, "signal": 0}``. The code is -1 after a signal, or if it is unknown.

    Attributes:
        forking: This process is about to fork a worker. Other forks are the program's own.
    """

    def __init__(self, launch: Launch) -> None:
        assert launch.conn_fd is not None
        self.forking = False
        self._launch = launch
        self._socket = socket.socket(fileno=launch.conn_fd)
        self._before = dict(os.environ)
        self._children: Dict[int, bool] = {}
        """The workers by their process ids. True: the host knows of the end, and will have the worker reaped."""

    def serve(self) -> None:
        """Forks workers until the host is gone. Only the workers return.

        Raises:
            Unsafe: This process must not fork.
        """
        check()
        gc.collect()
        gc.freeze()  # the collector must not write to the memory that the workers share
        wake, woken = os.pipe()
        for fd in (wake, woken):
            os.set_blocking(fd, False)
        handler = set_handler(signal.SIGCHLD, lambda *_: None)
        before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        waiting = poll()
        for fd in (self._socket.fileno(), wake):
            waiting.register(fd, select.POLLIN)
        flush_output()
        report(self._launch, {})
        while True:
            ready = [fd for fd, _ in waiting.poll()]
            if wake in ready:
                attempt(None, read, wake, 4096)
                self._note_ends()
            if self._socket.fileno() not in ready:
                continue
            request, env, files, whole = self._receive()
            if "reap" in request:
                attempt(None, os.waitpid, request["reap"], 0)
                self._children.pop(request["reap"], None)
            elif self._fork(request, whole) == 0:
                signal.set_wakeup_fd(before)
                if handler is not None:  # None: it was set in C
                    set_handler(signal.SIGCHLD, handler)
                for fd in (wake, woken):
                    os.close(fd)
                self._become(env, files)
                return
            for fd in files:
                os.close(fd)

    def close(self) -> None:
        """Closes this process's end of the socket."""
        self._socket.close()

    def _receive(self) -> Tuple[Dict[str, Any], bytes, List[int], bool]:
        """Returns a request, its environment, its descriptors, and whether all of it has arrived.

        It ends this process if the host has closed the socket.
        """
        size = socket.CMSG_SPACE(_FILES * 4)
        data, ancillary, flags, _ = self._socket.recvmsg(_MESSAGE, size, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        if not data:
            sys.exit(0)
        files: List[int] = []
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files += memoryview(payload[: len(payload) // 4 * 4]).cast("i").tolist()
        request, _, env = data.partition(b"\n")
        return json.loads(request), env, files, not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC)

    def _send(self, **message: Any) -> None:
        attempt(None, self._socket.send, json.dumps(message).encode())  # an error: the host is gone

    def _fork(self, request: Dict[str, Any], whole: bool) -> int:
        """Forks, and returns what os.fork does, or -1 if that is impossible."""
        number = request["start"]
        try:
            if not whole:
                raise OSError(errno.EMFILE, "the request did not arrive as a whole: too many files are open")
            check()
            flush_output()
            self.forking = True
            pid: int = fork()
        except Unsafe as exc:
            self._send(failed=number, error=str(exc))
            return -1
        except OSError as exc:
            self._send(failed=number, error=exc.strerror or str(exc), errno=exc.errno or errno.EIO)
            return -1
        finally:
            self.forking = False
        if pid == 0:
            os.setpgid(0, 0)
            return 0
        attempt(None, os.setpgid, pid, pid)  # Either side may be first. An error: the worker was.
        self._children[pid] = False
        self._send(started=number, pid=pid)
        return pid

    def _note_ends(self) -> None:
        """Tells the host which workers have ended. They stay zombies, so their ids are not used again."""
        for pid, known in list(self._children.items()):
            if known:
                continue
            code, number = -1, 0
            try:
                ended = wait_child(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    continue
                if ended.si_code == os.CLD_EXITED:
                    code = ended.si_status
                else:
                    number = ended.si_status
            except ChildProcessError:  # other code in this process has reaped it
                pass
            self._children[pid] = True
            self._send(exited=pid, code=code, signal=number)

    def _become(self, env: bytes, files: List[int]) -> None:
        """Gives this worker the descriptors and the environment that the host has asked for."""
        self._children.clear()
        self.close()
        if self._launch.lifeline_fd is not None:
            os.close(self._launch.lifeline_fd)
            self._launch.lifeline_fd = None
        # First out of the way of the standard descriptors, then to a free run of numbers: the program may have opened
        # files of its own.
        files = [_moved(fd, 3) for fd in files]
        for number, fd in enumerate(files[:3]):
            os.dup2(fd, number)
            os.close(fd)
        rest = files[3:]
        first = _free_run(len(rest))
        for i, fd in enumerate(rest):
            os.dup2(fd, first + i, inheritable=False)
            os.close(fd)
        pairs = [os.fsdecode(pair).partition("=") for pair in env.split(b"\0")]
        environ = {name: value for name, equals, value in pairs if name and equals}  # the host may have other entries
        for name in ("SNAKEPIT_CONN_FD", "SNAKEPIT_CONTROL_FD", "SNAKEPIT_LIFELINE_FD"):
            if name in environ:
                environ[name] = str(int(environ[name]) - 3 + first)
        # What the program itself has changed stays.
        environ.update({name: value for name, value in os.environ.items() if self._before.get(name) != value})
        for name in set(self._before) - set(os.environ):
            environ.pop(name, None)
        for name in set(os.environ) - set(environ):
            del os.environ[name]
        os.environ.update(environ)
        # What the import has made belongs to the server. A worker that ends must not remove it.
        for finalizer in list(getattr(weakref.finalize, "_registry", ())):
            finalizer.atexit = False
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:  # otherwise all workers draw the same numbers; Python's own module sees to it
            attempt(None, lambda: numpy_random.seed())


class Unconnected(Transport):
    """Stands for the transport of a fork server, which has none until a worker has been forked."""

    codecs = ("json",)

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks

    def close_in_child(self) -> None:
        self._forks.close()

    def close(self) -> None:
        self._forks.close()


def _moved(fd: int, least: int) -> int:
    """Returns a descriptor for the same file that is not below ``least``, in place of this one."""
    if fd >= least:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(fd)
    return moved


def _free_run(length: int) -> int:
    """Returns the first of so many descriptors that are not in use."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    first = 3
    while any(first + i in used for i in range(length)):
        first += 1
    return first


def check() -> None:
    """Raises `Unsafe` if this process must not fork."""
    if patched():
        raise Unsafe(
            "the program has replaced Python's threads, as gevent and eventlet do, and their hub does not survive a "
            "fork; turn the fork server off"
        )
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if others:
        raise Unsafe(
            f"the program has started threads before worker.run(): {', '.join(others[:5])}; a fork would lose them. "
            "Start them in a service's setup, or turn the fork server off"
        )
    deadline = monotonic() + _SETTLING
    while True:
        count = len(os.listdir("/proc/self/task")) - 1
        if count == 0:
            break
        if monotonic() > deadline:
            raise Unsafe(
                f"a library has started threads before worker.run() ({count}), and a fork would lose them. Limit its "
                "threads, such as by OMP_NUM_THREADS=1, or turn the fork server off"
            )
        sleep(0.005)
    for name in os.listdir("/proc/self/fd"):
        if attempt("", os.readlink, f"/proc/self/fd/{name}").startswith("/dev/nvidia"):
            raise Unsafe(
                "the program has used CUDA before worker.run(), and CUDA does not survive a fork. Load it in a "
                "service's setup, or turn the fork server off"
            )
