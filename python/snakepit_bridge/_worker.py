"""The API for the authors of workers."""

from __future__ import annotations

from types import FunctionType
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple, Type, TypeVar, Union, overload

from ._command import RESERVED, Command, examine
from ._errors import shown
from ._sessions import Session
from ._snapshots import RESTORE, RestoreCommand, Snapshots, checked

_Take = TypeVar("_Take", bound=Callable[[Session], Any])
_Restore = TypeVar("_Restore", bound=Callable[[Session, Any], Any])
_F = TypeVar("_F", bound=Callable[..., Any])
_C = TypeVar("_C", bound=Type[Any])

_MARK = "__snakepit_command__"


class _Mark:
    """Marks a method as a command.

    Attributes:
        name: The command's name.
        validate: Whether its arguments are checked.
    """

    def __init__(self, name: str, validate: bool) -> None:
        self.name = name
        self.validate = validate


def _decorated(function: Any, name: str, form: str, apply: Callable[[_F, str], _F]) -> Union[_F, Callable[[_F], _F]]:
    """Returns the function or the decorator that a use of ``@command`` stands for. The form begins the right ones."""
    if isinstance(function, str) and function and not name:
        function, name = None, function
    if function is not None and not callable(function):
        raise TypeError(f'command() got {shown(function, 40)}: write {form}, {form}("name") or {form}(name="name")')

    def decorate(function: _F) -> _F:
        if not callable(function):
            raise TypeError(f"{form} belongs on a function, and got {shown(function, 40)}")
        return apply(function, name or function.__name__)

    return decorate if function is None else decorate(function)


@overload
def command(function: _F) -> _F: ...
@overload
def command(function: str = "", /, *, validate: bool = True) -> Callable[[_F], _F]: ...
@overload
def command(*, name: str, validate: bool = True) -> Callable[[_F], _F]: ...
def command(
    function: Union[_F, str, None] = None, *, name: str = "", validate: bool = True
) -> Union[_F, Callable[[_F], _F]]:
    """Marks a method as a command. `Worker.service` makes the marked methods of a class commands.

    Args:
        function: The method, or the command's name.
        name: The command's name; the method's own name by default.
        validate: Whether arguments are checked and converted by the method's annotations. See `Worker.command`.
    """

    def mark(function: _F, name: str) -> _F:
        setattr(function, _MARK, _Mark(name, validate))
        return function

    return _decorated(function, name, "@command", mark)


class Worker:
    """Commands, and how many of them run at once.

    A command is a plain function, a generator, an async function or an async generator. A function's return value is
    the call's result. A generator's items are the call's stream, and its return value is the call's result.

    If a call's argument is a map, its entries become keyword arguments. None becomes no argument. Any other value
    becomes the one positional argument. A parameter called ``ctx`` gets the call's `Context` or `AsyncContext`.

    An exception in a command is the call's error. The host gets its class, message and traceback. An exception may also
    give data to programs, such as a map of its fields: by an attribute ``snakepit_data``, or by a method of that name
    that returns the data. Data that can't be sent is left out, and a note in the error says why.

    With a concurrency of one, plain functions and generators run on the main thread. With more, they run in so many
    threads. Async functions and async generators always run on one loop, on the main thread.

    Args:
        concurrency: How many calls run at once. More than one helps handlers that wait, or whose C code releases the
            interpreter's lock.
        queue: How many more calls the host may send ahead. They run as soon as others end. This saves a round trip,
            which matters for handlers that take less than a millisecond. But a call that is queued here can't run on an
            idle worker instead.
    """

    def __init__(self, *, concurrency: int = 1, queue: int = 0) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; it has to be at least 1")
        if queue < 0:
            raise ValueError(f"queue is {queue}; it has to be 0 or more")
        self.concurrency = concurrency
        self.queue = queue
        self._functions: Dict[str, Callable[..., Any]] = {}
        self._unchecked: Set[str] = set()  # the functions whose arguments are not checked
        self._services: List[Tuple[Type[Any], Dict[str, str]]] = []
        self._on_snapshot: Optional[Callable[[Session], Any]] = None
        self._on_restore: Optional[Callable[[Session, Any], Any]] = None

    @overload
    def command(self, function: _F) -> _F: ...
    @overload
    def command(self, function: str = "", /, *, validate: bool = True) -> Callable[[_F], _F]: ...
    @overload
    def command(self, *, name: str, validate: bool = True) -> Callable[[_F], _F]: ...
    def command(
        self, function: Union[_F, str, None] = None, *, name: str = "", validate: bool = True
    ) -> Union[_F, Callable[[_F], _F]]:
        """Makes a function a command.

        Before a call runs, its arguments are checked and converted by the function's annotations. A list of maps
        becomes a ``list[Order]`` of dataclasses, and the text of a date becomes a ``date``. If an argument does not
        fit, the call fails with an error of the type ``BadArguments``, and the function does not run. An annotation
        that the bridge does not know demands nothing. Neither the result nor the items of ``ctx.input`` are checked.

        Args:
            function: The function, which is returned unchanged. Or the command's name, as in
                ``@worker.command("name")``.
            name: The command's name; the function's own name by default.
            validate: Whether arguments are checked and converted. Otherwise they pass as they arrive.

        Raises:
            ValueError: The name is taken or reserved.
            TypeError: It is a method, and the class has no instance yet. See `service`. Or it is no function.
        """

        def add(function: _F, name: str) -> _F:
            scope = function.__qualname__.rpartition(".")[0] if isinstance(function, FunctionType) else ""
            if scope and not scope.endswith("<locals>"):
                hint = "put @command of snakepit_bridge on it, and @worker.service on its class"
                raise TypeError(f"{function.__qualname__} is a method and has no instance: {hint}")
            self._check_name(name)
            self._functions[name] = function
            if not validate:
                self._unchecked.add(name)
            return function

        return _decorated(function, name, "@worker.command", add)

    @overload
    def service(self, cls: _C) -> _C: ...
    @overload
    def service(self, *, prefix: str) -> Callable[[_C], _C]: ...
    def service(self, cls: Optional[_C] = None, *, prefix: str = "") -> Union[_C, Callable[[_C], _C]]:
        """Makes the marked methods of a class commands. `snakepit_bridge.command` marks them.

        One instance is made before the worker says that it is ready, so its constructor is the place to load a model.
        If there is a method ``setup``, it runs next. If there is a method ``close``, it runs when the worker ends. Both
        may be async.

        Args:
            cls: The class. It is returned unchanged. It is called without arguments.
            prefix: Put before the commands' names, followed by a dot.

        Raises:
            ValueError: A name is taken or reserved, or no method is marked.
        """

        def add(cls: _C) -> _C:
            marked: Dict[str, str] = {}
            for attribute in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
                mark: Optional[_Mark] = getattr(getattr(cls, attribute, None), _MARK, None)
                if mark is not None:
                    chosen = f"{prefix}.{mark.name}" if prefix else mark.name
                    self._check_name(chosen)
                    marked[chosen] = attribute
            if not marked:
                raise ValueError(f"{cls.__qualname__} has no method marked with snakepit_bridge.command")
            self._services.append((cls, marked))
            return cls

        return add if cls is None else add(cls)

    def on_snapshot(self, function: _Take) -> _Take:
        """Makes sessions survive this process: the function returns the state of a session as a value.

        It runs after each call of a session, also after one that failed. The value goes to the host, before the call's
        answer. If this process ends, or leaves the pool, the session's next call takes another worker, which first
        restores the state. So the function should be fast, and its value small.

            @worker.on_snapshot
            def snapshot(session: Session) -> Any:
                return session.state

        The value may be anything that a command may return. If the function fails, or the value can't be sent, the call
        keeps its answer, the exception is logged, and the session is lost with this process. If calls of one session
        run at once, the function runs beside them, and has to return a copy of what they change.

        Args:
            function: A plain function, which is returned unchanged. Its argument is the `Session`. Its value has to be
                a map with the entries of ``session.state``, unless there is a function with `on_restore`.

        Raises:
            ValueError: There is such a function already.
            TypeError: It is async, a generator or a method, it takes other arguments, or it is no function.
        """
        if self._on_snapshot is not None:
            raise ValueError("there is a function with @worker.on_snapshot already")
        self._on_snapshot = checked(function, "@worker.on_snapshot", "session")
        return function

    def on_restore(self, function: _Restore) -> _Restore:
        """Restores a session from the value that the function with `on_snapshot` returned, perhaps in another process.

        It runs before the calls of the session, and nothing else of the session runs meanwhile. The session is new: its
        state is empty. If the function fails, the call that needs the state fails with the same error and does not run,
        and the next call tries again. Without this function, the value becomes the state.

            @worker.on_restore
            def restore(session: Session, value: Any) -> None:
                session.state["model"] = Model.from_weights(value["weights"])

        Args:
            function: A plain function, which is returned unchanged. Its arguments are the `Session` and the value.

        Raises:
            ValueError: There is such a function already.
            TypeError: It is async, a generator or a method, it takes other arguments, or it is no function.
        """
        if self._on_restore is not None:
            raise ValueError("there is a function with @worker.on_restore already")
        self._on_restore = checked(function, "@worker.on_restore", "session", "value")
        return function

    def _check_name(self, name: str) -> None:
        if name.startswith(RESERVED):
            raise ValueError(f"command names that begin with {RESERVED!r} are reserved: {name!r}")
        if name in self._functions or any(name in marked for _, marked in self._services):
            raise ValueError(f"there is a command {name!r} already")

    def run(self) -> None:
        """Serves the host that started this process, and returns when that is done.

        Without a host, it prints the commands and how to use the file, and returns.
        """
        from . import _server

        _server.run(self)

    def _needs_loop(self) -> bool:
        hooks = [getattr(cls, name, None) for cls, _ in self._services for name in ("setup", "close")]
        methods = [getattr(cls, attribute) for cls, marked in self._services for attribute in marked.values()]
        return any(examine(function)[3] for function in [*self._functions.values(), *methods, *filter(callable, hooks)])

    def _commands(self) -> Dict[str, Command]:
        """Returns the plain functions and the built-in commands."""
        from . import _builtins

        commands = {
            name: Command(name, function, name not in self._unchecked) for name, function in self._functions.items()
        }
        for name, function in _builtins.COMMANDS.items():
            commands[name] = Command(name, function)
        if self._on_snapshot is not None:
            commands[RESTORE] = RestoreCommand()
        return commands

    def _snapshots(self) -> Optional[Snapshots]:
        """Returns what takes and restores snapshots, or None."""
        if self._on_snapshot is not None:
            return Snapshots(self._on_snapshot, self._on_restore)
        if self._on_restore is not None:
            raise ValueError(
                "the worker has a function with @worker.on_restore and none with @worker.on_snapshot: write both"
            )
        return None

    @staticmethod
    def _command_of(name: str, method: Any) -> Command:
        """Returns the command of a service's marked method."""
        return Command(name, method, getattr(method, _MARK).validate)

    def _listing(self) -> Dict[str, Callable[..., Any]]:
        """Returns all functions and methods, without making services. The methods are unbound."""
        listing = dict(self._functions)
        for cls, marked in self._services:
            listing.update({name: getattr(cls, attribute) for name, attribute in marked.items()})
        return listing


class NoWorker(Exception):
    """A script defines no worker to serve, or several."""


def only_worker(namespace: Mapping[str, Any], script: str) -> Worker:
    """Returns the one worker that a script has defined.

    Raises:
        NoWorker: The script has defined none, or several.
    """
    found = {id(value): value for value in namespace.values() if isinstance(value, Worker)}
    if len(found) == 1:
        return found.popitem()[1]
    if not found:
        raise NoWorker(
            f"{script} defines no worker: "
            "write worker = snakepit_bridge.Worker() and mark its functions with @worker.command"
        )
    names = ", ".join(name for name, value in namespace.items() if isinstance(value, Worker))
    raise NoWorker(
        f"{script} defines {len(found)} workers ({names}) and runs none: call run() of one of them at its end"
    )
