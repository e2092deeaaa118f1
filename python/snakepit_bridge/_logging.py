"""Sends the program's log records to the host."""

from __future__ import annotations

import os
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from ._calls import CURRENT
from ._description import describe
from ._errors import clean, render, text_of, type_name
from ._logfields import snapshot
from ._tracing import ids_of
from ._unpatched import say

if TYPE_CHECKING:
    import logging

    from ._server import Server

_LEVELS = {"trace": 5, "debug": 10, "info": 20}
_LEVELS_BELOW = ((10, "trace"), (20, "debug"), (30, "info"), (40, "warn"))


def forward_logs(server: Server) -> None:
    """Sends log records to the host from now on, or from the moment the program imports logging.

    An import of logging takes 14 ms, so the bridge does not import it by itself.
    """
    if "logging" in sys.modules:
        _attach(sys.modules["logging"], server)
    else:
        sys.meta_path.insert(0, _WhenImported(server))


class _WhenImported:
    """Finds logging like the default finder. Attaches the handler once the module has been executed."""

    def __init__(self, server: Server) -> None:
        self.servers = (server,)  # a tuple for the same reason as _server.servers
        self.inner: Any = None

    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            self.inner = spec.loader
            hooked: Any = self  # it has a loader's methods; the base class takes long to import
            spec.loader = hooked
        return spec

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.inner
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        if hasattr(module, "LogRecord"):  # otherwise it is a file of the user's with that name
            _attach(module, *self.servers)


def _attach(logging: Any, server: Server) -> None:
    standard = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    class HostHandler(logging.Handler):  # type: ignore[misc]
        """Queues records for the host. It takes no lock, so finalizers and signal handlers that log can't deadlock."""

        def createLock(self) -> None:
            self.lock = None

        def handle(self, record: logging.LogRecord) -> bool:
            passed = self.filter(record)
            if passed:
                self.emit(passed if isinstance(passed, logging.LogRecord) else record)
            return bool(passed)

        def emit(self, record: logging.LogRecord) -> None:
            try:
                entry = _entry_of(record, standard, self)
            except BaseException:  # for instance, the arguments do not fit the message
                self._failed(record)
                return
            try:
                server.log(entry)
            except Exception:  # other exceptions are to end the process
                self._failed(record)

        def _failed(self, record: logging.LogRecord) -> None:
            try:
                self.handleError(record)
            except BaseException as exc:
                say(f"snakepit_bridge: a log record can't be shown\n{render(describe(exc))}")

    root = logging.getLogger()
    root.addHandler(HostHandler())
    if root.level == logging.WARNING:
        root.setLevel(min(logging.INFO, _LEVELS.get(os.environ.get("SNAKEPIT_LOG", "").lower(), logging.INFO)))

    # The root logger has a handler, so basicConfig would do nothing. Its callers expect that it sets the level.
    basic_config = logging.basicConfig

    def with_level(**kwargs: Any) -> None:
        if root.handlers and kwargs.get("level") is not None and not kwargs.get("force"):
            root.setLevel(kwargs["level"])
        basic_config(**kwargs)

    with_level.__doc__ = basic_config.__doc__
    logging.basicConfig = with_level


def _entry_of(record: logging.LogRecord, standard: Any, handler: logging.Handler) -> Dict[str, Any]:
    """Returns the content of a log frame. It holds copies, because logged objects may change before it is written."""
    levelno = record.levelno
    level = next((name for limit, name in _LEVELS_BELOW if levelno < limit), "error")
    created = record.created if type(record.created) is float else time.time()
    entry: Dict[str, Any] = {
        "level": level,
        "logger": text_of(record.name),
        "message": _message(record),
        "time": created,
    }
    fields = {key: value for key, value in record.__dict__.items() if key not in standard}
    if fields:
        fields = snapshot(fields)
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception"] = _exception(record.exc_info, handler)
    call = CURRENT.get()
    ids = ids_of(call) if call is not None and call.frame.get("meta") else None
    if ids is not None:
        fields.setdefault("trace_id", ids[0])
        fields.setdefault("span_id", ids[1])
    if fields:
        entry["fields"] = fields
    if call is not None and call.id > 0:  # the host does not know the transport's own calls
        entry["call"] = call.id
    return entry


def _message(record: logging.LogRecord) -> str:
    try:
        return clean(record.getMessage())
    except BaseException as exc:  # an argument does not fit, or its own code raises
        return f"{text_of(record.msg)} <its arguments can't be formatted: {type_name(type(exc))}: {text_of(exc)}>"


def _exception(exc_info: Any, handler: logging.Handler) -> str:
    try:
        formatter = handler.formatter or sys.modules["logging"].Formatter()
        return clean(formatter.formatException(exc_info))
    except BaseException:  # raised by the exception's own code
        return render(describe(exc_info[1])).rstrip("\n")


_NAMES = {"warn": "WARNING"}


def line_of(entry: Dict[str, Any]) -> str:
    """Returns a record as text for standard error. It is used where there is no connection."""
    fields = dict(entry.get("fields", ()))
    exception = fields.pop("exception", "")
    level = _NAMES.get(entry["level"], entry["level"].upper())
    line = f"{level}:{entry['logger']}:{entry['message']}" + "".join(
        f" {key}={value!r}" for key, value in fields.items()
    )
    return f"{line}\n{exception}\n" if exception else line + "\n"
