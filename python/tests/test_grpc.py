"""The gRPC transport, with clients in Python. adapters/grpc has the tests with the host, and of the other RPCs."""

import os
import queue
import sys
import threading

import goldens
import pytest
from hypothesis import given
from hypothesis import strategies as st

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")

from snakepit_bridge.grpc import transport as module  # noqa: E402
from snakepit_bridge.grpc.snakepit_pb2 import Batch, ExecuteRequest, Frame  # noqa: E402
from snakepit_bridge.grpc.snakepit_pb2_grpc import WorkerStub  # noqa: E402
from snakepit_bridge.grpc.transport import GrpcTransport  # noqa: E402
from snakepit_bridge.transport import CALL, CREDIT, END, ITEM, NO_INPUT, Launch, Unavailable  # noqa: E402


@pytest.fixture(params=["grpcio sends", "grpcio asks"])
def transport(request, environ, monkeypatch):
    if request.param == "grpcio asks":  # a version that does not know how to hand out a function that sends
        monkeypatch.delattr(GrpcTransport._attach, "experimental_non_blocking")
    transport = GrpcTransport(Launch(environ))
    yield transport
    transport.close()


class Host:
    """A client that attaches; what it puts into `sent` goes out, and None ends its side."""

    def __init__(self, transport, token="host's", credentials=None):
        options = [("grpc.max_receive_message_length", -1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(transport.endpoint, options)
        else:
            self.channel = grpc.secure_channel(transport.endpoint, credentials, options)
        self.sent = queue.Queue()
        self.stream = WorkerStub(self.channel).Attach(iter(self.sent.get, None), metadata=[("snakepit-token", token)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sent.put(None)
        self.channel.close()


def test_frames_survive(transport):
    call = {
        "kind": CALL,
        "flags": NO_INPUT,
        "id": 2**53 - 1,
        "parent": 2,
        "name": "näme",
        "ttl": 30000,
        "session": "s",
        "meta": {"k": "v"},
        "body": b"\x00\xff",
    }
    credit = {"kind": CREDIT, "flags": 0, "id": 1, "items": 2**40, "bytes": 7, "body": b""}
    with Host(transport) as host:
        host.sent.put(Batch())  # an empty batch is none
        host.sent.put(Batch(frames=[Frame(**call), Frame(**credit)]))
        frames = transport.read()
        assert frames == [call, credit]
        transport.write(frames)
        assert next(host.stream).frames == [Frame(**call), Frame(**credit)]
        host.sent.put(None)
        assert transport.read() == []
        assert transport.read() == []
        transport.write([{"kind": END, "id": 1}])  # the other direction goes on
        assert next(host.stream).frames[0].kind == END
        transport.close()
        assert list(host.stream) == []
        assert host.stream.code() == grpc.StatusCode.OK


def test_children_do_not_get_the_settings_of_grpc(environ, monkeypatch):
    monkeypatch.delenv("GRPC_POLL_STRATEGY", raising=False)
    monkeypatch.setenv("GRPC_EXPERIMENTS", "the program's")
    seen = {}
    listen = module._listen
    monkeypatch.setattr(module, "_listen", lambda *args: (seen.update(os.environ), listen(*args))[1])
    GrpcTransport(Launch(environ)).close()
    assert (seen["GRPC_POLL_STRATEGY"], seen["GRPC_EXPERIMENTS"]) == ("poll", "the program's")
    assert "GRPC_POLL_STRATEGY" not in os.environ
    assert os.environ["GRPC_EXPERIMENTS"] == "the program's"


def test_the_version_is_known_before_the_import(monkeypatch):
    assert module._version() == tuple(map(int, grpc.__version__.split(".")[:2]))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert module._version() == ()


def test_no_frame(transport):
    with Host(transport) as host:
        host.sent.put(Batch(frames=[Frame(kind=14)]))
        with pytest.raises(ValueError, match="kind 14"):
            transport.read()
    with pytest.raises(ValueError, match=r"not a batch of frames: b'\\xff"):
        transport._decode(b"\xff\xff")


@pytest.mark.parametrize("size", [0, 127, 128, 16384, 3 << 20])
def test_bodies_of_all_sizes(transport, size):
    body = os.urandom(size)
    with Host(transport) as host:
        host.sent.put(Batch(frames=[Frame(kind=ITEM, id=1, body=body)]))
        transport.write(transport.read())
        assert next(host.stream).frames == [Frame(kind=ITEM, id=1, body=body)]


def test_a_large_body_is_not_copied():
    transport = GrpcTransport.__new__(GrpcTransport)
    transport._batch, transport._frame = Batch, Frame
    body = os.urandom(module.COPIED)
    for name in ("n", "Z", "ZZ" * 30, "\x5a\x80\x80\x04"):  # 0x5a is the tag of a body
        call = Frame(kind=CALL, flags=1, id=7, name=name, session="Z", meta={"Z": "Z"}, body=body)
        [frame] = transport._decode(Batch(frames=[call]).SerializeToString())
        assert type(frame["body"]) is memoryview
        assert (frame["name"], frame["session"], frame["meta"], frame["body"]) == (name, "Z", {"Z": "Z"}, body)
        two = Batch(frames=[call, Frame(kind=END, id=9)])
        assert [f["id"] for f in transport._decode(two.SerializeToString())] == [7, 9]
    with pytest.raises(ValueError, match="kind 0"):
        transport._decode(Batch(frames=[Frame(body=body)]).SerializeToString())


def test_batches_are_split(transport):
    with Host(transport) as host:
        frames = [{"kind": END, "id": i} for i in range(100)]
        frames += [{"kind": ITEM, "id": i, "body": bytes(1000)} for i in range(2000)]
        frames[1100]["body"] = bytes(2 << 20)
        writer = threading.Thread(target=transport.write, args=(frames,))
        writer.start()
        ids, messages = [], 0
        while len(ids) < 2100:
            batch = next(host.stream)
            messages += 1
            assert batch.ByteSize() <= module.MESSAGE_BYTES or len(batch.frames) == 1
            ids += [frame.id for frame in batch.frames]
        writer.join()
        assert ids == [*range(100), *range(2000)]
        assert messages < 100


def test_write_waits_for_a_host_that_does_not_read(transport):
    with Host(transport) as host:
        count = 100  # more than all buffers on the way hold
        frames = [{"kind": ITEM, "id": i, "body": bytes(module.MESSAGE_BYTES)} for i in range(count)]
        assert transport._host_came.wait(20)
        send, sent = transport._send, []
        transport._send = lambda message: (sent.append(None), send(message))
        writer = threading.Thread(target=transport.write, args=(frames,))
        writer.start()
        before = -1
        while len(sent) != before:
            before = len(sent)
            writer.join(0.2)  # it sends more within this time, unless it waits
        assert 0 < before < count
        assert [frame.id for _ in range(count) for frame in next(host.stream).frames] == [*range(count)]
        writer.join()


def test_host_that_leaves(transport):
    host = Host(transport)
    with host:
        transport.write([{"kind": END, "id": 1}])
        next(host.stream)
    assert transport.read() == []

    def write():
        while True:  # what gRPC has not noticed yet is lost
            transport.write([{"kind": END, "id": 1}])

    with pytest.raises(OSError, match="host"):
        write()


def test_blocked_write_ends_with_the_host(transport):
    failed = []

    def write():
        try:
            while True:
                transport.write([{"kind": ITEM, "id": 1, "body": bytes(1 << 20)}])
        except OSError as error:
            failed.append(error)

    with Host(transport) as host:
        writer = threading.Thread(target=write)
        writer.start()
        next(host.stream)
    writer.join()
    assert len(failed) == 1


def test_close_unblocks_read(transport):
    got = []
    reader = threading.Thread(target=lambda: got.append(transport.read()))
    reader.start()
    transport.close()
    reader.join()
    assert got == [[]]
    transport.close()


def test_write_waits_for_the_host_that_dials(transport):
    def write():
        transport.write([{"kind": END, "id": 1}])
        transport.close()

    writer = threading.Thread(target=write)
    writer.start()
    with Host(transport) as host:
        assert [frame.id for batch in host.stream for frame in batch.frames] == [1]
    writer.join()


def test_write_does_not_wait_for_ever_for_a_host(transport, monkeypatch):
    monkeypatch.setattr(module, "ATTACH_SECONDS", 0.01)
    with pytest.raises(ConnectionError, match="not attached"):
        transport.write([{"kind": END, "id": 1}])


def test_messages_say_how_many_were_read(transport):
    with Host(transport) as host:
        for n, size in enumerate((0, 1, 128, module.COPIED)):
            transport.write([{"kind": ITEM, "id": 1, "body": bytes(size)}])
            assert next(host.stream).read == n
            host.sent.put(Batch(frames=[Frame(kind=END, id=1)]))
            transport.read()


def test_a_message_above_the_limit_ends_the_stream(environ):
    """The margin is for metadata, whose lengths may take more bytes in a message than in a frame's weight."""
    transport = GrpcTransport(Launch({**environ, "SNAKEPIT_MAX_FRAME": "65536"}))
    most = 65536 + 65536 // 64 + module.MESSAGE_BYTES
    with Host(transport) as host:
        room = most - len(Batch(frames=[Frame(kind=ITEM, id=1, body=bytes(most))]).SerializeToString()) + most
        for size in (room, room + 1):
            message = Batch(frames=[Frame(kind=ITEM, id=1, body=bytes(size))])
            assert (len(message.SerializeToString()) > most) == (size > room)
            host.sent.put(message)
        assert len(transport.read()[0]["body"]) == room
        assert transport.read() == []
        with pytest.raises(grpc.RpcError) as caught:
            next(host.stream)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    transport.close()


def test_one_host(transport):
    with Host(transport) as first, Host(transport) as second:
        transport.write([{"kind": END, "id": 1}])  # waits for one of them
        refused = []
        for host in (first, second):  # either may have come first
            try:
                next(host.stream)
            except grpc.RpcError:
                refused.append(host.stream.code())
        assert refused == [grpc.StatusCode.FAILED_PRECONDITION]


@pytest.fixture
def client(serve):
    """Starts a worker and returns its host, and a client that is not its host."""
    channels = []

    def start(source, options="", **changes):
        env = {"SNAKEPIT_GRPC_CLIENT_TOKEN": "client's", **changes}
        host = serve(source, options, protocol="grpc", env=env)
        channels.append(grpc.insecure_channel(host.report["endpoint"]))
        return host, WorkerStub(channels[-1])

    yield start
    for channel in channels:
        channel.close()


TOKEN = [("snakepit-token", "client's")]


def execute(stub, command, body=b"", **fields):
    return stub.Execute(ExecuteRequest(command=command, args=body, **fields), metadata=TOKEN, timeout=20).result


def test_a_request_that_is_too_large_gives_its_place_back(client):
    host, stub = client("@worker.command\ndef echo(x): return len(x)\n", SNAKEPIT_MAX_FRAME="8192")
    for size in (8192, 100_000, 8192 - 258):
        with pytest.raises(grpc.RpcError) as caught:
            execute(stub, "echo", b'"' + size * b"x" + b'"')
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "Options.MaxFrame" in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:
            execute(stub, "echo", b'"x"', metadata={"k": size * "x"})
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert execute(stub, "echo", b'"' + 7000 * b"x" + b'"') == b"7000"
    assert host.call("echo", "abc") == 3


def test_a_request_that_the_runner_refuses_gives_its_place_back(client):
    host, stub = client(
        """
        @worker.command
        def spoil(ctx):
            take = ctx._runner.transport._clients._take
            def refuse(frames):
                ctx._runner.transport._clients._take = take
                raise ValueError("not now")
            ctx._runner.transport._clients._take = refuse
        @worker.command
        def echo(x): return x
        """
    )
    for _ in range(3):
        host.call("spoil")
        with pytest.raises(grpc.RpcError) as caught:
            execute(stub, "echo", b"1")
        assert caught.value.code() == grpc.StatusCode.UNKNOWN
        assert execute(stub, "echo", b"1") == b"1"


SESSIONS = """
import snakepit_bridge._sessions as module
module.CLIENT_SESSIONS = 3
@worker.command
def count(ctx):
    ctx.session.state["n"] = ctx.session.state.get("n", 0) + 1
    return ctx.session.state["n"]
@worker.command
def hold(ctx):
    state = ctx.session.state
    state["n"] = 100
    yield 0
    hold.go_on.wait()
    return state is ctx.session.state
import threading
hold.go_on = threading.Event()
@worker.command
def go_on(): hold.go_on.set()
@worker.command
def age(): module.CLIENT_IDLE = 0.0
@worker.command
def kept(ctx): return len(ctx._runner.sessions._sessions)
"""


def test_sessions_that_clients_name_are_bounded(client):
    host, stub = client(SESSIONS, "concurrency=2")
    assert host.call("count", session="host") == 1
    assert execute(stub, "count", session="host") == b"2"  # the host's stay
    held = stub.ExecuteStream(ExecuteRequest(command="hold", session="held"), metadata=TOKEN, timeout=20)
    assert next(held).item == b"0"
    for n in range(10):
        assert execute(stub, "count", session=f"s{n}") == b"1"
        assert execute(stub, "count", session="often") == str(n + 1).encode()
    assert host.call("kept") == 4
    assert execute(stub, "count", session="s9") == b"2"
    assert execute(stub, "count", session="held") == b"101"
    assert host.call("count", session="often") == 11  # from now on it is the host's
    host.call("age")
    for n in range(10):
        execute(stub, "count", session=f"t{n}")
    assert host.call("count", session="often") == 12
    assert host.call("count", session="host") == 3
    host.call("go_on")
    assert next(held).result == b"true"
    assert host.call("kept") <= 2 + 3


PROTOS = """
from google.protobuf import descriptor_pb2, descriptor_pool

def register(path, package, message):
    file = descriptor_pb2.FileDescriptorProto(name=path, package=package, syntax="proto3")
    file.message_type.add().name = message
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

@worker.command
def own():
    register("snakepit.proto", "own", "Frame")
    register("grpc/health/v1/health.proto", "grpc.health.v1", "HealthCheckRequest")
    register("grpc/reflection/v1/reflection.proto", "grpc.reflection.v1", "ServerReflectionRequest")

@worker.command
def again():
    import importlib.util, snakepit_bridge.grpc.snakepit_pb2 as first
    spec = importlib.util.spec_from_file_location("another_pb2", first.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


@pytest.mark.parametrize("command", ["own", "again"])
def test_the_program_registers_protos_of_its_own(client, command):
    """A second file of one path in the same process would be a TypeError. The bridge has no path but its own."""
    host, stub = client(PROTOS)
    assert execute(stub, command) == b"null"
    assert host.call("snakepit.describe")
    with grpc.insecure_channel(host.report["endpoint"]) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", metadata=TOKEN, timeout=20) == b"\x08\x01"


@pytest.mark.parametrize(
    ("missing", "package"), [("grpc", "grpcio"), ("snakepit_bridge.grpc.snakepit_pb2", "protobuf")]
)
def test_unavailable(environ, monkeypatch, missing, package):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(Unavailable, match=f"{package} cannot be imported") as caught:
        GrpcTransport(Launch(environ))
    assert sys.executable in caught.value.remedy
    assert "-m pip install 'grpcio>=1.50' 'protobuf>=3.20.3'" in caught.value.remedy


def test_another_module_called_grpc(environ, monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", sys)
    with pytest.raises(Unavailable, match="another module"):
        GrpcTransport(Launch(environ))


def test_socket_that_cannot_be_bound(environ):
    environ["SNAKEPIT_DIR"] += "/x" * 100
    with pytest.raises(Unavailable, match="could not be bound"):
        GrpcTransport(Launch(environ))


@given(data=st.binary(max_size=200), start=st.integers(0, 40))
def test_any_bytes_are_frames_or_an_error(data, start):
    transport = GrpcTransport.__new__(GrpcTransport)  # which needs no server to decode
    transport._batch = Batch
    frames = [Frame(kind=CALL, id=1, name="n", meta={"a": "b"}, body=b"1"), Frame(kind=CREDIT, id=1, items=1)]
    for message in (data, Batch(frames=frames).SerializeToString()[:start] + data):
        problem = ""
        try:
            assert all(frame["kind"] in range(1, 14) for frame in transport._decode(message))
        except ValueError as exc:
            problem = str(exc)
        assert len(problem) < 1000


def test_goldens():
    """What a Go host writes is read as the frame, and written the same."""
    transport = GrpcTransport.__new__(GrpcTransport)  # which needs no server for that
    transport._batch, transport._frame, transport._count = Batch, Frame, 0
    for name, frame, lines in goldens.frames("grpc"):
        message = bytes.fromhex(lines[0])
        assert [goldens.meaning(got) for got in transport._decode(message)] == [goldens.meaning(frame)], name
        assert transport._encode([dict(frame)], 0) == message, name


def descriptors():
    return sorted(map(int, os.listdir("/dev/fd")))


def test_listing_the_sockets_leaves_no_descriptor_open(transport):
    reading, writing = os.pipe()
    with Host(transport) as host:
        transport.write([{"kind": END, "id": 1}])
        next(host.stream)
        before = descriptors()
        assert len(transport._ours()) >= 2  # the one that listens and the host's
        assert descriptors() == before
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_an_error_record_leaves_no_copy_of_a_pipe(serve):
    host = serve(
        """
        import logging, subprocess
        @worker.command
        def pipe():
            child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            logging.error("the first")
            child.stdin.close()
            return child.wait(10)
        """,
        protocol="grpc",
    )
    assert host.call("pipe") == 0


def test_sync_asks_only_the_host_s_connection(transport, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "_unread", asked.append)
    transport.sync(1.0)
    with Host(transport) as host:
        transport.write([{"kind": END, "id": 1}])
        next(host.stream)
        known = [descriptor for descriptor, connected in transport._ours() if connected]
        with grpc.insecure_channel(transport.endpoint, options=[("grpc.primary_user_agent", "another")]) as channel:
            grpc.channel_ready_future(channel).result(20)
            monkeypatch.setattr(module.os, "listdir", None)  # nothing is listed from now on
            transport.sync(1.0)
            assert len(known) == 1
            assert asked == [-1, *known]
        monkeypatch.undo()

    def write():
        while True:  # until gRPC has noticed that the host has left
            transport.write([{"kind": END, "id": 1}])

    with pytest.raises(OSError, match="host"):
        write()
    assert transport._connection == -1


def test_sync_asks_none_of_several_connections(transport):
    with grpc.insecure_channel(transport.endpoint, options=[("grpc.primary_user_agent", "another")]) as channel:
        grpc.channel_ready_future(channel).result(20)
        with Host(transport) as host:
            transport.write([{"kind": END, "id": 1}])
            next(host.stream)
            assert transport._connection == -1
            transport.sync(1.0)


def test_a_port_s_sockets_are_known(environ, monkeypatch):
    """A forked child closes them. Of a connection by TCP nobody can tell what the host has read."""
    # The tests in Go have TLS. Python's standard library makes no certificates.
    monkeypatch.setattr(GrpcTransport, "_credentials", lambda *_: grpc.local_server_credentials())
    transport = GrpcTransport(Launch(environ))
    with Host(transport, credentials=grpc.local_channel_credentials()) as host:
        transport.write([{"kind": END, "id": 1}])
        next(host.stream)
        assert sorted({connected for _, connected in transport._ours()}) == [False, True]
        assert transport._connection == -1
    transport.close()


def test_sync_where_descriptors_can_not_be_listed(transport, monkeypatch):
    def fail(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(module.os, "listdir", fail)
    with Host(transport) as host:
        transport.write([{"kind": END, "id": 1}])
        assert next(host.stream).frames[0].id == 1
        transport.sync(1.0)
        assert transport._connection == -1


def test_a_connection_that_has_been_closed_holds_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    assert not module._unread(writing)
    assert not module._unread(-1)


FINALIZERS = """
import gc, logging
import grpc._server as server
import snakepit_bridge._outbox as outbox_module
outbox_module.SYNC_TIMEOUT = 600.0  # who waits at all hangs

class Cycle:
    def __init__(self, name):
        self.me, self.name = self, name
    def __del__(self):
        logging.error("finalized in %s", self.name)
        record = {"level": "info", "message": f"written in {self.name}", "logger": "l", "time": 0.0}
        outbox.append({"kind": 10, "body": codec.encode(record)})  # as a finalizer that ends a stream of the host
        outbox.flush()

armed = set()

def collect(name):
    if name in armed:
        armed.discard(name)
        Cycle(name)
        gc.collect()

def before(name, function):
    def run(*args):
        collect(name)
        return function(*args)
    return run

server._process_event_and_continue = before("poll", server._process_event_and_continue)

class Requests:
    def __init__(self, requests):
        self.requests = requests
    def __next__(self):
        with self.requests._state.condition:  # as in grpcio's own code
            collect("read")
        return next(self.requests)

@worker.command
def arm(ctx, name):
    global outbox, codec
    outbox, codec = ctx._runner.outbox, ctx._runner.terms.codec
    transport = ctx._runner.transport
    if name == "send":
        transport._send = before(name, transport._send)
    if name == "read":
        transport._requests = Requests(transport._requests)
    armed.add(name)

@worker.command
def echo(x): return x
"""


@pytest.mark.parametrize("thread", ["poll", "send", "read"])
def test_a_finalizer_that_writes_in_a_thread_of_grpc_stops_nothing(serve, thread):
    host = serve(FINALIZERS, protocol="grpc")
    host.call("arm", thread)
    for n in range(3):
        assert host.call("echo", n) == n
    assert host.logs(f"finalized in {thread}")["level"] == "error"
    assert host.logs(f"written in {thread}")
    assert host.bye() == 0


def test_an_rpc_that_raises_has_ended(monkeypatch):
    threads, ended, said = module._Threads(), queue.Queue(), queue.Queue()
    monkeypatch.setattr(module, "say", said.put)
    for failing in (ZeroDivisionError, SystemExit):

        def fail(error=failing):
            raise error("on purpose")

        threads.submit(fail).add_done_callback(ended.put)
        ended.get(timeout=20)
        assert f"{failing.__name__}: on purpose" in said.get(timeout=20)
    threads.submit(ended.put, "goes on")
    assert ended.get(timeout=20) == "goes on"
