"""Large bodies in pieces, and the memory for them."""

import mmap
import random
from collections import deque

import pytest

from snakepit_bridge import _memory, _pieces
from snakepit_bridge._codec import Parts
from snakepit_bridge._errors import ProtocolError
from snakepit_bridge._frames import CALL, CANCEL, CREDIT, END, ITEM, PIECE, PONG
from snakepit_bridge._pieces import Join, Splitter


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
        batches.append(splitter.take(waiting))
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
                assert joins.pop(id_).finish(whole)
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
            {"kind": END, "id": 1, "body": large},
        ]
    )
    first = splitter.take(waiting)
    assert [(frame["kind"], frame["id"]) for frame in first[:4]] == [(PIECE, 1), (PONG, 1), (CREDIT, 1), (END, 3)]
    assert splitter
    rest = [frame for batch in taken(splitter) for frame in batch]
    assert joined(first + rest) == {3: [b"another"], 1: [large, b"small", large]}
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
    with pytest.raises(ProtocolError, match="pieces of 11 bytes, and the first one said 10"):
        Join(10, False).add(bytes(11))
    join = Join(10, False)
    join.add(bytes(5))
    with pytest.raises(ProtocolError, match="a body of 9 bytes, and its first piece said 10"):
        join.finish({"kind": END, "body": bytes(4)})
    dropped = Join(10, True)
    dropped.add(bytes(5))
    assert not dropped.finish({"kind": END, "body": bytes(5)})


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

    monkeypatch.setattr(_memory, "_copier", fails)
    monkeypatch.setattr(_memory, "_copy", _memory._untried)
    source = _memory.memory(5 << 20)
    memoryview(source)[7] = 7
    assert _memory.bytes_of(memoryview(source)) == bytes(7) + b"\x07" + bytes((5 << 20) - 8)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages")
def test_large_memory_is_mapped():
    assert type(_memory.memory(4 << 20)) is mmap.mmap
    assert type(_memory.memory((4 << 20) - 1)) is bytearray
