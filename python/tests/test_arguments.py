"""Arguments by their annotations: what each annotation accepts, what the handler gets, and what is refused."""

from __future__ import annotations

import enum
import sys
import typing
from collections import OrderedDict, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath
from typing import (
    Any,
    Callable,
    ClassVar,
    Collection,
    Dict,
    Final,
    FrozenSet,
    Generic,
    Iterable,
    List,
    Literal,
    Mapping,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import numpy as np
import pytest
import typing_extensions
from numpy.typing import NDArray
from typing_extensions import Annotated, NotRequired, Required

from snakepit_bridge import Array
from snakepit_bridge._answers import BadArguments
from snakepit_bridge._arguments import prepare
from snakepit_bridge._command import Command

T = TypeVar("T")
UserId = NewType("UserId", int)
UTC = timezone.utc


@dataclass
class Hashless:
    name: str

    def __hash__(self):
        raise ValueError("it has no hash")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Price(enum.Enum):
    CHEAP = Decimal("1.5")
    PAIR = (1, 2)


class OddText(str):
    def __eq__(self, other):
        raise KeyError("compared")

    __hash__ = str.__hash__


class OddOne(enum.Enum):
    TEXT = OddText("x")


class ArrayOne(enum.Enum):
    ARRAY = np.array([1, 2])


class LevelOne(enum.Enum):
    HIGH = Level.HIGH


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Loose(enum.Enum):
    ONE = 1

    @classmethod
    def _missing_(cls, value):
        if value == "boom":
            raise LookupError("no such thing")
        return cls.ONE if value == "uno" else None


@dataclass
class Item:
    name: str
    price: float = 1.0
    tags: List[str] = field(default_factory=list)
    note: str = None
    kind: ClassVar[int] = 5
    scale: InitVar[int] = 1

    def __post_init__(self, scale):
        self.price *= scale
        if self.price < 0:
            raise ValueError("the price must not be negative")
        if self.name == "lookup":
            raise LookupError("no such item")


@dataclass
class Node:
    value: int
    children: List[Node] = field(default_factory=list)
    parent: Optional[Node] = None


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Pair(Generic[T]):
    value: T
    left: Optional[Pair[T]] = None
    right: Optional[Pair[T]] = None


@dataclass
class Endless(Generic[T]):
    value: int
    left: List[Endless[Annotated[int, []]]] = ()
    right: List[Endless[Annotated[int, []]]] = ()


ASKED: List[str] = []


@dataclass
class Left:
    child: Union[Left, Right, None] = None
    kind: Literal["left"] = "left"

    def __post_init__(self):
        ASKED.append("left")


@dataclass
class Right:
    child: Union[Left, Right, None] = None
    kind: Literal["left", "right"] = "right"

    def __post_init__(self):
        ASKED.append("right")


@dataclass(init=False)
class Own:
    value: int


@dataclass
class Child(Item):
    size: int = 0


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Partial(TypedDict, total=False):
    title: Required[str]
    year: int


class Base(TypedDict):
    name: str


class Derived(Base, total=False):
    age: int


class Greeter(Protocol):
    def greet(self) -> str: ...


class Text(str):
    pass


Plain = namedtuple("Plain", "a b")

Rows = List[Union[int, "Rows"]]
Json = Union[None, bool, int, float, str, List["Json"], Dict[str, "Json"]]


def converted(annotation, value, by_place=False):
    """Returns what the handler gets for one argument."""

    def f(x): ...

    f.__annotations__ = {"x": annotation}
    command = Command("f", f)
    if command.checked:
        prepare(command)
    kwargs = {} if by_place else {"x": value}
    args = (value,) if by_place else ()
    if command.convert is not None:
        args = command.convert(args, kwargs)
    return args[0] if by_place else kwargs["x"]


def refusal(annotation, value):
    with pytest.raises(BadArguments) as caught:
        converted(annotation, value)
    return str(caught.value)


ORDER = {"name": "tea", "price": 2}
BIG = 2**70
LATE = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

ACCEPTED = [
    # annotation, sent, got
    (int, 5, 5),
    (int, 3.0, 3),
    (int, BIG, BIG),
    (float, 5, 5.0),
    (float, 5.5, 5.5),
    (float, float("inf"), float("inf")),
    (bool, True, True),
    (str, "x", "x"),
    (bytes, b"x", b"x"),
    (bytearray, b"x", bytearray(b"x")),
    (memoryview, b"x", memoryview(b"x")),
    (None, None, None),
    (Any, b"x", b"x"),
    (object, [1], [1]),
    (T, "x", "x"),
    (list, [1, "x"], [1, "x"]),
    (List, [1, "x"], [1, "x"]),
    (List[int], [1, 2.0], [1, 2]),
    (List[float], [1, 2.5], [1.0, 2.5]),
    (List[List[float]], [[1], []], [[1.0], []]),
    (Sequence[date], ["2026-01-02"], [date(2026, 1, 2)]),
    (Iterable[int], [1.0], [1]),
    (Collection[str], ["x"], ["x"]),
    (Set[int], [1, 2.0, 2], {1, 2}),
    (set, ["x"], {"x"}),
    (FrozenSet[int], [1], frozenset({1})),
    (tuple, [1, "x"], (1, "x")),
    (Tuple, [1, "x"], (1, "x")),
    (Tuple[int, str], [1.0, "x"], (1, "x")),
    (Tuple[float, ...], [1, 2], (1.0, 2.0)),
    (Tuple[()], [], ()),
    (dict, {"a": 1}, {"a": 1}),
    (Dict[str, float], {"a": 1}, {"a": 1.0}),
    (Dict[int, str], {"1": "x", "-2": "y"}, {1: "x", -2: "y"}),
    (Dict[float, int], {"1.5": 1}, {1.5: 1}),
    (Dict[bool, int], {"true": 1, "false": 0}, {True: 1, False: 0}),
    (Dict[Level, int], {"2": 1}, {Level.HIGH: 1}),
    (Dict[Color, int], {"red": 1}, {Color.RED: 1}),
    (Dict[date, int], {"2026-01-02": 1}, {date(2026, 1, 2): 1}),
    (Dict[Union[int, str], int], {"1": 1}, {"1": 1}),
    (Dict[Literal[1, "x"], int], {"1": 1, "x": 2}, {1: 1, "x": 2}),
    (Mapping[str, int], {"a": 1.0}, {"a": 1}),
    (Optional[int], None, None),
    (Optional[int], 3.0, 3),
    (Optional[Item], None, None),
    (Union[int, str], "5", "5"),
    (Union[int, float], 3.0, 3.0),
    (Union[float, int], 3, 3),
    (Union[int, date], "2026-01-02", date(2026, 1, 2)),
    (Union[date, str], "2026-01-02", "2026-01-02"),
    (Union[int, Any], "x", "x"),
    (Union[List[int], List[str]], ["x"], ["x"]),
    (Union[Item, Point], {"x": 1}, Point(1, 0.0)),
    (Json, {"a": [1, None, {"b": 2.5}]}, {"a": [1, None, {"b": 2.5}]}),
    (Rows, [1, [2.0, []]], [1, [2, []]]),
    (Literal["a", 1], "a", "a"),
    (Literal["a", 1], 1.0, 1),
    (Literal[Color.RED], "red", Color.RED),
    (Color, "red", Color.RED),
    (Level, 2, Level.HIGH),
    (Level, 2.0, Level.HIGH),
    (Price, "1.5", Price.CHEAP),
    (Price, [1, 2], Price.PAIR),
    (LevelOne, 2, LevelOne.HIGH),
    (Permission, 3, Permission.READ | Permission.WRITE),
    (Loose, "uno", Loose.ONE),
    (list, None, []),
    (List[int], None, []),
    (Sequence[str], None, []),
    (Set[int], None, set()),
    (Tuple[int, ...], None, ()),
    (Dict[str, int], None, {}),
    (Optional[List[int]], None, None),
    (datetime, LATE, LATE),
    (datetime, "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
    (datetime, "2026-01-02T03:04:05.678901234Z", LATE),
    (datetime, "2026-01-02 03:04", datetime(2026, 1, 2, 3, 4)),
    (datetime, "2026-01-02", datetime(2026, 1, 2)),
    (datetime, "2026-01-02T03:04:05.6+01:30", LATE.replace(microsecond=600000, tzinfo=timezone(timedelta(hours=1.5)))),
    (datetime, "2026-01-02T03:04:05-0100", LATE.replace(microsecond=0, tzinfo=timezone(timedelta(hours=-1)))),
    (date, "2026-01-02", date(2026, 1, 2)),
    (date, datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)),
    (date, "2026-01-02T00:00:00Z", date(2026, 1, 2)),
    (time, "03:04", time(3, 4)),
    (time, "03:04:05.5", time(3, 4, 5, 500000)),
    (time, "03:04:05Z", time(3, 4, 5, tzinfo=UTC)),
    (timedelta, 90, timedelta(seconds=90)),
    (timedelta, 0.5, timedelta(milliseconds=500)),
    (timedelta, timedelta(1), timedelta(1)),
    (UUID, "12345678-1234-5678-1234-567812345678", UUID(int=0x12345678123456781234567812345678)),
    (Path, "a/b", Path("a/b")),
    (PurePath, "a/b", PurePath("a/b")),
    (PurePosixPath, "a/b", PurePosixPath("a/b")),
    (Decimal, "9.99", Decimal("9.99")),
    (Decimal, 0.1, Decimal("0.1")),
    (Decimal, 5, Decimal(5)),
    (Fraction, "999/100", Fraction(999, 100)),
    (Fraction, 0.1, Fraction(1, 10)),
    (Fraction, 5, Fraction(5)),
    (Movie, {"title": "x", "year": 1.0}, {"title": "x", "year": 1}),
    (Movie, {"title": "x", "more": "stays"}, {"title": "x", "more": "stays"}),
    (Partial, {"title": "x"}, {"title": "x"}),
    (Derived, {"name": "x", "age": 5.0}, {"name": "x", "age": 5}),
    (Point, [1.0, 2], Point(1, 2.0)),
    (Point, [1], Point(1)),
    (Point, {"x": 1, "y": 2}, Point(1, 2.0)),
    (Plain, [1, "x"], Plain(1, "x")),
    (Item, {"name": "tea"}, Item("tea")),
    (Item, {**ORDER, "scale": 3.0, "note": None}, Item("tea", 6.0)),
    (Child, {**ORDER, "size": 1.0}, Child("tea", 2.0, size=1)),
    (List[Item], [ORDER], [Item("tea", 2.0)]),
    (Node, {"value": 1, "children": [{"value": 2.0}], "parent": None}, Node(1, [Node(2)])),
    (Box[int], {"content": 3.0}, Box(3)),
    (Box[List["Item"]], {"content": [ORDER]}, Box([Item("tea", 2.0)])),
    (Box, {"content": 3.0}, Box(3.0)),
    (Annotated[int, "a note", []], 3.0, 3),
    (Box[Annotated[int, "a note", []]], {"content": 3.0}, Box(3)),
    (Pair[Annotated[int, []]], {"value": 3.0, "left": {"value": 2.0}}, Pair(3, Pair(2))),
    (UserId, 3.0, 3),
    (Final[int], 3.0, 3),
    # These demand nothing.
    (Endless[str], {"value": "x"}, {"value": "x"}),  # each evaluation of its text makes another class
    (Own, {"value": "x"}, {"value": "x"}),
    (Greeter, {"value": "x"}, {"value": "x"}),
    (Callable[[int], int], "x", "x"),
    (Text, 5, 5),
    (OrderedDict, {"a": 1}, {"a": 1}),
    ("no such name", 5, 5),
    ("Nowhere", 5, 5),
    (5, "x", "x"),
    (typing_extensions.Literal["a"], "a", "a"),
    # Text, which older Pythons can't evaluate as it is.
    ("list[int]", [3.0], [3]),
    ("int | None", 3.0, 3),
    ("dict[str, list[Item | None]]", {"a": [ORDER, None]}, {"a": [Item("tea", 2.0), None]}),
    ("tuple[int, ...]", [1.0], (1,)),
    ("typing.Sequence[int] | set[str]", [1], [1]),
    ("'int'", 3.0, 3),
]


def same(value, other):
    if isinstance(value, (list, tuple)):
        return type(value) is type(other) and len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, dict):
        return value == other and [*map(type, value.values())] == [*map(type, other.values())]
    return type(value) is type(other) and value == other


@pytest.mark.parametrize("annotation,sent,got", ACCEPTED, ids=map(repr, range(len(ACCEPTED))))
def test_what_the_handler_gets(annotation, sent, got):
    assert same(converted(annotation, sent), got)
    assert same(converted(annotation, sent, by_place=True), got)
    if annotation is not None and not isinstance(annotation, (str, int)) and "Final" not in repr(annotation):
        assert same(converted(List[annotation], [sent])[0], got)


REFUSED = [
    # annotation, sent, the message
    (int, 1.5, "x: expected an integer, got 1.5"),
    (int, True, "x: expected an integer, got True"),
    (int, "5", "x: expected an integer, got '5'"),
    (int, None, "x: expected an integer, got None"),
    (int, float("nan"), "x: expected an integer, got nan"),
    (float, "5", "x: expected a number, got '5'"),
    (float, True, "x: expected a number, got True"),
    (float, 10**400, "x: an integer of 1329 bits is too large for a float"),
    (str, 2**128 - 1, "x: expected text, got 340282366920938463463374607431768211455"),
    (str, 2**128, "x: expected text, got an integer of 129 bits"),
    (str, -(10**5000), "x: expected text, got an integer of 16610 bits"),
    (bool, 1, "x: expected true or false, got 1"),
    (str, 5, "x: expected text, got 5"),
    (str, b"abc", "x: expected text, got 3 bytes"),
    (bytes, "x", "x: expected bytes, got 'x'"),
    (bytearray, "x", "x: expected bytes, got 'x'"),
    (None, 0, "x: expected None, got 0"),
    (list, {"a": 1}, "x: expected a list, got a map"),
    (List[int], [1, "x"], "x[1]: expected an integer, got 'x'"),
    (List[int], "12", "x: expected a list, got '12'"),
    (Sequence[str], "ab", "x: expected a list, got 'ab'"),
    (List[List[int]], [[], [1, None]], "x[1][1]: expected an integer, got None"),
    (Set[Any], [[1]], "x: a list or map can't be an element of a set"),
    (Set[Hashless], [{"name": "a"}], "x: it has no hash"),
    (FrozenSet[Tuple[Any, ...]], [[[1]]], "x: unhashable type: 'list'"),
    (Tuple[int, str], [1], "x: expected a list of 2, got one of 1"),
    (Tuple[int, str], [1, 2], "x[1]: expected text, got 2"),
    (Tuple[()], [1], "x: expected a list of 0, got one of 1"),
    (dict, [1], "x: expected a map, got a list"),
    (Dict[str, int], {"a b": "x"}, "x['a b']: expected an integer, got 'x'"),
    (Dict[str, int], {"a": {}}, "x.a: expected an integer, got a map"),
    (Dict[int, int], {"one": 1}, "x: the key 'one': expected an integer, got 'one'"),
    (Dict[int, int], {"1_0": 1}, "x: the key '1_0': expected an integer, got '1_0'"),
    (Dict[int, int], {"1": 1, "01": 1}, "x: the key '01': there are two such keys"),
    (Dict[List[int], int], {"1": 1}, "x: the key '1': expected a list, got '1'"),
    (Optional[int], "x", "x: expected an integer, got 'x'"),
    (Union[int, str, None], [], "x: expected an integer, text or None, got a list"),
    (Union[int, Item], {"price": 1}, "x: missing field 'name'"),
    (Union[int, Item, Point], {"name": "x", "price": "y"}, "x.price: expected a number, got 'y'"),
    (
        Json,
        {"a": [1, {"b": b"x"}]},
        "x.a[1].b: expected None, true or false, an integer, a number, text, a list or a map",
    ),
    (
        "Json",
        {"a": [1, {"b": b"x"}]},
        "x.a[1].b: expected None, true or false, an integer, a number, text, a list or a",
    ),
    (Rows, [1, [2.0, ["x"]]], "x[1][1][0]: expected an integer or a list, got 'x'"),
    (Literal["a", 1], "b", "x: expected one of 'a', 1, got 'b'"),
    (Literal[1], True, "x: expected 1, got True"),
    (Literal["a"], [], "x: expected 'a', got a list"),
    (Literal[Color.RED], "blue", "x: expected 'red', got 'blue'"),
    (Price, "2.5", "x: expected one of Decimal('1.5'), (1, 2), got '2.5'"),
    (Color, "green", "x: expected one of 'red', 'blue', got 'green'"),
    (Color, [], "x: expected one of 'red', 'blue', got a list"),
    (ArrayOne, [1, 2], "x: expected one of array([1, 2]), got a list"),
    (ArrayOne, "y", "x: expected one of array([1, 2]), got 'y'"),
    (OddOne, "y", "x: expected one of 'x', got 'y'"),
    (Level, True, "x: expected one of 1, 2, got True"),
    (Loose, "boom", "x: LookupError: no such thing"),
    (datetime, "x", "x: expected a datetime, or one as text in ISO form, got 'x'"),
    (datetime, 5, "x: expected a datetime, or one as text in ISO form, got 5"),
    (datetime, "2026-13-02", "x: expected a datetime, or one as text in ISO form, got '2026-13-02'"),
    (date, LATE, "x: expected a date without a time, got the time 2026-01-02 03:04:05.678901+00:00"),
    (date, "2026-01-02T01:00", "x: expected a date without a time, got '2026-01-02T01:00'"),
    (date, 5, "x: expected a date as text in ISO form, got 5"),
    (time, "25:00", "x: expected a time of day as text in ISO form, got '25:00'"),
    (timedelta, "5", "x: expected a duration: seconds as a number, got '5'"),
    (timedelta, True, "x: expected a duration: seconds as a number, got True"),
    (timedelta, 1e300, "x: expected a duration within a million years: seconds as a number, got 1e+300"),
    (UUID, "x", "x: expected a UUID as text, got 'x'"),
    (Path, 5, "x: expected a path as text, got 5"),
    (Decimal, "x", "x: expected a number, or one as text, got 'x'"),
    (Decimal, True, "x: expected a number, or one as text, got True"),
    (Fraction, "1/0", "x: expected a fraction as text such as '3/4', or a number, got '1/0'"),
    (Fraction, "1e999999999", "x: expected a fraction as text such as '3/4', or a number, got '1e999999999'"),
    (Movie, {}, "x: missing field 'title'"),
    (Movie, {"title": 5}, "x.title: expected text, got 5"),
    (Movie, {"tittle": "x"}, "x: missing field 'title'; there is 'tittle'"),
    (Partial, {}, "x: missing field 'title'"),
    (Point, [], "x: expected a list of 1 to 2, got one of 0"),
    (Point, ["a"], "x.x: expected an integer, got 'a'"),
    (Point, {"z": 1}, "x: unexpected field 'z'; there are 'x' and 'y'"),
    (Plain, [1], "x: expected a list of 2, got one of 1"),
    (Item, [], "x: expected a map with 'name', 'price', 'tags', 'note' and 'scale', got a list"),
    (Item, {}, "x: missing field 'name'"),
    (Item, {"name": "x", "prize": 5}, "x: unexpected field 'prize'; did you mean 'price'?"),
    (Item, {"name": "x", "kind": 5}, "x: unexpected field 'kind'"),
    (Item, {"name": "x", "tags": [1]}, "x.tags[0]: expected text, got 1"),
    (Item, {"name": "x", "scale": "y"}, "x.scale: expected an integer, got 'y'"),
    (Item, {"name": "x", "price": -1}, "x: the price must not be negative"),
    (List[Item], [ORDER, {"name": "lookup"}], "x[1]: LookupError: no such item"),
    (Node, {"value": 1, "children": [{"value": "y"}]}, "x.children[0].value: expected an integer, got 'y'"),
    (Box[int], {"content": "x"}, "x.content: expected an integer, got 'x'"),
    (Annotated[int, "a note"], "y", "x: expected an integer, got 'y'"),
    (UserId, "y", "x: expected an integer, got 'y'"),
    ("list[int]", ["y"], "x[0]: expected an integer, got 'y'"),
    ("int | None", "y", "x: expected an integer, got 'y'"),
]


@pytest.mark.parametrize("annotation,sent,message", REFUSED, ids=map(repr, range(len(REFUSED))))
def test_what_is_refused(annotation, sent, message):
    assert refusal(annotation, sent).startswith(message)


WIRE = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        BIG,
        0.0,
        1.5,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "x",
        "1",
        "1.5",
        "true",
        "red",
    ),
    *("2026-01-02", "9999-12-31T23:59:59.999999999+23:59", "03:04", "1e5", "\u0661", "x" * 300, b"", b"x", [], [[]]),
    *([1, "x"], [None], {}, {"": 1}, {"name": "x"}, {"x": {"y": []}}, {"title": None}, {"1": 1}, LATE, timedelta(1)),
    *(np.arange(3), np.array(5), np.array(["x"]), Array("<f8", [1], bytes(8))),
]


@pytest.mark.parametrize("annotation", [row[0] for row in ACCEPTED], ids=map(repr, range(len(ACCEPTED))))
def test_whatever_arrives_fits_or_is_refused(annotation):
    for value in [*WIRE, WIRE, *([one] for one in WIRE), *({"x": one} for one in WIRE), {"name": WIRE, "price": WIRE}]:
        try:
            converted(annotation, value)
        except BadArguments as exc:
            assert str(exc).startswith("x")  # noqa: PT017
            assert len(str(exc)) < 500  # noqa: PT017


def test_what_fits_is_not_copied():
    for annotation, sent in [
        (List[float], [1.5, 2.5]),
        (List[Union[int, str]], [1, "x"]),
        (List[Any], [object()]),
        (Dict[str, int], {"a": 1}),
        (List[List[int]], [[1], [2]]),
    ]:
        assert converted(annotation, sent) is sent
    sent = [1, 2.5]
    assert converted(List[float], sent) == [1.0, 2.5]
    assert sent == [1, 2.5]
    assert type(sent[0]) is int  # another member of a union may get it


@pytest.mark.parametrize(
    "kind,last,refused",
    [("left", "left", False), ("right", "right", False), ("left", "middle", True), ("right", "middle", True)],
)
def test_a_recursive_union_converts_each_value_once(kind, last, refused):
    sent: Any = {"kind": last}
    for _ in range(60):
        sent = {"child": sent, "kind": kind}
    del ASKED[:]
    if refused:
        assert refusal(Union[Left, Right], sent).endswith("kind: expected 'left', got 'middle'")
    else:
        found = converted(Union[Left, Right], sent)
        for _ in range(60):
            assert type(found) is (Left if kind == "left" else Right)
            found = found.child
        assert len(ASKED) <= 4 * 61


def test_a_value_nested_too_deeply_is_refused():
    sent: Any = {"value": 1}
    for _ in range(490):
        sent = {"value": 1, "children": [sent]}
    assert refusal(Node, sent) == "x: nested too deeply for its annotation"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="int | None is an expression from Python 3.10 on")
def test_newer_forms():
    assert converted(eval("int | None"), 3.0) == 3
    assert converted(eval("list[int | str]"), [3.0, "x"]) == [3, "x"]
    assert refusal(eval("int | str"), []) == "x: expected an integer or text, got a list"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement type X = ... came with Python 3.12")
def test_aliases():
    names: Dict[str, Any] = {}
    exec(
        "type Count = int\n"
        "type Tree = int | list[Tree]\n"
        "type Pair[T] = tuple[T, T]\n"
        "type Broken = list[Missing]\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Crate[T]:\n    content: T\n"
        "def twice(a: Broken, b: Broken, c: int): ...\n",
        names,
    )
    assert converted(names["Count"], 3.0) == 3
    assert converted(names["Tree"], [1, [2.0, [3]]]) == [1, [2, [3]]]
    assert refusal(names["Tree"], [1, ["x"]]).startswith("x[1]")
    assert converted(names["Pair"][int], [1, 2.0]) == (1, 2)
    assert refusal(names["Pair"][int], [1, "y"]) == "x[1]: expected an integer, got 'y'"
    assert converted(names["Crate"][int], {"content": 3.0}).content == 3
    command = Command("f", names["twice"])
    prepare(command)
    sent = {"a": [5], "b": [5], "c": 3.0}
    command.convert((), sent)
    assert same(sent, {"a": [5], "b": [5], "c": 3})


ARRAYS = [
    # annotation, sent, the dtype and the list that the handler gets
    (np.ndarray, [1, 2], "int64", [1, 2]),
    (np.ndarray, [[1.5], [2]], "float64", [[1.5], [2.0]]),
    (np.ndarray, np.array(["a"]), "<U1", ["a"]),
    (NDArray[np.float64], [1, 2], "float64", [1.0, 2.0]),
    (NDArray[np.float32], np.array([1.5]), "float32", [1.5]),
    (NDArray[np.uint8], [1, 255], "uint8", [1, 255]),
    (NDArray[np.float64], [], "float64", []),
    (NDArray[np.int64], [], "int64", []),
    (NDArray[np.bool_], [True], "bool", [True]),
    (NDArray[np.str_], ["ab"], "<U2", ["ab"]),
    (NDArray[Any], [1], "int64", [1]),
    (NDArray[np.floating], [1], "float64", [1.0]),
    (NDArray[np.floating], np.array([1], "f4"), "float32", [1.0]),
    (NDArray[np.integer], [1], "int64", [1]),
    (NDArray[np.int8], np.array([-128, 127]), "int8", [-128, 127]),
    (NDArray[np.int64], np.array([2**63 - 1], "u8"), "int64", [2**63 - 1]),
    (NDArray[np.int8], np.array([], "i8"), "int8", []),
    (NDArray[np.float32], [1.5, float("inf")], "float32", [1.5, float("inf")]),
]


@pytest.mark.parametrize("annotation,sent,dtype,got", ARRAYS, ids=map(repr, range(len(ARRAYS))))
def test_arrays(annotation, sent, dtype, got):
    found = converted(annotation, sent)
    assert type(found) is np.ndarray
    assert (found.dtype, found.tolist()) == (np.dtype(dtype), got)


@pytest.mark.parametrize(
    "annotation,sent,message",
    [
        (np.ndarray, 5, "x: expected an array, or a list of numbers, got 5"),
        (np.ndarray, ["a"], "x: expected a list of numbers, or lists of them that are equally long"),
        (np.ndarray, [[1], [1, 2]], "x: expected a list of numbers, or lists of them that are equally long"),
        (np.ndarray, [1, None], "x: expected a list of numbers, or lists of them that are equally long"),
        (NDArray[np.int64], [1.5], "x: expected an array of int64, got one of float64"),
        (NDArray[np.uint8], [1, 256], "x: expected numbers from 0 to 255"),
        (NDArray[np.int64], np.array([1.5]), "x: expected an array of int64, got one of float64"),
        (NDArray[np.integer], [1.5], "x: expected an array of integer, got one of float64"),
        (NDArray[np.str_], ["a", 1], "x: expected a list of text"),
        (NDArray[np.int8], np.array([1, 128]), "x: expected numbers from -128 to 127"),
        (NDArray[np.int8], np.array([-129]), "x: expected numbers from -128 to 127"),
        (NDArray[np.int64], np.array([2**63], "u8"), f"x: expected numbers from {-(2**63)} to {2**63 - 1}"),
        (NDArray[np.float32], np.array([1, 1e300]), "x: expected numbers within the range of float32"),
        (NDArray[np.float32], [1e300], "x: expected numbers within the range of float32"),
        (NDArray[np.float16], np.array([70_000]), "x: expected numbers within the range of float16"),
        (NDArray[np.complex64], np.array([1e300j]), "x: expected numbers within the range of complex64"),
        (np.float32, 1e300, "x: expected a smaller number, got 1e+300"),
        (np.float16, -70_000, "x: expected a smaller number, got -70000"),
        (np.float64, 10**400, "x: expected a smaller number, got an integer of 1329 bits"),
        (np.int8, 200, "x: expected an integer from -128 to 127, got 200"),
        (np.int8, True, "x: expected an integer, got True"),
        (np.float32, "x", "x: expected a number, got 'x'"),
        (np.bool_, 1, "x: expected true or false, got 1"),
        (np.str_, 1, "x: expected text, got 1"),
        (List[int], np.array(5), "x: expected a list, got an array"),
        (list, np.empty((1 << 22, 0)), "x: an array of shape [4194304, 0] has more than 4096 rows without elements"),
        (List[int], Array("<i8", [1], bytes(8)), "x: expected a list, got an array"),
    ],
)
def test_arrays_that_do_not_fit(annotation, sent, message):
    assert refusal(annotation, sent) == message


def test_numpy_scalars_and_lists_of_arrays():
    assert same(converted(np.int8, 5.0), np.int8(5))
    assert same(converted(np.float32, 5), np.float32(5))
    assert same(converted(np.float32, float("-inf")), np.float32("-inf"))
    assert same(converted(np.bool_, True), np.bool_(True))
    assert same(converted(np.floating, 5), 5)
    assert same(converted(np.integer, 5), 5)
    assert same(converted(np.str_, "x"), np.str_("x"))
    assert same(converted(List[List[float]], np.array([[1, 2]])), [[1.0, 2.0]])
    assert same(converted(Tuple[int, int], np.array([1, 2])), (1, 2))


def test_pydantic():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        name: str
        price: Annotated[float, pydantic.Field(gt=0)] = 1.0

        @pydantic.field_validator("name")
        @classmethod
        def check_name(cls, value):
            if value == "lookup":
                raise LookupError("no such name")
            if value == "bad":
                raise ValueError("a bad name")
            return value

    @pydantic.dataclasses.dataclass
    class Record:
        count: int

    assert converted(Model, {"name": "x", "price": "2"}) == Model(name="x", price=2.0)
    assert converted(List[Model], [{"name": "x"}]) == [Model(name="x")]
    assert refusal(List[Model], [{"name": "x", "price": -1}]) == "x[0].price: Input should be greater than 0"
    assert refusal(Model, {"price": -1}) == "x.name: Field required (and 1 more)"
    assert refusal(Model, {"name": "bad"}) == "x.name: Value error, a bad name"
    assert refusal(Model, {"name": "lookup"}) == "x: LookupError: no such name"
    assert converted(Record, {"count": "5"}) == Record(5)
    assert refusal(Record, {"count": "y"}).startswith("x.count: Input should be a valid integer")
    assert converted(Annotated[int, pydantic.Field(gt=0)], 5) == 5
    assert refusal(Annotated[int, pydantic.Field(gt=0)], 0) == "x: Input should be greater than 0"
    assert refusal(pydantic.PositiveInt, 0) == "x: Input should be greater than 0"


def test_pydantic_1():
    pydantic = pytest.importorskip("pydantic.v1")

    class Model(pydantic.BaseModel):
        name: str
        price: float = 1.0

    assert converted(Model, {"name": "x"}) == Model(name="x")
    assert refusal(List[Model], [{"name": "x", "price": "y"}]) == "x[0].price: value is not a valid float"


def test_msgspec():
    msgspec = pytest.importorskip("msgspec")

    Struct = msgspec.defstruct(
        "Struct",
        [("name", str), ("sizes", List[int], []), ("when", Optional[datetime], None)],
        namespace={"__post_init__": _refuse_lookup},
    )
    assert converted(Struct, {"name": "x", "sizes": [1], "when": LATE}) == Struct("x", [1], LATE)
    assert refusal(List[Struct], [{"name": "x", "sizes": [1, "y"]}]) == (
        "x[0].sizes[1]: Expected `int`, got `str`"
    ) or refusal(List[Struct], [{"name": "x", "sizes": [1, "y"]}]).startswith("x[0].sizes")
    assert refusal(Struct, {}) == "x: Object missing required field `name`"
    assert refusal(Struct, {"name": "lookup"}) == "x: LookupError: no such name"
    assert refusal(Annotated[int, msgspec.Meta(gt=0)], 0) == "x: Expected `int` >= 1"
    assert refusal(Annotated[float, msgspec.Meta(ge=0.5)], 0.25) == "x: Expected `float` >= 0.5"


def _refuse_lookup(self):
    if self.name == "lookup":
        raise LookupError("no such name")


def test_attrs():
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Shop:
        name: str = attrs.field(validator=attrs.validators.min_len(2))
        _size: int = 1
        items: List[Item] = attrs.field(factory=list)
        code: int = attrs.field(default=0, converter=int)
        derived: int = attrs.field(init=False, default=5)

    assert converted(Shop, {"name": "ab", "size": 2.0, "items": [ORDER], "code": "7"}) == Shop(
        "ab", 2, [Item("tea", 2.0)], 7
    )
    assert refusal(Shop, {"name": "ab", "items": [{}]}) == "x.items[0]: missing field 'name'"
    assert refusal(Shop, {"name": "ab", "derived": 1}).startswith("x: unexpected field 'derived'")
    assert refusal(Shop, {"name": "a"}).startswith("x: Length of 'name' must be >= 2")
    assert refusal(Shop, {"name": "ab", "code": "y"}).startswith("x: invalid literal for int()")


assert typing  # annotations name it
