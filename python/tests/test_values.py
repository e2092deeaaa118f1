"""The rules for values: they are the same on every codec."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import math
import pathlib
import struct
import sys
import threading
import types
import typing
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_bridge import _arrays, _codecs
from snakepit_bridge._arrays import Array
from snakepit_bridge._errors import BadValue

UTC = datetime.timezone.utc

codecs = pytest.mark.parametrize(
    "codec", [_codecs.get_codec(name) for name in _codecs.available()], ids=lambda codec: codec.name
)


def there_and_back(codec, value):
    return codec.decode(codec.encode(value))


def same(a, b):
    """Reports whether two decoded values are equal, types and signs of zero included; however deep they are."""
    pairs = [(a, b)]
    while pairs:
        a, b = pairs.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, (dict, list)):
            if len(a) != len(b) or (isinstance(a, dict) and a.keys() != b.keys()):
                return False
            pairs.extend((a[key], b[key]) for key in (a if isinstance(a, dict) else range(len(a))))
        elif isinstance(a, float):
            if struct.pack(">d", a) != struct.pack(">d", b) and not (math.isnan(a) and math.isnan(b)):
                return False
        elif hasattr(a, "dtype") and not isinstance(a, Array):
            if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
                return False
        elif a != b:
            return False
    return True


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
integers = st.integers(-(2**63), 2**64 - 1)
durations = st.timedeltas(datetime.timedelta(days=-100_000), datetime.timedelta(days=100_000))
instants = st.datetimes(timezones=st.just(UTC))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.integers(-(2**200), 2**200),
    st.floats(),
    texts,
    st.binary(max_size=40),
    instants,
    durations,
)
keys = st.one_of(
    texts,
    st.sampled_from(
        ["$bytes", "$float", "$time", "$array", "$map", "$int", "$duration", "$", "$x", "a:b", "[", '"{\\']
    ),
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=4), max_leaves=30
)


@codecs
@given(value=values)
def test_what_is_sent_arrives(codec, value):
    assert same(there_and_back(codec, value), value)


@codecs
@given(
    value=st.dictionaries(
        texts, st.lists(st.one_of(integers, st.floats(allow_nan=False), texts, st.none()), max_size=60), max_size=60
    )
)
def test_long_plain_values_arrive(codec, value):
    assert same(there_and_back(codec, value), value)


class Colour(enum.Enum):
    RED = "red"
    NESTED = (1, "two")


class Number(enum.IntEnum):
    SEVEN = 7


class Word(str, enum.Enum):
    HELLO = "hello"


class Flags(enum.Flag):
    A = 1
    B = 2


class Text(str):
    def __str__(self):
        return "not this"


class Whole(int):
    def __repr__(self):
        return "not this"


class Real(float):
    def __repr__(self):
        return "not this"


class Point(typing.NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Inner:
    when: datetime.datetime
    ratio: decimal.Decimal


@dataclasses.dataclass
class Outer:
    kind: typing.ClassVar[str] = "left out"
    inner: Inner
    colour: Colour = Colour.RED


class Two:  # quacks like a model of pydantic 2
    def model_dump(self):
        return {"path": pathlib.PurePosixPath("/x"), "point": Point(1, 2.0)}


class One:  # and of pydantic 1
    __fields__: typing.ClassVar[dict] = {}

    def dict(self):
        return {"colour": Colour.RED}


class Later(datetime.datetime):
    pass


class Longer(datetime.timedelta):
    pass


NAIVE = datetime.datetime(2026, 1, 2)
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
TABLE = [
    ((1, 2.0, "x"), [1, 2.0, "x"]),
    ([(), ((None,),)], [[], [[None]]]),
    ({5}, [5]),
    (frozenset(["a"]), ["a"]),
    ({"s": {1.5}}, {"s": [1.5]}),
    (b"ab", b"ab"),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"abcd")[::2], b"ac"),
    (MOMENT, MOMENT),
    (MOMENT.astimezone(datetime.timezone(datetime.timedelta(hours=-7))), MOMENT),
    (Later(2026, 1, 2, tzinfo=UTC), datetime.datetime(2026, 1, 2, tzinfo=UTC)),
    (datetime.datetime(1, 1, 1, tzinfo=UTC), datetime.datetime(1, 1, 1, tzinfo=UTC)),
    (NAIVE, "2026-01-02T00:00:00"),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 600), "2026-01-02T03:04:05.000600"),
    (Later(2026, 1, 2), "2026-01-02T00:00:00"),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (datetime.time(3, 4, 5), "03:04:05"),
    (datetime.time(3, 4, 5, 6, UTC), "03:04:05.000006+00:00"),
    (datetime.timedelta(days=-1, microseconds=7), datetime.timedelta(days=-1, microseconds=7)),
    (datetime.timedelta(days=106_751), datetime.timedelta(days=106_751)),
    (Longer(hours=1), datetime.timedelta(hours=1)),
    (fractions.Fraction(1, 3), "1/3"),
    (decimal.Decimal("1.10"), "1.10"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    (pathlib.Path("a"), "a"),
    (Colour.RED, "red"),
    (Colour.NESTED, [1, "two"]),
    (Number.SEVEN, 7),
    ([Number.SEVEN, True], [7, True]),
    (Word.HELLO, "hello"),
    (Flags.A | Flags.B, 3),
    (Text("text"), "text"),
    (Whole(3), 3),
    (Real(2.5), 2.5),
    ({Text("key"): 1, Word.HELLO: 2}, {"key": 1, "hello": 2}),
    (Point(1, 2.0), [1, 2.0]),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (Outer(Inner(MOMENT, decimal.Decimal(3))), {"inner": {"when": MOMENT, "ratio": "3"}, "colour": "red"}),
    ([Two()], [{"path": "/x", "point": [1, 2.0]}]),
    (One(), {"colour": "red"}),
    (float("-inf"), float("-inf")),
    (-0.0, -0.0),
    (5, 5),
    (5.0, 5.0),
    (2**64 - 1, 2**64 - 1),
    (2**64, 2**64),
    (-(2**63), -(2**63)),
    (-(2**63) - 1, -(2**63) - 1),
    ([0] * 50 + [2**64], [0] * 50 + [2**64]),
    (Whole(2**64), 2**64),
    ({"a": -(2**71)}, {"a": -(2**71)}),
    (9007199254740993, 9007199254740993),
    ([2**64 - 1] * 50, [2**64 - 1] * 50),
    (["x"] * 50 + [None, 1.5, True], ["x"] * 50 + [None, 1.5, True]),
    (b"\xff" * 70_000, b"\xff" * 70_000),
    ({"a": [b"\xdd" * 70_000, "x" * 70_000]}, {"a": [b"\xdd" * 70_000, "x" * 70_000]}),
]


@codecs
@pytest.mark.parametrize("value, arrives", TABLE, ids=lambda value: ascii(value)[:30])
def test_what_a_type_becomes(codec, value, arrives):
    assert same(there_and_back(codec, value), arrives)
    assert same(there_and_back(codec, [{"in": value}]), [{"in": arrives}])


@codecs
def test_the_largest_integers(codec):
    for value in (2**1_048_576 - 1, 1 - 2**1_048_576):
        assert there_and_back(codec, [value])[0] == value
    beyond = {"json": b'{"$int":"0x1' + b"0" * 262_144 + b'"}', "msgpack": b"\xc9\0\2\0\1\2\1" + bytes(131_072)}
    with pytest.raises(BadValue, match="an integer of 1048577 bits"):
        codec.decode(beyond[codec.name])


class Broken:
    def model_dump(self):
        raise RuntimeError("no")


def cycle():
    value = []
    value.append({"again": value})
    return value


def nested(levels, innermost=None):
    value = innermost
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


REFUSED = [
    ({"items": [0, 1, 2, {"when": len}]}, r"value\.items\[3\]\.when: a value of type builtin_function_or_method"),
    ({"a b": (len,)}, r"value\['a b'\]\[0\]: "),
    ({"in": Outer(Inner(len, decimal.Decimal(1)))}, r"value\.in\.inner\.when: "),
    (2**1_048_576, "value: an integer of 1048577 bits; 1048576 are the most"),
    ([1, -(2**1_048_577)], r"value\[1\]: an integer of 1048578 bits"),
    ([datetime.timedelta(days=106_752)], r"value\[0\]: a duration of more than 292 years .*total_seconds\(\)"),
    (
        {"a": {1: 2}},
        r"value\.a: a map with the key 1 \(int\), which is not text; "
        r"make it text, as by str\(\), or send a list of pairs",
    ),
    ({None: 2}, r"value: a map with the key None"),
    ({b"x": 2}, r"value: a map with the key b'x'"),
    ({"ok": 1, True: 2}, r"value: a map with the key True"),
    ("\ud800", "value: text with a lone surrogate"),
    (["x", "a\udcffb"], r"value\[1\]: text with a lone surrogate"),
    ([Text("\ud800")], r"value\[0\]: text with a lone surrogate"),
    ({"\udc00": 1}, r"value\['\\udc00'\]: a key with a lone surrogate"),
    ({"a": object()}, r"value\.a: a value of type object can't be sent"),
    (1j, r"value: a value of type complex can't be sent; send \[value\.real, value\.imag\]"),
    (collections.deque([1]), r"value: a value of type collections\.deque can't be sent; send list\(value\)"),
    (range(3), r"value: a value of type range can't be sent; send list\(value\)"),
    ([{}.keys()], r"value\[0\]: a value of type dict_keys can't be sent; send list\(value\)"),
    ((n for n in [1]), r"value: a value of type generator can't be sent; send list\(value\)"),
    (types.MappingProxyType({}), r"value: a value of type mappingproxy can't be sent; send dict\(value\)"),
    (io.StringIO(), r"value: a value of type _io\.StringIO can't be sent; send what value\.read\(\) returns"),
    (ValueError("x"), r"value: a value of type ValueError can't be sent; send str\(value\), or raise it"),
    (Outer, "value: a value of type type"),
    ([len], r"value\[0\]: a value of type builtin_function_or_method"),
    ([Broken()], r"value\[0\]: RuntimeError: no"),
    (datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5))), "value: OverflowError"),
    (cycle(), r"value\[0\]\.again.*nested deeper than 500 levels, or a cycle"),
    (nested(501), "nested deeper than 500 levels"),
    (nested(499, ((),)), "nested deeper than 500 levels"),
    (nested(100_000), "nested deeper than 500 levels"),
]


@codecs
@pytest.mark.parametrize("value, message", REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_can_not_travel(codec, value, message):
    with pytest.raises(BadValue, match=message) as caught:
        codec.encode(value)
    assert str(caught.value).startswith("value")
    assert len(str(caught.value)) < 500


@codecs
@pytest.mark.parametrize("innermost", [None, MOMENT, b"x", {"$map": 1}], ids=str)
def test_500_levels(codec, innermost):
    value = nested(499, [innermost] if not isinstance(innermost, dict) else innermost)
    assert same(there_and_back(codec, value), value)


@codecs
def test_500_levels_that_all_need_an_escape(codec):
    value = MOMENT
    for _ in range(500):
        value = {"$map": value}
    assert same(there_and_back(codec, value), value)
    with pytest.raises(BadValue):
        codec.encode({"$map": value})


@codecs
def test_500_levels_with_little_stack_left(codec):
    value = nested(500)

    def deeper(levels):
        return deeper(levels - 1) if levels else there_and_back(codec, value)

    assert same(deeper(600), value)


@codecs
def test_500_levels_in_many_threads(codec):
    value, bad = nested(500), []

    def work():
        for _ in range(20):
            if not same(there_and_back(codec, value), value):
                bad.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad


@codecs
def test_a_map_that_changes_while_it_is_read(codec):
    value = {"a": 1}

    class Sly:
        def model_dump(self):
            value["b"] = 2
            return {}

    value["sly"] = Sly()
    with pytest.raises(BadValue, match="RuntimeError"):
        codec.encode(value)


@codecs
def test_an_interrupt_passes(codec):
    class Interrupt(BaseException):
        pass

    class Interrupted:
        def model_dump(self):
            raise Interrupt

    with pytest.raises(Interrupt):
        codec.encode([Interrupted()])
    assert there_and_back(codec, [1]) == [1]


@codecs
def test_encoding_inside_of_encoding(codec):
    class Nested:
        def model_dump(self):
            return {"body": codec.encode({"x": [NAIVE.replace(tzinfo=UTC), 1]})}

    body = there_and_back(codec, ["before", Nested(), "after"])[1]["body"]
    assert codec.decode(body) == {"x": [NAIVE.replace(tzinfo=UTC), 1]}


# Arrays


@pytest.fixture
def no_numpy(monkeypatch):
    monkeypatch.setattr(_arrays, "_numpy", False)


@codecs
def test_an_array_without_numpy(codec, no_numpy):
    for dtype, shape, data, arrives in [
        ("<f8", [2, 3], struct.pack("<6d", *range(6)), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
        ("<f4", [2], struct.pack("<2f", 0.5, -2), [0.5, -2.0]),
        ("<f2", [1], struct.pack("<e", 0.5), [0.5]),
        ("<i2", [2, 1, 2], struct.pack("<4h", 1, -2, 3, 4), [[[1, -2]], [[3, 4]]]),
        ("<u8", [1], b"\xff" * 8, [2**64 - 1]),
        ("|b1", [3], b"\0\1\2", [False, True, True]),
        ("|u1", [70_000], b"x" * 70_000, [120] * 70_000),
        ("<i4", [], struct.pack("<i", -5), -5),
        ("<i4", [2, 0, 3], b"", [[], []]),
        ("<i4", [0, 1 << 40], b"", []),
        ("<i4", [4096, 0], b"", [[]] * 4096),
    ]:
        assert same(there_and_back(codec, {"a": [Array(dtype, shape, data)]}), {"a": [arrives]})
    apart = there_and_back(codec, Array("<i4", [2, 0], b""))
    apart[0].append(1)
    assert apart == [[1], []]
    for shape in [
        [4097, 0],
        [1 << 40, 0, 5],
        [2, 2048, 0],
        [1 << 10, 1 << 10, 0],
        [*[1] * 20, 400, 1, 1, *[1] * 10, 0],
    ]:
        with pytest.raises(BadValue, match="more than 4096 rows without elements"):
            there_and_back(codec, Array("<i4", shape, b""))
    for array in [Array("<c8", [2, 3], bytes(48)), Array("<U1", [1], b"x" * 4)]:
        assert there_and_back(codec, [array]) == [array]
    array = Array("<f8", [2, 3], bytes(48))
    assert array.shape == (2, 3)
    assert array != Array("<f8", [3, 2], bytes(48))
    assert array != 5
    assert repr(array) == "Array('<f8', (2, 3), 48 bytes)"


@pytest.mark.parametrize(
    "facts",
    [
        ("", [1], b"x"),
        (5, [1], b"x"),
        ("<f8", [2], b"x"),
        ("<f8", [-1], b"x"),
        ("<f8", [True], b"x"),
        ("<f8", [0], b"x"),
        ("<f8", 5, b"x"),
    ],
)
def test_an_array_that_can_not_be(facts):
    with pytest.raises(BadValue):
        Array(*facts)


@codecs
def test_numpy_arrays(codec):
    numpy = pytest.importorskip("numpy")
    for array in [
        numpy.arange(6.0).reshape(2, 3),
        numpy.arange(6, dtype=">i4"),
        numpy.arange(24).reshape(2, 3, 4).transpose()[::-1],
        numpy.array(5.0),
        numpy.zeros((0, 7), "<i2"),
        numpy.array([True, False]),
        numpy.array([1 + 2j]),
        numpy.arange(100_000, dtype="f4"),
        numpy.ma.masked_array([1, 2]).data,
    ]:
        arrived = there_and_back(codec, {"a": [array]})["a"][0]
        assert type(arrived) is numpy.ndarray
        assert arrived.dtype == array.dtype.newbyteorder("<")
        assert arrived.shape == array.shape
        assert numpy.array_equal(arrived, numpy.asarray(array))
        assert arrived.flags.writeable


@codecs
def test_numpy_scalars(codec):
    numpy = pytest.importorskip("numpy")
    sent = [
        numpy.float64(1.5),
        numpy.float32(0.5),
        numpy.int8(-3),
        numpy.uint64(2**64 - 1),
        numpy.bool_(True),
        numpy.str_("x"),
        numpy.bytes_(b"y"),
        numpy.datetime64("2026-01-02"),
        numpy.datetime64("2026-01-02T03:04:05.000000007"),
        numpy.datetime64("NaT"),
        numpy.timedelta64(90, "m"),
        numpy.timedelta64(-5, "us"),
        numpy.timedelta64("NaT"),
    ]
    arrive = [1.5, 0.5, -3, 2**64 - 1, True, "x", b"y", "2026-01-02", "2026-01-02T03:04:05.000000007", None]
    arrive += [datetime.timedelta(minutes=90), datetime.timedelta(microseconds=-5), None]
    assert same(there_and_back(codec, sent), arrive)
    assert math.isnan(there_and_back(codec, numpy.float64("nan")))


@codecs
def test_what_of_numpy_can_not_travel(codec):
    numpy = pytest.importorskip("numpy")
    for value in [
        numpy.array([object()], object),
        numpy.array([1], "m8[M]"),
        numpy.timedelta64(5, "Y"),
        numpy.zeros(2, "i4,f8"),
        numpy.longdouble(1),
        numpy.zeros(1, numpy.longdouble),
        numpy.complex128(1),
        numpy.ma.masked_array([1, 2], [True, False]),
    ]:
        with pytest.raises(BadValue, match=r"^value\[0\](\[0\])?: "):
            codec.encode([value])


@codecs
def test_numpy_arrays_that_become_lists(codec):
    numpy = pytest.importorskip("numpy")
    hour = datetime.timedelta(hours=1)
    for array, arrives in [
        (numpy.array(["a", "bcd"]), ["a", "bcd"]),
        (numpy.array([["é", ""]]), [["é", ""]]),
        (numpy.array("a"), "a"),
        (numpy.array([b"a", b"bcd"]), [b"a", b"bcd"]),
        (numpy.array(["a", 1, None, MOMENT], object), ["a", 1, None, MOMENT]),
        (numpy.array(["2026-01-02"], "M8[D]"), ["2026-01-02"]),
        (numpy.array(["2026-01-02", "NaT"], "M8[s]"), ["2026-01-02T00:00:00", None]),
        (numpy.array([["2026-01-02"], ["NaT"]], "M8[ns]"), [["2026-01-02T00:00:00.000000000"], [None]]),
        (numpy.array("2026-01-02", "M8[D]"), "2026-01-02"),
        (numpy.array(["2026", "NaT"], "M8[Y]"), ["2026-01-01", None]),
        (numpy.array(["2026-02"], "M8[M]"), ["2026-02-01"]),
        (numpy.array(["2026-01-02T03"], "M8[h]"), ["2026-01-02T03:00:00"]),
        (numpy.datetime64("2026-01-02T03:04", "m"), "2026-01-02T03:04:00"),
        (numpy.array("NaT", "M8[D]"), None),
        (numpy.array([], "M8[D]"), []),
        (numpy.array([1, "NaT"], "m8[h]"), [hour, None]),
        (numpy.array([[2]], "m8[30m]"), [[hour]]),
        (numpy.array(3600, ">m8[s]"), hour),
        (numpy.array([3_600_000_000_000_000], "m8[ps]"), [hour]),
    ]:
        assert same(there_and_back(codec, {"a": array}), {"a": arrives})
    with pytest.raises(BadValue, match=r"^value: a duration of more than 292 years"):
        codec.encode(numpy.array([2**62], "m8[D]"))


@codecs
def test_pandas(codec):
    pandas = pytest.importorskip("pandas")
    ten = pandas.Timestamp("2026-01-02T03:04:05.678901234")
    for value, arrives in [
        (ten, "2026-01-02T03:04:05.678901234"),
        (pandas.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (ten.floor("us").tz_localize("UTC"), MOMENT),
        (ten.tz_localize("Europe/Berlin"), MOMENT - datetime.timedelta(hours=1)),
        (pandas.Timestamp("1969-12-31T23:59:59.999999999", tz="UTC"), EPOCH - datetime.timedelta(microseconds=1)),
        (pandas.NaT, None),
        (pandas.NA, None),
        (pandas.Timedelta("1h"), datetime.timedelta(hours=1)),
        (pandas.Timedelta(1500, "ns"), datetime.timedelta(microseconds=1)),
        (
            pandas.DataFrame({"at": [ten.floor("s"), pandas.NaT], "n": [1, 2], "s": ["a", "b"]}).to_dict("records"),
            [{"at": "2026-01-02T03:04:05", "n": 1, "s": "a"}, {"at": None, "n": 2, "s": "b"}],
        ),
        (pandas.Series(["a", "b"]).to_numpy(), ["a", "b"]),
    ]:
        assert same(there_and_back(codec, {"v": [value]}), {"v": [arrives]})
    for value, remedy in [
        (pandas.DataFrame({"a": [1]}), r'value\.to_dict\("records"\) for a list of maps'),
        (pandas.Series([1]), r"value\.to_list\(\), or value\.to_dict\(\)"),
        (pandas.Index([1]), r"value\.to_list\(\)"),
        (pandas.Period("2026-01"), r"str\(value\)"),
        (pandas.Categorical(["a"]), r"value\.tolist\(\)"),
        (pandas.Interval(0, 1), r"\[value\.left, value\.right\]"),
    ]:
        with pytest.raises(BadValue, match=r"^value\.v: a value of type \S+ can't be sent; send " + remedy):
            codec.encode({"v": value})


@codecs
def test_nanoseconds_are_sent(codec):
    pandas = pytest.importorskip("pandas")
    stamp = (678_901_230 << 34 | int(MOMENT.timestamp())).to_bytes(8, "big")
    sent = {
        pandas.Timestamp("2026-01-02T03:04:05.67890123", tz="UTC"): {
            "json": b'{"$time":"2026-01-02T03:04:05.67890123Z"}',
            "msgpack": b"\xd7\xff" + stamp,
        },
        pandas.Timedelta(1500, "ns"): {
            "json": b'{"$duration":1500}',
            "msgpack": b"\xd7\x03\0\0\0\0\0\0\5\xdc",
        },
    }
    for value, bodies in sent.items():
        assert codec.encode(value) == bodies[codec.name]


@codecs
def test_models_of_other_libraries(codec):
    attr = pytest.importorskip("attr")
    msgspec = pytest.importorskip("msgspec")

    @attr.define
    class Point:
        x: int
        when: datetime.datetime

    Pair = msgspec.defstruct("Pair", [("a", int), ("b", Point)])
    assert there_and_back(codec, Pair(1, Point(2, MOMENT))) == {"a": 1, "b": {"x": 2, "when": MOMENT}}


@codecs
@pytest.mark.parametrize("dtype", ["|O", "O", ">f8", "<f8,<f8", "(2,)f8", "|V8", "<f16", "nonsense", "<f8 "])
def test_arrays_that_numpy_must_not_make(codec, dtype, monkeypatch):
    pytest.importorskip("numpy")
    body = codec.encode(Array(dtype, [2], bytes(32)))
    with pytest.raises(BadValue, match="dtype"):
        codec.decode(body)


@codecs
def test_pydantic(codec):
    pydantic = pytest.importorskip("pydantic")

    class Part(pydantic.BaseModel):
        when: datetime.datetime
        colour: Colour

    class Model(pydantic.BaseModel):
        parts: typing.List[Part]
        note: str = "n"

    model = Model(parts=[Part(when=MOMENT, colour=Colour.RED)])
    assert there_and_back(codec, {"m": model}) == {"m": {"parts": [{"when": MOMENT, "colour": "red"}], "note": "n"}}
    naive = Model(parts=[Part(when=NAIVE, colour=Colour.RED)])
    assert there_and_back(codec, naive)["parts"] == [{"when": "2026-01-02T00:00:00", "colour": "red"}]


@codecs
@pytest.mark.parametrize(
    "module, name, remedy",
    [
        ("pyarrow", "Table", r"value\.to_pylist\(\) for a list of maps, or value\.to_pydict\(\) for a map of columns"),
        ("pyarrow", "RecordBatch", r"value\.to_pylist\(\) for a list of maps"),
        ("pyarrow", "Array", r"value\.to_pylist\(\)"),
        ("pyarrow", "ChunkedArray", r"value\.to_pylist\(\)"),
        ("pyarrow", "Scalar", r"value\.as_py\(\)"),
        ("polars", "DataFrame", r"value\.to_dicts\(\) for a list of maps"),
        ("polars", "LazyFrame", r"value\.collect\(\)\.to_dicts\(\)"),
        ("polars", "Series", r"value\.to_list\(\)"),
        ("torch", "Tensor", r"value\.detach\(\)\.cpu\(\)\.numpy\(\)"),
        ("tensorflow", "Tensor", r"value\.numpy\(\)"),
        ("jax", "Array", r"numpy\.asarray\(value\)"),
        ("scipy.sparse", "spmatrix", r"value\.toarray\(\)"),
        ("PIL.Image", "Image", r"numpy\.asarray\(value\)"),
    ],
)
def test_remedies_for_types_of_libraries(codec, module, name, remedy, monkeypatch):
    """The libraries are not installed here, so classes stand in their places."""
    fake = types.ModuleType(module)
    monkeypatch.setattr(fake, name, type(name, (), {"__module__": module}), raising=False)
    monkeypatch.setitem(sys.modules, module, fake)
    with pytest.raises(BadValue, match=rf"^value\.v: a value of type \S+ can't be sent; send {remedy}"):
        codec.encode({"v": getattr(fake, name)()})
