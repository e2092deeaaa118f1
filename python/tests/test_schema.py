"""The schemas of commands: what each annotation becomes, and that no annotation breaks the description."""

from __future__ import annotations

import enum
import functools
import json
import sys
from collections import namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterator,
    Dict,
    Generator,
    Generic,
    Iterable,
    Iterator,
    List,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import numpy as np
import pydantic
import pydantic.v1
import pytest
from numpy.typing import NDArray
from typing_extensions import Annotated

from snakepit_bridge import Array
from snakepit_bridge._command import Command
from snakepit_bridge._reduction import reduced
from snakepit_bridge._schema import NEVER, schemas

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    """What it looks like."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Price(enum.Enum):
    CHEAP = Decimal("1.5")
    PAIR = (1, 2)


class Odd(enum.Enum):
    THING = object()


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Item:
    """A thing
    to sell.
    """

    name: str
    price: float = 1.0
    color: Color = Color.RED
    tags: List[str] = field(default_factory=list)
    note: str = None


@dataclass
class Scaled:
    value: int
    scale: InitVar[int] = 1
    done: bool = field(init=False, default=False)


@dataclass
class Holder:
    scaled: Scaled


@dataclass
class Node:
    value: int
    children: List[Node] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    content: T


@dataclass(init=False)
class Own:
    value: int


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Greeter:
    """Not a model."""


class Part(pydantic.BaseModel):
    size: int = pydantic.Field(alias="Size")


class Order(pydantic.BaseModel):
    """An order."""

    model_config = {"arbitrary_types_allowed": True}
    key: int
    data: bytes = b""
    wait: timedelta = timedelta(1)
    price: Decimal = Decimal(1)
    odd: Optional[Greeter] = None
    due: Optional[datetime] = None
    parts: List[Part] = []


class Simple(pydantic.BaseModel):
    a: int
    b: float = 0.5


class OldPart(pydantic.v1.BaseModel):
    size: int = pydantic.v1.Field(alias="Size")


class Old(pydantic.v1.BaseModel):
    data: bytes
    wait: timedelta
    part: OldPart = None


class Movie(TypedDict, total=False):
    title: str


Plain = namedtuple("Plain", "a b")
Json = Union[None, bool, List["Json"], Dict[str, "Json"]]


class Hostile:
    def __getattr__(self, name):
        raise LookupError(name)

    def __hash__(self):
        raise LookupError("hash")

    def __eq__(self, other):
        raise LookupError("eq")

    def __repr__(self):
        raise LookupError("repr")


def described(function, stream=None):
    command = Command("f", function)
    assert stream is None or command.stream == stream
    found = schemas([command])[0]
    assert json.loads(json.dumps(found)) == found
    return found


def of_result(annotation):
    def f(): ...

    f.__annotations__ = {"return": annotation}
    found = described(f, stream=False)
    assert found["arguments"]["properties"] == {}
    return found["result"], found.get("$defs", {})


def of_argument(annotation):
    def f(x): ...

    f.__annotations__ = {"x": annotation}
    found = described(f)
    assert found["arguments"]["required"] == ["x"]
    assert found["arguments"]["additionalProperties"] is False
    return found["arguments"]["properties"]["x"], found.get("$defs", {})


INTEGER, NUMBER, TEXT, NULL = {"type": "integer"}, {"type": "number"}, {"type": "string"}, {"type": "null"}
BINARY = {"type": "string", "contentEncoding": "base64"}
INTEGERS = {"type": "array", "items": INTEGER}


def pair(*items):
    return {"type": "array", "prefixItems": list(items), "minItems": len(items), "maxItems": len(items)}


TABLE = [
    (int, INTEGER),
    (float, NUMBER),
    (bool, {"type": "boolean"}),
    (str, TEXT),
    (None, NULL),
    (bytes, BINARY),
    (bytearray, BINARY),
    (memoryview, BINARY),
    (Any, {}),
    (object, {}),
    (T, {}),
    (list, {"type": "array"}),
    (List, {"type": "array"}),
    (List[int], INTEGERS),
    (Set[int], INTEGERS),
    (Sequence[int], INTEGERS),
    (Iterable[int], INTEGERS),
    (Tuple[int, ...], INTEGERS),
    (tuple, {"type": "array"}),
    (Tuple[int, str], pair(INTEGER, TEXT)),
    (Tuple[()], pair()),
    (dict, {"type": "object", "additionalProperties": True}),
    (Dict[str, Any], {"type": "object", "additionalProperties": True}),
    (Dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
    (Dict[int, List[int]], {"type": "object", "additionalProperties": INTEGERS}),
    (Optional[int], {"anyOf": [INTEGER, NULL]}),
    (Union[int, str, None], {"anyOf": [INTEGER, TEXT, NULL]}),
    (Union[List[int], Set[int]], INTEGERS),
    (Optional[Any], {}),
    (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
    (Literal[1, "a", None], {"enum": [1, "a", None]}),
    (Literal[Color.RED], {"type": "string", "enum": ["red"]}),
    (Literal[b"x"], {}),
    (datetime, {"type": "string", "format": "date-time"}),
    (date, {"type": "string", "format": "date"}),
    (time, {"type": "string", "format": "time"}),
    (timedelta, {"type": "number", "format": "duration"}),
    (UUID, {"type": "string", "format": "uuid"}),
    (Decimal, {"type": "string", "format": "decimal"}),
    (Fraction, {"type": "string", "format": "fraction"}),
    (Path, {"type": "string", "format": "path"}),
    (np.ndarray, {"x-snakepit": "array"}),
    (NDArray[np.float32], {"x-snakepit": "array", "dtype": "float32"}),
    (NDArray[Any], {"x-snakepit": "array"}),
    (Array, {"x-snakepit": "array"}),
    (np.int8, INTEGER),
    (np.float32, NUMBER),
    (np.bool_, {"type": "boolean"}),
    (np.str_, TEXT),
    (UserId, INTEGER),
    (Annotated[int, "a note", []], INTEGER),
    ("list[int]", INTEGERS),
    ("int | None", {"anyOf": [INTEGER, NULL]}),
    ("no such name", {}),
    ("1 / 0", {}),
    (5, {}),
    (Json, {}),
    (Odd, {"$ref": "#/$defs/Odd"}),
    (Hostile, {}),
    (Hostile(), {}),
]


@pytest.mark.parametrize("annotation,schema", TABLE, ids=map(repr, range(len(TABLE))))
def test_both_directions(annotation, schema):
    assert of_argument(annotation)[0] == schema
    assert of_result(annotation)[0] == schema


COLOR = {
    "title": "Color",
    "description": "What it looks like.",
    "type": "string",
    "enum": ["red", "blue"],
    "x-enum-varnames": ["RED", "BLUE"],
}
ITEM = {
    "title": "Item",
    "description": "A thing\nto sell.",
    "type": "object",
    "properties": {
        "name": TEXT,
        "price": {"type": "number", "default": 1.0},
        "color": {"$ref": "#/$defs/Color", "default": "red"},
        "tags": {"type": "array", "items": TEXT},
        "note": {"anyOf": [TEXT, NULL], "default": None},
    },
    "required": ["name"],
    "additionalProperties": False,
}
NODE = {
    "title": "Node",
    "type": "object",
    "properties": {"value": INTEGER, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
    "required": ["value"],
    "additionalProperties": False,
}
POINT = {
    "title": "Point",
    "type": "array",
    "prefixItems": [{"type": "integer", "title": "x"}, {"type": "number", "default": 0.0, "title": "y"}],
    "minItems": 1,
    "maxItems": 2,
}
MOVIE = {"title": "Movie", "type": "object", "properties": {"title": TEXT}, "required": []}
BOX = {
    "title": "Box",
    "type": "object",
    "properties": {"content": INTEGER},
    "required": ["content"],
    "additionalProperties": False,
}

DEFINITIONS = [
    (Color, {"Color": COLOR}),
    (Level, {"Level": {"title": "Level", "type": "integer", "enum": [1, 2], "x-enum-varnames": ["LOW", "HIGH"]}}),
    (Price, {"Price": {"title": "Price", "enum": ["1.5", [1, 2]], "x-enum-varnames": ["CHEAP", "PAIR"]}}),
    (Odd, {"Odd": {}}),
    (Permission, {"Permission": {"title": "Permission", "type": "integer"}}),
    (Item, {"Color": COLOR, "Item": ITEM}),
    (List[Optional[Item]], {"Color": COLOR, "Item": ITEM}),
    (Node, {"Node": NODE}),
    (Point, {"Point": POINT}),
    (Plain, {"Plain": {**POINT, "title": "Plain", "prefixItems": [{"title": "a"}, {"title": "b"}], "minItems": 2}}),
    (Movie, {"Movie": MOVIE}),
    (Box[int], {"Box_int": BOX}),
    (Tuple[Box[int], Box[int]], {"Box_int": BOX}),
]


@pytest.mark.parametrize("annotation,definitions", DEFINITIONS, ids=map(repr, range(len(DEFINITIONS))))
def test_definitions(annotation, definitions):
    assert of_argument(annotation)[1] == definitions
    for name in {"Item", "Node"} & set(definitions):
        definitions = {**definitions, name: {**definitions[name], "required": list(definitions[name]["properties"])}}
    if annotation is Point:
        definitions = {"Point": {**POINT, "minItems": 2}}
    assert of_result(annotation)[1] == definitions


def test_a_result_has_what_travels():
    def f(x: Holder, y: Item) -> Holder: ...

    found = described(f)
    assert found["result"] == {"$ref": "#/$defs/HolderResult"}
    definitions = found["$defs"]
    assert sorted(definitions) == ["Color", "Holder", "HolderResult", "Item", "Scaled", "ScaledResult"]
    assert list(definitions["Scaled"]["properties"]) == ["value", "scale"]
    assert list(definitions["ScaledResult"]["properties"]) == ["value", "done"]
    assert definitions["Holder"]["properties"] == {"scaled": {"$ref": "#/$defs/Scaled"}}
    assert definitions["HolderResult"]["properties"] == {"scaled": {"$ref": "#/$defs/ScaledResult"}}
    assert definitions["ScaledResult"]["required"] == ["value", "done"]
    assert of_argument(Own)[0] == {}
    assert of_result(Own)[1]["Own"]["properties"] == {"value": INTEGER}


def named(properties, required=(), more=False):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": more}


HOSTILE = Hostile()


def by_name(ctx, a: int, b: float = 0.5, *, c: Optional[str] = None, d: Color = Color.RED, e=(1, "x"), g=HOSTILE): ...
def with_rest(a: int, *rest: str, **more: float): ...
def with_any_rest(**more): ...
def with_list(*rest: str): ...
def without(ctx): ...


SIGNATURES = [
    (
        by_name,
        named(
            {
                "a": INTEGER,
                "b": {"type": "number", "default": 0.5},
                "c": {"anyOf": [TEXT, NULL], "default": None},
                "d": {"$ref": "#/$defs/Color", "default": "red"},
                "e": {"default": [1, "x"]},
                "g": {},
            },
            ["a"],
        ),
    ),
    (with_rest, named({"a": INTEGER}, ["a"], NUMBER)),
    (with_any_rest, named({}, more=True)),
    (with_list, {"anyOf": [TEXT, NULL]}),
    (without, named({})),
    (functools.partial(with_rest, a=5), named({"a": {"type": "integer", "default": 5}}, [], NUMBER)),
    ("def f(a: int, /): ...", INTEGER),
    ("def f(a: int = 5, /): ...", {"anyOf": [{"type": "integer", "default": 5}, NULL]}),
    ("def f(a: int, /, b: int): ...", NEVER),
    ("def f(a: int, b: int, /): ...", NEVER),
    ("def f(a: int, b: int = 0, /, c: int = 0): ...", INTEGER),
    ("def f(a: int = 5, /, *, b: str): ...", {"anyOf": [{"type": "integer", "default": 5}, named({"b": TEXT}, ["b"])]}),
    (len, None),
    (dict.fromkeys, None),
    (print, None),
]


@pytest.mark.parametrize("function,schema", SIGNATURES, ids=map(repr, range(len(SIGNATURES))))
def test_signatures(function, schema):
    if isinstance(function, str):
        names: Dict[str, Any] = {}
        exec(function, names)
        function = names["f"]
    found = described(function)
    if schema is not None:
        assert found["arguments"] == schema
    assert found["result"] == {}


def test_wrapped_functions_and_methods():
    class Model:
        def predict(self, x: Inner) -> Inner: ...

        Inner = int

    assert described(Model().predict) == {"arguments": named({"x": INTEGER}, ["x"]), "result": INTEGER}

    def wrapper(*args, **kwargs): ...

    functools.update_wrapper(wrapper, with_rest)
    assert described(wrapper)["arguments"] == named({"a": INTEGER}, ["a"], NUMBER)


STREAMS = [
    (Iterator[int], INTEGER, {}),
    (Iterable[int], INTEGER, {}),
    (Generator[int, None, str], INTEGER, TEXT),
    (Generator[List[int], None, None], INTEGERS, NULL),
    ("typing.Generator[Item, None, dict[str, int]]", {}, {}),  # the module typing is not a name here
    (
        "Generator[Item, None, dict[str, int]]",
        {"$ref": "#/$defs/Item"},
        {"type": "object", "additionalProperties": INTEGER},
    ),
    (Annotated[Iterator[int], "a note"], INTEGER, {}),
    (Iterator, {}, {}),
    (int, {}, {}),
    ("no such name", {}, {}),
    (Hostile(), {}, {}),
    (Generator["1 / 0", None, int], {}, INTEGER),
]


@pytest.mark.parametrize("annotation,items,result", STREAMS, ids=map(repr, range(len(STREAMS))))
def test_streams(annotation, items, result):
    def f():
        yield 1

    f.__annotations__ = {"return": annotation}
    found = described(f, stream=True)
    assert (found["items"], found["result"]) == (items, result)


@pytest.mark.parametrize("annotation", [AsyncIterator[int], AsyncGenerator[int, None]])
def test_async_streams(annotation):
    async def f():
        yield 1

    f.__annotations__ = {"return": annotation}
    found = described(f, stream=True)
    assert (found["items"], found["result"]) == (INTEGER, NULL)
    del f.__annotations__["return"]
    found = described(f)
    assert (found["items"], found["result"]) == ({}, {})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement type X = ... came with Python 3.12")
def test_type_aliases():
    names: Dict[str, Any] = {}
    exec("type Tree = list[Tree | int]\ntype Name = str", names)
    schema, definitions = of_argument(names["Tree"])
    assert schema == {"$ref": "#/$defs/Tree"}
    assert definitions == {"Tree": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Tree"}, INTEGER]}}}
    assert of_result(names["Name"])[1] == {"Name": TEXT}


def test_equal_names_of_two_classes():
    def make(type_):
        @dataclass
        class Same:
            value: type_

        return Same

    first, second = make(int), make(str)

    def f(a, b): ...
    def g(a): ...

    f.__annotations__ = {"a": first, "b": second}
    g.__annotations__ = {"a": second, "return": first}
    in_f, in_g = schemas([Command("f", f), Command("g", g)])
    assert sorted(in_f["$defs"]) == ["Same", "Same2"]
    assert in_g["arguments"]["properties"]["a"] == {"$ref": "#/$defs/Same2"}
    assert in_g["result"] == {"$ref": "#/$defs/Same"}
    assert in_g["$defs"] == in_f["$defs"]


def test_a_signature_of_the_program_may_raise():
    class Callable_:
        @property
        def __signature__(self):
            raise LookupError("no")

        def __call__(self): ...

    command = Command("f", by_name)
    command.function = Callable_()
    assert schemas([command]) == [{"arguments": {}, "result": {}}]


def test_descriptions_are_bounded():
    deep: Any = int
    for _ in range(100):
        deep = List[deep]
    assert of_argument(deep)[0] == {}
    fields = {f"f{i}": int for i in range(21_000)}
    large = TypedDict("large", fields)  # type: ignore[operator]
    _, definitions = of_argument(large)
    assert {} in definitions["large"]["properties"].values()
    many = enum.Enum("many", [f"m{i}" for i in range(600)])
    assert of_argument(many)[1] == {"many": {}}
    Item.__doc__, kept = "x" * 100_000, Item.__doc__
    try:
        assert len(of_argument(Item)[1]["Item"]["description"]) == 4_000
    finally:
        Item.__doc__ = kept


def test_attrs():
    attr = pytest.importorskip("attr")

    @attr.define
    class Order:
        _key: int
        price: float = attr.field(converter=float, default=1.5)
        made: int = attr.field(init=False, default=0)
        tags: list = attr.field(factory=list)

    def f(x) -> Any: ...

    f.__annotations__ = {"x": Order, "return": Order}
    definitions = described(f)["$defs"]
    assert definitions["Order"]["properties"] == {"key": INTEGER, "price": {"default": 1.5}, "tags": {"type": "array"}}
    assert definitions["Order"]["required"] == ["key"]
    assert definitions["OrderResult"]["properties"] == {
        "_key": INTEGER,
        "price": {"type": "number", "default": 1.5},
        "made": {"type": "integer", "default": 0},
        "tags": {"type": "array"},
    }


def test_msgspec():
    msgspec = pytest.importorskip("msgspec")

    class Job(msgspec.Struct, rename="camel"):
        """An order."""

        order_id: int
        data: bytes = b""
        wait: Optional[timedelta] = None
        next_: Optional[Item] = None

    Job.__annotations__["next_"] = Optional[Item]

    def f(x) -> Any: ...

    f.__annotations__ = {"x": List[Job], "return": Job}
    found = described(f)
    assert found["arguments"]["properties"]["x"] == {"type": "array", "items": {"$ref": "#/$defs/Job"}}
    taken, sent = found["$defs"]["Job"], found["$defs"]["JobResult"]
    assert taken["description"] == "An order."
    assert taken["properties"]["orderId"] == INTEGER
    assert taken["properties"]["data"]["contentEncoding"] == "base64"
    assert taken["properties"]["wait"]["anyOf"][0] == {"type": "number", "format": "duration"}
    assert list(sent["properties"]) == ["order_id", "data", "wait", "next_"]
    assert sent["properties"]["order_id"] == INTEGER
    assert taken["required"] == ["orderId"]
    assert sent["required"] == ["order_id", "data", "wait", "next_"]
    limited = of_argument(Annotated[int, msgspec.Meta(ge=0)])[0]
    assert limited == {"type": "integer", "minimum": 0}


def test_pydantic():
    def f(x, y) -> Any: ...

    f.__annotations__ = {"x": Order, "y": Simple, "return": Tuple[Order, Simple]}
    found = described(f)
    assert sorted(found["$defs"]) == ["Order", "OrderResult", "Part", "PartResult", "Simple"]
    order = found["$defs"]["Order"]
    assert order["description"] == "An order."
    assert order["required"] == ["key"]
    assert order["properties"]["key"] == INTEGER
    assert order["properties"]["data"]["contentEncoding"] == "base64"
    assert order["properties"]["wait"] == {"type": "number", "format": "duration"}
    assert order["properties"]["price"]["format"] == "decimal"
    assert order["properties"]["due"]["anyOf"] == [{"type": "string", "format": "date-time"}, NULL]
    assert order["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    assert list(found["$defs"]["Part"]["properties"]) == ["Size"]
    assert list(found["$defs"]["PartResult"]["properties"]) == ["size"]
    assert found["$defs"]["OrderResult"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/PartResult"}
    assert found["$defs"]["OrderResult"]["required"] == list(order["properties"])
    assert found["$defs"]["Simple"]["required"] == ["a"]  # it is also an argument
    assert of_result(Simple)[1]["Simple"]["required"] == ["a", "b"]
    assert of_argument(Annotated[int, pydantic.Field(ge=0)])[0] == {"type": "integer", "minimum": 0}


def test_a_dataclass_of_pydantic_is_sent_by_its_fields():
    @pydantic.dataclasses.dataclass
    class Square:
        side: int
        name: str = pydantic.Field(default="", validation_alias="Name")

        @pydantic.field_serializer("side")
        def text(self, side: int) -> str:
            return str(side)

        @pydantic.computed_field
        @property
        def area(self) -> int:
            return self.side**2

    definitions = of_result(Square)[1]
    (definition,) = definitions.values()
    assert list(definition["properties"]) == ["side", "name"] == list(reduced(Square(3)))
    assert definition["properties"]["side"] == {"type": "integer"}
    assert definition["required"] == ["side", "name"]


def test_pydantic_1():
    definitions = of_argument(Old)[1]
    assert definitions["Old"]["properties"]["data"] == BINARY
    assert definitions["Old"]["properties"]["wait"]["format"] == "duration"
    assert list(definitions["OldPart"]["properties"]) == ["Size"]
    assert list(of_result(Old)[1]["OldPart"]["properties"]) == ["size"]
