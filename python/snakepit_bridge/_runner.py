"""The meaning of frames for a worker: hello, calls, credit, cancels, callbacks. docs/protocol.md is the reference.

The runner reads and writes batches of frames through its transport. It starts no handler: an executor of `_executors`
does.

Threads. The thread that reads calls `Runner.handle`. A transport that lets clients other than the host call the worker
calls it, too (see `Transport.opened`). Only one thread at a time runs it, and it never runs user code. The threads that
run handlers use `Runner.finish`, `host_calls` and `outbox`.

Data that both sides touch has no lock. Either one side alone writes it (credit is kept as two totals, granted and
used), or each change is a single operation on a dict or deque, which the interpreter makes atomic. The outbox has such
a deque of frames. Code appends to it and then calls `flush`, which only tries the lock. So a finalizer or a signal
handler that logs can't deadlock with the write that it interrupts.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence, Set

from . import _stacks
from ._answers import Answers
from ._calls import CURRENT, WINDOW_BYTES, WINDOW_ITEMS, Call, HostCall
from ._codecs import get_codec
from ._command import RESERVED
from ._description import describe
from ._errors import (
    CANCELLED,
    DRAINING,
    SATURATED,
    UNKNOWN_COMMAND,
    Disconnected,
    ProtocolError,
    attempt,
    clean,
    render,
    simple_error,
    type_name,
)
from ._frames import (
    BASE_WEIGHT,
    BYE,
    CALL,
    CANCEL,
    CREDIT,
    END,
    ERROR,
    HELLO,
    ITEM,
    KINDS,
    NOT_STARTED,
    PIECE,
    PING,
    PONG,
    Frame,
)
from ._handlers import Handlers, exit_code
from ._hostcalls import HostCalls
from ._housekeeper import Housekeeper
from ._memory import LARGE, keep_pages
from ._outbox import WRITE, Outbox
from ._pieces import FEATURE, JOINED, Join
from ._sessions import Sessions
from ._snapshots import FEATURE as SNAPSHOTS
from ._snapshots import Snapshots
from ._stdlib import stdlib_first
from ._terms import Terms
from ._unpatched import Lock, get_ident, monotonic, say
from ._version import __version__
from .transport import Launch, Transport

if TYPE_CHECKING:
    from ._command import Command
    from ._executors import Executor

LOST_GRACE = 2.0
"""How many seconds running calls have to end once the host is gone."""

_MAX_ID = 1 << 53

_MOST_RUNNING = 64  # calls that a pong lists

_started_at = attrgetter("started_at")


class Runner:
    """Serves one worker's commands to one host."""

    def __init__(
        self,
        transport: Transport,
        commands: Mapping[str, Command],
        concurrency: int,
        queue: int,
        launch: Launch,
        snapshots: Optional[Snapshots] = None,
    ) -> None:
        self.transport = transport
        self.commands = dict(commands)
        self.concurrency = concurrency
        self.index = launch.index
        self.token = launch.worker_token
        self.directory = launch.directory
        self.executor: Executor
        self.terms = Terms(launch.max_frame, concurrency + queue)
        self.calls: Dict[int, Call] = {}
        # Those of the calls that the transport's clients have opened. They do not count against the host's limit.
        self.client_calls: Dict[int, Call] = {}
        # Calls that have not started. The thread that pops a call owns it, and either runs it or cancels it.
        self.unstarted: Dict[int, Call] = {}
        self.ready: Deque[Call] = deque()
        self.sessions = Sessions(self._client_sessions)
        self.snapshots = snapshots
        self.outbox = Outbox(transport, self.terms, self.lost, self.broken)
        self.host_calls = HostCalls(self.terms, self.outbox)
        self.answers = Answers(self.terms)
        self.handlers = Handlers(self)
        self.housekeeper = Housekeeper(self)
        self.outbox.wake = self.housekeeper.wake
        self.host_calls.inside = self.inside
        self.draining = False
        self.ended = False  # the connection has ended
        self.forked = False
        self.exit_code = 0
        self.end_reason = "the host is gone"  # the reason why running calls have to end
        self._mark = 0  # the highest id that the host has used
        self._joins: Dict[int, Join] = {}  # by call, the bodies that arrive in pieces
        self._opening: Set[int] = set()  # those of them that open their calls
        self._turn = Lock()  # guards handle
        self._accepted = 0  # how many calls have been queued for the executor
        self._frame_handlers: Dict[int, Callable[[Frame], None]] = {
            CALL: self._on_call,
            ITEM: self._on_item,
            END: self._on_end,
            ERROR: self._on_error,
            CANCEL: self._on_cancel,
            CREDIT: self._on_credit,
            PING: self._on_ping,
            PONG: self._on_pong,
            BYE: self._on_bye,
            PIECE: self._on_piece,
        }

    # --- the connection

    def greet(self) -> None:
        """Says hello, waits for the host's hello and gets ready for calls.

        Raises:
            ProtocolError: The host did not say a hello that this worker can accept.
            Disconnected: The host has left.
        """
        hello = self._hello()
        try:
            self.transport.write([{"kind": HELLO, "body": json.dumps(hello).encode()}])
            frames = self.transport.read()
        except ValueError as exc:
            raise ProtocolError(str(exc)) from None
        except ConnectionError as exc:
            raise Disconnected(f"the host left before its hello: {exc}") from None
        if not frames:
            raise Disconnected("the host closed the connection before its hello")
        self._accept(frames[0])
        self.housekeeper.start()
        take = self.handle if self.transport.takes_clients else _no_clients
        self.transport.opened(take, self.terms.codec.name, self.concurrency)
        if len(frames) > 1:
            self.handle(frames[1:])

    def _hello(self) -> Dict[str, Any]:
        """Returns the body of this worker's hello."""
        hello: Dict[str, Any] = {
            "versions": [1],
            "features": ["exact-numbers", FEATURE, _stacks.FEATURE],
            "codecs": list(self.transport.codecs),
            "max_frame": self.terms.max_frame,
            "window": {"items": WINDOW_ITEMS, "bytes": WINDOW_BYTES},
            "concurrency": self.terms.max_calls,
            "commands": [{"name": command.name, "stream": command.stream} for command in self.commands.values()],
            "pid": os.getpid(),
            "runtime": "{} {}.{}.{}".format(sys.implementation.name, *sys.version_info),
            "library": f"snakepit_bridge {__version__}",
        }
        if self.snapshots is not None:
            hello["features"].append(SNAPSHOTS)
        offered = _stacks.offer(self.directory)
        if offered is not None:
            hello["stacks"] = offered
        if self.token:
            hello["token"] = self.token
        return hello

    def _accept(self, frame: Frame) -> None:
        """Sets the terms that the host's first frame states.

        Raises:
            ProtocolError: It is not a hello that this worker can accept.
        """
        if frame["kind"] != HELLO:
            raise ProtocolError(f"the host's first frame is not hello but {_kind(frame)}")
        terms = self.terms
        try:
            body = json.loads(frame["body"])
            if body["version"] != 1:
                raise ProtocolError(
                    f"the host wants version {body['version']!r:.40} of the protocol, and this worker speaks 1"
                )
            if body["codec"] not in self.transport.codecs:
                names = ", ".join(self.transport.codecs)
                raise ProtocolError(f"the host wants the codec {body['codec']!r:.40}, and this worker has {names}")
            terms.codec = get_codec(body["codec"])
            terms.encode = terms.codec.encode_parts if self.transport.takes_parts else terms.codec.encode
            terms.max_frame = min(terms.max_frame, int(body.get("max_frame") or terms.max_frame))
            terms.window = int(body["window"]["items"]), int(body["window"]["bytes"])
            terms.max_calls = min(terms.max_calls, int(body.get("concurrency") or terms.max_calls))
            terms.max_host_calls = int(body.get("calls", 0))
            if FEATURE in (body.get("features") or ()):
                terms.pieces = True
            if min(*terms.window, terms.max_calls) < 1 or terms.max_frame < 4096 or terms.max_host_calls < 0:
                raise ProtocolError(
                    f"the host's hello has an impossible limit: window {terms.window}, concurrency {terms.max_calls}, "
                    f"max_frame {terms.max_frame}, calls {terms.max_host_calls}"
                )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise ProtocolError(f"the host's hello can't be understood: {type_name(type(exc))}: {exc}") from None

    def pump(self) -> None:
        """Reads once and handles the frames. Called by the thread whose turn it is to read."""
        try:
            self.handle(self.transport.read())
        except (ProtocolError, ValueError) as exc:
            self.violated(str(exc))
        except ConnectionError:
            self.lost()
        except Exception as exc:  # if the thread just ended, the host would wait for ever
            self.broken(exc)

    def inside(self) -> bool:
        """Reports whether the calling thread is inside of the bridge's own work, which must not wait for the host."""
        return (
            self.executor.is_reading()
            or self.outbox.is_writing()
            or self.housekeeper.ident == get_ident()
            or self.transport.is_own_thread()
        )

    def handle(self, frames: Sequence[Frame]) -> None:
        """Handles a batch of frames. An empty batch is the end of the connection.

        Raises:
            ProtocolError: A frame breaks the protocol.
        """
        if not frames:
            if self.draining:  # the host still reads what another thread is about to write
                self.outbox.sync()
            self.lost()
            return
        with self._turn:
            if self.ended:
                return
            handlers = self._frame_handlers
            accepted = self._accepted
            most = self.terms.max_frame - BASE_WEIGHT
            large = min(most, LARGE)
            joins = self._joins
            for frame in frames:
                try:
                    handle_frame = handlers.get(frame["kind"])
                    if handle_frame is None:
                        raise ProtocolError(f"the host sent {_kind(frame)}")
                    if joins and frame["kind"] in JOINED and frame["id"] in joins:
                        self._join(frame)
                    if "body" in frame and len(frame["body"]) > large:
                        keep_pages()
                        if len(frame["body"]) > most:
                            raise ProtocolError(f"a body of {len(frame['body'])} bytes, and the limit is {most}")
                    handle_frame(frame)
                except (IndexError, KeyError, TypeError, ValueError, AttributeError) as exc:
                    raise ProtocolError(f"a frame that makes no sense: {exc!r} in {_show(frame)}") from exc
                except ProtocolError as exc:
                    raise ProtocolError(f"{exc}; the frame was {_show(frame)}") from None
            accepted = self._accepted - accepted
        if self.outbox:
            self.outbox.flush()
        if accepted:
            self.executor.submit(accepted)

    def violated(self, message: str) -> None:
        """Ends the connection because the host broke the protocol. The host finds the reason on standard error."""
        if not self.ended:
            say(f"snakepit_bridge: protocol error: {clean(message)}\n")
            self.lost()
            self.exit_code = 1

    def broken(self, exc: BaseException) -> None:
        """Ends the connection because the bridge has failed. Otherwise the host and handlers could wait for ever."""
        if not self.ended:
            say(f"snakepit_bridge: internal error\n{render(describe(exc))}")
            self.end_reason = "the bridge has failed"
            self.lost()
            self.exit_code = 1
            attempt(None, self.transport.close)  # wakes the thread that reads

    def leave(self, exc: BaseException) -> None:
        """Ends the connection because an exception has left the serving thread.

        The process is to end, as it would without the bridge.
        """
        error = describe(exc)
        if issubclass(type(exc), _ENDS):
            code, said = exit_code(exc)
            place = "".join(
                f" in {at['function']} ({at['file']}, line {at['line']})" for at in error.get("frames", ())[-1:]
            )
            say(f"snakepit_bridge: {said}{place} ends this worker\n")
        else:
            code = 1
            say(f"snakepit_bridge: an exception ends this worker\n{render(error)}")
        self.outbox.sync(pieces=True)
        self.end_reason = f"{error['type']} ends this worker"
        self.lost()
        self.exit_code = code
        self.housekeeper.exit_after(LOST_GRACE)  # also if the host had said bye

    def signalled(self, exc: BaseException, frame: Any, number: int) -> None:
        """Takes an exception that a signal handler of the program raised in code of the bridge on the main thread.

        If this thread runs a call, the exception is raised at the call's next step. Between calls, SystemExit and
        KeyboardInterrupt end the worker, and other exceptions are only printed.
        """
        call = CURRENT.get()
        if call is not None and not call.ended:
            call.raised = exc
            call.wake()
        elif not issubclass(type(exc), _ENDS):
            say(
                f"snakepit_bridge: the handler of signal {number} raised between calls; the worker goes on\n"
                f"{render(describe(exc))}"
            )
        else:
            while frame is not None:
                if frame.f_code is WRITE:
                    self.outbox.leaving = exc
                    return
                frame = frame.f_back
            raise exc

    def guarded(self, work: Callable[[], Any]) -> Callable[[], None]:
        """Returns a function for a thread of the bridge's own. If an exception ends the work, the connection ends."""

        def run() -> None:
            try:
                work()
            except BaseException as exc:
                self.broken(exc)

        return run

    def lost(self) -> None:
        """Ends the service because the connection has ended: all calls are cancelled. Any thread may call it."""
        if self.ended:
            return
        self.outbox.closed = self.ended = True  # in this order: once a handler sees the end, nothing is written
        if not self.draining:
            self.exit_code = 1
            self.housekeeper.exit_after(LOST_GRACE)
        self.unstarted.clear()
        self.ready.clear()
        for call in list(self.calls.values()):
            self._cancel(call, self.end_reason)
        self.executor.stop()

    def close(self) -> None:
        """Writes what is left and closes the connection."""
        try:
            self.outbox.sync(pieces=True)
        finally:
            self.outbox.closed = self.ended = True
            self.outbox.flush()
            self.transport.close()
        # Threads keep the runner alive. The program's objects are released, so their finalizers run.
        self.commands.clear()

    # --- frames from the host

    def _on_call(self, frame: Frame) -> None:
        id_: int = frame["id"]
        if id_ >= 0:  # ids of the transport's clients are negative
            if id_ in self._opening:
                self._opening.discard(id_)
            elif not id_ & 1 or not self._mark < id_ < _MAX_ID:
                raise ProtocolError(f"a call with id {id_}, which is not the host's next")
            else:
                self._mark = id_
        command = self.commands.get(frame["name"])
        if command is None:
            self._refuse(id_, UNKNOWN_COMMAND, self._unknown(frame["name"]))
        elif self.draining and frame.get("parent", 0) not in self.host_calls.live:
            self._refuse(id_, DRAINING, "this worker takes no more calls")
        elif "dropped" in frame or (id_ > 0 and len(self.calls) - len(self.client_calls) >= self.terms.max_calls):
            self._refuse(id_, SATURATED, f"more than {self.terms.max_calls} calls at once")
        else:
            call = Call(frame, command, *self.terms.window)
            self.calls[id_] = call
            if id_ < 0:
                self.client_calls[id_] = call
            self.unstarted[id_] = call
            self.ready.append(call)
            self._accepted += 1

    def _refuse(self, id_: int, error_type: str, message: str) -> None:
        body = self.terms.codec.encode(simple_error(error_type, message))
        self.outbox.append({"kind": ERROR, "flags": NOT_STARTED, "id": id_, "body": body})

    def _unknown(self, name: str) -> str:
        name = name[:200]
        with stdlib_first():
            from difflib import get_close_matches
        near = get_close_matches(name, self.commands, cutoff=0.5)
        if near:
            return f"no command {name!r}; did you mean {' or '.join(map(repr, near))}?"
        names = ", ".join(n for n in self.commands if not n.startswith(RESERVED))
        return f"no command {name!r}; there are {names or 'none'}"

    def _live(self, frame: Frame) -> Any:
        """Returns the `Call` or `HostCall` that the frame belongs to, or None if that has ended."""
        id_: int = frame["id"]
        if id_ & 1:
            call = self.calls.get(id_)
            if call is None and id_ > self._mark:
                raise ProtocolError(f"{_kind(frame)} for call {id_}, which never was")
            return call
        host_call = self.host_calls.live.get(id_)
        if host_call is None and not 0 < id_ < self.host_calls.next_id:
            raise ProtocolError(f"{_kind(frame)} for call {id_}, which never was")
        return host_call

    def _on_item(self, frame: Frame) -> None:
        target = self._live(frame)
        if target is None:
            return
        inbox = target.inbox
        if isinstance(target, HostCall):
            if inbox is None:  # the handler wants no items
                size = len(frame.get("body", b""))
                self.outbox.append({"kind": CREDIT, "id": target.id, "items": 1, "bytes": size})
                return
            inbox.put(frame)
            target.call.wake()
        elif inbox.open:
            inbox.put(frame)
            target.wake()
        elif not inbox.unwanted:
            raise ProtocolError(f"an item for call {target.id}, whose input has ended")

    def _on_end(self, frame: Frame) -> None:
        target = self._live(frame)
        if isinstance(target, HostCall):
            self._answered(target, frame, False)
        elif target is not None:
            if not target.inbox.open and not target.inbox.unwanted:
                raise ProtocolError(f"a second end of the input of call {target.id}")
            target.inbox.open = False
            target.wake()

    def _on_error(self, frame: Frame) -> None:
        target = self._live(frame)
        if isinstance(target, HostCall):
            self._answered(target, frame, True)
        elif target is not None:
            raise ProtocolError(f"an error for call {target.id} from its opener")

    def _answered(self, host_call: HostCall, frame: Frame, failed: bool) -> None:
        del self.host_calls.live[host_call.id]
        host_call.failed = failed
        host_call.answer = frame.get("body", b"")
        host_call.call.wake()

    def _on_cancel(self, frame: Frame) -> None:
        target = self._live(frame)
        if isinstance(target, Call):
            target.inbox.open = False
            self._cancel(target, frame.get("name") or "cancelled by the caller")

    def _cancel(self, call: Call, reason: str) -> None:
        if call.cancelled:
            return
        call.reason = clean(reason)
        call.cancelled = True
        if self.unstarted.pop(call.id, None) is not None:
            self.finish(call, self.answers.error(call, simple_error(CANCELLED, call.reason), NOT_STARTED))
        else:
            call.wake()
            self.housekeeper.keep_interrupting(call)

    def _on_credit(self, frame: Frame) -> None:
        target = self._live(frame)
        items, bytes_ = frame.get("items", 0), frame.get("bytes", 0)
        if items < 0 or bytes_ < 0:
            raise ProtocolError("negative credit")
        if isinstance(target, Call):
            target.granted_items += items
            target.granted_bytes += bytes_
            if target.waiters:
                target.wake()

    def _on_ping(self, frame: Frame) -> None:
        now = monotonic()
        half = (self.terms.max_frame - BASE_WEIGHT) // 2
        begun = [call for call in list(self.calls.values()) if call.started_at]
        begun.sort(key=_started_at)
        running: List[Dict[str, Any]] = []
        room = half
        for call in begun[:_MOST_RUNNING]:
            room -= 64 + 6 * len(call.name)  # a character of a name takes up to six bytes
            if room < 0:
                break
            running.append({"id": max(call.id, 0), "name": call.name, "ms": int((now - call.started_at) * 1000)})
        body: Dict[str, Any] = {"running": running}
        if len(begun) > len(running):
            body["more"] = len(begun) - len(running)
        if frame.get("name") == _stacks.FEATURE:
            body[_stacks.FEATURE] = _stacks.text(half)
        self.outbox.append({"kind": PONG, "id": frame.get("id", 0), "body": self.terms.codec.encode(body)})

    def _on_pong(self, frame: Frame) -> None:
        """Ignores it: this worker sends no pings."""

    def _on_bye(self, frame: Frame) -> None:
        self.draining = True

    def _on_piece(self, frame: Frame) -> None:
        id_, size = frame["id"], frame.get("bytes", 0)
        join = self._joins.get(id_)
        if not self.terms.pieces:
            raise ProtocolError("a piece, and the host has not announced the feature pieces")
        if join is None:
            opens = bool(id_ & 1 and self._mark < id_ < _MAX_ID and size)
            if not opens:
                if self._live(frame) is None:
                    return  # the call ended while the piece was on its way
                if not size:
                    raise ProtocolError(f"a piece of a frame of call {id_} that has not begun")
            if size > self.terms.max_frame - BASE_WEIGHT:
                most = self.terms.max_frame - BASE_WEIGHT
                raise ProtocolError(f"the first piece of a body of {size} bytes, and the limit is {most}")
            open_ = len(self.calls) - len(self.client_calls) + len(self._opening)
            if opens:
                self._mark = id_
                self._opening.add(id_)
            join = self._joins[id_] = Join(size, opens and open_ >= self.terms.max_calls)
        elif size:
            raise ProtocolError(f"a first piece for call {id_}, whose frame has begun already")
        join.add(frame["body"])
        if id_ not in self._opening and self._live(frame) is None:  # the call has ended meanwhile
            self._joins.pop(id_, None)

    def _join(self, frame: Frame) -> None:
        """Puts the pieces before the body of their frame."""
        id_: int = frame["id"]
        if (frame["kind"] == CALL) != (id_ in self._opening):
            raise ProtocolError("another kind of frame than its pieces began")
        join = self._joins.pop(id_, None)
        if join is not None:  # otherwise the call has ended meanwhile, on another thread
            join.finish(frame)

    def finish(self, call: Call, answer: Frame) -> None:
        """Ends a call: gives up its calls to the host, and queues its answer.

        Called by the thread that owns the call.
        """
        call.ended = True
        if call.raised is not None:  # it is too late for this to be the call's error
            say(f"snakepit_bridge: a signal handler raised at the end of {call.name}\n{render(describe(call.raised))}")
        if call.host_calls:
            for host_call in list(call.host_calls.values()):
                self.host_calls.abandon(host_call)
        self.calls.pop(call.id, None)
        self.client_calls.pop(call.id, None)
        if self._joins:
            self._joins.pop(call.id, None)
        self.outbox.append(answer)

    def in_child(self) -> None:
        """Called in a forked child. The child must not touch the connection."""
        self.forked = True
        self.host_calls.in_child()
        self.outbox.in_child()
        self.housekeeper.awake = True  # nothing wakes it: its thread is not in the child

    def _client_sessions(self) -> Set[str]:
        return {call.frame.get("session", "") for call in list(self.client_calls.values())}


def _no_clients(frames: Sequence[Frame]) -> None:
    raise RuntimeError("clients call a worker whose transport has takes_clients = False")


_ENDS = (SystemExit, KeyboardInterrupt)


def _kind(frame: Frame) -> str:
    kind = frame.get("kind", 0)
    return KINDS[kind] if isinstance(kind, int) and 0 < kind < len(KINDS) else f"kind {kind!r}"


def _show(frame: Frame) -> str:
    """Returns a frame as text for a message. Of the body it shows only the size: body and metadata may hold secrets."""
    shown = [_kind(frame)]
    shown += [f"{key}={value!r:.60}" for key, value in frame.items() if key not in ("kind", "body", "meta")]
    return " ".join([*shown, f"body={len(frame.get('body') or b'')}B"])
