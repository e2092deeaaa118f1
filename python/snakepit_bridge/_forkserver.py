"""Forks workers from one process that has imported the program, so that they share its time and its memory."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, Dict, List, NoReturn, Optional, Tuple

from ._errors import attempt, render, simple_error
from ._unpatched import say

if TYPE_CHECKING:
    from ._worker import Worker
    from .transport import Launch

_MESSAGE = 256 << 10  # bytes of a request
_FILES = 16  # descriptors of a request


class ForkServer:
    """Serves the host's requests to fork. Each forked child returns from `serve` and becomes a worker.

    The two sides talk over a socket of whole messages, in JSON. The host sends these:

    * ``{"start": 1, "env": [...]}`` with descriptors: standard input, output and error, and then those that the
      environment names. It names them by their places in the message.
    * ``{"reap": 123}`` for a child that has ended.

    It gets these:

    * ``{"started": 1, "pid": 123}`` or ``{"failed": 1, "error": "..."}``.
    * ``{"exited": 123, "code": 0, "signal": 0}``. The code is -1 after a signal.

    Attributes:
        forked: This process is a child.
    """

    def __init__(self, launch: Launch) -> None:
        assert launch.conn_fd is not None
        self.launch = launch
        self.forked = False
        self._socket = socket.socket(fileno=launch.conn_fd)
        self._children: Dict[int, bool] = {}
        """The children by their process ids. True: the host knows of the end, and will have the child reaped."""

    def serve(self) -> None:
        """Forks a child for each request. It returns in the children only."""
        problem = unsafe()
        if problem:
            self.refuse(simple_error("ForkServer", problem))
        gc.collect()
        gc.freeze()  # the collector must not write to the memory that the children share
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        handler = signal.signal(signal.SIGCHLD, lambda *_: None)
        before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._report({})
        while True:
            ready, _, _ = select.select([self._socket.fileno(), wake], [], [])
            if wake in ready:
                attempt(None, os.read, wake, 4096)
                self._note_ends()
            if self._socket.fileno() not in ready:
                continue
            request, files = self._receive()
            if "reap" in request:
                attempt(None, os.waitpid, request["reap"], 0)
                self._children.pop(request["reap"], None)
                continue
            pid = self._fork(request, files)
            for fd in files if pid else ():
                os.close(fd)
            if pid == 0:
                signal.set_wakeup_fd(before)
                signal.signal(signal.SIGCHLD, handler)
                for fd in (wake, woken):
                    os.close(fd)
                self._become(request, files)
                return

    def refuse(self, error: Dict[str, Any]) -> NoReturn:
        """Tells the host why this process cannot fork workers. Then ends it."""
        self._report({"failed": error})
        os._exit(1)

    def _report(self, report: Dict[str, Any]) -> None:
        if self.launch.control_fd is None:
            return
        attempt(None, os.write, self.launch.control_fd, json.dumps(report).encode()[: 60 << 10] + b"\n")
        attempt(None, os.close, self.launch.control_fd)
        self.launch.control_fd = None

    def _receive(self) -> Tuple[Dict[str, Any], List[int]]:
        """Returns a request and its descriptors. It ends this process if the host has closed the socket."""
        size = socket.CMSG_SPACE(_FILES * 4)
        data, ancillary, _, _ = self._socket.recvmsg(_MESSAGE, size, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        if not data:
            os._exit(0)
        files: List[int] = []
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files += memoryview(payload[: len(payload) // 4 * 4]).cast("i").tolist()
        request: Dict[str, Any] = json.loads(data)
        return request, files

    def _send(self, **message: Any) -> None:
        attempt(None, self._socket.send, json.dumps(message).encode())  # an error: the host is gone

    def _fork(self, request: Dict[str, Any], files: List[int]) -> int:
        """Forks, and returns what os.fork does, or -1 if that is impossible."""
        number = request["start"]
        problem = unsafe()
        if problem:
            self._send(failed=number, error=problem)
            return -1
        try:
            pid = os.fork()
        except OSError as exc:
            self._send(failed=number, error=f"{type(exc).__name__}: {exc}")
            return -1
        if pid == 0:
            os.setpgid(0, 0)
            return 0
        attempt(None, os.setpgid, pid, pid)  # whoever is first; an error: the child was
        self._children[pid] = False
        self._send(started=number, pid=pid)
        return pid

    def _note_ends(self) -> None:
        """Tells the host which children have ended. They stay zombies, so their ids are not used again."""
        for pid, known in list(self._children.items()):
            if known:
                continue
            ended = attempt(None, os.waitid, os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            self._children[pid] = True
            killed = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self._send(exited=pid, signal=ended.si_status if killed else 0, code=-1 if killed else ended.si_status)

    def _become(self, request: Dict[str, Any], files: List[int]) -> None:
        """Makes this child the process that the host has asked for: its descriptors and its environment."""
        self.forked = True
        self._children.clear()
        self._socket.close()
        if self.launch.lifeline_fd is not None:
            os.close(self.launch.lifeline_fd)
        for number, fd in enumerate(files[:3]):
            os.dup2(fd, number)
            os.close(fd)
        # The others have to be consecutive, and the program may have opened files of its own.
        rest = files[3:]
        first = max([int(name) for name in os.listdir("/proc/self/fd")]) + 1
        for i, fd in enumerate(rest):
            os.dup2(fd, first + i, inheritable=False)
            os.close(fd)
        environ = dict(pair.split("=", 1) for pair in request["env"])
        for name in ("SNAKEPIT_CONN_FD", "SNAKEPIT_CONTROL_FD", "SNAKEPIT_LIFELINE_FD"):
            if name in environ:
                environ[name] = str(int(environ[name]) - 3 + first)
        os.environ.clear()
        os.environ.update(environ)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:  # otherwise all workers draw the same numbers; Python's own module sees to it
            attempt(None, lambda: numpy_random.seed())


def unsafe() -> str:
    """Returns why this process must not fork, or ""."""
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    count = len(os.listdir("/proc/self/task"))
    if others:
        return (
            f"the program has started threads before worker.run(): {', '.join(others[:5])}; a fork would lose them. "
            "Start them in a service's setup, or turn the fork server off"
        )
    if count > 1:
        return (
            f"a library has started {count - 1} threads before worker.run(), and a fork would lose them. Limit its "
            "threads, such as by OMP_NUM_THREADS=1, or turn the fork server off"
        )
    for name in os.listdir("/proc/self/fd"):
        target = attempt("", os.readlink, f"/proc/self/fd/{name}")
        if target.startswith("/dev/nvidia"):
            return (
                "the program has used CUDA before worker.run(), and CUDA does not survive a fork. Load it in a "
                "service's setup, or turn the fork server off"
            )
    return ""


server: Optional[ForkServer] = None
"""The server, in its process and in its children."""


def serve(worker: Worker) -> None:
    """Serves forks, and in each child the worker. It returns in no process but a child whose host is gone."""
    from . import _server
    from .transport import Launch

    assert server is not None
    server.serve()
    connected = _server.connect(Launch.take())
    connected.attach()
    connected.serve(worker)
    sys.exit(connected.exit_code)


def report_failure(error: Dict[str, Any]) -> NoReturn:
    """Reports that the program could not be imported."""
    assert server is not None
    if server.forked:
        say(render(error))
        os._exit(1)
    server.refuse(error)
