"""The life of a worker's process: connecting to the host, serving it, and leaving it."""

from __future__ import annotations

import atexit
import errno
import os
import sys
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, NoReturn, Optional, Sequence, Tuple

from ._attach import attach
from ._description import add_note, as_json, describe, encode_error
from ._errors import Disconnected, ProtocolError, Unavailable, attempt, render, simple_error, text_of, type_name
from ._frames import BASE_WEIGHT, ERROR
from ._logging import forward_logs, line_of
from ._redirect import flush_output, redirect
from ._report import begin_report, report, report_failure
from ._unpatched import read, say, spawn
from .transport import Launch, Transport

if TYPE_CHECKING:
    from ._forkserver import ForkServer
    from ._runner import Runner
    from ._signals import Signals
    from ._worker import Worker

_TRANSPORTS = {
    "jsonstdio": ("_transport_jsonstdio", "JsonStdio"),
    "msgpack": ("_transport_msgpack", "MsgpackSocket"),
    "grpc": ("grpc.transport", "GrpcTransport"),
}
_PACKAGES = {"msgpack": "'msgpack>=1.0.3'", "grpc": "'grpcio>=1.50' 'protobuf>=3.20.3'"}


class Server:
    """Serves one worker to the host that started this process.

    Attributes:
        exit_code: The exit code of the process, once it has served; None before.
    """

    def __init__(self, launch: Launch, transport: Transport, forks: Optional[ForkServer] = None) -> None:
        self.launch = launch
        self.transport = transport
        self.forks = forks  # this process forks workers; None in each of them
        self.forked = False
        self.exit_code: Optional[int] = None
        self.runner: Optional[Runner] = None
        self.signals: Optional[Signals] = None
        self._early_logs: Deque[Dict[str, Any]] = deque(maxlen=1000)
        self._early_errors: Deque[Dict[str, Any]] = deque(maxlen=1000)  # standard error has these already
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def attach(self) -> None:
        """Sends the program's log records to the host, and guards its signal handlers, from now on."""
        from ._signals import Signals
        from ._threads import report_threads

        forward_logs(self)
        report_threads(self)
        self.signals = Signals(lambda: self.runner)

    def serve(self, worker: Worker) -> None:
        """Serves a worker until the host is gone."""
        if self.exit_code is not None:
            raise RuntimeError("this process has served already: call run() of one worker, once")
        from . import _executors
        from ._runner import Runner

        if self.forks is not None:
            self._fork()
        launch = self.launch
        runner = Runner(
            self.transport, worker._commands(), worker.concurrency, worker.queue, launch, worker._snapshots()
        )
        runner.outbox.logs.extend(self._early_logs)
        self._early_logs.clear()
        self.runner = runner
        runner.executor = _executors.choose(runner, worker._needs_loop())
        closing: List[Callable[[], Any]] = []
        if launch.lifeline_fd is not None:
            spawn(runner.guarded(partial(self._watch, launch.lifeline_fd, runner)), "snakepit-lifeline")
        try:
            set_up(runner, worker, closing)
        except BaseException as exc:
            self.refuse(describe(exc))
        if self.signals is not None:
            self.signals.serve()
        try:
            runner.greet()
            for record in self._early_errors:
                runner.outbox.log(record)
            self._early_errors.clear()
            runner.executor.serve()
        except ProtocolError as exc:
            runner.violated(str(exc))
        except Disconnected:
            runner.lost()
        except BaseException as exc:
            runner.leave(exc)
            tear_down(runner, closing)
            attempt(None, atexit._run_exitfuncs)
            self._exit(runner.exit_code)
        self.exit_code = runner.exit_code
        tear_down(runner, closing)
        runner.close()

    def _fork(self) -> None:
        """Forks workers. Each of them returns, connected to the host."""
        from ._forkserver import Unsafe

        assert self.forks is not None
        for record in self._early_logs:  # of the import, which was done once for all workers
            say(line_of(record))
        self._early_logs.clear()
        self._early_errors.clear()
        try:
            self.forks.serve()
        except Unsafe as exc:
            self.refuse(simple_error("Unsafe", str(exc)))
        except SystemExit:  # the host is gone
            self.exit_code = 0
            raise
        self.forks = None
        self.launch = Launch.take()
        self.transport = _connect(self.launch)

    def log(self, record: Dict[str, Any]) -> None:
        """Sends a log record, or keeps it until the host has said hello.

        A crash before the hello loses the kept records, so error records go to standard error as well. In a forked
        child, all records go to standard error.
        """
        if self.forked:
            say(line_of(record))
        elif record["level"] == "error" and (self.runner is None or self.runner.terms.codec is None):
            say(line_of(record))
            self._early_errors.append(record)
        elif self.runner is not None:
            self.runner.outbox.log(record)
        else:
            self._early_logs.append(record)

    def refuse(self, error: Dict[str, Any]) -> NoReturn:
        """Tells the host, instead of hello, that this worker can't serve. Then ends the process."""
        if error["type"] == "ModuleNotFoundError":
            from ._remedy import missing_module

            add_note(error, f"hint: {missing_module(error['message'])}")
        try:
            if self.forks is not None:
                report_failure(self.launch, error)
            else:
                body = encode_error(error, as_json, self.launch.max_frame - BASE_WEIGHT)
                self.transport.write([{"kind": ERROR, "id": 0, "body": body}])
            self.transport.close()
        except Exception:  # the host is gone, and only standard error is left
            say(render(error))
        for record in self._early_logs:
            say(line_of(record))
        self._exit(1)

    def _exit(self, code: int) -> NoReturn:
        """Ends the process at once.

        The program's threads must not keep it alive. The host does not wait long for the exit code once the connection
        has ended.
        """
        flush_output()
        if self.runner is not None:
            attempt(None, self.runner.close)
        os._exit(code)

    def _in_child(self) -> None:
        if self.forks is not None and self.forks.forking:
            return
        self.forked = True
        if self.launch.lifeline_fd is not None:
            os.close(self.launch.lifeline_fd)
            self.launch.lifeline_fd = None
        self.transport.close_in_child()
        if self.runner is not None:
            self.runner.in_child()

    def _watch(self, lifeline: int, runner: Runner) -> None:
        """Waits for the lifeline's end of file. A host that has not dialled yet has no connection that could end."""
        try:
            read(lifeline, 1)
        except OSError:
            return
        if not runner.forked:
            runner.lost()
            self.transport.close()


def set_up(runner: Runner, worker: Worker, closing: List[Callable[[], Any]]) -> None:
    """Creates the worker's services, and appends their close methods to ``closing``."""
    for cls, marked in worker._services:
        instance: List[Any] = []
        runner.executor.hook(lambda cls=cls, instance=instance: instance.append(cls()))  # type: ignore[misc]
        service = instance[0]
        hooks = {
            name: getattr(service, name)
            for name in ("setup", "close")
            if name not in marked.values() and hasattr(service, name)
        }
        if "close" in hooks:
            closing.append(hooks["close"])
        if "setup" in hooks:
            runner.executor.hook(hooks["setup"])
        for name, attribute in marked.items():
            runner.commands[name] = worker._command_of(name, getattr(service, attribute))


def tear_down(runner: Runner, closing: Sequence[Callable[[], Any]]) -> None:
    """Closes the services, the newest first, and then the executor."""
    if runner.housekeeper.exit_at is not None:
        runner.housekeeper.exit_after(10.0)
    ends: List[Callable[[], Any]] = [partial(runner.executor.hook, close) for close in reversed(closing)]
    for end in (*ends, runner.executor.close):
        try:
            end()
        except BaseException as exc:  # the others still have to be closed
            say(render(describe(exc)))


servers: Tuple[Server, ...] = ()
"""The server, if there is one. eventlet replaces locks in lists, dicts and attributes, but not in tuples."""
shown_workers: List[Worker] = []


def run(worker: Worker) -> None:
    """Implements `Worker.run`."""
    if servers:
        servers[0].serve(worker)
    elif os.environ.get("SNAKEPIT_PROTOCOL") or attach():  # the script was started directly
        server = connect(Launch.take())
        server.attach()
        server.serve(worker)
        sys.exit(server.exit_code)
    else:
        show(worker, sys.argv[0] or "worker.py")


def connect(launch: Launch, by_hand: bool = False) -> Server:
    """Creates the transport and reports to the host. If that fails, the process ends here.

    Args:
        launch: The host's settings.
        by_hand: Somebody has started this process in a terminal. It keeps its input and output, and Ctrl-C ends it.
    """
    global servers
    if not by_hand:
        _ignore_interrupts()
    servers = (Server(launch, _connect(launch, by_hand)),)
    return servers[0]


def fork(launch: Launch) -> Server:
    """Prepares this process to fork workers. Each worker connects for itself."""
    global servers
    from ._codecs import available
    from ._forkserver import ForkServer, Unconnected

    _ignore_interrupts()
    _keep(launch)
    redirect()
    # Before the program's directory is in sys.path: a file there may have the name of one of these modules.
    available()
    for protocol in _TRANSPORTS:
        attempt(None, lambda: _transport_class(protocol).preload())  # noqa: B023
    forks = ForkServer(launch)
    servers = (Server(launch, Unconnected(forks), forks),)
    return servers[0]


def _keep(launch: Launch) -> None:
    """Keeps the host's descriptors from the children of this process."""
    for fd in (launch.control_fd, launch.lifeline_fd, launch.conn_fd):
        if fd is not None:
            os.set_inheritable(fd, False)


def _ignore_interrupts() -> None:
    """Ctrl-C in a terminal reaches all of its processes, but the host decides when this one ends.

    Children of this process still end: they do not inherit a handler. They would inherit SIG_IGN.
    """
    import signal

    signal.signal(signal.SIGINT, lambda *_: None)


def _connect(launch: Launch, by_hand: bool = False) -> Transport:
    from ._remedy import install

    os.environ.pop("SNAKEPIT_PROTOCOL", None)  # children of this process are not workers
    _keep(launch)
    begin_report(launch)
    try:
        transport: Transport = _transport_class(launch.protocol)(launch)
        if not by_hand:
            redirect()
    except Unavailable as exc:
        report(launch, {"unavailable": text_of(exc), "remedy": exc.remedy})
    except BaseException as exc:
        # If a transport of the bridge or an import fails, the cause is this system. The next protocol may work here.
        if launch.protocol not in _TRANSPORTS and not isinstance(exc, (ImportError, OSError)):
            report_failure(launch, describe(exc))
        else:
            packages = _PACKAGES.get(launch.protocol) if isinstance(exc, ImportError) else None
            report(launch, {"unavailable": _reason(exc), "remedy": install(packages) if packages else ""})
    else:
        _name_process(launch)
        report(launch, {"endpoint": transport.endpoint} if transport.endpoint else {})
        return transport
    os._exit(1)  # the transport that failed may have left threads behind


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ImportError):
        return text_of(exc)
    if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
        return f"too few file descriptors: {text_of(exc)}; raise the limit that ulimit -n shows"
    return f"{type_name(type(exc))}: {text_of(exc)}"


def _name_process(launch: Launch) -> None:
    """Names the process after its pool and its index, such as "snakepit/2", if the system allows that.

    `ps -e` and `top` show the name.
    """
    tail = f"/{launch.index}".encode()
    try:
        with open("/proc/self/comm", "wb") as comm:
            comm.write(launch.run_id.rpartition("-")[0].encode()[: 15 - len(tail)] + tail)  # the system keeps 15 bytes
    except OSError:
        pass


def _transport_class(protocol: str) -> Any:
    from importlib import import_module

    if protocol in _TRANSPORTS:
        module, name = _TRANSPORTS[protocol]
        return getattr(import_module(f"{__package__}.{module}"), name)
    module, _, name = protocol.partition(":")
    if not name:
        raise Unavailable(
            f"no protocol is called {protocol!r}; "
            f"there are {', '.join(_TRANSPORTS)}, and module:Class for one of your own"
        )
    saved = sys.path[:]
    if len(sys.argv) > 1:  # the module may be beside the script
        sys.path.append(os.path.dirname(os.path.abspath(sys.argv[1])))
    try:
        return getattr(import_module(module), name)
    finally:
        sys.path[:] = saved


def show(worker: Worker, script: str) -> None:
    """Prints a worker's commands, and the line of Go that starts it."""
    from ._builtins import usage

    shown_workers.append(worker)
    print(f"{os.path.basename(script)} is a Snakepit worker: a host starts it and calls its commands.\n\ncommands:")
    for name, function in worker._listing().items():
        print(f"  {usage(name, function)}")
    name = repr(os.path.basename(script)).replace("'", '"')
    print(f"\nfrom Go: pool, err := snakepit.Open(ctx, snakepit.Python({name}), nil)")
