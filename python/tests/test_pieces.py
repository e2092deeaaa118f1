"""Large bodies in pieces, and the memory for them."""

import mmap
import random
from collections import deque
from functools import lru_cache
from queue import SimpleQueue
from threading import Event, current_thread, main_thread

import pytest

from snakepit_bridge import _memory, _pieces
from snakepit_bridge._codec import Parts
from snakepit_bridge._errors import ProtocolError
from snakepit_bridge._frames import CALL, CANCEL, CREDIT, END, ITEM, PIECE, PONG, STATE
from snakepit_bridge._outbox import Outbox
from snakepit_bridge._pieces import Join, Splitter
from snakepit_bridge._terms import Terms


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_pieces, "SPLIT_ABOVE", 30)
    monkeypatch.setattr(_pieces, "_PIECE", 10)
    monkeypatch.setattr(_pieces, "_COPIED", 4)


def taken(splitter, *frames):
    """Returns all batches, until nothing is left."""
    waiting = deque(frames)
    batches = [splitter.take(waiting)]
    while splitter:
        batches.append(splitter.pieces())
    assert not waiting
    return batches


def joined(frames):
    """Returns the bodies of the frames of each call, joined."""
    joins, bodies = {}, {}
    for frame in frames:
        id_ = frame.get("id", 0)
        if frame["kind"] == PIECE:
            if id_ not in joins:
                joins[id_] = Join(frame["bytes"], False)
            else:
                assert "bytes" not in frame
            joins[id_].add(bytes(frame["body"]))
        elif frame["kind"] in _pieces.JOINED:
            whole = {**frame, "body": bytes(frame["body"])}
            if id_ in joins:
                joins.pop(id_).finish(whole)
            bodies.setdefault(id_, []).append(bytes(whole["body"]))
    assert not joins
    return bodies


@pytest.mark.parametrize("takes_parts", [True, False])
@pytest.mark.parametrize("size", [30, 31, 39, 40, 41, 95, 100])
def test_bodies_survive(takes_parts, size):
    body = bytes(range(size))
    for parts in ([body], [body[:3], body[3:]], [body[:10], body[10:20], body[20:]], [body[:-1], body[-1:], b""]):
        whole = Parts(parts) if takes_parts else body
        batches = taken(Splitter(takes_parts), {"kind": END, "id": 1, "flags": 0, "body": whole})
        frames = [frame for batch in batches for frame in batch]
        assert all(len(frame["body"]) <= 10 for frame in frames if size > 30)
        assert all(len(batch) <= 1 + _pieces._AT_ONCE for batch in batches)
        assert len(frames) == (1 if size <= 30 else (size + 9) // 10)
        assert takes_parts or all(type(frame["body"]) is bytes for frame in frames)
        assert joined(frames) == {1: [body]}


def test_frames_of_one_call_stay_in_order_and_others_pass():
    splitter = Splitter(True)
    large = b"x" * 95
    waiting = deque(
        [
            {"kind": ITEM, "id": 1, "body": large},
            {"kind": ITEM, "id": 1, "body": b"small"},
            {"kind": PONG, "id": 1, "body": b"{}"},
            {"kind": CREDIT, "id": 1, "items": 1, "bytes": 1},
            {"kind": END, "id": 3, "body": b"another"},
            {"kind": STATE, "id": 1, "body": large},
            {"kind": END, "id": 1, "body": large},
        ]
    )
    first = splitter.take(waiting)
    assert [(frame["kind"], frame["id"]) for frame in first[:4]] == [(PIECE, 1), (PONG, 1), (CREDIT, 1), (END, 3)]
    assert splitter
    rest = [frame for batch in taken(splitter) for frame in batch]
    assert joined(first + rest) == {3: [b"another"], 1: [large, b"small", large, large]}
    assert rest[-1]["kind"] == END


def test_large_frames_take_turns():
    frames = taken(Splitter(True), *({"kind": END, "id": id_, "body": bytes(50)} for id_ in (1, 3)))
    order = [frame["id"] for batch in frames for frame in batch]
    assert order == [1, 3, 1, 3, 1, 3, 1, 3, 1, 3]


def test_a_call_is_cancelled_behind_its_frame_and_its_id_is_seen_first():
    frames = [
        {"kind": CALL, "id": 2, "name": "first", "body": bytes(50)},
        {"kind": CALL, "id": 4, "name": "second", "body": b"small"},
        {"kind": CANCEL, "id": 2, "name": "abandoned"},
    ]
    order = [(frame["kind"], frame["id"]) for batch in taken(Splitter(True), *frames) for frame in batch]
    assert order[:2] == [(PIECE, 2), (CALL, 4)]
    assert order[-2:] == [(CALL, 2), (CANCEL, 2)]


def test_clients_get_whole_frames():
    assert taken(Splitter(True), {"kind": END, "id": -3, "body": bytes(50)}) == [
        [{"kind": END, "id": -3, "body": bytes(50)}]
    ]


def test_clear_drops_what_is_left():
    splitter = Splitter(True)
    splitter.take(deque([{"kind": END, "id": 1, "body": bytes(95)}, {"kind": END, "id": 1, "body": b""}]))
    splitter.clear()
    assert not splitter
    assert splitter.take(deque([{"kind": END, "id": 1, "body": b""}])) == [{"kind": END, "id": 1, "body": b""}]


def test_joins_check_their_size():
    for size in (10, 11):
        with pytest.raises(ProtocolError, match=f"pieces of {size} bytes, and the first one said 10"):
            Join(10, False).add(bytes(size))
    join = Join(10, False)
    join.add(bytes(5))
    with pytest.raises(ProtocolError, match="a body of 9 bytes, and its first piece said 10"):
        join.finish({"kind": END, "body": bytes(4)})
    dropped = Join(10, True)
    dropped.add(bytes(5))
    frame = {"kind": CALL, "body": bytes(5)}
    dropped.finish(frame)
    assert frame == {"kind": CALL, "dropped": True}


@pytest.mark.parametrize("size", [0, 1, 1000, 4 << 20, (4 << 20) + 4097, 9 << 20])
def test_copies_are_equal_and_independent(size):
    data = random.Random(size).randbytes(size) if hasattr(random, "randbytes") else bytes(size)
    source = _memory.memory(size)
    if size:
        memoryview(source)[:] = data
    view = memoryview(source) if size else memoryview(bytearray())
    copied, own = _memory.bytes_of(view), _memory.copy(view)
    assert type(copied) is bytes
    if size:
        view[0] = 255 - data[0]
    assert copied == data
    assert own == data
    assert hash(copied) == hash(bytes(data))
    assert {copied: 1}[data] == 1


def test_bytes_of_read_only_memory():
    data = bytes(5 << 20)
    assert _memory.bytes_of(memoryview(data)) == data


def test_bytes_without_ctypes(monkeypatch):
    def fails():
        raise ImportError("no ctypes")

    monkeypatch.setattr(_memory, "_c_copier", fails)
    monkeypatch.setattr(_memory, "_copier", lru_cache(maxsize=None)(_memory._copier.__wrapped__))
    source = _memory.memory(5 << 20)
    memoryview(source)[7] = 7
    assert _memory.bytes_of(memoryview(source)) == bytes(7) + b"\x07" + bytes((5 << 20) - 8)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages")
def test_large_memory_is_mapped():
    assert type(_memory.memory(4 << 20)) is mmap.mmap
    assert type(_memory.memory((4 << 20) - 1)) is bytearray


class Slow:
    """A transport whose write of a later piece waits."""

    takes_parts = True

    def __init__(self):
        self.written = []  # the kind of each frame, and whether another thread than the main one wrote it
        self.waits, self.may_go = Event(), Event()
        self.ends = SimpleQueue()  # an entry for each frame that ends a call

    def is_own_thread(self):
        return False

    def sync(self, timeout):
        pass

    def write(self, frames):
        is_other = current_thread() is not main_thread()
        if is_other and not self.waits.is_set():
            self.waits.set()
            assert self.may_go.wait(20)
        self.written += [(frame["kind"], is_other) for frame in frames]
        for frame in frames:
            if frame["kind"] == END:
                self.ends.put(None)


def test_pieces_are_left_to_their_own_thread():
    transport, terms = Slow(), Terms(1 << 20, 1)
    terms.codec, terms.splits = "any", True
    outbox = Outbox(transport, terms, pytest.fail, pytest.fail)
    outbox.append({"kind": END, "id": 1, "body": bytes(95)})
    outbox.flush()
    assert transport.waits.wait(20)
    outbox.append({"kind": PONG, "id": 1})
    outbox.flush()  # does not wait
    assert transport.written == [(PIECE, False)]
    assert not outbox.is_writing()
    transport.may_go.set()
    outbox.sync(pieces=True)
    kinds = [kind for kind, _ in transport.written]
    assert sorted(kinds) == sorted([PIECE] * 9 + [END, PONG])
    assert kinds.index(PONG) < kinds.index(END)


def test_pieces_are_written_by_their_thread_to_the_end():
    transport, terms = Slow(), Terms(1 << 20, 1)
    terms.codec, terms.splits = "any", True
    outbox = Outbox(transport, terms, pytest.fail, pytest.fail)
    transport.may_go.set()
    for id_ in 1, 3:
        outbox.append({"kind": END, "id": id_, "body": bytes(95)})
        outbox.flush()
    for _ in range(2):
        transport.ends.get(timeout=20)
    assert transport.written.count((PIECE, False)) == 2
    assert transport.written.count((END, True)) == 2


PIECES = {"features": ["pieces"]}
ECHO = "@worker.command\ndef echo(x): return x\n"


def send_pieces(host, kind, data, id, **fields):
    """Sends the body of a frame in pieces of five bytes, and then the frame. Returns the last frame unsent."""
    host.send("piece", raw=data[:5], id=id, bytes=len(data))
    at = 5
    while len(data) - at > 5:
        host.send("piece", raw=data[at : at + 5], id=id)
        at += 5
    return lambda: host.send(kind, raw=data[at:], id=id, **fields)


def test_a_call_in_pieces_lets_others_pass(each_transport):
    host = each_transport(ECHO, "concurrency=2", hello=PIECES)
    data = host.encode_body("a value in pieces")
    finish = send_pieces(host, "call", data, 1, name="echo", flags=1)
    host.next_id = 3
    host.send("ping", id=1)
    assert host.recv()["kind"] == "pong"
    assert host.call("echo", "another") == "another"
    finish()
    assert host.answer(1)["body"] == "a value in pieces"
    assert host.bye() == 0


def test_calls_in_pieces_count_from_their_first_piece(serve):
    host = serve(ECHO, hello={**PIECES, "concurrency": 1}, protocol="jsonstdio")
    data = host.encode_body("a value in pieces")
    finish = [send_pieces(host, "call", data, id, name="echo", flags=1) for id in (1, 3)]
    finish[0]()
    assert host.answer(1)["body"] == "a value in pieces"
    finish[1]()  # the first call has ended, and yet this one's pieces were not kept
    answer = host.answer(3)
    assert answer["body"]["type"] == "Saturated"
    assert answer["flags"] == 4
    finish = [send_pieces(host, "call", data, id, name=name, flags=1) for id, name in ((5, "echo"), (7, "unknown"))]
    finish[1]()  # too many, and yet to repeat it would not help
    assert host.answer(7)["body"]["type"] == "UnknownCommand"
    finish[0]()
    assert host.answer(5)["body"] == "a value in pieces"
    host.next_id = 9
    assert host.call("echo", "another") == "another"


def test_pieces_of_an_item_for_a_call_that_has_ended(serve):
    host = serve("@worker.command\ndef first(ctx):\n    for x in ctx.input: return x\n" + ECHO, hello=PIECES)
    id = host.open("first", flags=0)
    data = host.encode_body("a value in pieces")
    finish = send_pieces(host, "item", data, id)
    finish()
    assert host.answer(id)["body"] == "a value in pieces"
    send_pieces(host, "item", data, id)()
    assert host.call("echo", "another") == "another"


@pytest.mark.parametrize(
    ("hello", "frames", "message"),
    [
        ({}, [("piece", b'"ab', {"id": 1, "bytes": 9})], "has not announced the feature"),
        (PIECES, [("piece", b'"ab', {"id": 1})], "piece for call 1, which never was"),
        (PIECES, [("piece", b'"ab', {"id": 2, "bytes": 9})], "piece for call 2, which never was"),
        (PIECES, [("piece", b'"ab', {"id": 1, "bytes": 1 << 30})], "and the limit is"),
        (PIECES, [("piece", b'"ab', {"id": 1, "bytes": 9})] * 2, "whose frame has begun already"),
        (PIECES, [("piece", b'"ab', {"id": 1, "bytes": 3})], "pieces of 3 bytes, and the first one said 3"),
        (
            PIECES,
            [("piece", b'"ab', {"id": 1, "bytes": 9}), ("call", b'c"', {"id": 1, "name": "echo"})],
            "a body of 5 bytes, and its first piece said 9",
        ),
        (
            PIECES,
            [("piece", b'"ab', {"id": 1, "bytes": 5}), ("end", b'c"', {"id": 1})],
            "another kind of frame than its pieces began",
        ),
    ],
)
def test_pieces_that_fit_no_body_end_the_connection(serve, hello, frames, message):
    host = serve(ECHO, hello=hello)
    for kind, raw, fields in frames:
        host.send(kind, raw=raw, **fields)
    assert host.wait() == 1
    assert any(message in line for line in host.printed), host.printed


def test_memory_is_reused_once_nothing_refers_to_it():
    spare = _memory.Spare()
    first = spare.view(1000)
    first[0] = 7
    kept = first.obj
    second = spare.view(900)
    assert second.obj is not kept  # the first view is in use
    assert len(second) == 900
    del first, kept
    kept = id(second.obj)
    del second
    assert id(spare.view(500).obj) == kept
    assert id(spare.view(900).obj) == kept
    part = spare.view(300)[100:]
    assert spare.view(300).obj is not part.obj
    assert type(spare.view(4 << 20).obj) is not bytearray or not hasattr(mmap, "MADV_HUGEPAGE")


def test_pages_are_kept_once_and_not_against_settings(monkeypatch):
    monkeypatch.setattr(_memory, "_pages_are_kept", False)
    _memory.keep_pages()
    assert _memory._pages_are_kept
    imports = []
    monkeypatch.setattr(_memory, "stdlib_first", lambda: imports.append(1))
    for name in "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_":
        with monkeypatch.context() as settings:
            settings.setattr(_memory, "_pages_are_kept", False)
            settings.setenv(name, "1")
            _memory.keep_pages()
    assert not imports
