"""The transports of the base package, over pipes and socket pairs."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading

import goldens
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_bridge import _codecs, _frames, transport
from snakepit_bridge._transport_jsonstdio import JsonStdio
from snakepit_bridge.transport import CALL, CREDIT, END, HELLO, ITEM, PING, Launch, Unavailable

HERE = os.path.dirname(os.path.abspath(__file__))
MSGPACK = "msgpack" in _codecs.available()
if MSGPACK:
    import msgpack

    from snakepit_bridge._transport_msgpack import MsgpackSocket


class Json:
    """A JsonStdio on pipes, and the host's ends of them."""

    def __init__(self):
        saved = os.dup(0), os.dup(1)
        (ours_in, self.host_out), (self.host_in, ours_out) = os.pipe(), os.pipe()
        os.dup2(ours_in, 0)
        os.dup2(ours_out, 1)
        os.close(ours_in)
        os.close(ours_out)
        try:
            self.transport = JsonStdio(Launch({}))
        finally:
            for number, descriptor in enumerate(saved):
                os.dup2(descriptor, number)
                os.close(descriptor)

    @staticmethod
    def encode(frame):
        header = {name: value for name, value in frame.items() if name != "body"}
        header["kind"] = transport.KINDS[header["kind"]]
        body = b"\t" + frame["body"] if "body" in frame else b""
        return json.dumps(header).encode() + body + b"\n"

    @staticmethod
    def decode(data):
        frames = []
        lines = data.split(b"\n")
        assert lines[0] == lines[-1] == b""
        for line in lines[1:-1]:
            header, tab, body = line.partition(b"\t")
            frame = json.loads(header)
            frame["kind"] = transport.KINDS.index(frame["kind"])
            if tab:
                frame["body"] = body
            frames.append(frame)
        return frames

    def send(self, data):
        while data:
            data = data[os.write(self.host_out, data) :]

    def receive(self, size):
        return os.read(self.host_in, size)

    def end(self):
        os.close(self.host_out)
        self.host_out = -1

    def close(self):
        self.transport.close()
        for descriptor in (self.host_in, self.host_out):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Msgpack:
    """A MsgpackSocket and the host's end of its socket pair."""

    def __init__(self):
        self.host, ours = socket.socketpair()
        self.transport = MsgpackSocket(Launch({"SNAKEPIT_CONN_FD": str(ours.detach())}))

    @staticmethod
    def encode(frame):
        data = msgpack.packb(frame)
        return struct.pack(">I", len(data)) + data

    @staticmethod
    def decode(data):
        frames = []
        while data:
            (size,) = struct.unpack_from(">I", data)
            frames.append(msgpack.unpackb(data[4 : 4 + size]))
            assert len(data) >= 4 + size
            data = data[4 + size :]
        return frames

    def send(self, data):
        self.host.sendall(data)

    def receive(self, size):
        return self.host.recv(size)

    def end(self):
        self.host.shutdown(socket.SHUT_WR)

    def close(self):
        self.transport.close()
        self.host.close()


KINDS = [Json, Msgpack] if MSGPACK else [Json]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.lower())
def pair(request):
    made = request.param()
    yield made
    made.close()


@contextlib.contextmanager
def in_thread(work, *args):
    """Runs the work beside the block, and waits for it."""
    failed = []

    def run():
        try:
            work(*args)
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def received(pair, count):
    """Reads so many frames; each read gives at least one."""
    frames = []
    while len(frames) < count:
        batch = pair.transport.read()
        assert batch, "end of file"
        frames += batch
    return frames


def receive_all(pair, into):
    while True:
        data = pair.receive(1 << 16)
        if not data:
            return
        into += data


FRAMES = [
    {"kind": HELLO, "body": b'{"versions":[1]}'},
    {"kind": CALL, "id": 1, "flags": 1, "name": "compute", "ttl": 30000, "body": b'{"a":1}'},
    {
        "kind": CALL,
        "id": 2**53 - 1,
        "parent": 4,
        "name": 'na"me\t\n\u00e9',
        "session": "s",
        "meta": {"k": "v\n", "": ""},
    },
    {"kind": ITEM, "id": 3, "body": b"1"},
    {"kind": ITEM, "id": 3, "flags": 2},
    {"kind": END, "id": 1, "body": b'"' + b"x" * 1000 + b'"'},
    {"kind": CREDIT, "id": 1, "items": 5, "bytes": 2**40},
    {"kind": PING},
]


def test_frames_arrive_and_leave_as_they_are(pair):
    pair.send(b"".join(map(pair.encode, FRAMES)))
    assert received(pair, len(FRAMES)) == FRAMES
    pair.transport.write([dict(frame) for frame in FRAMES])
    pair.transport.write([{"kind": PING, "id": 5}])
    data = bytearray()
    pair.transport.close()
    receive_all(pair, data)
    assert type(pair).decode(bytes(data)) == [*FRAMES, {"kind": PING, "id": 5}]


def test_a_batch_is_read_at_once(pair):
    pair.send(b"".join(pair.encode({"kind": PING, "id": number}) for number in range(100)))
    assert [frame["id"] for frame in pair.transport.read()] == list(range(100))


def test_frames_cut_at_every_byte(pair):
    one = b"".join(pair.encode(frame) for frame in FRAMES)
    pieces = [(one[:cut], one[cut:]) for cut in range(1, len(one))][:: max(1, len(one) // 400)]
    turn = threading.Semaphore(0)

    def host():
        for first, rest in pieces:
            pair.send(first)
            turn.acquire(timeout=30)
            pair.send(rest)
            turn.acquire(timeout=30)

    with in_thread(host):
        for first, _ in pieces:
            whole = count_whole(pair, first)
            frames = received(pair, whole)
            turn.release()
            frames += received(pair, len(FRAMES) - whole)
            turn.release()
            assert frames == FRAMES


def count_whole(pair, data):
    count = 0
    for frame in FRAMES:
        size = len(pair.encode(frame))
        if len(data) < size:
            break
        data = data[size:]
        count += 1
    return count


def test_frames_byte_by_byte(pair):
    pair.send(pair.encode(FRAMES[0]))
    assert pair.transport.read() == FRAMES[:1]
    data = b"".join(map(pair.encode, FRAMES))

    def host():
        for place in range(len(data)):
            pair.send(data[place : place + 1])

    with in_thread(host):
        assert received(pair, len(FRAMES)) == FRAMES


@pytest.mark.parametrize("size", [60_000, 65_531, 65_536, 262_139, 262_144, 300_000, 5_000_000])
def test_large_bodies_between_small_ones(pair, size):
    frames = [
        {"kind": PING, "id": 1},
        {"kind": ITEM, "id": 2, "body": b"x" * size},
        {"kind": PING, "id": 3},
        {"kind": ITEM, "id": 4, "body": b"y" * size},
        {"kind": PING, "id": 5},
    ]
    with in_thread(pair.send, b"".join(map(pair.encode, frames))):
        assert received(pair, len(frames)) == frames
    data = bytearray()
    with in_thread(receive_all, pair, data):
        pair.transport.write([dict(frame) for frame in frames])
        pair.transport.close()
    assert type(pair).decode(bytes(data)) == frames


def test_many_parts_in_one_write(pair):
    frames = [{"kind": ITEM, "id": number, "body": b"z" * 70_000} for number in range(60)] + [
        {"kind": ITEM, "id": 7, "body": b"1"}
    ] * 2000
    data = bytearray()
    with in_thread(receive_all, pair, data):
        pair.transport.write([dict(frame) for frame in frames])
        pair.transport.close()
    assert type(pair).decode(bytes(data)) == frames


def test_a_frame_of_exactly_the_limit_and_one_above(pair):
    pair.transport.encoding.max_frame = 100_000
    most = 100_000 - 256
    frame = {"kind": ITEM, "id": 1, "body": b"x" * most}
    assert _frames.weight(frame) == 100_000
    with in_thread(pair.send, pair.encode(frame)):
        assert received(pair, 1) == [frame]
    frame["body"] += b"x"
    with in_thread(pair.send, pair.encode(frame)), pytest.raises(ValueError, match="more than 100000 bytes"):
        pair.transport.read()


def test_weight_counts_what_the_protocol_says():
    frame = {"kind": CALL, "name": "\u00e9", "session": "ab", "body": b"xyz", "meta": {"k": "vv", "": ""}}
    assert _frames.weight(frame) == 256 + 2 + 2 + 3 + (1 + 2 + 8) + 8


def test_end_of_file(pair):
    pair.send(pair.encode({"kind": PING}))
    pair.end()
    assert pair.transport.read() == [{"kind": PING}]
    assert pair.transport.read() == []
    assert pair.transport.read() == []


def test_end_of_file_inside_of_a_frame(pair):
    pair.send(pair.encode({"kind": PING, "id": 99})[:-2])
    pair.end()
    with pytest.raises(ValueError, match="ended inside of a frame"):
        pair.transport.read()


def test_close_unblocks_read(pair):
    results = []
    with in_thread(lambda: results.append(pair.transport.read())) as thread:
        thread.join(0.05)  # likely inside of read by then; the result is the same if not
        pair.transport.close()
    assert results == [[]]
    pair.transport.close()
    assert pair.transport.read() == []
    with pytest.raises(OSError, match="closed"):
        pair.transport.write([{"kind": PING}])


def test_the_host_is_gone(pair):
    if isinstance(pair, Json):
        pair.end()
        os.close(pair.host_in)
    else:
        pair.host.close()
    assert pair.transport.read() == []
    with pytest.raises(BrokenPipeError):
        pair.transport.write([{"kind": PING}])


def test_fileno_is_the_connections(pair):
    import select

    assert select.select([pair.transport.fileno()], [], [], 0)[0] == []
    pair.send(pair.encode({"kind": PING}))
    assert select.select([pair.transport.fileno()], [], [], 10)[0]
    pair.transport.read()
    assert select.select([pair.transport.fileno()], [], [], 0)[0] == []
    assert os.get_inheritable(pair.transport.fileno()) is False


def test_a_forked_child_closes_its_copies(pair):
    pid = os.fork()
    if pid == 0:
        pair.transport.close_in_child()
        os._exit(0 if pair.transport.read() == [] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    pair.send(pair.encode({"kind": PING}))
    assert pair.transport.read() == [{"kind": PING}]
    pair.transport.write([{"kind": PING}])
    assert pair.receive(100)


BAD = [
    {"kind": 0},
    {"kind": 14},
    {"id": 5},
    {"kind": PING, "id": -1},
    {"kind": PING, "id": 2**53},
    {"kind": PING, "id": True},
    {"kind": PING, "id": 1.0},
    {"kind": PING, "id": "1"},
    {"kind": CALL, "name": 5},
    {"kind": CALL, "name": None},
    {"kind": CALL, "meta": {"a": 1}},
    {"kind": CALL, "meta": "x"},
    [],
    5,
]


@pytest.mark.parametrize("frame", BAD, ids=ascii)
def test_what_is_not_a_frame(pair, frame):
    if isinstance(pair, Json):
        if isinstance(frame, dict) and frame.get("kind") == PING:
            frame = {**frame, "kind": "ping"}
        elif isinstance(frame, dict) and frame.get("kind") == CALL:
            frame = {**frame, "kind": "call"}
        data = json.dumps(frame).encode() + b"\n"
    else:
        data = pair.encode(frame)
    pair.send(data)
    with pytest.raises(ValueError, match="the host sent what is not a frame"):
        pair.transport.read()


def test_goldens(pair):
    """The lines that a Go host writes, and others that mean the same, are read as the frame."""
    is_json = isinstance(pair, Json)
    for name, frame, lines in goldens.frames("jsonstdio" if is_json else "msgpack"):
        for line in lines:
            pair.send(line.encode() + b"\n" if is_json else bytes.fromhex(line))
            assert [goldens.meaning(got) for got in pair.transport.read()] == [goldens.meaning(frame)], name


def test_unknown_fields_are_left_alone(pair):
    frame = {"kind": PING, "id": 1, "new": "field"}
    pair.send(pair.encode(frame))
    assert pair.transport.read() == [frame]


@given(data=st.binary(min_size=1, max_size=300), cut=st.integers(0, 300))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.lower())
def test_any_bytes_are_frames_or_an_error(kind, data, cut):
    pair = kind()
    pair.transport.encoding.max_frame = 1000
    try:
        pair.send(data[:cut])
        pair.send(data[cut:])
        pair.end()
        problem = ""
        try:
            while True:
                frames = pair.transport.read()
                assert all(frame["kind"] in range(1, 14) for frame in frames)
                if not frames:
                    break
        except ValueError as exc:
            problem = str(exc)
        assert len(problem) < 1000
    finally:
        pair.close()


# Lines


@pytest.fixture
def lines():
    made = Json()
    yield made
    made.close()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\t",
        b"hello",
        b"{}",
        b"\t5",
        b'{"kind":"ping"',
        b'{"kind":"ping"} x',
        b'{"kind":8}',
        b'{"kind":"pong","body":"x"}',
        b'{"kind":["ping"]}',
        b"[" * 100_000,
        b"\xff",
    ],
    ids=lambda line: ascii(line)[:20],
)
def test_lines_that_are_not_frames(lines, line):
    with in_thread(lines.send, line + b"\n"):
        with pytest.raises(ValueError, match="is not a frame") as caught:
            received(lines, 1)
        assert repr(line[:20])[2:-1] in str(caught.value)


def test_a_line_without_end_is_not_kept(lines):
    lines.transport.encoding.max_frame = 100_000
    data = b'{"kind":"item"}\t' + b"x" * 150_000  # what is not read fits into the pipe
    with in_thread(lines.send, data), pytest.raises(ValueError, match="a frame of more than 100000 bytes"):
        lines.transport.read()


def test_a_long_header_is_allowed_its_escapes(lines):
    lines.transport.encoding.max_frame = 100_000
    frame = {"kind": CALL, "id": 1, "name": "\u00e9" * 40_000, "body": b"1"}
    with in_thread(lines.send, lines.encode(frame)):
        assert received(lines, 1) == [frame]


def test_descriptors_after_the_transport_has_taken_them():
    program = """
import os, sys
from snakepit_bridge._transport_jsonstdio import JsonStdio
from snakepit_bridge.transport import Launch
os.write(1, b"an unfinished line")
transport = JsonStdio(Launch({}))
assert transport.fileno() >= 64, transport.fileno()
assert os.read(0, 10) == b""
print("a print", flush=True)
os.system("echo a child; cat")
transport.write([{"kind": 1, "body": b"{}"}])
transport.write([{"kind": 8, "id": 1}])
assert transport.read() == [{"kind": 8, "id": 2}]
transport.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {os.path.dirname(HERE)!r})\n{program}"],
        input=b'{"kind":"ping","id":2}\n',
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b'an unfinished line\n{"kind":"hello"}\t{}\n{"kind":"ping","id":1}\n'
    assert done.stderr == b"a print\na child\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_standard_input_or_output_is_closed(closed):
    program = f"""
import sys
sys.path.insert(0, {os.path.dirname(HERE)!r})
from snakepit_bridge._transport_jsonstdio import JsonStdio
from snakepit_bridge.transport import Launch, Unavailable
try:
    JsonStdio(Launch({{}}))
except Unavailable as exc:
    sys.stderr.write(str(exc))
"""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, program], capture_output=True, check=False
    )
    assert b"standard input or output is closed" in done.stderr


# Lengths

needs_msgpack = pytest.mark.skipif(not MSGPACK, reason="msgpack is not installed here")


@pytest.fixture
def packed():
    made = Msgpack()
    yield made
    made.close()


@needs_msgpack
@pytest.mark.parametrize("size", [0, (64 << 20) + (64 << 10) + 1, 2**31, 2**32 - 1, 0x68656C6C])
def test_lengths_that_are_not_frames(packed, size):
    packed.send(struct.pack(">I", size))
    before = len(packed.transport._view)
    with pytest.raises(ValueError, match=f"of {size} bytes"):
        packed.transport.read()
    assert len(packed.transport._view) == before


@needs_msgpack
@pytest.mark.parametrize(
    "inside",
    [
        b"\xc1",
        b"\x80\x80",
        b"\x81\xa4kind\xdd\xff\xff\xff\xff",
        b"\x82\xa4kind\x08\xa4name\xa1\xff",
        b"\x82\xa4kind\x08\xa4body\xa1x",
    ],
)
def test_frames_that_are_not_what_their_length_says(packed, inside):
    packed.send(struct.pack(">I", len(inside)) + inside)
    with pytest.raises(ValueError, match="is not a frame"):
        packed.transport.read()


@needs_msgpack
@pytest.mark.parametrize("size", [1_000_000, 6_000_000])
def test_the_large_buffer_is_given_back(packed, size):
    frame = {"kind": ITEM, "id": 2, "body": b"x" * size}
    with in_thread(packed.send, packed.encode(frame) * 3 + packed.encode({"kind": PING})):
        assert received(packed, 4) == [frame] * 3 + [{"kind": PING}]
    assert len(packed.transport._view) < 1_000_000
    assert len(packed.transport._spare._kept) < 4 << 20  # larger memory is not kept for the next frame


@needs_msgpack
@pytest.mark.parametrize("size", [70_000, 300_000, 5_000_000])
def test_where_a_large_body_is_in_its_frame(packed, size):
    import msgpack

    frame = {"kind": CALL, "id": 1, "name": "body", "meta": {"body": "body"}}
    all_fields = []
    for fields in ({**frame, "body": os.urandom(size)}, {"body": os.urandom(size), **frame}):
        all_fields += [fields, fields]
    data = b"".join(struct.pack(">I", len(one)) + one for one in map(msgpack.packb, all_fields))
    with in_thread(packed.send, data):
        assert received(packed, 4) == all_fields  # a later frame does not change an earlier one


@needs_msgpack
def test_bytes_that_look_like_a_large_body():
    import msgpack

    from snakepit_bridge._frames_msgpack import MsgpackFrames

    size = 70_000
    # The key of a body and its length are inside of the text, and fit the rest of the frame.
    text = b"\xa4body\xc6" + struct.pack(">I", size) + b"x" * size
    frame = {"kind": CALL, "id": 1, "session": text}
    data = msgpack.packb(frame)
    with pytest.raises(ValueError, match="its session is of type bytes"):
        MsgpackFrames(1 << 20).parse(memoryview(data), True)


@needs_msgpack
def test_a_descriptor_that_is_no_socket():
    with pytest.raises(Unavailable, match="SNAKEPIT_CONN_FD is not set"):
        MsgpackSocket(Launch({}))
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(Unavailable, match="is not a socket"):
            MsgpackSocket(Launch({"SNAKEPIT_CONN_FD": str(read_end)}))
    finally:
        with contextlib.suppress(OSError):
            os.close(read_end)
        os.close(write_end)


def test_launch_keeps_descriptors_from_user_code(monkeypatch):
    monkeypatch.setenv("SNAKEPIT_CONN_FD", "7")
    monkeypatch.setenv("SNAKEPIT_PROTOCOL", "msgpack")
    launch = Launch.take()
    assert (launch.conn_fd, launch.protocol) == (7, "msgpack")
    assert "SNAKEPIT_CONN_FD" not in os.environ
