"""The whole job in the plainest way: one pass of csv.reader over the file, one row after the other, one field after the other.

It shares neither the ranges nor the columns with the job whose results it is there to confirm; only what counts as a number, and the
limits.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from decimal import Decimal
from typing import Any, BinaryIO, Dict, Generator, Iterator, List, Optional, Tuple, Union

import progress
from operations import EXACT, FILLED, NUMBER, TALLY_LENGTH, TALLY_LIMIT
from ranges import BOM, HAS_NUL, NOT_UTF8, OPEN_QUOTE, RECORD_LIMIT, STRAY_QUOTE, TOO_LONG, wrong_width
from snakepit_bridge import ItemError

RECORD = re.compile(
    r"""
    (?: "[^"]*(?:""[^"]*)*" | [^",\r\n]* )          # a field, with quotes around it or without
    (?: , (?: "[^"]*(?:""[^"]*)*" | [^",\r\n]* ) )*
    (?: \r?\n )?
    """,
    re.VERBOSE,
)
"""A record without fault."""


def run(file: BinaryIO, chunk_size: int, operations: List[str]) -> Generator[Union[Dict[str, Any], ItemError], None, Dict[str, Any]]:
    """Streams and returns what process_large_dataset does. The number of rows is not known before the end."""
    read = _records(file)
    _, header, _ = next(read)
    names = list(header)
    columns: List[_Column] = []
    for operation in operations:
        if operation == "transform":
            names.append(FILLED)
        elif operation == "aggregate":
            columns = [_Column(name) for name in names]
    processed = skipped = errors = 0
    for line, row, fault in read:
        if row and not fault and len(row) != len(header):
            fault = wrong_width(len(row), len(header))
        if fault:
            errors += 1
            yield ItemError(f"line {line} {fault}")
        for operation in operations if row and not fault else ():
            if operation == "clean":
                row = [field.strip() for field in row]
                if not any(row):
                    row = []
                    break
            elif operation == "transform":
                filled = len(row) - row.count("")
                row = [unicodedata.normalize("NFC", field) for field in row]
                row.append(str(filled))
            else:
                for column, field in zip(columns, row):
                    column.take(field)
        if row and not fault:
            processed += 1
        else:
            skipped += 1
        if (processed + skipped) % chunk_size == 0:
            yield progress.chunk(processed + skipped, 0)
    yield progress.chunk(processed + skipped, 0)
    results = [column.result() for column in columns]
    return {"final_stats": {"processed": processed, "skipped": skipped, "errors": errors, "columns": results}}


class _Column:
    """The aggregates of one column. As long as there are few different values, it only counts them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.empty = self.numbers = self.texts = self.longest = 0
        self.sum = Decimal(0)
        self.least: Optional[Decimal] = None
        self.greatest: Optional[Decimal] = None
        self.first: Optional[str] = None
        self.last: Optional[str] = None
        self.tally: Optional[Dict[str, int]] = {}

    def take(self, field: str) -> None:
        if not field:
            self.empty += 1
        elif self.tally is None:
            self.add(field, 1)
        elif field in self.tally:
            self.tally[field] += 1
        else:
            self.tally[field] = 1
            if len(self.tally) > TALLY_LIMIT or len(field) > TALLY_LENGTH:
                for value, count in self.tally.items():
                    self.add(value, count)
                self.tally = None

    def add(self, field: str, count: int) -> None:
        if NUMBER.fullmatch(field):
            number = Decimal(field)
            self.numbers += count
            self.sum = EXACT.fma(number, count, self.sum)
            if self.least is None or self.greatest is None:
                self.least = self.greatest = number
            elif number < self.least:
                self.least = number
            elif number > self.greatest:
                self.greatest = number
        else:
            self.texts += count
            if self.first is None or self.last is None:
                self.first = self.last = field
            elif field < self.first:
                self.first = field
            elif field > self.last:
                self.last = field
            if len(field) > self.longest:
                self.longest = len(field)

    def result(self) -> Dict[str, Any]:
        for value, count in (self.tally or {}).items():
            self.add(value, count)
        return dict(vars(self))


def _records(file: BinaryIO) -> Iterator[Tuple[int, List[str], str]]:
    """Yields each record's first line, its fields, and its fault or "". A blank line has no fields."""
    file.seek(len(BOM) if file.read(len(BOM)) == BOM else 0)
    lines = _Lines(file)
    reader = csv.reader(lines)
    while True:
        lines.raw, lines.size, line, fault = [], 0, lines.number, ""
        try:
            row = next(reader)
        except StopIteration:
            return
        except _TooLong:
            state = _walk(b"".join(lines.raw), START)
            while state != END and lines.read():
                state = _walk(lines.raw.pop(), state)
            yield line, [], TOO_LONG
            continue
        raw = b"".join(lines.raw)
        text = raw.decode("utf-8", "replace")
        if b"\0" in raw:
            fault = HAS_NUL
        elif "\ufffd" in text and raw != text.encode():
            fault = NOT_UTF8
        elif not RECORD.fullmatch(text):
            fault = OPEN_QUOTE if _walk(raw, START) == QUOTED else STRAY_QUOTE
        if b"\r" in raw:
            row = [field.replace(_CR, "\r") for field in row]
        yield line, row, fault


class _TooLong(Exception):
    pass


_CR, _NUL = "\udc0d", "\udc00"  # nothing that is decoded has these


class _Lines:
    """Reads a file for csv.reader, which stops at carriage returns, and before Python 3.11 at NULs: it gets others in their place."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.number = 1  # of the next line
        self.raw: List[bytes] = []  # the lines of the record at hand
        self.size = 0  # their length

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.read():
            raise StopIteration
        if self.size > RECORD_LIMIT:
            raise _TooLong
        text = self.raw[-1].decode("utf-8", "surrogateescape")
        if "\r" in text or "\0" in text:
            text = re.sub(r"\r(?!\n)", _CR, text).replace("\0", _NUL)
        return text

    def read(self) -> bool:
        """Reads a line, or as much of it as a record may be long. Returns False at the end of the file."""
        line = self.file.readline(RECORD_LIMIT + 1)
        self.raw.append(line)
        self.size += len(line)
        self.number += line.endswith(b"\n")
        return line != b""


START, INSIDE, QUOTED, QUOTE, END = range(5)


def _walk(raw: bytes, state: int) -> int:
    """Follows records byte by byte, where csv.reader cannot be asked."""
    for byte in raw:
        if state == QUOTED:
            if byte == 0x22:
                state = QUOTE
        elif byte == 0x22 and state in (START, END, QUOTE):
            state = QUOTED
        elif byte == 0x2C:
            state = START
        elif byte == 0x0A:
            state = END
        else:
            state = INSIDE
    return state
