"""The service of a back end: who gets a lease, what a lease says, and what ends it."""

import json
import os
import queue
import threading
import time

import pytest
from host import PATIENCE

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
pytest.importorskip("cryptography")

from test_seat import CHILD, has_ended, until  # noqa: E402

from snakepit_bridge.grpc.snakepit_pb2 import Batch  # noqa: E402
from snakepit_bridge.grpc.snakepit_pb2_grpc import WorkerStub  # noqa: E402
from snakepit_bridge.launch import launch_pb2 as pb2  # noqa: E402
from snakepit_bridge.launch.certificate import make_certificate  # noqa: E402
from snakepit_bridge.launch.launch_pb2_grpc import LaunchStub  # noqa: E402
from snakepit_bridge.launch.room import Lost, NoRoom, Room  # noqa: E402
from snakepit_bridge.launch.seat import Exited, Started  # noqa: E402
from snakepit_bridge.launch.service import Service  # noqa: E402

HEALTH = "/grpc.health.v1.Health/"
SERVING, NOT_SERVING, UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


class Lease:
    """A host's side of a lease."""

    def __init__(self, channel, first="start", **more):
        self.sent = queue.SimpleQueue()
        if first == "start":
            said = {"run_id": "pool-1", "max_frame": 1 << 20, "host_token": "host's", "worker_token": "w", **more}
            first = pb2.LeaseRequest(start=pb2.Start(**said))
        self.sent.put(first)
        self.call = LaunchStub(channel).Lease(iter(self.sent.get, None), timeout=PATIENCE)

    def next(self, kind):
        """Returns the next event of a kind."""
        for event in self.call:
            if event.WhichOneof("event") == kind:
                return getattr(event, kind)
        raise AssertionError(f"no {kind}: {self.call.details()}")

    def lines(self):
        """Yields the lines that the worker prints."""
        text = b""
        while True:
            text += self.next("output")
            *whole, text = text.split(b"\n")
            yield from (line.decode() for line in whole)

    def signal(self, number):
        self.sent.put(pb2.LeaseRequest(signal=number))

    def refused(self):
        """Returns the status code and the details of a call that fails."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.call)
        return caught.value.code().name, caught.value.details()

    def close(self):
        self.call.cancel()
        self.sent.put(None)


@pytest.fixture
def back_end(script):
    """Serves a worker of the given source. Returns a function that leases it, in plain text by default."""
    ends = []

    def begin(source="", workers=2, seats=None, credentials=None, client=None):
        program = [str(script(source))]
        service = Service(seats or Room(program, workers, "127.0.0.1"), workers, credentials is None)
        address = f"127.0.0.1:{service.start('127.0.0.1:0', credentials)}"
        channel = grpc.insecure_channel(address) if client is None else grpc.secure_channel(address, client)
        leases = []

        def lease(*args, **more):
            leases.append(Lease(channel, *args, **more))
            return leases[-1]

        lease.service, lease.channel, lease.address = service, channel, address
        ends.append(lambda: [one.close() for one in leases])
        ends.append(channel.close)
        ends.append(lambda: service.close(PATIENCE))
        return lease

    yield begin
    for end in ends:
        end()


def test_a_lease(back_end):
    lease = back_end("import os, sys\nprint('said', flush=True)\nos._exit(5)\n")()
    kinds = {}
    for event in lease.call:
        kind = event.WhichOneof("event")
        kinds.setdefault(kind, []).append(getattr(event, kind))
    assert next(iter(kinds)) == "started"
    assert list(kinds)[-1] == "exited"
    assert kinds["started"][0].pid > 0
    assert kinds["started"][0].host
    assert b"".join(kinds["output"]) == b"said\n"
    assert len(kinds["report"]) == 1
    assert json.loads(kinds["report"][0])["endpoint"].startswith("127.0.0.1:")
    assert kinds["exited"] == [pb2.Exited(code=5)]
    assert lease.call.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("kill, number", [(False, 15), (True, 9)])
def test_signals(back_end, kill, number):
    lease = back_end()()
    lease.next("report")
    lease.signal(pb2.SIGNAL_KILL if kill else pb2.SIGNAL_TERMINATE)
    assert lease.next("exited") == pb2.Exited(code=-1, signal=number)


def test_a_half_closed_call_is_a_lease(back_end):
    lease = back_end("import sys\nprint(sys.stdin.read() == '', flush=True)\n")()
    lease.sent.put(None)
    lease.next("report")
    assert next(lease.lines()) == "True"


def test_the_end_of_the_call_ends_worker_and_children(back_end):
    leased = back_end(CHILD.format(apart=False), workers=1)
    for _ in range(3):  # the next one takes the place of the one before at once
        lease = leased()
        worker, child = map(int, next(lease.lines()).split())
        lease.close()
        until(lambda: has_ended(worker) and has_ended(child))  # noqa: B023


def test_the_end_of_the_connection_ends_the_worker(back_end):
    leased = back_end(CHILD.format(apart=False))
    with grpc.insecure_channel(leased.address) as channel:
        lease = Lease(channel)
        worker, child = map(int, next(lease.lines()).split())
    until(lambda: has_ended(worker) and has_ended(child))
    lease.close()
    assert leased.service.wait(PATIENCE)


def test_a_host_that_does_not_read_does_not_keep_its_worker(back_end):
    leased = back_end("import os\nprint(os.getpid(), flush=True)\nwhile True: os.write(1, bytes(60000))\n")
    lease = leased()
    worker = int(next(lease.lines()))
    lease.close()
    until(lambda: has_ended(worker))
    assert leased.service.wait(PATIENCE)


def test_no_room(back_end):
    leased = back_end("print('ready', flush=True)\n", workers=2)
    first, second = leased(), leased()
    for lease in (first, second):
        assert next(lease.lines()) == "ready"
    for _ in range(30):  # more than there are processors, and none of them waits for another
        assert leased().refused() == ("RESOURCE_EXHAUSTED", "all 2 workers are leased")
    first.signal(pb2.SIGNAL_KILL)
    first.next("exited")
    third = leased()  # the place is free as soon as the host knows
    assert next(third.lines()) == "ready"
    assert leased().refused()[0] == "RESOURCE_EXHAUSTED"


GOOD = {"run_id": "pool-1", "max_frame": 4096, "host_token": "h", "worker_token": "w"}


@pytest.mark.parametrize(
    "more, message",
    [
        ({"run_id": ""}, "run_id is empty or has a NUL"),
        ({"host_token": ""}, "host_token is empty or has a NUL"),
        ({"worker_token": "a\0b"}, "worker_token is empty or has a NUL"),
        ({"max_frame": 4095}, "max_frame is 4095, and the least is 4096"),
        ({"env": ["A"]}, "env has the entry 'A', which is no KEY=value or has a NUL"),
        ({"env": ["=secret"]}, "env has the entry '', which is no KEY=value or has a NUL"),
        ({"env": ["B=1", "A=secret\0"]}, "env has the entry 'A', which is no KEY=value or has a NUL"),
        (
            {"certificate": "x"},
            "certificate is set, but this back end and its workers speak plain text: dial it without TLS",
        ),
    ],
)
def test_a_bad_start(back_end, more, message):
    assert back_end()(**{**GOOD, **more}).refused() == ("INVALID_ARGUMENT", message)


@pytest.mark.parametrize("first", [pb2.LeaseRequest(signal=pb2.SIGNAL_KILL), pb2.LeaseRequest(), None])
def test_a_call_that_does_not_begin_with_start(back_end, first):
    code, details = back_end()(first).refused()
    assert code == "INVALID_ARGUMENT"
    assert details.startswith("the first message must have start")


@pytest.mark.parametrize("later", [pb2.LeaseRequest(start=pb2.Start()), pb2.LeaseRequest(signal=0), pb2.LeaseRequest()])
def test_a_later_message_that_is_no_signal(back_end, later):
    lease = back_end()()
    pid = lease.next("started").pid
    lease.sent.put(later)
    assert lease.refused() == (
        "INVALID_ARGUMENT",
        "each message after the first must have a signal, terminate or kill",
    )
    assert has_ended(pid)


@pytest.mark.parametrize(
    "error, status",
    [
        (OSError(11, "no more processes"), ("FAILED_PRECONDITION", "no more processes")),
        (NoRoom("no node has a GPU"), ("RESOURCE_EXHAUSTED", "no node has a GPU")),
    ],
)
def test_a_start_that_fails(back_end, error, status):
    class Full:
        def take(self, start):
            raise error

    code, details = back_end(seats=Full())().refused()
    assert code == status[0]
    assert details.endswith(status[1])


def test_a_seat_of_another_kind(back_end):
    """Each end of a lease closes the seat, after no more than a kill."""
    log = []

    class Other:
        def __init__(self):
            self.over = threading.Event()

        def events(self):
            yield Started("node", 7, b"")
            self.over.wait()
            yield Exited(-1, 9, True)

        def signal(self, kill):
            log.append(f"kill={kill}")
            self.over.set()

        def close(self):
            log.append("close")

    class Others:
        def take(self, start):
            log.append(start.run_id)
            return Other()

    leased = back_end(seats=Others())
    lease = leased()
    assert lease.next("started") == pb2.Started(host="node", pid=7)
    lease.close()
    until(lambda: "close" in log)
    assert log[:2] == ["pool-1", "kill=True"]
    assert leased.service.wait(PATIENCE)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    "error, status",
    [
        (NoRoom("no GPU is free"), ("RESOURCE_EXHAUSTED", "no GPU is free")),
        (Lost("the node is gone"), ("ABORTED", "the node is gone")),
        (OSError("too many"), ("FAILED_PRECONDITION", "the worker could not be started: too many")),
    ],
)
def test_a_seat_that_fails_later(back_end, started, error, status):
    closed = threading.Event()

    class Seats:
        def take(self, start):
            assert start.wait
            return self

        def events(self):
            if started:
                yield Started("node", 7, b"")
            raise error

        def signal(self, kill):
            pass

        def close(self):
            closed.set()

    leased = back_end(seats=Seats())
    assert leased(wait=True).refused() == status
    assert closed.is_set()
    assert leased.service.wait(PATIENCE)


def test_hold():
    """Both ends of a call are told. The end of the service ends it, too."""
    told = queue.SimpleQueue()
    service = Service(None, 1, True, told.put)
    with grpc.insecure_channel(f"127.0.0.1:{service.start('127.0.0.1:0', None)}") as channel:
        hold = LaunchStub(channel).Hold
        call = hold(pb2.HoldRequest())
        assert next(call) == pb2.HoldEvent()
        assert told.get(timeout=PATIENCE)
        call.cancel()
        assert not told.get(timeout=PATIENCE)
        next(hold(pb2.HoldRequest()))
        assert told.get(timeout=PATIENCE)
        service.close(PATIENCE)
        assert not told.get(timeout=PATIENCE)


def test_health(back_end):
    leased = back_end()
    check = leased.channel.unary_unary(HEALTH + "Check")
    watch = leased.channel.unary_stream(HEALTH + "Watch")
    names = [b"", b"\n\x19snakepit.launch.v1.Launch"]
    assert [check(name, timeout=PATIENCE) for name in names] == [SERVING] * 2
    watchers = [watch(name, timeout=PATIENCE) for name in names]
    assert [next(one) for one in watchers] == [SERVING] * 2
    assert next(watch(b"\n\x01x", timeout=PATIENCE)) == UNKNOWN
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\n\x01x", timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    lease = leased()
    lease.next("report")
    leased.service.end()
    assert [next(one) for one in watchers] == [NOT_SERVING] * 2
    assert check(b"", timeout=PATIENCE) == NOT_SERVING
    assert leased().refused() == ("UNAVAILABLE", "the back end is ending")
    assert leased.service.leases == 1  # it lives on
    assert not leased.service.wait(0)
    begun = time.monotonic()
    leased.service.close(PATIENCE)
    assert time.monotonic() - begun < PATIENCE / 2  # those who watch do not delay it
    assert lease.next("exited") == pb2.Exited(code=-1, signal=9)
    for one in watchers:
        assert list(one) == []


# --- TLS

SERVER, HOST, STRANGER = (make_certificate() for _ in range(3))


def client(own, trusted=SERVER.pem):
    key, pem = (own.key.encode(), own.pem.encode()) if own else (None, None)
    return grpc.ssl_channel_credentials(trusted.encode(), key, pem)


@pytest.fixture
def secure(back_end):
    """Serves a worker with TLS to `HOST`."""
    pair = (SERVER.key.encode(), SERVER.pem.encode())

    def begin(source="", credentials=None):
        server = grpc.ssl_server_credentials([pair], HOST.pem.encode(), True)
        return back_end(source, credentials=server, client=credentials or client(HOST))

    return begin


def test_a_worker_with_tls(secure):
    source = "@worker.command\ndef add(a, b): return a + b\n"
    lease = secure(source)(certificate=HOST.pem)
    started = lease.next("started")
    endpoint = json.loads(lease.next("report"))["endpoint"]
    shown = "-----BEGIN CERTIFICATE-----\n" + _base64(started.certificate) + "-----END CERTIFICATE-----\n"
    name = [("grpc.ssl_target_name_override", "localhost")]
    token = [("snakepit-token", "host's")]
    with grpc.secure_channel(endpoint, client(HOST, shown), options=name) as channel:
        rpc = WorkerStub(channel).Attach(iter(queue.SimpleQueue().get, None), metadata=token, timeout=PATIENCE)
        hello = json.loads(next(rpc).frames[0].body)
        assert hello["token"] == "w"
        assert hello["pid"] == started.pid
        rpc.cancel()
    for credentials in (client(STRANGER, shown), client(None, shown)):
        with grpc.secure_channel(endpoint, credentials, options=name) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                list(WorkerStub(channel).Attach(iter([Batch()]), metadata=token, timeout=PATIENCE))
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def _base64(data):
    import base64

    return base64.encodebytes(data).decode()


@pytest.mark.parametrize("who", ["stranger", "nobody", "plain"])
def test_others_get_no_lease(secure, who):
    leased = secure()
    if who == "plain":
        channel = grpc.insecure_channel(leased.address)
    else:
        channel = grpc.secure_channel(leased.address, client(STRANGER if who == "stranger" else None))
    with channel:
        lease = Lease(channel, certificate=HOST.pem)
        assert lease.refused()[0] == "UNAVAILABLE"
        lease.close()
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(HEALTH + "Check")(b"", timeout=PATIENCE)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert leased.service.leases == 0


@pytest.mark.parametrize(
    "certificate, message",
    [
        ("", "certificate is empty, but this back end and its workers speak TLS only"),
        ("x", "certificate is no certificate in PEM"),
        ("x" * 40000, "certificate has 40000 bytes, and the most are 32768"),
    ],
)
def test_a_bad_certificate(secure, certificate, message):
    assert secure()(certificate=certificate).refused() == ("INVALID_ARGUMENT", message)


def test_a_worker_gets_its_keys_only_on_standard_input(secure):
    source = "import os, sys\nprint(sys.stdin.read() == '', 'PRIVATE' in str(os.environ), flush=True)\n"
    assert next(secure(source)(certificate=HOST.pem).lines()) == "True False"


assert os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0"  # see conftest.py
