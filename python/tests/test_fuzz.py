"""Every decoder gets mutated inputs. Whatever they are, it returns a value or raises its own error, in bounded memory.

Each decoder gets a few thousand inputs, the same in every run. With SNAKEPIT_FUZZTIME, such as 60s, 1h or 20000x, it
gets new ones instead, for that time or so many. A failure shows the input.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import struct
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union
from uuid import UUID

import goldens
import pytest
from conftest import transports
from typing_extensions import Literal, TypedDict

from snakepit_bridge._answers import BadArguments
from snakepit_bridge._arguments import prepare
from snakepit_bridge._codecs import get_codec
from snakepit_bridge._command import Command
from snakepit_bridge._errors import BadValue, ProtocolError
from snakepit_bridge._frames import HELLO, weight
from snakepit_bridge._runner import Runner
from snakepit_bridge.transport import JsonFrames, Launch, MsgpackFrames, Transport, Unavailable

INPUTS = 2000
TIME = os.environ.get("SNAKEPIT_FUZZTIME", "")
LIMIT = 4096
"""The frame limit of these tests, in bytes."""

needs_msgpack = pytest.mark.skipif("msgpack" not in transports(), reason="needs msgpack")
needs_grpc = pytest.mark.skipif("grpc" not in transports(), reason="needs grpcio and protobuf")

TOKENS = [
    *(bytes([code]) for code in (0, 1, 0x7F, 0x80, 0x81, 0x90, 0xA1, *range(0xC0, 0xE0), 0xFF)),
    *(
        struct.pack(">BI", code, size)
        for code in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)
        for size in (0, 2**16, 2**31, 2**32 - 1)
    ),
    *(
        text.encode()
        for text in ("{", "}", "[", "]", ",", ":", '"', "\\", "\\ud800", "\t", "\n", "null", "true", "-", "1e999")
    ),
    *(b'{"$%b":' % tag for tag in (b"bytes", b"float", b"int", b"time", b"duration", b"array", b"map")),
    *(
        text.encode()
        for text in ("NaN", "9" * 30, "0x" + "f" * 30, "2026-02-30T25:61:61Z", "<f8", "|O", "\u00e9", "\U0001f600")
    ),
    b"\xff\xfe\xed\xa0\x80",
    *(deep * 2000 for deep in (b"[", b'{"a":', b"\x91", b"\x81\xa1a")),
]


def bounds() -> Tuple[float, float]:
    """Returns for how many seconds a decoder gets inputs, and how many, as go test -fuzztime would read them."""
    if not TIME:
        return float("inf"), INPUTS
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhx])", TIME)
    if match is None:
        raise ValueError(f"SNAKEPIT_FUZZTIME is {TIME!r}: write a number and s, m or h, or x for a number of inputs")
    number, unit = float(match.group(1)), match.group(2)
    return (float("inf"), number) if unit == "x" else (number * {"s": 1, "m": 60, "h": 3600}[unit], float("inf"))


def mutants(seeds: Sequence[bytes]) -> Iterator[bytes]:
    """Yields inputs: the seeds as they are, then mutations of them."""
    yield from seeds
    rng = random.Random(None if TIME else 1)
    seconds, most = bounds()
    until = time.monotonic() + seconds
    made = 0
    while made < most and time.monotonic() < until:
        made += 1
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            kind = rng.randrange(6)
            if kind == 0 and data:
                data[at % len(data)] = rng.randrange(256)
            elif kind == 1:
                data[at:at] = rng.choice(TOKENS)
            elif kind == 2:
                del data[at : min(end, at + 8)]
            elif kind == 3:
                data[at:at] = data[at : min(end, at + 64)] * rng.randrange(1, 20)
            elif kind == 4:
                other = rng.choice(seeds)
                data[at:end] = other[rng.randrange(len(other) + 1) :]
            else:
                del data[end:]
        yield bytes(data[: 4 * LIMIT])


def fuzz(seeds: Sequence[bytes], decode: Callable[[bytes], object], *errors: type) -> None:
    """Calls decode with each input. It may raise one of the errors, with a short text, and nothing else."""
    accepted = 0
    tracemalloc.start()
    if sys.version_info < (3, 9):
        # Its decoder of JSON recurses up to the limit. A collection there, which runs code of Python, ends the process
        # with "Cannot recover from stack overflow". Bodies do not get that deep: see _codec_json.
        gc.disable()
    try:
        for data in mutants(seeds):
            most = (1 << 20) + 200 * len(data)
            taken = 0
            for _ in range(3):  # something else in this process may allocate meanwhile, but not each time
                tracemalloc.clear_traces()
                problem = attempt(data, decode, errors)
                taken = tracemalloc.get_traced_memory()[1]
                if taken < most:
                    break
            if taken >= most or len(problem or "") > 3000:
                raise AssertionError(f"{taken} bytes of memory and the error {problem!r:.300} for {data!r}")
            accepted += problem is None
    finally:
        gc.enable()
        tracemalloc.stop()
    assert accepted >= len(seeds)


def attempt(data: bytes, decode: Callable[[bytes], object], errors: Tuple[type, ...]) -> Optional[str]:
    """Returns the text of the error, or None if there is none."""
    try:
        decode(data)
    except errors as exc:
        return str(exc)
    except BaseException as exc:
        raise AssertionError(f"{type(exc).__name__} for {data!r}") from exc
    return None


def frames_of(adapter: str) -> List[bytes]:
    """Returns the golden frames of an adapter."""
    found = []
    for _, _, lines in goldens.frames(adapter):
        found += [line.encode() if adapter == "jsonstdio" else bytes.fromhex(line) for line in lines]
    return found


def checked(frame: Mapping[str, Any]) -> None:
    assert 0 < frame["kind"] < 14
    assert weight(dict(frame)) <= LIMIT


def test_frames_of_json():
    parse = JsonFrames(LIMIT).parse
    fuzz(frames_of("jsonstdio"), lambda data: checked(parse(data)), ValueError)


@needs_msgpack
@pytest.mark.parametrize("keep", [False, True])
def test_frames_of_msgpack(keep):
    parse = MsgpackFrames(LIMIT).parse
    large = b"\x83\xa4kind\x04\xa2id\x01\xa4body\xc6" + struct.pack(">I", 1000) + bytes(1000)
    fuzz([*(data[4:] for data in frames_of("msgpack")), large], lambda data: checked(parse(data, keep)), ValueError)


@needs_grpc
def test_frames_of_grpc(monkeypatch):
    from snakepit_bridge.grpc import transport as module
    from snakepit_bridge.grpc.snakepit_pb2 import Batch, Frame

    monkeypatch.setattr(module, "COPIED", 100)  # so that short messages are cut, too
    transport = module.GrpcTransport.__new__(module.GrpcTransport)  # which needs no server to decode
    transport._batch, transport._frame, transport._count = Batch, Frame, 0
    large = transport._encode([{"kind": 3, "id": 1, "name": "n", "body": bytes(1000)}], 1000)

    def decode(data: bytes) -> None:
        for frame in transport._decode(data):
            assert 0 < frame["kind"] < 14

    fuzz([*frames_of("grpc"), large], decode, ValueError)


@needs_grpc
def test_keys_of_grpc(monkeypatch):
    from snakepit_bridge.grpc import transport as module

    class Grpc:
        @staticmethod
        def ssl_server_credentials(pairs: Any, client: Any, required: bool) -> None:
            (pair,) = pairs
            assert all(type(part) is bytes for part in pair)
            assert required == bool(client)

    transport = module.GrpcTransport.__new__(module.GrpcTransport)
    transport._grpc = Grpc
    seeds = [json.dumps({"key": "k", "certificate": "c", **client}).encode() for client in ({}, {"client": "c"})]

    def decode(data: bytes) -> None:
        monkeypatch.setattr(module, "_read_input", lambda: data)
        transport._credentials(Launch({"SNAKEPIT_GRPC_TLS": "stdin"}))

    fuzz(seeds, decode, Unavailable)


VALUES: List[Any] = [
    None,
    [True, -1, 2**40, 2**70, 1.5, float("inf"), "t\u00e9xt", b"\x00\xff", [], {}],
    {"a": {"b": [{"c": [1, 2, [3, [4]]]}]}, "": "", "$bytes": "x"},
    {"$map": {"$time": 1}},
    datetime.fromisoformat("2026-01-02T03:04:05.678901+00:00"),
    [timedelta(seconds=1.5), "2026-01-02", "x" * 300, b"y" * 300, list(range(300))],
]


@pytest.mark.parametrize("name", ["json", pytest.param("msgpack", marks=needs_msgpack)])
def test_bodies(name):
    codec = get_codec(name)
    fuzz([codec.encode(value) for value in VALUES], lambda data: codec.encode(codec.decode(data)), BadValue)


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Options(TypedDict, total=False):
    deep: bool
    points: List[Point]


@dataclass
class Order:
    id: UUID
    price: Decimal
    day: date
    colour: Colour = Colour.RED
    parts: List[Order] = field(default_factory=list)
    notes: Dict[str, Optional[str]] = field(default_factory=dict)


def handler(
    orders: List[Order],
    when: Optional[datetime] = None,
    pause: timedelta = timedelta(0),
    mode: Literal["fast", "slow", 3] = "fast",
    either: Union[int, str, List[int], Point] = 0,
    options: Optional[Options] = None,
    pair: Tuple[int, str] = (0, ""),
    raw: bytes = b"",
    **more: float,
) -> None:
    """Has annotations of many kinds."""


def test_arguments():
    command = Command("handler", handler)
    prepare(command)
    codec = get_codec("json")
    order = {
        "id": "12345678-1234-5678-1234-567812345678",
        "price": "1.50",
        "day": "2026-01-02",
        "colour": "red",
        "notes": {"a": None, "b": "c"},
    }
    full = {
        "orders": [{**order, "parts": [order]}],
        "when": "2026-01-02T03:04:05+00:00",
        "pause": 1.5,
        "mode": 3,
        "either": [1, 2],
        "options": {"deep": True, "points": [[1, 2.5], {"x": 1.0}]},
        "pair": [1, "x"],
        "raw": {"$bytes": "AP8="},
        "other": 2.5,
    }

    def decode(data: bytes) -> None:
        value = codec.decode(data)
        args, kwargs = ((), value) if type(value) is dict else ((value,), {})
        args = command.convert(args, kwargs)  # type: ignore[misc]
        for order in kwargs.get("orders", []):
            assert type(order) is Order
            assert type(order.price) is Decimal
            assert type(order.day) is date

    seeds = [json.dumps(value).encode() for value in (full, {"orders": []}, {"orders": [order]})]
    fuzz(seeds, decode, BadValue, BadArguments)


class Silent(Transport):
    """A transport that is not connected."""

    def __init__(self, launch: Launch) -> None:
        pass


def test_hello_of_the_host():
    hello = {
        "version": 1,
        "codec": "json",
        "max_frame": 1 << 20,
        "window": {"items": 10, "bytes": 1000},
        "concurrency": 1,
        "calls": 64,
        "features": ["pieces"],
    }

    def decode(data: bytes) -> None:
        runner = Runner(Silent(Launch({})), {}, 4, 0, Launch({}))
        runner._accept({"kind": HELLO, "body": data})
        terms = runner.terms
        assert 1 <= terms.max_calls <= 4
        assert 4096 <= terms.max_frame <= 64 << 20
        assert min(terms.window) >= 1
        assert terms.max_host_calls >= 0

    seeds = [json.dumps(value).encode() for value in (hello, {**hello, "features": []})]
    fuzz(seeds, decode, ProtocolError)
