"""Takes what the program logs to the host."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from ._errors import clean
from ._interrupt import CURRENT

if TYPE_CHECKING:
    import logging

    from ._boot import Host

_LEVELS = {"trace": 5, "debug": 10, "info": 20}


def install(host: Host) -> None:
    """Sends log records to the host. If logging is not imported yet, which takes 14 ms, that is done as soon as it is."""
    if "logging" in sys.modules:
        _attach(sys.modules["logging"], host)
    else:
        sys.meta_path.insert(0, _WhenImported(host))


class _WhenImported:
    """Finds logging where the others would, and attaches the handler once it has been executed."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.inner: Any = None

    def find_spec(self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            self.inner = spec.loader
            hooked: Any = self  # a loader by its methods; the base class takes long to import
            spec.loader = hooked
        return spec

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.inner
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        if hasattr(module, "LogRecord"):  # and not a file of the user's that has the name
            _attach(module, self.host)


def _attach(logging: Any, host: Host) -> None:
    standard = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    class HostHandler(logging.Handler):  # type: ignore[misc]
        """Queues records for the host. It takes no lock, so a finalizer or a signal handler that logs can't deadlock."""

        def createLock(self) -> None:
            self.lock = None

        def handle(self, record: logging.LogRecord) -> bool:
            passed = self.filter(record)
            if passed:
                self.emit(passed if isinstance(passed, logging.LogRecord) else record)
            return bool(passed)

        def emit(self, record: logging.LogRecord) -> None:
            if host.forked:
                os.write(2, f"{record.levelname}:{record.name}:{record.getMessage()}\n".encode("utf-8", "replace"))
                return
            try:
                host.log(_fields_of(record, standard, self))
            except Exception:  # such as a message whose arguments do not fit it
                self.handleError(record)

    root = logging.getLogger()
    root.addHandler(HostHandler())
    if root.level == logging.WARNING:
        root.setLevel(min(logging.INFO, _LEVELS.get(os.environ.get("SNAKEPIT_LOG", "").lower(), logging.INFO)))

    # With a handler there, basicConfig would do nothing at all; but whoever calls it means at least the level.
    basic_config = logging.basicConfig

    def with_level(**kwargs: Any) -> None:
        if root.handlers and kwargs.get("level") is not None and not kwargs.get("force"):
            root.setLevel(kwargs["level"])
        basic_config(**kwargs)

    with_level.__doc__ = basic_config.__doc__
    logging.basicConfig = with_level


def _fields_of(record: logging.LogRecord, standard: Any, handler: logging.Handler) -> Dict[str, Any]:
    levelno = record.levelno
    level = "trace" if levelno < 10 else "debug" if levelno < 20 else "info" if levelno < 30 else "warn" if levelno < 40 else "error"
    entry: Dict[str, Any] = {"level": level, "logger": clean(record.name), "message": clean(record.getMessage()), "time": record.created}
    fields = {key: value for key, value in record.__dict__.items() if key not in standard}
    if record.exc_info and record.exc_info[0] is not None:
        formatter = handler.formatter or sys.modules["logging"].Formatter()
        fields["exception"] = clean(formatter.formatException(record.exc_info))
    if fields:
        entry["fields"] = fields
    call = CURRENT.get()
    if call is not None and call.id > 0:  # and not one of the transport's own
        entry["call"] = call.id
    return entry
