"""Commands whose annotations convert their arguments. Each returns the repr() of what it gets."""

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Dict, FrozenSet, List, Literal, NamedTuple, Optional, Set, Tuple, TypedDict, Union
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from snakepit_bridge import Worker

worker = Worker()


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str
    price: float
    tags: List[str] = field(default_factory=list)

    def __post_init__(self):
        if self.price < 0:
            raise ValueError("the price must not be negative")


@dataclass
class Order:
    items: List[Item]
    color: Color = Color.RED


class Point(NamedTuple):
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str
    year: int


def define(name, annotation):
    def function(x):
        return repr(x.tolist()) + str(x.dtype) if isinstance(x, np.ndarray) else repr(x)

    function.__annotations__ = {"x": annotation}
    worker.command(name)(function)


for name, annotation in {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "bytes": bytes,
    "bytearray": bytearray,
    "list": List[float],
    "set": Set[int],
    "frozenset": FrozenSet[str],
    "tuple": Tuple[int, str],
    "tuples": Tuple[float, ...],
    "dict": Dict[int, float],
    "optional": Optional[int],
    "union": Union[int, date, None],
    "literal": Literal["a", 1],
    "enum": Color,
    "datetime": datetime,
    "date": date,
    "time": time,
    "timedelta": timedelta,
    "uuid": UUID,
    "path": Path,
    "decimal": Decimal,
    "fraction": Fraction,
    "point": Point,
    "movie": Movie,
    "item": Item,
    "order": Order,
    "array": np.ndarray,
    "floats": NDArray[np.float32],
    "int8": np.int8,
}.items():
    define(name, annotation)


@worker.command
def train(epochs: int, rate: float = 0.1):
    return [epochs, rate]


@worker.command
def bare(epochs, rate=0.1):
    return [epochs, rate]


@worker.command
def counted(n: int):
    yield from range(n)


if __name__ == "__main__":
    worker.run()
