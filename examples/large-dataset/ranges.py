"""The records of a CSV file, exactly, in any range of its bytes.

A record ends at a line feed outside a quoted field, or at the end of the file. A quoted field begins with a quote that
is the first character of a field, and ends at the next quote that is not doubled. So whether a line feed ends a record
depends on every byte before it. But these bytes only decide which of the five states below holds. For each state at the
start of a range, `scan` computes the state at its end. So ranges can be scanned at the same time. Stepping through the
results from the first range on gives each range its true state, and the number of lines and rows before it. A range
owns the records that begin in it.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Tuple

BLOCK = 1 << 20
"""How many bytes are read at once."""

RECORD_LIMIT = 1 << 22
"""The longest record in bytes. A longer one is malformed, and is not held in memory."""

RECORD, FIELD, TEXT, QUOTED, QUOTE = b"", b",", b"x", b'"', b'""'
"""The states at an offset, as the shortest bytes that lead there: the beginning of a record; the beginning of another
field; inside a field without quotes, or after the quoted part of one; inside a quoted field; there too, behind a quote
that either ends the field or is the first of a doubled one."""

STATES = {"record": RECORD, "field": FIELD, "text": TEXT, "quoted": QUOTED, "quote": QUOTE}
"""The states by the names that they have in arguments and results."""

NAMES = {state: name for name, state in STATES.items()}

# A quoted field up to its closing quote, which is the group, or to the end of the text. The look-behind checks that the
# quote begins a field. It comes second, because searching is much faster for a pattern that begins with a plain
# character. The pattern never backtracks.
QUOTED_FIELD = re.compile(rb'"(?<![^,\n]")[^"]*(?:""[^"]*)*("|\Z)')


def step(state: bytes, text: bytes) -> Tuple[bytes, int]:
    """Returns the state after the text, and how many records end in it."""
    if not text:
        return state, 0
    if state == QUOTED and b'"' not in text:
        return state, 0
    pieces = QUOTED_FIELD.split(state + text)  # outside quotes, the closing quote, outside quotes, ...
    ends = b"".join(pieces[::2]).count(b"\n")
    tail = pieces[-1][-1:]
    if tail:
        return {b"\n": RECORD, b",": FIELD}.get(tail, TEXT), ends
    return (QUOTE if pieces[-2] else QUOTED), ends


class Scan(NamedTuple):
    """The result for a range of bytes and one state at its start."""

    rows: int
    """The records that begin in the range."""
    then: bytes
    """The state at the end of the range."""


def scan(file: BinaryIO, start: int, end: int) -> Tuple[int, Dict[bytes, Scan]]:
    """Returns the number of line feeds in [start, end), and the result for each state at the start."""
    lines = 0
    now = {state: (state, 0) for state in STATES.values()}
    file.seek(start)
    while start < end:
        text = file.read(min(BLOCK, end - start))
        if not text:
            break
        start += len(text)
        lines += text.count(b"\n")
        # The states soon lead to the same one, so there is little to do twice.
        steps = {state: step(state, text) for state in {state for state, _ in now.values()}}
        now = {first: (steps[state][0], ends + steps[state][1]) for first, (state, ends) in now.items()}
    # A record begins where one ends, but the one that begins behind the last byte is the next range's.
    return lines, {
        first: Scan(ends + (first == RECORD) - (state == RECORD), state) for first, (state, ends) in now.items()
    }


class Block(NamedTuple):
    """Some whole records, as they are in the file."""

    line: int
    """The number of the first one's line."""
    data: bytes
    fault: str = ""
    """The fault of the last one, if it is already known."""


TOO_LONG = f"is longer than {RECORD_LIMIT} bytes"
OPEN_QUOTE = "has a quoted field that is never closed"


def blocks(file: BinaryIO, start: int, end: int, state: bytes = RECORD, line: int = 1) -> Iterator[Block]:
    """Yields the records that begin in [start, end). state and line are those of start."""
    file.seek(start)
    while state != RECORD:  # this record belongs to an earlier range
        text = file.readline(BLOCK)
        if not text:
            return
        state, _ = step(state, text)
        line += text.count(b"\n")
    while file.tell() < end:
        text = file.read(min(BLOCK, end - file.tell()))
        if not text:
            return
        state, _ = step(RECORD, text)
        pieces, size, lines = [text], 0, text.count(b"\n")
        while state != RECORD:  # on to the end of the last record
            text = file.readline(BLOCK)
            if not text:
                break
            state, _ = step(state, text)
            size += len(text)
            lines += text.count(b"\n")
            if size <= RECORD_LIMIT:
                pieces.append(text)
        fault = TOO_LONG if size > RECORD_LIMIT else OPEN_QUOTE if state == QUOTED else ""
        yield Block(line, b"".join(pieces), fault)
        line += lines


def records(block: Block) -> Iterator[Block]:
    """Splits a block into one block for each record."""
    line, state = block.line, RECORD
    pieces: List[bytes] = []
    for text in io.BytesIO(block.data):
        pieces.append(text)
        state, _ = step(state, text)
        if state == RECORD:
            yield Block(line, b"".join(pieces))
            line += len(pieces)
            pieces = []
    if pieces:
        yield Block(line, b"".join(pieces), block.fault)
