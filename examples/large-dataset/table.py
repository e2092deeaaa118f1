"""CSV records as pandas frames: numbers as numbers, text as text, and malformed rows with their lines and faults."""

from __future__ import annotations

import csv
import io
import re
from math import isfinite
from typing import BinaryIO, List, NamedTuple, Tuple

import numpy as np
import pandas as pd
from ranges import QUOTED_FIELD, RECORD_LIMIT, TOO_LONG, Block, blocks, records

HAS_NUL = "contains a NUL character"
NOT_UTF8 = "is not UTF-8"
STRAY_QUOTE = "has a quote or a carriage return where only a quoted field may have one"

BOM = b"\xef\xbb\xbf"

NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
"""A number as pandas reads it, unless it is too large for a double."""

SAMPLE = 1 << 16
"""How many bytes at the beginning decide which columns hold numbers."""

LIKE_A_NUMBER = re.compile(r" *[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]*)?([eE][+-]?[0-9]{1,2})? *")
"""The form of all fields in a column of numbers. Codes such as 00501, and longer numbers, are text."""

EXACT = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
"""pandas 3 reads numbers to the nearest double by itself."""

csv.field_size_limit(RECORD_LIMIT)  # the record's limit is the only one


class Schema(NamedTuple):
    """A file's columns."""

    columns: List[str]
    numbers: List[str]
    """Those that hold numbers; the others hold text."""


class Header(NamedTuple):
    """The first record, and the facts that follow from it and the next rows."""

    schema: Schema
    size: int
    """Its length in bytes: where the rows begin."""
    lines: int
    """Its lines."""


class Malformed(ValueError):
    """The fault of a record, as a phrase that follows its line number."""


def header(file: BinaryIO, text_columns: List[str]) -> Header:
    """Reads the header of a file. The rows after it decide which columns hold numbers.

    Args:
        file: The file.
        text_columns: Columns that hold text, whatever they look like.

    Raises:
        ValueError: The file has no header, or lacks one of those columns.
    """
    file.seek(0)
    mark = len(BOM) if file.read(len(BOM)) == BOM else 0
    block = next(blocks(file, mark, mark + 1), None)
    if block is None:
        raise ValueError(f"{file.name} is empty; its first line must name the columns")
    try:
        columns = fields(block)
    except Malformed as fault:
        raise ValueError(f"{file.name} is not a CSV file: its first line {fault}") from None
    if not columns:
        raise ValueError(f"{file.name} has a blank first line, but it must name the columns")
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"{file.name} has two columns {name!r}; give each a name of its own")
    for name in text_columns:
        if name not in columns:
            raise ValueError(f"{file.name} has no column {name!r}; it has {', '.join(columns)}")
    size = mark + len(block.data)
    numbers = _numbers(file, size, columns)
    return Header(
        Schema(columns, [name for name in numbers if name not in text_columns]), size, block.data.count(b"\n")
    )


def _numbers(file: BinaryIO, start: int, columns: List[str]) -> List[str]:
    """Returns the columns whose fields in the first SAMPLE bytes are empty or look like numbers."""
    rows = []
    for record in records(next(blocks(file, start, start + SAMPLE), Block(0, b""))):
        try:
            row = fields(record)
        except Malformed:
            continue
        if len(row) == len(columns):
            rows.append(row)
    filled = {name: list(filter(None, values)) for name, values in zip(columns, zip(*rows))}
    return [name for name, values in filled.items() if values and all(map(LIKE_A_NUMBER.fullmatch, values))]


def read(block: Block, schema: Schema) -> Tuple[pd.DataFrame, int, List[Tuple[int, str]]]:
    """Returns a block's rows as a frame, the number of blank lines, and line and fault of each malformed row."""
    faults: List[Tuple[int, str]] = []
    try:
        bare = check(block)
        commas = {line.count(b",") for line in bare.split(b"\n") if line.strip(b" \t\r")}
        if not commas <= {len(schema.columns) - 1}:
            raise Malformed("has another number of fields than the header")
        frame = _frame(block.data, schema)
    except ValueError:  # there is a fault: check one record at a time to find it
        good = []
        for record in records(block):
            try:
                _check_row(fields(record), schema)
                good.append(record.data)
            except Malformed as fault:
                faults.append((record.line, str(fault)))
        data = b"".join(good)
        bare, frame = _bare(data), _frame(data, schema)
    lines = bare.count(b"\n") + (not bare.endswith(b"\n") and bare != b"")
    return frame, lines - len(frame), faults


def empty(schema: Schema) -> pd.DataFrame:
    """Returns a frame without rows."""
    return _frame(b"", schema)


def _frame(data: bytes, schema: Schema) -> pd.DataFrame:
    """Lets pandas read records that have been checked.

    Raises:
        ValueError: A column of numbers has something else.
    """
    frame = pd.read_csv(
        io.BytesIO(b"\n" + data),  # so that a U+FEFF in the data is not at the beginning
        header=None,
        index_col=False,
        names=schema.columns,
        dtype={name: "float64" if name in schema.numbers else "str" for name in schema.columns},
        keep_default_na=False,
        na_values=[""],
        **EXACT,
    )
    if np.isinf(frame[schema.numbers].to_numpy()).any():
        raise ValueError("a number is too large for a double")
    return frame


def _bare(data: bytes) -> bytes:
    """Returns records with a NUL in place of each quoted field."""
    return QUOTED_FIELD.sub(b"\0", data) if b'"' in data else data


def check(block: Block) -> bytes:
    """Makes the checks that need no single records. Returns the block's records bare.

    Raises:
        Malformed: One of the records is malformed, or may be. If the block has one record, this is the record's fault.
    """
    data = block.data
    if block.fault == TOO_LONG or len(data) > RECORD_LIMIT:
        raise Malformed(TOO_LONG)
    if b"\0" in data:
        raise Malformed(HAS_NUL)
    try:
        data.decode()
    except UnicodeDecodeError:
        raise Malformed(NOT_UTF8) from None
    bare = _bare(data)
    closed = bare.count(b"\0,") + bare.count(b"\0\n") + bare.count(b"\0\r\n") + bare.endswith(b"\0")
    if b'"' in bare or bare.count(b"\0") != closed or bare.count(b"\r") != bare.count(b"\r\n"):
        raise Malformed(STRAY_QUOTE)
    if block.fault:
        raise Malformed(block.fault)
    return bare


def fields(record: Block) -> List[str]:
    """Returns a record's fields. A line with nothing but blanks and tabs has none.

    Raises:
        Malformed: It is malformed.
    """
    check(record)
    text = record.data.decode()
    return next(csv.reader(io.StringIO(text, newline="\n"))) if text.strip(" \t\r\n") else []


def _check_row(row: List[str], schema: Schema) -> None:
    if row and len(row) != len(schema.columns):
        raise Malformed(wrong_width(len(row), len(schema.columns)))
    for name, value in zip(schema.columns, row):
        if name in schema.numbers and value and not is_number(value):
            raise Malformed(no_number(name, value))


def is_number(value: str) -> bool:
    """Reports whether a column of numbers may have this value."""
    return NUMBER.fullmatch(value) is not None and isfinite(float(value))


def wrong_width(found: int, width: int) -> str:
    """Returns the fault of a record with more or fewer fields than the header."""
    return f"has {found} field{'' if found == 1 else 's'}, but the header has {width}"


def no_number(name: str, value: str) -> str:
    """Returns the fault of a record that has a text in a column of numbers."""
    return f"has {value[:40]!r} in {name!r}, a column of numbers"
