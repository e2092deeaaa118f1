"""What frames mean to a worker: hello, calls, credit, cancels, callbacks. docs/protocol.md is the reference.

The runner reads and writes nothing but batches of frames, by its transport, and starts no handler by itself: a mode of `_modes` does.

Threads. `take` is called by the thread that reads, and by a transport that lets others than the host call (`Transport.opened`), one at a
time; it never runs user code. Everything else is called by
the threads that run handlers. What both touch is written by one of them only (credit is kept as two totals, granted and used) or is a
single operation on a dict or deque, which the interpreter makes atomic. `outbox` is one such deque: whoever appends to it calls `flush`,
which only tries the lock, so that a finalizer or signal handler that logs cannot deadlock with the write that it interrupts.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from contextvars import copy_context
from time import monotonic, time
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Mapping, NoReturn, Optional, Sequence, Set, Tuple

from ._aide import Aide
from ._codecs import get_codec
from ._context import AsyncContext, Context
from ._errors import (
    BAD_ARGUMENTS,
    BAD_RESULT,
    CANCELLED,
    DRAINING,
    SATURATED,
    TOO_LARGE,
    UNKNOWN_COMMAND,
    BadValue,
    Cancelled,
    Disconnected,
    ItemError,
    ProtocolError,
    RemoteError,
    attempt,
    clean,
    describe,
    plain,
    render,
    shown,
    type_name,
)
from ._frames import weight
from ._interrupt import CURRENT, Site, enter, enter_async
from ._late import stdlib_first
from ._logging import line_of
from ._native import MAIN_THREAD, Lock, RLock, get_ident, say
from ._sessions import Sessions
from ._version import __version__
from .transport import (
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
    PONG,
    Frame,
    Launch,
    Transport,
)

if TYPE_CHECKING:
    import asyncio
    from queue import SimpleQueue

    from ._modes import Mode
    from ._worker import Plan

OVERHEAD = 256
WINDOW_ITEMS = 1024
WINDOW_BYTES = 1 << 20
HOLD = 200e-6
"""How many seconds frames may wait for others before they are written together."""

LOST_GRACE = 2.0
SYNC = 3.0
"""How many seconds a record of an error may wait until it has left the process."""

_MAX_LOGS = 1000
_MAX_ID = 1 << 53
_NONE: Mapping[str, Any] = {}


class Inbox:
    """A direction that is received: items wait here until they are consumed."""

    __slots__ = ("bytes", "granted_bytes", "granted_items", "items", "open", "owed_bytes", "owed_items", "queue", "unwanted")

    def __init__(self, is_open: bool) -> None:
        self.queue: Deque[Frame] = deque()
        self.open = is_open
        self.unwanted = False  # what comes behind our end of it is dropped; set before open is cleared, and read after it
        self.items = self.bytes = 0  # received
        self.granted_items, self.granted_bytes = WINDOW_ITEMS, WINDOW_BYTES
        self.owed_items = self.owed_bytes = 0  # consumed since the last credit

    def put(self, frame: Frame) -> None:
        if self.items >= self.granted_items or self.bytes >= self.granted_bytes:
            raise ProtocolError(f"more items for call {frame['id']} than granted")
        self.items += 1
        self.bytes += len(frame.get("body", b""))
        self.queue.append(frame)


class Call:
    """One call of the host, from its call frame to its end or error."""

    __slots__ = (
        "asked",
        "bells",
        "cancelled",
        "context",
        "deadline",
        "ended",
        "frame",
        "granted_bytes",
        "granted_items",
        "id",
        "ident",
        "inbox",
        "interrupted",
        "lock",
        "name",
        "plan",
        "raised",
        "reason",
        "requests",
        "site",
        "started",
        "task",
        "thread",
        "used_bytes",
        "used_items",
    )

    def __init__(self, frame: Frame, plan: Plan, items: int, bytes_: int) -> None:
        self.frame = frame
        self.id: int = frame["id"]
        self.name = plan.name
        self.plan = plan
        ttl = frame.get("ttl", 0)
        self.deadline: Optional[float] = monotonic() + ttl / 1000 if ttl else None
        self.inbox = _ENDED if frame.get("flags", 0) & NO_INPUT else Inbox(True)
        self.granted_items, self.granted_bytes = items, bytes_
        self.used_items = self.used_bytes = 0
        self.cancelled = False
        self.reason = ""
        self.raised: Optional[BaseException] = None  # by a signal handler of the program's, while code of the bridge ran for the call
        self.interrupted = 0.0  # when an exception was last raised in it
        self.asked = 0.0  # when its task's cancellation was last requested
        self.ended = False
        self.started = 0.0
        self.site = _NOWHERE
        self.ident = 0  # of the thread that runs the handler
        self.thread = 0  # the same, while an exception may be injected there
        self.lock = Lock()
        self.task: Optional[asyncio.Task[Any]] = None
        self.context: Any = None
        self.bells: List[SimpleQueue[None]] = []
        self.requests: Optional[Dict[int, Request]] = None

    def may_send(self) -> bool:
        """Reports whether there is credit for an item, or no reason to wait for it."""
        return self.cancelled or (self.granted_items > self.used_items and self.granted_bytes > self.used_bytes)

    def wake(self) -> None:
        for bell in tuple(self.bells):
            bell.put(None)

    def check(self) -> None:
        if self.raised is not None:
            raised, self.raised = self.raised, None
            raise raised
        if self.cancelled:
            if self._in_handler():
                self.interrupted = self.interrupted or monotonic()  # no second exception in what cleans up after this one
            raise Cancelled(self.reason)

    def _in_handler(self) -> bool:
        """Reports whether this is the handler's own thread and task, and not one that it has started."""
        if get_ident() != self.ident:
            return False
        return self.task is None or sys.modules["asyncio"].current_task() is self.task


class Request:
    """One call of this worker to the host, for the call that it serves."""

    __slots__ = ("answer", "call", "failed", "id", "inbox")

    def __init__(self, call: Call, streams: bool) -> None:
        self.id = 0
        self.call = call
        self.inbox = Inbox(True) if streams else None
        self.answer: Optional[bytes] = None  # set when it has ended
        self.failed = False

    def settled(self) -> bool:
        """Reports whether there is something to take, or no reason to wait for it."""
        return self.answer is not None or self.call.cancelled or bool(self.inbox and self.inbox.queue)


_NOWHERE = Site()
_ENDED = Inbox(False)  # of all calls that have no input


class Runner:
    """Serves one worker's commands to one host."""

    def __init__(self, transport: Transport, plans: Mapping[str, Plan], concurrency: int, queue: int, launch: Launch) -> None:
        self.transport = transport
        self.plans = dict(plans)
        self.concurrency = concurrency
        self.index = launch.index
        self.token = launch.worker_token
        self.mode: Mode
        self.codec: Any = None
        self.calls: Dict[int, Call] = {}
        self.guests: Dict[int, Call] = {}  # those of them that the transport opened; they do not count against the host's limit
        self.unstarted: Dict[int, Call] = {}  # whoever pops a call here has it: the one who runs it or the one who cancels it
        self.ready: Deque[Call] = deque()
        self.requests: Dict[int, Request] = {}
        self.sessions = Sessions(self._guests_sessions)
        self.outbox: Deque[Frame] = deque()
        self.logs: Deque[Dict[str, Any]] = deque()
        self.aide = Aide(self)
        self.draining = False
        self.ended = False  # the connection
        self.leaving: Optional[BaseException] = None
        """The exception that ends the process once the current write is done."""
        self.forked = False
        self.exit_code = 0
        self.fate = "the host is gone"  # why what runs has to end
        self._taking = concurrency + queue
        self._limit = self._taking  # what the hellos agreed on
        self._requests_limit = 0
        self._max_frame = launch.max_frame
        self._window = (0, 0)
        self._mark = 0  # the host's highest id
        self._turn = Lock()  # guards take
        self._accepted = 0  # how many calls have been queued for the mode
        self._next_id = 2
        self._opening = Lock()  # makes taking an id and queueing its frame one step
        self._writing: Any = RLock()  # guards transport.write; reentrant only so that it knows its owner
        self._flushed = 0.0
        self._stuck = -1.0  # _flushed when a record of an error had waited in vain
        self._dropped = 0
        self.base = copy_context()  # what the program has set: each call begins with a copy
        self._after_hello = (
            None,
            None,
            self._on_call,
            self._on_item,
            self._on_end,
            self._on_error,
            self._on_cancel,
            self._on_credit,
            self._on_ping,
            self._on_pong,
            None,
            self._on_bye,
        )

    # --- the connection

    def greet(self) -> None:
        """Says hello, waits for the host's and gets ready for calls.

        Raises:
            ProtocolError: The host said something else.
            Disconnected: It went away.
        """
        hello = {
            "versions": [1],
            "features": ["exact-numbers"],
            "codecs": list(self.transport.codecs),
            "max_frame": self._max_frame,
            "window": {"items": WINDOW_ITEMS, "bytes": WINDOW_BYTES},
            "concurrency": self._taking,
            "commands": [{"name": plan.name, "stream": plan.stream} for plan in self.plans.values()],
            "pid": os.getpid(),
            "runtime": "{} {}.{}.{}".format(sys.implementation.name, *sys.version_info),
            "library": f"snakepit_bridge {__version__}",
        }
        if self.token:
            hello["token"] = self.token
        try:
            self.transport.write([{"kind": HELLO, "body": json.dumps(hello).encode()}])
            frames = self.transport.read()
        except ValueError as exc:
            raise ProtocolError(str(exc)) from None
        except ConnectionError as exc:
            raise Disconnected(f"the host left before its hello: {exc}") from None
        if not frames:
            raise Disconnected("the host closed the connection before its hello")
        first = frames[0]
        if first["kind"] != HELLO:
            raise ProtocolError(f"the host's first frame is not hello but {_kind(first)}")
        try:
            body = json.loads(first["body"])
            if body["version"] != 1:
                raise ProtocolError(f"the host wants version {body['version']} of the protocol, and this worker speaks 1")
            if body["codec"] not in self.transport.codecs:
                raise ProtocolError(f"the host wants the codec {body['codec']!r}, and this worker has {', '.join(self.transport.codecs)}")
            self.codec = get_codec(body["codec"])
            self._max_frame = min(self._max_frame, int(body.get("max_frame") or self._max_frame))
            self._window = int(body["window"]["items"]), int(body["window"]["bytes"])
            self._limit = min(self._taking, int(body.get("concurrency") or self._taking))
            self._requests_limit = int(body.get("calls", 0))
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise ProtocolError(f"the host's hello can't be understood: {type_name(type(exc))}: {exc}") from None
        self.aide.start()
        self.transport.opened(self.take, self.codec.name, self.concurrency)
        if len(frames) > 1:
            self.take(frames[1:])

    def pump(self) -> None:
        """Reads once and takes what came. Whoever may read calls this."""
        try:
            self.take(self.transport.read())
        except (ProtocolError, ValueError) as exc:
            self.violated(str(exc))
        except ConnectionError:
            self.lost()
        except Exception as exc:  # whoever reads must not just go: the host would wait for ever
            self.broken(exc)

    def take(self, frames: Sequence[Frame]) -> None:
        """Handles a batch that was read; an empty one is the end of the connection."""
        if not frames:
            self.lost()
            return
        with self._turn:
            if self.ended:
                return
            accepted = self._accepted
            most = self._max_frame - OVERHEAD
            for frame in frames:
                try:
                    handle = self._after_hello[frame["kind"]]
                    if handle is None:
                        raise ProtocolError(f"the host sent {_kind(frame)}")
                    if "body" in frame and len(frame["body"]) > most:
                        raise ProtocolError(f"a body of {len(frame['body'])} bytes, and the limit is {most}")
                    handle(frame)
                except (IndexError, KeyError, TypeError, ValueError, AttributeError) as exc:
                    raise ProtocolError(f"a frame that makes no sense: {exc!r} in {_show(frame)}") from exc
                except ProtocolError as exc:
                    raise ProtocolError(f"{exc}; the frame was {_show(frame)}") from None
            accepted = self._accepted - accepted
        if self.outbox:
            self.flush()
        if accepted:
            self.mode.submit(accepted)

    def violated(self, message: str) -> None:
        """Ends the connection because of what the host sent. Standard error is where the host looks for the reason."""
        if not self.ended:
            say(f"snakepit_bridge: protocol error: {clean(message)}\n")
            self.lost()
            self.exit_code = 1

    def broken(self, exc: BaseException) -> None:
        """Ends the connection because the bridge has failed: what waits for it must not wait for ever."""
        if not self.ended:
            say(f"snakepit_bridge: internal error\n{render(describe(exc))}")
            self.fate = "the bridge has failed"
            self.lost()
            self.exit_code = 1

    def leave(self, exc: BaseException) -> None:
        """Ends the connection because an exception has left the serving thread: the process is to end, as it would without the bridge."""
        error = describe(exc)
        if issubclass(type(exc), _ENDS):
            code, said = _exit_code(exc)
            place = "".join(f" in {at['function']} ({at['file']}, line {at['line']})" for at in error.get("frames", ())[-1:])
            say(f"snakepit_bridge: {said}{place} ends this worker\n")
        else:
            code = 1
            say(f"snakepit_bridge: an exception ends this worker\n{render(error)}")
        self.flush()
        self.fate = f"{error['type']} ends this worker"
        self.lost()
        self.exit_code = code
        self.aide.doom_after(LOST_GRACE)  # also if the host had said bye

    def signalled(self, exc: BaseException, frame: Any, number: int) -> None:
        """Takes what a signal handler of the program's raised while code of the bridge ran on the main thread.

        It is the error of the call that this thread runs, at its next step. Between calls a wish to end is one, and nothing else is.
        """
        call = CURRENT.get()
        if call is not None and not call.ended:
            call.raised = exc
            call.wake()
        elif not issubclass(type(exc), _ENDS):
            say(f"snakepit_bridge: the handler of signal {number} raised between calls; the worker goes on\n{render(describe(exc))}")
        else:
            while frame is not None:
                if frame.f_code is _WRITE:
                    self.leaving = exc
                    return
                frame = frame.f_back
            raise exc

    def guarded(self, work: Callable[[], Any]) -> Callable[[], None]:
        """Returns the work of one of the bridge's own threads. If an exception ends it, that ends the connection."""

        def run() -> None:
            try:
                work()
            except BaseException as exc:
                self.broken(exc)

        return run

    def lost(self) -> None:
        """The connection has ended: so does all that runs."""
        if self.ended:
            return
        self.ended = True
        if not self.draining:
            self.exit_code = 1
            self.aide.doom_after(LOST_GRACE)
        self.unstarted.clear()
        self.ready.clear()
        for call in list(self.calls.values()):
            self._cancel(call, self.fate)
        self.mode.stop()

    def settle(self) -> None:
        """Writes what is in the outbox, or leaves that to the aide if something was written just now."""
        if monotonic() - self._flushed > HOLD:
            self.flush()
        elif not self.aide.awake:
            self.aide.wake()

    def gather(self) -> None:
        """Starts a batch: what it sends may wait a moment."""
        self._flushed = monotonic()

    def flush(self) -> None:
        """Writes what is in the outbox. If another thread is writing, that one will."""
        outbox = self.outbox
        writing = self._writing
        while outbox or (self.logs and (self.codec is not None or self.ended)):
            if self.ended or self.forked:
                self._spill()
            elif writing._is_owned() or not writing.acquire(False):
                return
            else:
                try:
                    self._write()
                finally:
                    writing.release()
                self._leave_now()

    def sync(self) -> None:
        """Writes what is in the outbox before it returns, as far as that is possible without waiting for itself or for long."""
        writing = self._writing
        if writing._is_owned():  # the write that this interrupts goes on until all is written
            return
        if self.transport.is_own_thread():  # others wait for it, also those who write
            self.flush()
            return
        until = monotonic() + SYNC
        if self._stuck != self._flushed:  # else a host that does not read would hold up each record
            if writing.acquire(True, SYNC):
                try:  # what another thread had taken from the outbox is written by now
                    while not self.ended and (self.outbox or (self.logs and self.codec is not None)):
                        self._write()
                finally:
                    writing.release()
            else:
                self._stuck = self._flushed
        self.flush()
        if not self.ended:
            self.transport.sync(max(0.0, until - monotonic()))
        self._leave_now()

    def _leave_now(self) -> None:
        """Raises what is to end the process, on the main thread, which alone can end it."""
        if self.leaving is not None and get_ident() == MAIN_THREAD:
            leaving, self.leaving = self.leaving, None
            raise leaving

    def _write(self) -> None:
        records: List[Dict[str, Any]] = []
        try:
            frames = self._log_frames(records) if self.logs and self.codec is not None else None
            outbox = self.outbox
            batch = [outbox.popleft() for _ in range(len(outbox))]
            if frames:
                batch[:0] = frames
            self.transport.write(batch)
            self._flushed = monotonic()
        except BaseException as exc:
            self.logs.extendleft(reversed(records))
            if isinstance(exc, ConnectionError):
                self.lost()
            else:
                self.broken(exc)

    def _spill(self) -> None:
        """Writes the log records to standard error, as there is no connection any more. Nobody waits for the rest."""
        self.outbox.clear()
        try:
            while True:
                say(line_of(self.logs.popleft()))
        except IndexError:
            pass

    def close(self) -> None:
        """Writes what is left and closes the connection."""
        try:
            self.sync()
        finally:
            self.ended = True
            self.flush()
            self.transport.close()
        self.plans.clear()  # threads keep the runner; what only the program holds shall have its finalizers run

    # --- frames from the host

    def _on_call(self, frame: Frame) -> None:
        id_: int = frame["id"]
        if id_ >= 0:  # the transport's own are below
            if not id_ & 1 or not self._mark < id_ < _MAX_ID:
                raise ProtocolError(f"a call with id {id_}, which is not the host's next")
            self._mark = id_
        plan = self.plans.get(frame["name"])
        if plan is None:
            self._refuse(id_, UNKNOWN_COMMAND, self._unknown(frame["name"]))
        elif self.draining and frame.get("parent", 0) not in self.requests:
            self._refuse(id_, DRAINING, "this worker takes no more calls")
        elif id_ > 0 and len(self.calls) - len(self.guests) >= self._limit:
            self._refuse(id_, SATURATED, f"more than {self._limit} calls at once")
        else:
            call = Call(frame, plan, *self._window)
            self.calls[id_] = call
            if id_ < 0:
                self.guests[id_] = call
            self.unstarted[id_] = call
            self.ready.append(call)
            self._accepted += 1

    def _refuse(self, id_: int, kind: str, message: str) -> None:
        body = self.codec.encode(plain(kind, message))
        self.outbox.append({"kind": ERROR, "flags": NOT_STARTED, "id": id_, "body": body})

    def _unknown(self, name: str) -> str:
        name = name[:200]
        with stdlib_first():
            from difflib import get_close_matches
        near = get_close_matches(name, self.plans, cutoff=0.5)
        if near:
            return f"no command {name!r}; did you mean {' or '.join(map(repr, near))}?"
        return f"no command {name!r}; there are {', '.join(n for n in self.plans if not n.startswith('snakepit.')) or 'none'}"

    def _live(self, frame: Frame) -> Any:
        """Returns the `Call` or `Request` that the frame is for, or None if it has ended."""
        id_: int = frame["id"]
        if id_ & 1:
            call = self.calls.get(id_)
            if call is None and id_ > self._mark:
                raise ProtocolError(f"{_kind(frame)} for call {id_}, which never was")
            return call
        request = self.requests.get(id_)
        if request is None and not 0 < id_ < self._next_id:
            raise ProtocolError(f"{_kind(frame)} for call {id_}, which never was")
        return request

    def _on_item(self, frame: Frame) -> None:
        target = self._live(frame)
        if target is None:
            return
        inbox = target.inbox
        if isinstance(target, Request):
            if inbox is None:  # the caller wants the result only
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
        if isinstance(target, Request):
            self._answered(target, frame, False)
        elif target is not None:
            if not target.inbox.open and not target.inbox.unwanted:
                raise ProtocolError(f"a second end of the input of call {target.id}")
            target.inbox.open = False
            target.wake()

    def _on_error(self, frame: Frame) -> None:
        target = self._live(frame)
        if isinstance(target, Request):
            self._answered(target, frame, True)
        elif target is not None:
            raise ProtocolError(f"an error for call {target.id} from its opener")

    def _answered(self, request: Request, frame: Frame, failed: bool) -> None:
        del self.requests[request.id]
        request.failed = failed
        request.answer = frame.get("body", b"")
        request.call.wake()

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
            self._finish(call, self._error(call, plain(CANCELLED, call.reason), NOT_STARTED))
        else:
            call.wake()
            self.aide.pursue(call)

    def _on_credit(self, frame: Frame) -> None:
        target = self._live(frame)
        items, bytes_ = frame.get("items", 0), frame.get("bytes", 0)
        if items < 0 or bytes_ < 0:
            raise ProtocolError("negative credit")
        if isinstance(target, Call):
            target.granted_items += items
            target.granted_bytes += bytes_
            if target.bells:
                target.wake()

    def _on_ping(self, frame: Frame) -> None:
        now = monotonic()
        running = [
            {"id": max(call.id, 0), "name": call.name, "ms": int((now - call.started) * 1000)}
            for call in list(self.calls.values())
            if call.started
        ][: self._max_frame // 512]  # what fits in a frame
        self.outbox.append({"kind": PONG, "id": frame.get("id", 0), "body": self.codec.encode({"running": running})})

    def _on_pong(self, frame: Frame) -> None:
        """Ignores it: this worker sends no pings."""

    def _on_bye(self, frame: Frame) -> None:
        self.draining = True

    # --- running

    def run(self, call: Call, site: Site) -> None:
        """Runs a call's plain function or generator on the calling thread and queues its answer."""
        if self.unstarted.pop(call.id, None) is not None:
            try:
                self.base.copy().run(self._run, call, site)
            except BaseException as exc:
                self.answered(call, exc)

    def answered(self, call: Call, exc: BaseException) -> None:
        """Sees to it that a call which has run has its answer, whatever came out of running it."""
        if not call.ended:
            self._finish(call, self._failure(call, exc))

    def _run(self, call: Call, site: Site) -> None:
        self._begin(call, site)
        try:
            site.begin(call)
            try:
                args, kwargs = self._arguments(call)
                value = enter(call.plan.function, args, kwargs)
                kind = type(value)
                if kind is GeneratorType:
                    value = self._drive(call, value)
                elif kind is CoroutineType or kind is AsyncGeneratorType:
                    raise TypeError(f"the plain function {call.name} returned a {kind.__name__}; write it with async def")
            finally:
                site.leave(call)
            if self.forked:
                self._leave_child(None)
            answer = self._result(call, value)
            if call.raised is not None:
                call.check()
        except BaseException as exc:
            if self.forked:
                self._leave_child(exc)
            answer = self._failure(call, exc)
        self._finish(call, answer)

    async def run_async(self, call: Call, site: Site) -> None:
        """Runs a call's async function or async generator and queues its answer. The calling task is the call's own."""
        import asyncio

        call.task = asyncio.current_task()
        self._begin(call, site)
        try:
            try:
                args, kwargs = self._arguments(call)
                value = enter(call.plan.function, args, kwargs)
                if isinstance(value, AsyncGeneratorType):
                    value = await self._drive_async(call, value)
                elif hasattr(value, "__await__"):
                    value = await enter_async(value)
            finally:
                call.interrupted = call.interrupted or monotonic()  # from here on it is too late
            if self.forked:
                self._leave_child(None)
            answer = self._result(call, value)
            if call.raised is not None:
                call.check()
        except BaseException as exc:
            if self.forked:
                self._leave_child(exc)
            answer = self._failure(call, exc)
        self._finish(call, answer)

    def _begin(self, call: Call, site: Site) -> None:
        CURRENT.set(call)
        call.started = monotonic()
        call.ident = get_ident()
        call.site = site  # whoever cancelled it before this tries again
        if "decimal" in sys.modules:
            _own_decimal()

    def _arguments(self, call: Call) -> Tuple[Sequence[Any], Mapping[str, Any]]:
        call.check()
        body = call.frame.get("body")
        try:
            value = self.codec.decode(body) if body else None
        except BadValue as exc:
            raise _BadArguments(str(exc)) from None
        return call.plan.arrange(value, self._context(call))

    def _context(self, call: Call) -> Any:
        if call.plan.ctx is None:
            return None
        call.context = (AsyncContext if call.plan.is_async else Context)(self, call)
        return call.context

    def _drive(self, call: Call, generator: GeneratorType[Any, Any, Any]) -> Any:
        step = generator.__next__
        try:
            while True:
                try:
                    value = enter(step, (), _NONE)
                except StopIteration as stop:
                    return stop.value
                if self.forked:
                    self._leave_child(None)
                call.check()
                frame = self._item(call, value)
                if not call.may_send():
                    self.mode.wait(call, call.may_send)
                    call.check()
                self._send_item(call, frame)
                if call.used_items == 1:
                    self.flush()  # somebody may be waiting to see it begin
                else:
                    self.settle()
        finally:
            if generator.gi_frame is not None:  # it is not at its end
                call.interrupted = call.interrupted or monotonic()  # its close is the interrupt
                enter(generator.close, (), _NONE)

    async def _drive_async(self, call: Call, generator: AsyncGeneratorType[Any, Any]) -> Any:
        try:
            while True:
                try:
                    value = await enter_async(generator.__anext__())
                except StopAsyncIteration:
                    return None
                call.check()
                frame = self._item(call, value)
                if not call.may_send():
                    await self.mode.wait_async(call, call.may_send)
                    call.check()
                self._send_item(call, frame)
                self.mode.settle()
        finally:
            call.interrupted = call.interrupted or monotonic()
            await enter_async(generator.aclose())

    def _item(self, call: Call, value: Any) -> Frame:
        if isinstance(value, ItemError):
            return {"kind": ITEM, "flags": FAILED, "id": call.id, "body": self._error_body(describe(value.error))}
        return {"kind": ITEM, "id": call.id, "body": self._encode(value, "the item")}

    def _send_item(self, call: Call, frame: Frame) -> None:
        call.used_items += 1
        call.used_bytes += len(frame["body"])
        self.outbox.append(frame)

    def _encode(self, value: Any, what: str) -> bytes:
        try:
            body: bytes = self.codec.encode(value)
        except BadValue as exc:
            raise _BadResult(f"{what} can't be sent: {exc}") from None
        if len(body) + OVERHEAD > self._max_frame:
            raise _TooLarge(_too_large(what, len(body) + OVERHEAD, self._max_frame))
        return body

    def _result(self, call: Call, value: Any) -> Frame:
        if value is None:
            return {"kind": END, "id": call.id}
        return {"kind": END, "id": call.id, "body": self._encode(value, "the result")}

    def _failure(self, call: Call, exc: BaseException) -> Frame:
        kind = type(exc)
        if issubclass(kind, _Refused):
            refused: Any = exc
            return self._error(call, plain(refused.kind, str(exc)), refused.flags)
        if call.cancelled and (issubclass(kind, Cancelled) or type_name(kind).endswith(".CancelledError")):
            return self._error(call, plain(CANCELLED, call.reason))
        return self._error(call, describe(exc))

    def _error(self, call: Call, error: Mapping[str, Any], flags: int = 0) -> Frame:
        frame = {"kind": ERROR, "id": call.id, "body": self._error_body(error)}
        if flags:
            frame["flags"] = flags
        return frame

    def _error_body(self, error: Mapping[str, Any]) -> bytes:
        try:
            body: bytes = self.codec.encode(error)
        except Exception:
            body = b""
        if not body or len(body) + OVERHEAD > self._max_frame:
            body = self.codec.encode({"type": str(error["type"])[:200], "message": str(error["message"])[:1000]})
        return body

    def _finish(self, call: Call, answer: Frame) -> None:
        call.ended = True
        if call.raised is not None:  # too late to be the call's error
            say(f"snakepit_bridge: a signal handler raised at the end of {call.name}\n{render(describe(call.raised))}")
        if call.requests:
            for request in list(call.requests.values()):
                self.abandon(request)
        self.calls.pop(call.id, None)
        self.guests.pop(call.id, None)
        self.outbox.append(answer)

    def _leave_child(self, exc: Optional[BaseException]) -> NoReturn:
        """Ends a process that a handler forked and that came back from the handler: only its parent may answer the call."""
        code = 0
        if isinstance(exc, SystemExit):
            code, _ = _exit_code(exc)
        elif exc is not None:
            sys.excepthook(type(exc), exc, exc.__traceback__)
            code = 1
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(code)

    def in_child(self) -> None:
        """Called in a forked child: it must not touch the connection."""
        self.forked = True
        self.outbox.clear()
        self.logs.clear()
        self._writing = RLock()
        self._opening = Lock()
        self.aide.awake = True  # there is none any more

    # --- what a handler asks for, by its context

    def _guests_sessions(self) -> Set[str]:
        return {call.frame.get("session", "") for call in list(self.guests.values())}

    def open(self, call: Call, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], streams: bool) -> Request:
        """Calls the host's function for the call."""
        self.usable(call)
        try:
            name = str.__str__(name)
            name.encode()
        except (TypeError, UnicodeEncodeError):
            raise TypeError(f"{shown(name, 60)} is no function's name") from None
        if len(args) > 1 or (args and kwargs):
            raise TypeError(f"{name} takes either keyword arguments or one positional argument")
        frame: Frame = {"kind": CALL, "flags": NO_INPUT, "parent": call.id, "name": name}
        if args or kwargs:
            frame["body"] = self.codec.encode(args[0] if args else dict(kwargs))
        if call.frame.get("session"):
            frame["session"] = call.frame["session"]
        size = weight(frame)
        if size > self._max_frame:
            raise BadValue(_too_large("the arguments", size, self._max_frame))
        if call.deadline is not None:
            frame["ttl"] = max(1, int((call.deadline - monotonic()) * 1000))
        request = Request(call, streams)
        with self._opening:
            if len(self.requests) >= self._requests_limit:
                raise RemoteError(plain(SATURATED, f"more than {self._requests_limit} calls to the host at once"))
            request.id = frame["id"] = self._next_id
            self._next_id += 2
            self.requests[request.id] = request
            self.outbox.append(frame)
        if call.requests is None:
            call.requests = {}
        call.requests[request.id] = request
        return request

    def abandon(self, request: Request) -> None:
        """Takes no more of a request; the host is told if it still runs."""
        if request.call.requests is not None:
            request.call.requests.pop(request.id, None)
        if request.answer is None and self.requests.get(request.id) is request and not self.forked:
            self.outbox.append({"kind": CANCEL, "id": request.id, "name": "abandoned"})
            request.inbox = None  # what still comes is dropped, and credited
            self.settle()

    def answer(self, request: Request) -> Any:
        """Returns the result of a request that has ended."""
        self.usable(request.call)
        if request.call.requests is not None:
            request.call.requests.pop(request.id, None)
        value = self.codec.decode(request.answer) if request.answer else None
        if request.failed:
            raise RemoteError(value if isinstance(value, dict) else {"type": "Error", "message": str(value)})
        return value

    def consume(self, id_: int, inbox: Inbox, live: bool) -> Any:
        """Takes the next item out of an inbox that has one, and grants the sender new credit now and then."""
        frame = inbox.queue.popleft()
        body = frame.get("body", b"")
        inbox.owed_items += 1
        inbox.owed_bytes += len(body)
        if live and (inbox.owed_items * 2 >= WINDOW_ITEMS or inbox.owed_bytes * 2 >= WINDOW_BYTES):
            items, bytes_ = inbox.owed_items, inbox.owed_bytes
            inbox.owed_items = inbox.owed_bytes = 0
            inbox.granted_items += items
            inbox.granted_bytes += bytes_
            self.outbox.append({"kind": CREDIT, "id": id_, "items": items, "bytes": bytes_})
            self.settle()
        value = self.codec.decode(body)
        if frame.get("flags", 0) & FAILED:
            return ItemError(RemoteError(value if isinstance(value, dict) else {"type": "Error", "message": str(value)}))
        return value

    def stop_input(self, call: Call) -> None:
        """Tells the caller to send no more input."""
        if call.inbox.open and not call.ended:
            call.inbox.unwanted = True
            call.inbox.open = False
            self.outbox.append({"kind": CANCEL, "id": call.id, "name": "no more input is wanted"})
            self.settle()
        call.inbox.queue.clear()

    def usable(self, call: Call) -> None:
        """Raises if the handler may not ask for anything any more."""
        if self.forked:
            raise Disconnected("a forked child has no host; hand what it found to its parent")
        call.check()
        if call.ended:
            raise Disconnected(f"the call of {call.name} has ended")

    # --- log records

    def log(self, record: Dict[str, Any]) -> None:
        """Queues a log record, and drops it if too many wait already. It may be called from anywhere.

        Only a record of an error waits, until it has left the process; see `sync`.
        """
        if len(self.logs) >= _MAX_LOGS:
            self._dropped += 1
            return
        self.logs.append(record)
        if self.ended:
            self.flush()
        elif self.codec is not None:  # else there was no hello yet
            if record["level"] == "error":  # perhaps the last one before a crash
                self.sync()
            else:
                self.settle()

    def _log_frames(self, records: List[Dict[str, Any]]) -> List[Frame]:
        """Returns the frames of the queued records, which it moves to the given list."""
        frames: List[Frame] = []
        for _ in range(len(self.logs)):
            record = self.logs.popleft()
            records.append(record)
            try:
                body = self.codec.encode(record)
            except Exception:  # there is nothing in it that does not travel, but memory may be short
                body = None
            if body is not None and len(body) + OVERHEAD <= self._max_frame:
                frames.append({"kind": LOG, "body": body})
            else:
                self._dropped += 1
        if self._dropped and len(self.logs) < _MAX_LOGS:
            dropped, self._dropped = self._dropped, 0
            message = f"{dropped} log records were dropped"
            record = {"level": "warn", "logger": "snakepit_bridge", "message": message, "time": time()}
            frames.append({"kind": LOG, "body": self.codec.encode(record)})
        return frames


_WRITE = Runner._write.__code__
_ENDS = (SystemExit, KeyboardInterrupt)


def _own_decimal() -> None:
    """Gives the running call a decimal context of its own. The one that the program has set can be changed, and all copies of a
    `contextvars.Context` share it."""
    decimal: Any = sys.modules["decimal"]
    try:
        decimal.setcontext(decimal.getcontext().copy())
    except AttributeError:  # another module of the name, or one that is just being imported
        pass


class _Refused(Exception):
    kind = ""
    flags = 0


class _BadArguments(_Refused):
    kind = BAD_ARGUMENTS
    flags = NOT_STARTED


class _BadResult(_Refused):
    kind = BAD_RESULT


class _TooLarge(_Refused):
    kind = TOO_LARGE


def _exit_code(exc: BaseException) -> Tuple[int, str]:
    """Returns the code with which Python ends by this exception, and what to call that."""
    if issubclass(type(exc), KeyboardInterrupt):
        return 130, "KeyboardInterrupt"
    code: Any = attempt(1, getattr, exc, "code")
    if code is None:
        return 0, "sys.exit()"
    return int.__index__(code) & 0xFF if issubclass(type(code), int) else 1, f"sys.exit({shown(code)})"


def _too_large(what: str, size: int, limit: int) -> str:
    return f"a frame with {what} has {size} bytes, and the limit is {limit}; raise Options.MaxFrame, or send it in smaller items"


def _kind(frame: Frame) -> str:
    kind = frame.get("kind", 0)
    return KINDS[kind] if isinstance(kind, int) and 0 < kind < len(KINDS) else f"kind {kind!r}"


def _show(frame: Frame) -> str:
    """Returns a frame for a message; bodies and metadata may hold secrets, so only their sizes."""
    shown = [_kind(frame)]
    shown += [f"{key}={value!r:.60}" for key, value in frame.items() if key not in ("kind", "body", "meta")]
    return " ".join([*shown, f"body={len(frame.get('body') or b'')}B"])
