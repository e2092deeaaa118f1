"""What a job does to its rows: clean, transform and aggregate, in the order that it lists them.

They work on columns, not on rows, so that Python's built-in functions do the loops. Every aggregate is exact and can be merged: those of
a file are the same whatever ranges and blocks it was read in.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from decimal import Context, Decimal, Inexact, localcontext
from operator import mul
from typing import Any, Dict, List, Optional, Sequence

NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")
"""What counts as a number. Its bounds keep sums within EXACT's precision."""

EXACT = Context(prec=400, traps=[Inexact])
"""Sums are exact or an error. 10^99 times 30 digits before the point and 10^-99 times 30 behind it leave room for 10^140 rows."""

TALLY_LIMIT = 256
"""A column's values are counted one by one as long as there are no more different ones than this."""

TALLY_LENGTH = 80
"""Nor any that is longer, so that aggregates stay small. No number is."""

FILLED = "filled_fields"
"""The column that transform adds."""


class Column:
    """The aggregates of one column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.empty = 0
        self.numbers = 0
        self.sum = Decimal(0)
        self.least: Optional[Decimal] = None
        self.greatest: Optional[Decimal] = None
        self.texts = 0
        self.first: Optional[str] = None  # in the order of code points
        self.last: Optional[str] = None
        self.longest = 0  # in code points
        self.tally: Optional[Counter[str]] = Counter()  # None: too many different values, or too long ones

    def add(self, values: Sequence[str]) -> None:
        """Takes in more of the column's values."""
        counts = Counter(values)
        self.empty += counts.pop("", 0)
        if not counts:
            return
        numbers = list(filter(NUMBER.fullmatch, counts))
        if numbers:
            self._add_numbers(numbers, [counts[text] for text in numbers])
        if len(numbers) < len(counts):
            self._add_texts(counts.keys() - numbers if numbers else counts.keys(), counts)
        if self.tally is not None:
            self.tally.update(counts)
            if len(self.tally) > TALLY_LIMIT or self.longest > TALLY_LENGTH:
                self.tally = None

    def _add_numbers(self, texts: List[str], counts: List[int]) -> None:
        with localcontext(EXACT):
            values: List[Any]
            try:
                values = list(map(int, texts))
            except ValueError:  # not all are whole
                values = list(map(Decimal, texts))
            self.numbers += sum(counts)
            self.sum += sum(map(mul, values, counts))
            least, greatest = Decimal(min(values)), Decimal(max(values))
            self.least = least if self.least is None else min(self.least, least)
            self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def _add_texts(self, texts: Any, counts: Dict[str, int]) -> None:
        first, last = min(texts), max(texts)
        self.texts += sum(counts.values()) if len(texts) == len(counts) else sum(counts[text] for text in texts)
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)
        self.longest = max(self.longest, max(map(len, texts)))

    def result(self) -> Dict[str, Any]:
        """Returns the aggregates. The bridge sends a Decimal as text with all its digits."""
        return {
            "name": self.name,
            "empty": self.empty,
            "numbers": self.numbers,
            "sum": self.sum,
            "least": self.least,
            "greatest": self.greatest,
            "texts": self.texts,
            "first": self.first,
            "last": self.last,
            "longest": self.longest,
            "tally": None if self.tally is None else dict(self.tally),
        }


def clean(columns: List[List[str]]) -> List[List[str]]:
    """Takes white space off both ends of each field and drops the rows that have nothing in any field."""
    columns = [list(map(str.strip, column)) for column in columns]
    nothing = ("",) * len(columns)
    if "" in columns[0]:
        rows = [row for row in zip(*columns) if row != nothing]
        if len(rows) < len(columns[0]):
            columns = transpose(rows, len(columns))
    return columns


def transform(columns: List[List[str]]) -> List[List[str]]:
    """Normalises text to Unicode's NFC, in which equal texts are equal, and adds how many fields of the row are not empty."""
    width = len(columns)
    for i, column in enumerate(columns):
        if not "".join(column).isascii():
            columns[i] = [unicodedata.normalize("NFC", value) for value in column]
    filled = list(map(str, range(width + 1)))
    return [*columns, [filled[width - row.count("")] for row in zip(*columns)]]


def transpose(rows: Sequence[Sequence[str]], width: int) -> List[List[str]]:
    """Turns rows into columns."""
    return list(map(list, zip(*rows))) if rows else [[] for _ in range(width)]


class Pipeline:
    """The operations of one job, in order.

    Attributes:
        columns: The aggregates of each column, once rows have run through aggregate.
    """

    NAMES = ("clean", "transform", "aggregate")

    def __init__(self, columns: Sequence[str], operations: Sequence[str]) -> None:
        for i, name in enumerate(operations):
            if name not in self.NAMES:
                raise ValueError(f"unknown operation {name!r}; there are {', '.join(self.NAMES)}")
            if name in operations[:i]:
                raise ValueError(f"operation {name!r} is listed twice")
        self.operations = operations
        self.columns: List[Column] = []
        names = list(columns)
        for name in operations:
            if name == "transform":
                names.append(FILLED)
            elif name == "aggregate":
                self.columns = [Column(name) for name in names]

    def run(self, rows: Sequence[Sequence[str]]) -> int:
        """Runs rows of equal length through the operations and returns how many were not dropped."""
        if not rows:
            return 0
        table = transpose(rows, len(rows[0]))
        for name in self.operations:
            if name == "clean":
                table = clean(table)
            elif name == "transform":
                table = transform(table)
            else:
                for column, values in zip(self.columns, table):
                    column.add(values)
        return len(table[0])
