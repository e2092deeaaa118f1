"""Writes the Unicode character database as CSV.

It is real data that every Python has. Its second column has everything that makes CSV difficult.
"""

from __future__ import annotations

import os
import sys
import tempfile
import unicodedata
from typing import Any, Dict, Generator

import progress

COLUMNS = (
    "codepoint",
    "char",
    "name",
    "category",
    "combining",
    "bidirectional",
    "width",
    "decomposition",
    "numeric",
    "mirrored",
)

CODEPOINTS = sys.maxunicode + 1

LABELS = {"Cc": "control", "Cn": "reserved", "Co": "private-use", "Cs": "surrogate"}
"""The standard's labels (section 4.8) of characters that have no name."""


def row(codepoint: int) -> str:
    """Returns the line of one code point. NUL and the surrogates cannot stand in a text file; their char is empty."""
    char = chr(codepoint)
    category = unicodedata.category(char)
    label = (
        "noncharacter"
        if codepoint & 0xFFFE == 0xFFFE or 0xFDD0 <= codepoint <= 0xFDEF
        else LABELS.get(category, "unnamed")
    )
    name = unicodedata.name(char, None) or f"<{label}-{codepoint:04X}>"
    text = "" if codepoint == 0 or category == "Cs" else char.replace('"', '""')
    number = unicodedata.numeric(char, None)
    fields = (
        codepoint,
        f'"{text}"',
        name,
        category,
        unicodedata.combining(char),
        unicodedata.bidirectional(char),
        unicodedata.east_asian_width(char),
        unicodedata.decomposition(char),
        "" if number is None else int(number) if number.is_integer() else number,
        unicodedata.mirrored(char),
    )
    return ",".join(map(str, fields)) + "\n"


def write(directory: str) -> Generator[Dict[str, Any], None, str]:
    """Writes the file of this Python's Unicode version into a directory, unless it exists. Yields the progress.

    Returns:
        The file's path, as the generator's return value.
    """
    path = os.path.join(directory, f"unicode-{unicodedata.unidata_version}.csv")
    if os.path.exists(path):
        return path
    os.makedirs(directory, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=directory, suffix=".unfinished")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(",".join(COLUMNS) + "\n")
            step = 1 << 14
            for start in range(0, CODEPOINTS, step):
                file.writelines(map(row, range(start, start + step)))
                yield progress.chunk(start + step, CODEPOINTS)
        os.replace(unfinished, path)  # whole or not at all
    except BaseException:
        os.unlink(unfinished)
        raise
    return path
