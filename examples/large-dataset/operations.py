"""The operations of a job. An operation takes a pandas frame and returns one:

    @operation
    def large_orders(frame):
        return frame[frame["quantity"] >= 10]

`-operations clean,large_orders,aggregate` then runs it. Operations run in the order of the list. One may be listed more
than once. A frame has some rows of the file: numbers as float64, text as str, and NaN for an empty field.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, field
from decimal import Context, Decimal, Inexact, localcontext
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype, is_string_dtype

OPERATIONS: Dict[str, Any] = {}


def operation(step: Any) -> Any:
    """Makes a function an operation. Of a class, each job makes an instance and calls it."""
    OPERATIONS[step.__name__] = step
    return step


@operation
def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Strips white space from both ends of each text. Drops the rows in which nothing is left."""
    for name in texts(frame):
        frame = change(frame, name, str.strip)
    return frame.dropna(how="all")


@operation
def transform(frame: pd.DataFrame) -> pd.DataFrame:
    """Normalises text to Unicode's NFC. Adds a column with the number of a row's fields that are not empty."""
    for name in texts(frame):
        frame = change(frame, name, partial(unicodedata.normalize, "NFC"))
    return frame.assign(filled_fields=frame.notna().sum(axis=1))


@operation
class aggregate:
    """Adds up the values of each column and passes the rows on unchanged."""

    def __init__(self) -> None:
        self.columns: Dict[str, Column] = {}

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        for name in frame:
            column = self.columns.setdefault(name, Column(name))
            column.add(summary(frame[name], tally=column.tally is not None))
        return frame

    def result(self) -> List[Dict[str, Any]]:
        """Returns the columns, as a value that can be sent."""
        return [{**asdict(column), "sum": f"{column.sum.normalize(EXACT):f}"} for column in self.columns.values()]

    def merge(self, result: List[Dict[str, Any]]) -> None:
        """Adds the result of other rows."""
        for fields in result:
            column = Column(**{**fields, "sum": Decimal(fields["sum"])})
            self.columns.setdefault(column.name, Column(column.name)).add(column)


TALLY_LIMIT = 256
"""The most different texts of a column that are counted one by one."""

TALLY_LENGTH = 80
"""The longest text that is counted, in code points. The limit keeps results small."""

EXACT = Context(prec=1000, traps=[Inexact])
"""Sums are exact or an error. A double has digits from 10^308 down to 10^-340."""


@dataclass
class Column:
    """A summary of one column of some rows.

    Nothing is rounded, so the summary of a file does not depend on its parts.
    """

    name: str
    empty: int = 0
    numbers: int = 0
    sum: Decimal = Decimal(0)
    least: Optional[float] = None
    greatest: Optional[float] = None
    texts: int = 0
    first: Optional[str] = None  # in the order of code points
    last: Optional[str] = None
    longest: int = 0  # in code points
    # How often each text occurs. None: there are too many texts, or too long ones.
    tally: Optional[Dict[str, int]] = field(default_factory=dict)

    def add(self, other: Column) -> None:
        """Adds the column of other rows."""
        self.empty += other.empty
        self.numbers += other.numbers
        self.sum = EXACT.add(self.sum, other.sum)
        self.texts += other.texts
        self.longest = max(self.longest, other.longest)
        for key, choose in (("least", min), ("greatest", max), ("first", min), ("last", max)):
            values = [value for value in (getattr(self, key), getattr(other, key)) if value is not None]
            setattr(self, key, choose(values, default=None))
        if self.tally is None or other.tally is None or len(self.tally.keys() | other.tally.keys()) > TALLY_LIMIT:
            self.tally = None
        else:
            self.tally = dict(Counter(self.tally) + Counter(other.tally))


def summary(values: pd.Series, tally: bool) -> Column:
    """Returns the summary of a frame's column."""
    column = Column(values.name, empty=len(values), tally={} if tally else None)
    values = values.dropna()
    if is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=float)
        numbers = numbers[np.isfinite(numbers)]
        column.numbers = len(numbers)
        if column.numbers:
            column.sum, column.least, column.greatest = exact_sum(numbers), float(numbers.min()), float(numbers.max())
    elif len(values):
        column.texts = len(values)
        values = values if is_string_dtype(values) else values.astype(str)
        if tally:
            counts = values.value_counts()
            column.tally = dict(zip(counts.index.tolist(), counts.tolist()))
            values = counts.index
        found = values.tolist()
        column.first, column.last, column.longest = min(found), max(found), max(map(len, found))
        if column.longest > TALLY_LENGTH:
            column.tally = None
    column.empty -= column.numbers + column.texts
    return column


def exact_sum(values: np.ndarray) -> Decimal:
    """Adds numbers without rounding. Each counts as the shortest decimal that reads as it: 0.1 is one tenth."""
    with localcontext(EXACT), np.errstate(over="ignore"):
        # Prices and the like are whole cents. Up to 15 digits, a double and its shortest decimal are the same.
        for places in range(5):
            whole = np.rint(values * 10**places)
            if (np.abs(whole) < 1e15).all() and (whole / 10**places == values).all():
                return Decimal(sum(whole.astype(np.int64).tolist())).scaleb(-places)
        return sum(map(Decimal, map(repr, values.tolist())), Decimal(0))


def texts(frame: pd.DataFrame) -> List[str]:
    """Returns the names of the columns that hold text."""
    return [name for name in frame if is_string_dtype(frame[name])]


def change(frame: pd.DataFrame, name: str, function: Callable[[str], str]) -> pd.DataFrame:
    """Returns a frame with a function applied to a column's texts. A list takes half the time of pandas' own way."""
    column = frame[name].dropna()
    before = column.tolist()
    after = list(map(function, before))
    if after == before:
        return frame
    changed = pd.Series(after, index=column.index, dtype=column.dtype)
    return frame.assign(**{name: changed[changed != ""]})  # the other rows become empty


class Pipeline:
    """The operations of one job, in order."""

    def __init__(self, names: Sequence[str], empty: pd.DataFrame) -> None:
        """Makes the steps. Tries them on a frame without rows, so a wrong column is an error at once."""
        for name in names:
            if name not in OPERATIONS:
                raise ValueError(
                    f"there is no operation {name!r}; there are {', '.join(OPERATIONS)}; add yours to operations.py"
                )
        steps = [OPERATIONS[name] for name in names]
        self.steps = [step() if isinstance(step, type) else step for step in steps]
        for name, step in zip(names, self.steps):
            try:
                empty = step(empty)
            except KeyError as missing:
                raise ValueError(f"operation {name!r} needs a column {missing}; there are {', '.join(empty)}") from None

    def run(self, frame: pd.DataFrame) -> int:
        """Runs rows through the steps and returns how many are left."""
        for step in self.steps:
            frame = step(frame)
        return len(frame)

    def aggregates(self) -> List[aggregate]:
        """Returns the aggregate steps."""
        return [step for step in self.steps if isinstance(step, aggregate)]
