"""The codecs: their bodies byte for byte, and what they make of bodies that nobody should send."""

import binascii
import datetime
import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_values import codecs, same, values

from snakepit_bridge import _arrays, _codecs
from snakepit_bridge._arrays import Array
from snakepit_bridge._errors import BadValue
from snakepit_bridge.transport import Unavailable

HERE = pathlib.Path(__file__).resolve().parent
TESTDATA = HERE.parent.parent / "codec" / "testdata"
MSGPACK = "msgpack" in _codecs.available()
needs_msgpack = pytest.mark.skipif(not MSGPACK, reason="msgpack is not installed here")


def sections(name):
    """Reads a txtar file: pairs of name and bytes."""
    found = []
    for line in (TESTDATA / name).read_bytes().splitlines(keepends=True):
        if line.startswith(b"-- ") and line.endswith(b" --\n"):
            found.append([line[3:-4].decode(), b""])
        elif found:
            found[-1][1] += line
    return found


def bodies(name):
    for title, data in sections(name + ".txtar"):
        data = data[:-1] if data.endswith(b"\n") else data
        if name == "msgpack" or title.endswith(".hex"):
            data = bytes.fromhex(data.decode())
        yield title, data


def meaning(notation):
    """What a value of values.txtar says, by an implementation that shares nothing with the codec."""
    if isinstance(notation, list):
        return [meaning(item) for item in notation]
    if not isinstance(notation, dict):
        return notation
    if len(notation) == 1:
        ((key, value),) = notation.items()
        if key == "$bytes":
            return binascii.a2b_base64(value)
        if key == "$float":
            return float(value)
        if key == "$time":
            whole, _, fraction = value[:-1].partition(".")
            moment = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
            return moment.replace(microsecond=int(fraction.ljust(6, "0")[:6]))
        if key == "$array":
            return _arrays.decoded_array(value["dtype"], value["shape"], binascii.a2b_base64(value["data"]))
        if key == "$int":
            return int(value, 16)
        if key == "$duration":
            return datetime.timedelta(microseconds=value // 1000)
        if key == "$map":
            return {key: meaning(item) for key, item in value.items()}
    return {key: meaning(item) for key, item in notation.items()}


def expected():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        return {title: meaning(json.loads(data)) for title, data in bodies("values")}
    finally:
        sys.setrecursionlimit(limit)


GOLDEN = [
    pytest.param(_codecs.get_codec(name), title, data, id=f"{name} {title}")
    for name in _codecs.available()
    for title, data in bodies(name)
]
EXPECTED = expected()
ROUNDED = {  # Python keeps microseconds; which NaN it writes is its own choice
    "time with nanoseconds",
    "duration of a nanosecond less",
    "duration longest",
    "duration shortest",
    "float nan",
}


@pytest.mark.parametrize("codec, title, data", GOLDEN)
@pytest.mark.parametrize("numpy", [True, False], ids=["", "no numpy"])
def test_golden(codec, title, data, numpy, monkeypatch):
    if not numpy:
        monkeypatch.setattr(_arrays, "_numpy", False)
    name, _, how = title.partition(" ~ ")
    if name == "refused":
        with pytest.raises(BadValue, match=r"^value: "):
            codec.decode(data)
        return
    value = expected()[name] if "array" in name else EXPECTED[name]
    assert same(codec.decode(data), value)
    if not how and name not in ROUNDED and (numpy or "array" not in name):  # without NumPy an array is a list
        assert codec.encode(value) == data


def test_the_goldens_are_there():
    assert len(EXPECTED) > 50
    assert {title for title, _ in bodies("json") if "~" not in title} == set(EXPECTED)


@codecs
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(codec, data):
    try:
        value = codec.decode(data)
    except BadValue:
        return
    assert same(codec.decode(codec.encode(value)), value)


@codecs
@given(value=values, place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_makes_a_value_or_an_error(codec, value, place, byte):
    data = bytearray(codec.encode(value))
    data[place % len(data)] = byte
    try:
        value = codec.decode(bytes(data))
    except BadValue:
        return
    assert same(codec.decode(codec.encode(value)), value)


@codecs
@given(value=values)
def test_a_cut_body_is_an_error(codec, value):
    data = codec.encode([value])
    for size in range(len(data)):
        with pytest.raises(BadValue):
            codec.decode(data[:size])


@codecs
def test_names_in_errors(codec):
    assert codec.name in _codecs.available()
    with pytest.raises(BadValue, match=r"^value: .*twice"):
        codec.decode(b'{"key":1,"key":2}' if codec.name == "json" else b"\x82\xa3key\x01\xa3key\x02")


@codecs
def test_bodies_have_no_line_feed_and_no_tab(codec):
    if codec.name != "json":
        pytest.skip("about text")
    body = codec.encode({"a\tb\nc": ["\t\n\r\x00\x0b\u2028", b"\n\t" * 50, float("nan"), {"$x": "\n"}]})
    assert b"\n" not in body
    assert b"\t" not in body
    assert body.decode().isprintable() or "\u2028" in body.decode()


@codecs
def test_large_bodies_of_all_sorts(codec):
    record = {"id": 2**40, "name": 'a "quoted" [name]', "score": 0.1, "tags": ["x", {"y": None}], "url": "http://x:1/"}
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    value = [dict(record, n=number, at=moment if number % 7 == 0 else None) for number in range(2000)]
    assert codec.decode(codec.encode(value)) == value
    floats = [math.sin(number) for number in range(50_000)]
    assert codec.decode(codec.encode({"floats": floats, "big": [2**63] * 1000})) == {
        "floats": floats,
        "big": [2**63] * 1000,
    }


@codecs
def test_values_in_parts(codec):
    large = os.urandom(100_000)
    for value in (large, [large, 1, large], {"a": {"b": large, "c": "x"}}, "x", [1, -1]):
        body = codec.encode_parts(value)
        assert bytes(body) == codec.encode(value)
        assert len(body) == len(codec.encode(value))
        for data in (bytes(body), bytearray(bytes(body)), memoryview(bytes(body))):
            assert codec.decode(data) == value


@needs_msgpack
def test_parts_are_not_memory_that_the_program_can_change():
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(100_000)
    for value in (array, [array], {"a": bytearray(100_000)}):
        body = _codecs.get_codec("msgpack").encode_parts(value)
        before = bytes(body)
        array[:] = 7
        assert bytes(body) == before
        array[:] = 0


@needs_msgpack
@pytest.mark.parametrize("count", [0, 1, 2000])
@pytest.mark.parametrize(
    "late", [b"\xd7\xff\xee\x6b\x28\x00\x00\x00\x00\x00", b"\xc7\x0c\xff\x3b\x9a\xca\x00" + bytes(8)]
)
def test_a_timestamp_with_a_whole_second_in_a_large_body(count, late):
    codec = _codecs.get_codec("msgpack")
    others = [os.urandom(1000)] * count + list(range(count))
    elements = [codec.encode(element) for element in others]
    for data in (b"", b"x" * 1_000_000):
        head = b"\xdd" + (len(elements) + 2).to_bytes(4, "big")
        body = head + codec.encode(data) + b"".join(elements)
        assert codec.decode(body + b"\x01") == [data, *others, 1]
        with pytest.raises(BadValue):
            codec.decode(body + late)


@codecs
def test_threads(codec):
    value = {"a": [1, 2.5, "x", datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)], "b": {"c": b"x" * 100}}
    body, bad = codec.encode(value), []

    def work():
        for _ in range(300):
            if codec.encode(value) != body or codec.decode(body) != value:
                bad.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad


JSON = _codecs.get_codec("json")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"x:y","b":1,"b":2}',  # as many colons as a map of two keys would need, and one more
        b'{"a:":1,"a:":2}',
        b'[{"a":1},{"b":1,"b":2}]',
        b'{"a":{"b":{"c":1,"c":1}}}',
        b'{"$map":{"$a":1,"$a":1}}',
        b'{"$bytes":"","$bytes":""}',
        b'{"a":1,"\\u0061":2,"x":"{"}',
    ],
)
def test_json_equal_keys(body):
    with pytest.raises(BadValue, match="twice"):
        JSON.decode(body)


@pytest.mark.parametrize("padding", [b"", b" " * 200], ids=["short", "long"])
@pytest.mark.parametrize(
    "body",
    [
        b"18446744073709551616",
        b"[-9223372036854775809]",
        b'{"a":1e999}',
        b"[1E400]",
        b"9" * 5000,
        b"1" + b"0" * 400 + b".5",
        b"-1e+309",
    ],
)
def test_json_numbers_out_of_range(body, padding):
    with pytest.raises(BadValue):
        JSON.decode(padding + body)
    assert JSON.decode(padding + b"[18446744073709551615,1e308,-9223372036854775808,1e-999]") == [
        2**64 - 1,
        1e308,
        -(2**63),
        0.0,
    ]


@pytest.mark.parametrize("levels", [500, 501, 999, 1002, 1003, 5000, 100_000])
@pytest.mark.parametrize(
    "first, last", [("[", "]"), ('{"a":', "}"), ('[{"]}":"]\\"}",":":', "}]"), ('{"$map":{"$map":', "}}")]
)
def test_json_depth(first, last, levels):
    times = -(-levels // 2) if first[:2] == "[{" else levels  # that one has two levels; the one with escapes has one
    body = (first * times + "1" + last * times).encode()
    if levels <= 500:
        JSON.decode(body)
    else:
        with pytest.raises(BadValue, match="nested deeper"):
            JSON.decode(body)
        with pytest.raises(BadValue):
            JSON.decode(body[: len(first) * times])


def test_json_depth_is_not_mistaken():
    wide = b"[" + b",".join([b"[[],{}]"] * 5000) + b"]"
    assert len(JSON.decode(wide)) == 5000
    staircase = b"[" * 300 + b",".join([b"[" * 150 + b"]" * 150] * 20) + b"]" * 300
    assert JSON.decode(staircase)
    strings = b'["' + b"[" * 10_000 + b'","\\"' + b"{" * 10_000 + b'\\\\",[]]'
    assert JSON.decode(strings) == ["[" * 10_000, '"' + "{" * 10_000 + "\\", []]


def test_json_escapes_that_are_none():
    assert JSON.decode(rb'"\\ud800"') == "\\ud800"
    assert JSON.decode(rb'["\\\ud83d\ude00","\ud83d\ude00\\"]') == ["\\\U0001f600", "\U0001f600\\"]
    assert JSON.decode(rb'{"\\u0024bytes":1}') == {"\\u0024bytes": 1}
    assert JSON.decode(b'["$5","costs \\"$\\""]') == ["$5", 'costs "$"']


def test_json_keeps_the_recursion_limit():
    before = sys.getrecursionlimit()
    JSON.decode(b"[" * 400 + b"]" * 400)
    with pytest.raises(BadValue):
        JSON.decode(b"[" * 400 + b"}" * 400)
    assert sys.getrecursionlimit() == before


def test_json_without_the_c_encoder(monkeypatch):
    from snakepit_bridge import _codec_json

    monkeypatch.setattr(_codec_json._encoder, "c_make_encoder", None)
    slow = _codec_json._c_dump()
    value = {"a": [1, 2.0, "é\n", None, True]}
    assert "".join(slow(value, 0)) == "".join(_codec_json._chunks(value, 0))
    with pytest.raises(ValueError, match="float"):
        slow([float("nan")], 0)


if MSGPACK:
    import msgpack

    PACK = _codecs.get_codec("msgpack")


def array32(count):
    return b"\xdd" + count.to_bytes(4, "big")


@needs_msgpack
@pytest.mark.parametrize("levels", [500, 501, 1023, 1025, 100_000])
@pytest.mark.parametrize("first", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\xa1a"])
def test_msgpack_depth(levels, first):
    body = first * levels + b"\xc0"
    if levels <= 500:
        PACK.decode(body)
    else:
        with pytest.raises(BadValue):
            PACK.decode(body)


@needs_msgpack
@pytest.mark.parametrize("head", [array32(1_000_000), b"\xdf" + (500_000).to_bytes(4, "big"), b"\xdc\xff\xff"])
def test_msgpack_claims_do_not_take_memory(head):
    body = head * 400 + b"\xa1x" * 500_000
    tracemalloc.start()
    try:
        with pytest.raises(BadValue):
            PACK.decode(body)
        assert tracemalloc.get_traced_memory()[1] < 64 * len(body)
    finally:
        tracemalloc.stop()


@needs_msgpack
@given(value=values)
def test_msgpack_claims_of_valid_bodies_add_up(value):
    from snakepit_bridge import _codec_msgpack

    assert _codec_msgpack._check_heads(PACK.encode([value] * 20), 100_000) is not None


@needs_msgpack
def test_msgpack_claims_of_long_valid_bodies_add_up():
    value = {
        "list": [b"\xdd" * 40] * 70_000,
        "map": {f"k{number}": number / 7 for number in range(70_000)},
        "text": ["\u00e9" * length for length in (20, 200, 40_000)],
        "bytes": [b"\xdf" * length for length in (300, 70_000)],
        "arrays": [Array("|u1", [length], b"\xdd" * length) for length in (1, 8, 300, 70_000)],
        "times": [datetime.datetime(2026, 1, 1, 0, 0, 0, micro, datetime.timezone.utc) for micro in (0, 1)],
        "ints": [2**bits for bits in range(64)] + [-(2**bits) for bits in range(64)],
    }
    body = PACK.encode(value)
    assert PACK.decode(body)["map"] == value["map"]
    from snakepit_bridge import _codec_msgpack

    assert _codec_msgpack._may_claim(body)


@needs_msgpack
def test_msgpack_timestamps_that_only_look_late():
    value = [b"\xd7\xff\xff\xff", "x", -1, b"\x0c\xff\xff"]
    assert PACK.decode(PACK.encode(value)) == value


@needs_msgpack
@pytest.mark.parametrize("year", [1, 1900, 1969, 1970, 2037, 2039, 2106, 2107, 2514, 2515, 9999])
def test_msgpack_timestamps_of_all_ages(year):
    moment = datetime.datetime(year, 12, 31, 23, 59, 59, 999999, datetime.timezone.utc)
    assert PACK.decode(PACK.encode(moment)) == moment
    stamp = msgpack.Timestamp(int((moment - moment.replace(microsecond=0)).total_seconds()), 999_999_999)
    assert PACK.decode(msgpack.packb(stamp)) == datetime.datetime(1970, 1, 1, 0, 0, 0, 999999, datetime.timezone.utc)


@needs_msgpack
def test_msgpack_does_not_keep_large_buffers():
    PACK.encode("x" * 4_000_000)
    PACK.encode({"a": b"x" * 4_000_000})
    tracemalloc.start()
    try:
        PACK.encode("y" * 4_000_000)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


# Without the package msgpack: in a process of its own, because what is imported stays.


def run(code, tmp_path):
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(HERE.parent)!r}]\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize(
    "module, problem",
    [
        ("raise ImportError('No module named msgpack')", "No module named msgpack"),
        ("version = (1, 0, 2)\nunpackb = 1", "msgpack 1.0.2 is too old"),
        ("x = 1", "is not the package msgpack"),
    ],
)
def test_msgpack_that_can_not_be_had(tmp_path, module, problem):
    (tmp_path / "msgpack.py").write_text(module)
    code = """
from snakepit_bridge import _codecs, transport
assert _codecs.available() == ["json"], _codecs.available()
try:
    _codecs.get_codec("msgpack")
except transport.Unavailable as exc:
    print(exc, "|", exc.remedy)
"""
    status, output = run(code, tmp_path)
    assert status == 0, output
    said, remedy = output.strip().split(" | ")
    assert problem in said
    assert remedy == f"{sys.executable} -m pip install 'msgpack>=1.0.3'"


def test_json_alone_imports_little(tmp_path):
    code = """
from snakepit_bridge._codecs import get_codec
codec = get_codec("json")
assert codec.decode(codec.encode({"a": [1, 2.5, b"x"]})) == {"a": [1, 2.5, b"x"]}
names = ("msgpack", "numpy", "pydantic", "decimal", "datetime", "dataclasses", "base64")
print([name for name in names if name in sys.modules])
"""
    (tmp_path / "datetime.py").write_text("raise ImportError('the wrong one')")
    status, output = run(code + """print(codec.decode(b'{"$time":"2026-01-02T03:04:05Z"}'))""", tmp_path)
    assert (status, output.split("\n")[:2]) == (0, ["[]", "2026-01-02 03:04:05+00:00"])


def test_unknown_codec():
    with pytest.raises(ValueError, match="no codec is called 'yaml'"):
        _codecs.get_codec("yaml")


def test_unavailable_is_no_value_error():
    assert not issubclass(Unavailable, ValueError)
