"""A worker with a command for each kind of type, for the generated code."""

from __future__ import annotations

import enum
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, AsyncIterator, Dict, Generator, Iterator, List, Literal, NamedTuple, Optional, Tuple, Union

from snakepit_bridge import Array, Worker, command

worker = Worker()


class Color(enum.Enum):
    """What a thing looks like."""

    RED = "red"
    DARK_BLUE = "dark blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass
class Order:
    """An order of a customer, who wants one thing, or several of the same kind, at a price that was agreed before.

    It is sent back as it came.
    """

    item_id: int
    price: float = 1.5
    color: Color = Color.RED
    tags: List[str] = field(default_factory=list)
    due: Optional[date] = None


@dataclass
class Node:
    value: int
    children: List[Node] = field(default_factory=list)
    next: Optional[Node] = None


@dataclass
class Scaled:
    value: float
    scale: InitVar[float] = 1.0

    def __post_init__(self, scale: float) -> None:
        self.value *= scale


@worker.command
def ping() -> str:
    return "pong"


@worker.command
def add(a: int, b: float = 0.5, *, times: Optional[int] = None) -> float:
    """Adds two numbers.

    Args:
        a: The first number. Its description is so long that the line has to be wrapped in a comment that Go shows.
        b: The second one.
        times: How often.
    """
    return a + b * (1 if times is None else times)


@worker.command
def values(
    when: datetime,
    wait: timedelta,
    data: bytes,
    price: Decimal,
    pair: Tuple[int, str],
    table: Dict[str, List[int]],
    either: Union[int, str],
    anything: Any,
    flag: bool = False,
) -> Dict[str, Any]:
    return {"types": [type(v).__name__ for v in (when, wait, data, price, pair, table, either, anything, flag)]}


@worker.command
def sent(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


@worker.command
def noted(when: Optional[datetime] = None) -> Optional[datetime]:
    return when


@worker.command
def blob(size: int) -> bytes:
    return b"x" * size


@worker.command
def order(order: Order, orders: List[Order] = []) -> Order:  # noqa: B006
    return order


@worker.command
def node(node: Node) -> Node:
    return node


@worker.command
def scale(scaled: Scaled) -> Scaled:
    return scaled


@worker.command
def paint(color: Color, level: Level = Level.LOW, mode: Literal["fast", "slow"] = "fast") -> List[Color]:
    assert isinstance(color, Color)
    return [color] * level


@worker.command
def move(point: Point, by: Optional[Point] = None) -> Point:
    return Point(point.x + (by.x if by else 0), point.y + (by.y if by else 0))


@worker.command
def array(numbers: Array) -> Array:
    return numbers


@worker.command
def forget() -> None:
    pass


@worker.command
def count(n: int) -> Generator[Dict[str, int], None, str]:
    """Counts."""
    for i in range(n):
        yield {"i": i}
    return "done"


@worker.command
def colors() -> Iterator[Color]:
    yield from Color


@worker.command(name="later.colors")
async def later() -> AsyncIterator[Order]:
    yield Order(1)


@worker.command
def options(first: int, **more: float) -> Dict[str, float]:
    return {"first": first, **more}


@worker.command
def only_options(**more: float) -> Dict[str, float]:
    return more


@worker.command
def listed(*values: int) -> int:
    return len(values)


@worker.command
def unknown(value):
    return value


# Names that clash.


@worker.command(name="a.b")
def a_dot_b() -> int:
    return 1


@worker.command(name="a_b")
def a_b() -> int:
    return 2


@worker.command(name="type")
def type_(func: int, Func: int = 2) -> int:
    return func + Func


@dataclass
class Client:
    url: str
    http_api_id: int


@worker.command
def client(client: Client) -> Client:
    return client


@worker.service(prefix="model")
class Model:
    @command
    def predict(self, rows: List[List[float]]) -> List[float]:
        return [sum(row) for row in rows]


if __name__ == "__main__":
    worker.run()
