"""The built-in operations in the plainest way: one pass of csv.reader over the file, row by row and field by field.

Its results confirm those of the job. It shares neither ranges nor frames with the job. It shares only the limits and
the rules for numbers and malformed rows.
"""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, BinaryIO, Dict, Generator, Iterator, List, Optional, Tuple, Union
from unicodedata import normalize

import progress
from operations import EXACT, TALLY_LENGTH, TALLY_LIMIT
from ranges import OPEN_QUOTE, RECORD_LIMIT, TOO_LONG
from snakepit_bridge import ItemError
from table import BOM, HAS_NUL, NOT_UTF8, STRAY_QUOTE, Schema, is_number, no_number, wrong_width

FILLED = "filled_fields"

KNOWN = ("clean", "transform", "aggregate")

Row = List[Any]
"""A row's fields: a float, a text, or None for nothing."""


def run(
    file: BinaryIO, schema: Schema, chunk_size: int, operations: List[str], total_rows: int
) -> Generator[Union[Dict[str, Any], ItemError], None, Dict[str, Any]]:
    """Streams and returns the same as process_large_dataset."""
    names = list(schema.columns)
    aggregates: List[List[_Column]] = []
    for operation in operations:
        if operation == "aggregate":
            aggregates.append(list(map(_Column, names)))
        elif operation == "transform" and FILLED not in names:
            names.append(FILLED)
    processed = skipped = errors = 0
    for line, fields, fault in _records(file):
        row, fault = _row(fields, schema) if fields and not fault else ([], fault)
        if fault:
            errors += 1
            yield ItemError(f"line {line} {fault}")
        steps = iter(aggregates)
        for operation in operations if row else ():
            if operation == "clean":
                row = [value.strip() or None if isinstance(value, str) else value for value in row]
                if row.count(None) == len(row):
                    row = []
                    break
            elif operation == "transform":
                place = names.index(FILLED)
                filled = len(row) - row.count(None)
                row = [
                    normalize("NFC", value) if isinstance(value, str) and not value.isascii() else value
                    for value in row
                ]
                row[place : place + 1] = [filled]
            else:
                for column, value in zip(next(steps), row):
                    column.take(value)
        processed += bool(row)
        skipped += not row
        if (processed + skipped) % chunk_size == 0:
            yield progress.chunk(processed + skipped, total_rows)
    yield progress.chunk(processed + skipped, total_rows)
    results = [[column.result() for column in columns] for columns in aggregates]
    return {"final_stats": {"processed": processed, "skipped": skipped, "errors": errors, "aggregates": results}}


def _row(fields: List[str], schema: Schema) -> Tuple[Row, str]:
    """Returns the row that has these fields, and its fault or ""."""
    if len(fields) != len(schema.columns):
        return [], wrong_width(len(fields), len(schema.columns))
    row: Row = []
    for name, value in zip(schema.columns, fields):
        if not value:
            row.append(None)
        elif name not in schema.numbers:
            row.append(value)
        elif (number := _number(value)) is not None:
            row.append(number)
        else:
            return [], no_number(name, value)
    return row, ""


@lru_cache(maxsize=1 << 12)
def _number(value: str) -> Optional[float]:
    return float(value) if is_number(value) else None


class _Column:
    """A summary of one column. Equal values are counted before they are added: most columns have few different ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.empty = self.numbers = self.texts = self.longest = 0
        self.sum = Decimal(0)
        self.least = self.greatest = self.first = self.last = None
        self.tally: Any = {}
        self.counts: Dict[Any, int] = {}

    def take(self, value: Any) -> None:
        self.counts[value] = self.counts.get(value, 0) + 1
        if len(self.counts) > 10_000:
            self.add()

    def add(self) -> None:
        for value, count in self.counts.items():
            if value is None:
                self.empty += count
            elif isinstance(value, str):
                self.texts += count
                self.longest = max(self.longest, len(value))
                if self.first is None or value < self.first:
                    self.first = value
                if self.last is None or value > self.last:
                    self.last = value
                if self.tally is not None:
                    self.tally[value] = self.tally.get(value, 0) + count
                    if len(self.tally) > TALLY_LIMIT or len(value) > TALLY_LENGTH:
                        self.tally = None
            else:
                self.numbers += count
                self.sum = EXACT.fma(Decimal(repr(value)), count, self.sum)
                if self.least is None or value < self.least:
                    self.least = value
                if self.greatest is None or value > self.greatest:
                    self.greatest = value
        self.counts.clear()

    def result(self) -> Dict[str, Any]:
        self.add()
        return {
            **{key: value for key, value in vars(self).items() if key != "counts"},
            "sum": f"{self.sum.normalize(EXACT):f}",
        }


RECORD = re.compile(
    r"""
    (?: "[^"]*(?:""[^"]*)*" | [^",\r\n]* )          # a field, with quotes around it or without
    (?: , (?: "[^"]*(?:""[^"]*)*" | [^",\r\n]* ) )*
    (?: \r?\n )?
    """,
    re.VERBOSE,
)
"""A well-formed record."""

_CR, _NUL = "\udc0d", "\udc00"  # decoded text never has these


def _records(file: BinaryIO) -> Iterator[Tuple[int, List[str], str]]:
    """Yields each record's first line, fields, and fault or "", but not the header. A blank line has no fields."""
    file.seek(0)
    file.seek(len(BOM) if file.read(len(BOM)) == BOM else 0)
    lines: List[bytes] = []  # of the record at hand

    def read() -> Iterator[str]:
        """Reads lines for csv.reader, with carriage returns and NULs replaced.

        csv.reader stops at carriage returns, and before Python 3.11 at NULs.
        """
        for line in file:
            lines.append(line)
            text = line.decode("utf-8", "surrogateescape")
            yield re.sub(r"\r(?!\n)", _CR, text).replace("\0", _NUL) if "\r" in text or "\0" in text else text

    line = 1
    for fields in csv.reader(read()):
        record = b"".join(lines)
        lines.clear()
        if line > 1:
            yield line, _fields(fields, record), _fault(record)
        line += record.count(b"\n")


def _fields(fields: List[str], record: bytes) -> List[str]:
    if not record.strip(b" \t\r\n"):
        return []
    return [field.replace(_CR, "\r") for field in fields] if b"\r" in record else fields


def _fault(record: bytes) -> str:
    text = record.decode("utf-8", "replace")
    if len(record) > RECORD_LIMIT:
        return TOO_LONG
    if b"\0" in record:
        return HAS_NUL
    if "\ufffd" in text and record != text.encode():
        return NOT_UTF8
    if RECORD.fullmatch(text):
        return ""
    return OPEN_QUOTE if RECORD.fullmatch(text + '"') else STRAY_QUOTE
