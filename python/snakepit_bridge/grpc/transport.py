"""The gRPC transport: a synchronous server on a private socket. The host attaches one stream of frames to it.

Other gRPC clients may call the worker by plain RPCs. `snakepit_bridge.grpc.clients` serves those.
"""

from __future__ import annotations

import errno
import hmac
import importlib
import importlib.util
import json
import os
import socket
import sys
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple
from urllib.parse import quote

from snakepit_bridge._codecs import available
from snakepit_bridge._description import describe
from snakepit_bridge._errors import render
from snakepit_bridge._remedy import install
from snakepit_bridge._unpatched import Lock, SimpleQueue, get_ident, monotonic, say, sleep, spawn, untouched
from snakepit_bridge.grpc.clients import Clients
from snakepit_bridge.transport import (
    BYE,
    CALL,
    CANCEL,
    CREDIT,
    KINDS,
    PIECE,
    PING,
    Frame,
    Launch,
    Parts,
    Transport,
    Unavailable,
)

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
    """The idents of the threads that serve gRPC. These must not wait until something is sent: one of them sends it."""

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

COPIED = 64 << 10
"""Bodies up to this size may be copied once more."""

RPCS = 256
"""How many RPCs are served at once. Each one but Attach holds a thread while it lasts. Threads are made when needed."""

ATTACH_SECONDS = 60.0
"""How long the first `write` waits for the host to attach. The host does that as soon as it has the report."""

READ_SECONDS = 0.1
"""How long an error record may wait until the host has read it."""

STOP_SECONDS = 1.0
"""How long `close` may take."""

_ENGINE_FROM, _ENGINE_TO = (1, 60), (1, 86)
"""The versions of grpcio that were tried without the event engine. A version that does not know it would complain."""

INPUT_BYTES = 256 << 10
"""How much of standard input is read, which has a key and some certificates."""

_WILDCARDS = ("0.0.0.0", "::")
"""The addresses that stand for all addresses of the machine."""

DESCRIPTORS = 8
"""How many descriptors have to be free. With fewer, gRPC's C code ends the process."""


class GrpcTransport(Transport):
    """Carries frames over the Attach stream of ``snakepit.proto``."""

    takes_parts = True

    @classmethod
    def preload(cls) -> None:
        for name in _load()[2]:
            os.environ.pop(name, None)

    def __init__(self, launch: Launch) -> None:
        _need_descriptors(DESCRIPTORS)
        self._grpc, pb2, settings = _load()
        self._batch, self._frame = pb2.Batch, pb2.Frame
        if not launch.host_token:
            raise RuntimeError("SNAKEPIT_HOST_TOKEN is not set: a worker that serves gRPC is started by a host")
        self._host_token = launch.host_token.encode()
        client_token = os.environ.pop("SNAKEPIT_GRPC_CLIENT_TOKEN", "")  # hidden from children and user code
        self.takes_clients = bool(client_token)
        self._client_token = client_token.encode()
        self._lock = threading.Lock()
        self._attached = False  # guarded by _lock
        self._host_came = threading.Event()  # also set at the end
        self._ended = False
        self._requests: Iterator[bytes] = iter(())
        self._send: Callable[[Optional[bytes]], None] = _nowhere
        self._pulled: Optional[_Pulled] = None
        self._count = 0  # the messages that were read
        self._reader = 0  # the ident of the thread that is inside of next()
        self._connection = -1  # the descriptor of the host's connection, while it is attached and known
        self._clients = Clients(self._grpc, pb2, launch.max_frame)
        self._refusal = self._grpc.stream_stream_rpc_method_handler(self._refuse)
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
                ("grpc.http2.bdp_probe", 0),  # no pings to measure the bandwidth
                # A host on another machine pings every 10 s. Without this gRPC would take that for an attack.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                # Nothing is compressed: older versions of grpcio check the size only when they have decompressed.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ],
            interceptors=[self],
            maximum_concurrent_rpcs=RPCS,
        )
        host = _host(launch)
        self.endpoint, self._address = _listen(self._server, launch, host, self._credentials(launch))
        self._server.start()
        for name in settings:
            os.environ.pop(name, None)

    def _credentials(self, launch: Launch) -> Any:
        """Returns the credentials for TLS, or None for plain text. The host writes the keys to standard input.

        Raises:
            Unavailable: The host has written something else.
        """
        if launch.environ.get("SNAKEPIT_GRPC_TLS", "") != "stdin":
            return None
        text = _read_input()
        try:
            keys = json.loads(text)
            pair = keys["key"].encode(), keys["certificate"].encode()
            client = keys.get("client", "").encode()
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # the text is secret
            raise Unavailable(
                f"standard input has {len(text)} bytes that are not the keys for TLS ({type(error).__name__})",
                "start the worker with its standard input as the host made it",
            ) from None
        return self._grpc.ssl_server_credentials([pair], client or None, bool(client))

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Returns the handler of an RPC. grpcio calls this when the metadata has arrived.

        Without the token, it is a handler that reads no message, so callers without one can neither fill the memory nor
        hold a thread.
        """
        token = self._host_token if details.method == "/snakepit.v1.Worker/Attach" else self._client_token
        return continuation(details) if _shows(details.invocation_metadata, token) else self._refusal

    def _refuse(self, requests: Iterator[bytes], context: Any) -> None:
        context.abort(self._grpc.StatusCode.UNAUTHENTICATED, "metadata snakepit-token is missing or wrong")

    def _attach(self, requests: Iterator[bytes], context: Any, send: Any = None) -> Optional[Iterator[bytes]]:
        with self._lock:
            refused, self._attached = self._attached or self._ended, True
        if refused:
            context.abort(self._grpc.StatusCode.FAILED_PRECONDITION, "this worker has or had its host already")
        self._connection = self._only_connection()
        if not context.add_callback(self._left):
            self._left()
        self._requests = requests
        if send is None:
            self._pulled = _Pulled()
            send = self._pulled.send
        self._send = send
        self._host_came.set()
        return None if self._pulled is None else self._pulled.messages()

    # grpcio then passes a function that sends. Without it, grpcio would pull the messages from an iterator, and the
    # thread that pulls would be another one than the thread that has something to send.
    _attach.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _left(self) -> None:
        self._connection = -1  # the number may soon belong to another file
        self._ended = True
        self._host_came.set()
        if self._pulled is not None:
            self._pulled.end()
        self._clients.end()

    def read(self) -> List[Frame]:
        self._host_came.wait()
        while True:
            self._reader = get_ident()  # next() may hold a lock of the RPC
            try:
                message = next(self._requests)
            except Exception:  # StopIteration if the host has ended its side, a bare Exception if the RPC has ended
                self._requests = iter(())
                return []
            finally:
                self._reader = 0
            self._count += 1
            frames = self._decode(message)
            if frames:
                return frames

    def _decode(self, message: bytes) -> List[Frame]:
        if len(message) > COPIED:
            frame = self._cut(message)
            if frame is not None:
                return [frame]
        try:
            batch = self._batch.FromString(message)
        except Exception as error:  # protobuf's own error, whose name differs between versions
            raise ValueError(f"not a batch of frames: {message[:64]!r}") from error
        return [_frame(f, message) for f in batch.frames]

    def _cut(self, message: bytes) -> Optional[Frame]:
        """Returns the frame of a message that has one, whose large body is the last field, without a copy of that.

        Returns None for any other message. protobuf would copy the body.
        """
        size, begin = _read_varint(message, 1)
        if message[:1] != b"\x0a" or begin + size != len(message):
            return None
        at = message.find(b"\x5a", begin, COPIED)
        while at >= 0:
            size, body = _read_varint(message, at + 1)
            if body + size == len(message):
                try:
                    frame = _frame(self._frame.FromString(message[begin:at]), message)
                except Exception:  # the byte is in another field
                    frame = {"body": b"?"}
                if not frame["body"]:
                    frame["body"] = memoryview(message)[body:]
                    return frame
            at = message.find(b"\x5a", at + 1, COPIED)
        return None

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
                self._put(self._encode(frames[first:i], size))
                first, size = i, 0
            size += more
        self._put(self._encode(frames[first:] if first else frames, size))

    def _put(self, message: bytes) -> None:
        """Sends a message. It returns when gRPC has handed it to the system."""
        if self._send is _nowhere:
            self._host_came.wait(ATTACH_SECONDS)
        if self._ended or self._send is _nowhere:
            raise ConnectionResetError("the host has ended the stream, or has not attached")
        self._send(message)

    def _encode(self, frames: Sequence[Frame], size: int) -> bytes:
        if len(frames) > 1 or size < COPIED:
            for frame in frames:
                if type(frame.get("body", b"")) is not bytes:
                    frame["body"] = bytes(frame["body"])
            message: bytes = self._batch(frames=frames, read=self._count).SerializeToString()
            return message
        # Encoded by hand, which saves one of two copies of a large body. The body is a frame's last field.
        body = frames[0].pop("body")
        parts = body.parts if type(body) is Parts else [body]
        head = self._frame(**frames[0]).SerializeToString() + b"\x5a" + _varint(len(body))
        # read comes first, so that the body ends where the message ends. The host can then use an array where it is.
        return b"".join((b"\x10", _varint(self._count), b"\x0a", _varint(len(head) + len(body)), head, *parts))

    def sync(self, timeout: float) -> None:
        # If a gRPC host writes to a worker that has ended, it drops the data that it has not read yet. So wait until it
        # has read everything.
        until = monotonic() + min(timeout, READ_SECONDS)
        while _unread(self._connection) and monotonic() < until:
            sleep(0.0002)

    def is_own_thread(self) -> bool:
        return get_ident() in _OWN or get_ident() == self._reader

    def close(self) -> None:
        self._left()
        send, self._send = self._send, _nowhere
        send(None)  # ends the stream
        # This returns at once when the host has read everything.
        self._server.stop(STOP_SECONDS).wait(STOP_SECONDS)

    def close_in_child(self) -> None:
        # grpcio does not tell its descriptors. But all of its sockets, and no others, have the address that it listens
        # on, or its port if that address stands for all. /dev/null takes their place, so code that still knows a number
        # can't hit another file.
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
                    if self._listens_on(copy):
                        found.append((int(name), _connected(copy)))
            except OSError:  # not a socket, or the descriptor of the listing itself
                pass
        return found

    def _listens_on(self, sock: socket.socket) -> bool:
        """Reports whether a socket has the address that gRPC listens on."""
        address = _comparable(sock.getsockname())
        if isinstance(self._address, tuple) and self._address[0] in _WILDCARDS:  # its connections have concrete ones
            return isinstance(address, tuple) and sock.type == socket.SOCK_STREAM and address[1] == self._address[1]
        return bool(address == self._address)


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


class _Pulled:
    """The messages for a grpcio that takes them from an iterator. It asks for one when it has sent the one before."""

    def __init__(self) -> None:
        self._messages: SimpleQueue[Optional[bytes]] = SimpleQueue()
        self._sent: SimpleQueue[None] = SimpleQueue()

    def send(self, message: Optional[bytes]) -> None:
        """Sends a message and waits until gRPC has done so. None is the end of the stream."""
        self._messages.put(message)
        if message is not None:
            self._sent.get()

    def end(self) -> None:
        """Ends the iterator and wakes the thread that sends."""
        self._messages.put(None)
        self._sent.put(None)

    def messages(self) -> Iterator[bytes]:
        """Yields the messages."""
        message = self._messages.get()
        while message is not None:
            yield message
            self._sent.put(None)
            message = self._messages.get()


def _nowhere(message: Optional[bytes]) -> None:
    """Stands for the function that sends, while there is no stream."""


def _frame(f: Any, message: bytes) -> Frame:
    """Returns the frame that protobuf has read. Raises ValueError if it is none."""
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
    elif kind == PIECE:
        frame["bytes"] = f.bytes
    elif kind in (CANCEL, BYE, PING):
        frame["name"] = f.name
    elif not 0 < kind < len(KINDS):
        raise ValueError(f"not a frame: kind {kind} in {message[:64]!r}")
    return frame


def _read_varint(data: bytes, at: int) -> Tuple[int, int]:
    """Returns the number at a place, and the place after it. The number is -1 if there is none."""
    number = 0
    for n, byte in enumerate(data[at : at + 5]):
        number |= (byte & 127) << 7 * n
        if byte < 128:
            return number, at + n + 1
    return -1, at


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _version() -> Tuple[int, ...]:
    """Returns the version of grpcio before it is imported, or () if it is not known."""
    try:
        spec: Any = importlib.util.find_spec("grpc")
        with open(os.path.join(spec.submodule_search_locations[0], "_grpcio_metadata.py")) as file:
            return tuple(map(int, file.read().split('"""')[1].split(".")[:2]))
    except BaseException:  # a broken installation may raise anything; the import will tell
        return ()


def _load() -> Tuple[Any, Any, Dict[str, str]]:
    """Returns the modules grpc and snakepit_pb2, and the variables that were set for the sake of grpc.

    Raises:
        Unavailable: One of them can't be imported.
    """
    # grpcio reads these when it is imported. It would print warnings about harmless things, and its fork support would
    # stop every thread at each fork.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # These take threads out of a message's way: grpcio's thread that waits for events then reads the socket itself.
    # Children of this process do not get them, because their grpcio may be of another version.
    settings = {"GRPC_POLL_STRATEGY": "poll"}
    if _ENGINE_FROM <= _version() < _ENGINE_TO:
        settings["GRPC_EXPERIMENTS"] = "-event_engine_listener"
    settings = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(settings)
    package = "grpcio"
    try:
        grpc = importlib.import_module("grpc")
        if not hasattr(grpc, "server"):
            raise ImportError(f"{getattr(grpc, '__file__', None) or grpc!r} is another module of the name grpc")
        package = "protobuf"
        return grpc, importlib.import_module("snakepit_bridge.grpc.snakepit_pb2"), settings
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


def _shows(metadata: Any, token: bytes) -> bool:
    """Reports whether an RPC's metadata show this token and no other. Nobody can show an empty one."""
    shown = [value.encode() for key, value in metadata or () if key == "snakepit-token"]
    return bool(token) and len(shown) == 1 and hmac.compare_digest(shown[0], token)


def _read_input() -> bytes:
    """Returns standard input up to its end, or the first `INPUT_BYTES` of it."""
    text = b""
    while len(text) < INPUT_BYTES:
        more = os.read(0, INPUT_BYTES - len(text))
        if not more:
            break
        text += more
    return text


def _host(launch: Launch) -> str:
    """Returns the address to listen on, if the worker listens on a port.

    Raises:
        Unavailable: It is no address, or others could listen in there.
    """
    name = launch.environ.get("SNAKEPIT_GRPC_HOST", "")
    if not name:
        return "127.0.0.1"
    from ipaddress import ip_address

    try:
        address = ip_address(name)
    except ValueError:
        raise Unavailable(
            f"SNAKEPIT_GRPC_HOST is {name!r}, and that is no IP address", "set it to an address of this machine"
        ) from None
    if launch.environ.get("SNAKEPIT_GRPC_TLS") == "off" and not address.is_loopback:
        raise Unavailable(
            f"the host asks for plain text on {name}, where others could listen in",
            "use TLS, or a loopback address such as 127.0.0.1",
        )
    return str(address)


def _listen(server: Any, launch: Launch, host: str, credentials: Any) -> Tuple[str, Any]:
    """Binds the server. Returns its address twice: for the report, and in the form of getsockname.

    Args:
        server: The server.
        launch: What the host has said.
        host: The address to listen on, if it is to listen on a port.
        credentials: The credentials for TLS on a port, or None for plain text.

    Raises:
        Unavailable: No port can be bound, grpcio does not serve TLS on one, or the socket can't be bound.
    """
    ports = launch.environ.get("SNAKEPIT_GRPC_PORTS", "")
    plain = launch.environ.get("SNAKEPIT_GRPC_TLS", "") == "off"
    remote = "SNAKEPIT_GRPC_HOST" in launch.environ
    if credentials is None and not plain and (ports or remote or sys.platform == "win32"):
        raise Unavailable(  # grpcio has no Unix sockets on Windows
            "the host asks for a port and has no keys for TLS, without which others could listen in",
            "use a host and a worker package of the same release",
        )
    if credentials is not None or plain:
        first, last = map(int, ports.split("-")) if ports else (0, 0)
        return _listen_on_port(server, host, range(first, last + 1), credentials, remote)
    path = os.path.join(os.path.abspath(launch.directory or "."), f"grpc-{os.getpid()}.sock")
    if not _bind(server, "unix:" + quote(path), None):
        raise Unavailable(
            f"the socket {path} could not be bound", "choose a shorter Options.Dir on a local file system"
        )
    return "unix:" + path, path


def _listen_on_port(server: Any, host: str, ports: range, credentials: Any, remote: bool) -> Tuple[str, Any]:
    """Binds the server to the first port that is free. ``remote`` says that a back end has chosen the address."""
    refused = False
    other: Optional[OSError] = None
    shown = f"[{host}]" if ":" in host else host
    for port in ports:
        error = _port_error(host, port)
        if error is None:
            bound = _bind(server, f"{shown}:{port}", credentials)
            if bound:
                return f"{shown}:{bound}", (host, bound)
            error = _port_error(host, port)  # another process may just have taken the port
        if error is None:
            refused = True
        elif error.errno != errno.EADDRINUSE:
            other = error
    if refused and credentials is None:
        raise Unavailable(
            f"grpcio does not listen on a port of {host} that can be bound",
            "set GRPC_VERBOSITY=debug for the worker to see what gRPC says",
        )
    if refused:
        raise Unavailable(
            f"grpcio does not serve TLS on a port of {host} that can be bound: it does not take the certificate and "
            "key, or it can't listen there",
            "use an ECDSA or RSA key, or set GRPC_VERBOSITY=debug for the worker to see what gRPC says",
        )
    span = f"from {ports.start} to {ports.stop - 1}" if ports.stop > 1 else f"of {host}"
    if other is not None:
        remedy = "choose another address or other ports for the back end's workers"
        raise Unavailable(f"no port {span} can be bound: {other}", remedy if remote else "choose another BasePort")
    remedy = "choose more ports for the back end's workers"
    raise Unavailable(
        f"each port {span} is in use", remedy if remote else "choose another BasePort or a wider PortRange"
    )


def _bind(server: Any, address: str, credentials: Any) -> int:
    try:
        if credentials is not None:
            return int(server.add_secure_port(address, credentials))
        return int(server.add_insecure_port(address))
    except RuntimeError:  # older versions of grpcio return 0
        return 0


def _port_error(host: str, port: int) -> Optional[OSError]:
    """Returns why the port can't be bound, or None if it can. If grpcio tried in vain, it would print an error."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None
