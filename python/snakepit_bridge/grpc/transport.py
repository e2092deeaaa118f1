"""The gRPC transport: a synchronous server on a private socket. The host attaches one stream of frames to it.

Other gRPC clients may call the worker by plain RPCs. `snakepit_bridge.grpc.clients` serves those.
"""

from __future__ import annotations

import hmac
import importlib
import os
import queue
import socket
import sys
from functools import partial
from typing import Any, Callable, Iterator, List, Optional, Sequence, Set, Tuple
from urllib.parse import quote

from snakepit_bridge._codecs import available
from snakepit_bridge._description import describe
from snakepit_bridge._errors import render
from snakepit_bridge._remedy import install
from snakepit_bridge._unpatched import Lock, SimpleQueue, get_ident, monotonic, say, sleep, spawn, untouched
from snakepit_bridge.grpc.clients import Clients
from snakepit_bridge.transport import BYE, CALL, CANCEL, CREDIT, KINDS, Frame, Launch, Transport, Unavailable

# These are not imported where they are used: a signal handler that logs there would wait for the import that it has
# interrupted.
fcntl: Any
termios: Any
try:
    import fcntl
    import termios
except ImportError:  # this system can't tell what the host has not read
    fcntl = termios = None

__all__ = ["GrpcTransport"]

threading = untouched("threading")
_Socket = socket.socket


class _Own:
    """The idents of the threads that serve gRPC. These must not wait until something is sent, because they send it."""

    def __init__(self) -> None:
        self._idents: Set[int] = set()

    def __contains__(self, ident: int) -> bool:
        return ident in self._idents

    def __enter__(self) -> None:
        self._idents.add(get_ident())

    def __exit__(self, *_: object) -> None:
        self._idents.discard(get_ident())


_OWN = _Own()


class _Thread(threading.Thread):  # type: ignore[misc, name-defined]
    """A thread of grpcio's server."""

    def run(self) -> None:
        with _OWN:
            super().run()


threading.Thread = _Thread

MESSAGE_BYTES = 1 << 20
"""The size above which a batch is split. A message delays all that follow, but each costs far more than a frame."""

PENDING_BYTES = 4 * MESSAGE_BYTES
"""How many bytes may wait for the host before `write` blocks."""

COPIED = 64 << 10
"""Bodies up to this size may be copied once more."""

RPCS = 256
"""How many RPCs are served at once. Each one holds a thread while it lasts. Threads are made when needed."""

ATTACH_SECONDS = 5.0
"""How long `close` may wait for the host to attach, if there are frames for it."""

READ_SECONDS = 0.1
"""How long an error record may wait until the host has read it."""

STOP_SECONDS = 1.0
"""How long `close` may take after that."""


DESCRIPTORS = 8
"""How many descriptors have to be free. With fewer, gRPC's C code ends the process."""


class GrpcTransport(Transport):
    """Carries frames over the Attach stream of ``snakepit.proto``."""

    def __init__(self, launch: Launch) -> None:
        # grpcio reads both when it is imported. It would print warnings about harmless things, and its fork support
        # would stop every thread at each fork.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        _need_descriptors(DESCRIPTORS)
        self._grpc, pb2 = _load()
        self._batch, self._frame = pb2.Batch, pb2.Frame
        if not launch.host_token:
            raise RuntimeError("SNAKEPIT_HOST_TOKEN is not set: a worker that serves gRPC is started by a host")
        self._host_token = launch.host_token.encode()
        client_token = os.environ.pop("SNAKEPIT_GRPC_CLIENT_TOKEN", "")  # hidden from children and user code
        self._tokens = [self._host_token, client_token.encode()] if client_token else [self._host_token]
        self._lock = threading.Lock()
        self._attached = False  # guarded by _lock
        self._arrived: SimpleQueue[Optional[Iterator[bytes]]] = SimpleQueue()
        self._host_came = threading.Event()
        self._requests: Optional[Iterator[bytes]] = None  # used by the thread that reads
        self._outbox = _Outbox()
        self._connection = -1  # the descriptor of the host's connection, while it is attached and known
        self._clients = Clients(self._grpc, pb2, self._admit, launch.max_frame)
        self.codecs = available()
        self.max_frame = launch.max_frame
        server = importlib.import_module("grpc._server")
        if hasattr(server, "threading"):  # green locks and threads would wait for the main thread, which waits in C
            server.threading = threading  # type: ignore[attr-defined]
        self._server = self._grpc.server(
            _Threads(),
            handlers=[
                # Attach has no serializers. It takes and returns bytes, because encoded batches can be joined to one.
                self._grpc.method_handlers_generic_handler(
                    "snakepit.v1.Worker",
                    {"Attach": self._grpc.stream_stream_rpc_method_handler(self._attach), **self._clients.methods()},
                ),
                self._grpc.method_handlers_generic_handler("grpc.health.v1.Health", self._clients.health_methods()),
            ],
            options=[
                ("grpc.so_reuseport", 0),  # otherwise two servers could share a port silently
                # The lengths of metadata may take more bytes in a message than a frame's weight counts for them.
                ("grpc.max_receive_message_length", self.max_frame + self.max_frame // 64 + MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
            ],
            maximum_concurrent_rpcs=RPCS,
        )
        self.endpoint, self._address = _listen(self._server, launch)
        self._server.start()

    def _admit(self, context: Any) -> None:
        if not _shows(context, self._tokens):
            context.abort(self._grpc.StatusCode.UNAUTHENTICATED, _TOKEN_WRONG)

    def _attach(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        code = self._grpc.StatusCode
        if not _shows(context, [self._host_token]):
            context.abort(code.UNAUTHENTICATED, _TOKEN_WRONG)
        with self._lock:
            refused, self._attached = self._attached, True
        if refused:
            context.abort(code.FAILED_PRECONDITION, "this worker has or had its host already")
        self._connection = self._only_connection()
        if not context.add_callback(self._left):
            self._left()
        self._arrived.put(requests)
        self._host_came.set()
        return self._outbox.messages()

    def _left(self) -> None:
        self._connection = -1  # the number may soon belong to another file
        self._outbox.end()
        self._clients.end()

    def read(self) -> List[Frame]:
        if self._requests is None:
            self._requests = self._arrived.get() or iter(())
        while True:
            try:
                with _OWN:  # next() may hold a lock of the RPC
                    message = next(self._requests)
            except Exception:  # StopIteration if the host has ended its side, a bare Exception if the RPC has ended
                self._requests = iter(())
                return []
            frames = self._decode(message)
            if frames:
                return frames

    def _decode(self, message: bytes) -> List[Frame]:
        try:
            batch = self._batch.FromString(message)
        except Exception as error:  # protobuf's own error, whose name differs between versions
            raise ValueError(f"not a batch of frames: {message[:64]!r}") from error
        frames: List[Frame] = []
        for f in batch.frames:
            # Each attribute costs 0.1 µs or more, so only the attributes of the kind are read.
            kind = f.kind
            frame: Frame = {"kind": kind, "id": f.id, "flags": f.flags, "body": f.body}
            if kind == CALL:
                frame["parent"] = f.parent
                frame["name"] = f.name
                frame["ttl"] = f.ttl
                frame["session"] = f.session
                frame["meta"] = dict(f.meta)
            elif kind == CREDIT:
                frame["items"] = f.items
                frame["bytes"] = f.bytes
            elif kind in (CANCEL, BYE):
                frame["name"] = f.name
            elif not 0 < kind < len(KINDS):
                raise ValueError(f"not a frame: kind {kind} in {message[:64]!r}")
            frames.append(frame)
        return frames

    def opened(self, take: Callable[[Sequence[Frame]], None], codec: str, concurrency: int) -> None:
        self._clients.begin(take, codec, concurrency)

    def write(self, frames: Sequence[Frame]) -> None:
        frames = self._clients.pick(frames)
        if not frames:
            return
        first = size = 0
        for i, frame in enumerate(frames):
            body = frame.get("body")
            more = len(body) + 64 if body else 64
            if size and size + more > MESSAGE_BYTES:
                self._outbox.put(self._encode(frames[first:i], size))
                first, size = i, 0
            size += more
        self._outbox.put(self._encode(frames[first:] if first else frames, size))

    def _encode(self, frames: Sequence[Frame], size: int) -> bytes:
        if len(frames) > 1 or size < COPIED:
            message: bytes = self._batch(frames=frames).SerializeToString()
            return message
        # Encoded by hand, which saves one of two copies of a large body. The body is a frame's last field.
        body = frames[0].pop("body")
        head = self._frame(**frames[0]).SerializeToString() + b"\x5a" + _varint(len(body))
        return b"".join((b"\x0a", _varint(len(head) + len(body)), head, body))

    def sync(self, timeout: float) -> None:
        until = monotonic() + timeout
        self._outbox.sync(timeout)
        # If a gRPC host writes to a worker that has ended, it drops the data that it has not read yet. So wait until it
        # has read everything.
        until = min(until, monotonic() + READ_SECONDS)
        while _unread(self._connection) and monotonic() < until:
            sleep(0.0002)

    def is_own_thread(self) -> bool:
        return get_ident() in _OWN

    def close(self) -> None:
        if self._outbox.waits():  # perhaps the reason why this worker can't serve; the host may be about to dial
            self._host_came.wait(ATTACH_SECONDS)
        self._left()
        self._arrived.put(None)
        # This returns at once when the host has read everything.
        self._server.stop(STOP_SECONDS).wait(STOP_SECONDS)

    def close_in_child(self) -> None:
        # grpcio does not tell its descriptors. But all of its sockets, and no others, have the address that it listens
        # on. /dev/null takes their place, so code that still knows a number can't hit another file.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, _ in self._ours():
            os.dup2(null, descriptor, inheritable=False)
        os.close(null)

    def _only_connection(self) -> int:
        """Returns the descriptor of the only connection, if that tells what has been read. Otherwise returns -1.

        gRPC does not say which connection a stream has. But other clients hear of the socket later than the host.
        """
        if isinstance(self._address, tuple):  # TCP tells what was received, not what was read
            return -1
        try:
            connections = [descriptor for descriptor, connected in self._ours() if connected]
        except OSError:  # descriptors can't be listed here
            return -1
        return connections[0] if len(connections) == 1 else -1

    def _ours(self) -> List[Tuple[int, bool]]:
        """Returns the descriptors of gRPC's sockets, and for each of them whether it is a connection. Others listen."""
        found: List[Tuple[int, bool]] = []
        for name in os.listdir("/dev/fd"):
            try:
                with _copy_of(int(name)) as copy:
                    if _comparable(copy.getsockname()) == self._address:
                        found.append((int(name), _connected(copy)))
            except OSError:  # not a socket, or the descriptor of the listing itself
                pass
        return found


def _copy_of(descriptor: int) -> socket.socket:
    copy = os.dup(descriptor)
    try:
        return _Socket(fileno=copy)
    except OSError:  # not a socket, so no object closes the copy
        os.close(copy)
        raise


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _comparable(address: Any) -> Any:
    """Returns an address without the parts that IPv6 adds to it. gRPC's sockets accept IPv4 and IPv6 where they can."""
    if isinstance(address, tuple) and isinstance(address[0], str):
        return address[0].replace("::ffff:", ""), address[1]
    return address


def _unread(connection: int) -> bool:
    """Reports whether the system holds data that the other side has not read. Returns False if it can't tell."""
    if fcntl is None or connection < 0:
        return False
    try:
        return bool(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)) != bytes(4))
    except OSError:  # the connection has been closed, or is of a kind that can't tell
        return False


class _Threads:
    """The executor that runs the RPCs of grpcio's server. The server limits how many there are at once."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Tuple[_Running, Callable[[], Any]]] = SimpleQueue()
        self._lock = Lock()  # guards _idle
        self._idle = 0

    def submit(self, function: Callable[..., Any], *args: Any) -> _Running:
        running = _Running()
        self._queue.put((running, partial(function, *args)))
        with self._lock:
            if self._idle:
                self._idle -= 1
                return running
        spawn(self._work, "snakepit-grpc")
        return running

    def _work(self) -> None:
        with _OWN:
            while True:
                running, function = self._queue.get()
                try:
                    try:
                        function()
                    finally:
                        running.end()
                except BaseException as exc:  # a bug, because gRPC's own code catches the exceptions of an RPC
                    say(render(describe(exc)))
                del running, function
                with self._lock:
                    self._idle += 1


class _Running:
    """The part of a future that grpcio uses."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards what follows
        self._callbacks: Optional[List[Callable[[Any], Any]]] = []  # None once it has ended

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback(self)

    def end(self) -> None:
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            callback(self)


class _Outbox:
    """The encoded batches on their way from `write` to the thread that serves the RPC."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Optional[bytes]] = SimpleQueue()
        self._room = threading.Condition()  # guards what follows
        self._pending = 0
        self._ended = False
        self._put = 0  # how many messages were put
        self._sent = 0  # how many of them gRPC has handed to the system; only the sending thread changes it
        self._waiters: List[SimpleQueue[None]] = []  # one for each thread that waits in sync
        self._stuck = -1  # the value of _sent when a thread waited in vain

    def put(self, message: bytes) -> None:
        """Adds a message. Blocks while too much is pending, except on the threads that make room.

        Raises:
            OSError: The stream has ended.
        """
        with self._room:
            while self._pending >= PENDING_BYTES and not self._ended and get_ident() not in _OWN:
                self._room.wait()
            if self._ended:
                raise ConnectionResetError("the host has ended the stream")
            self._pending += len(message)
            self._put += 1
            self._queue.put(message)

    def sync(self, timeout: float) -> None:
        """Waits until gRPC has handed all messages to the system, at most so many seconds.

        It takes no lock, so a finalizer may call it.
        """
        until, put = monotonic() + timeout, self._put
        if self._stuck == self._sent:
            return
        waiter: SimpleQueue[None] = SimpleQueue()
        self._waiters.append(waiter)
        try:
            while self._sent < put and not self._ended:
                waiter.get(True, max(0.0, until - monotonic()))
        except queue.Empty:
            self._stuck = self._sent
        finally:
            self._waiters.remove(waiter)

    def waits(self) -> bool:
        """Reports whether a message was put that gRPC has not taken yet."""
        return self._pending > 0

    def end(self) -> None:
        """Ends `messages` after those that were put. Every later `put` fails."""
        with self._room:
            self._ended = True
            self._room.notify_all()
            self._queue.put(None)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters[:]:
            waiter.put(None)

    def messages(self) -> Iterator[bytes]:
        """Yields the messages that were put. It joins those that wait, because gRPC's cost is per message.

        gRPC asks for the next one when it has sent the last one.
        """
        message = self._queue.get()
        while message is not None:
            parts, size = [message], len(message)
            message = self._next()
            while message and size + len(message) <= MESSAGE_BYTES:
                parts.append(message)
                size += len(message)
                message = self._next()
            with self._room:
                self._pending -= size
                self._room.notify()
            yield b"".join(parts)
            self._sent += len(parts)
            if self._waiters:
                self._wake()
            if message == b"":
                message = self._queue.get()

    def _next(self) -> Optional[bytes]:
        """Returns the next message. It is empty if none has been put yet, and None at the end."""
        return b"" if self._queue.empty() else self._queue.get()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _load() -> Tuple[Any, Any]:
    """Returns the modules grpc and snakepit_pb2.

    Raises:
        Unavailable: One of them can't be imported.
    """
    package = "grpcio"
    try:
        grpc = importlib.import_module("grpc")
        if not hasattr(grpc, "server"):
            raise ImportError(f"{getattr(grpc, '__file__', None) or grpc!r} is another module of the name grpc")
        package = "protobuf"
        return grpc, importlib.import_module("snakepit_bridge.grpc.snakepit_pb2")
    except BaseException as error:  # a broken installation may raise anything
        raise Unavailable(
            f"{package} cannot be imported: {type(error).__name__}: {error}",
            install("'grpcio>=1.50' 'protobuf>=3.20.3'"),
        ) from error


def _need_descriptors(count: int) -> None:
    """Raises OSError unless so many descriptors are free."""
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while len(taken) < count:
            taken.append(os.dup(taken[0]))
    finally:
        for descriptor in taken:
            os.close(descriptor)


_TOKEN_WRONG = "metadata snakepit-token is missing or wrong"


def _shows(context: Any, tokens: Sequence[bytes]) -> bool:
    """Reports whether the RPC shows one of the tokens."""
    shown = b"".join(value.encode() for key, value in context.invocation_metadata() if key == "snakepit-token")
    right = [hmac.compare_digest(shown, token) for token in tokens]  # always compares all, so the time tells nothing
    return any(right)


def _listen(server: Any, launch: Launch) -> Tuple[str, Any]:
    """Binds the server. Returns its address twice: for the report, and in the form of getsockname.

    Raises:
        Unavailable: No port is free, or the socket can't be bound.
    """
    ports = launch.environ.get("SNAKEPIT_GRPC_PORTS", "")
    if ports:
        first, last = map(int, ports.split("-"))
        for port in range(first, last + 1):
            if _free(port) and _bind(server, f"127.0.0.1:{port}"):
                return f"127.0.0.1:{port}", ("127.0.0.1", port)
        raise Unavailable(f"each port from {first} to {last} is in use", "choose another BasePort or a wider PortRange")
    if sys.platform == "win32":  # grpcio has no Unix sockets there
        port = _bind(server, "127.0.0.1:0")
        if port:
            return f"127.0.0.1:{port}", ("127.0.0.1", port)
        raise Unavailable("no loopback port could be bound")
    path = os.path.join(os.path.abspath(launch.directory or "."), f"grpc-{os.getpid()}.sock")
    if not _bind(server, "unix:" + quote(path)):
        raise Unavailable(
            f"the socket {path} could not be bound", "choose a shorter Options.Dir on a local file system"
        )
    return "unix:" + path, path


def _bind(server: Any, address: str) -> int:
    try:
        return int(server.add_insecure_port(address))
    except RuntimeError:  # older versions of grpcio return 0
        return 0


def _free(port: int) -> bool:
    """Reports whether the port can be bound. If it can't, grpcio would print an error."""
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
