"""Tests of the worker without a host: its commands are plain functions and generators."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple
from unittest import mock

import numpy as np
import operations
import pandas as pd
import pytest
import ranges
import reference
import table
import unicode_csv
import worker
from hypothesis import given, settings
from hypothesis import strategies as st
from snakepit_bridge import ItemError

ALL = ["clean", "transform", "aggregate"]


def drain(job: Any) -> Tuple[List[Dict[str, Any]], List[str], Any]:
    """Runs a job to its end and returns its chunks, its faults and its final_stats."""
    chunks: List[Dict[str, Any]] = []
    faults: List[str] = []
    while True:
        try:
            item = next(job)
        except StopIteration as end:
            return chunks, faults, end.value["final_stats"]
        if isinstance(item, ItemError):
            faults.append(str(item.error))
        else:
            chunks.append(item)


def in_ranges(path: str, cuts: Iterable[int], ops: Sequence[str]) -> Tuple[List[str], Dict[str, Any]]:
    """Works like the Go program: scans ranges, steps through them for their states, processes and merges them."""
    data = worker.open_dataset(path, 1, list(ops))
    offsets = [data["start"], *sorted(min(max(cut, data["start"]), data["end"]) for cut in cuts), data["end"]]
    state, line, total, faults = "record", data["line"], 0, []
    results = []
    for start, end in zip(offsets, offsets[1:]):
        scan = worker.scan_range(path, start, end)
        here = scan["states"][state]
        part = {**data, "start": start, "end": end, "state": state, "line": line, "rows": here["rows"]}
        chunks, some, stats = drain(worker.process_large_dataset(path, 3, list(ops), part=part))
        assert stats["processed"] + stats["skipped"] == here["rows"]
        assert not chunks or chunks[-1]["progress_percent"] == 100
        faults += some
        results.append(stats)
        state, line, total = here["then"], line + scan["lines"], total + here["rows"]
    merged = worker.merge_stats(results)["final_stats"]
    assert merged["processed"] + merged["skipped"] == total
    return faults, merged


@contextmanager
def stored(data: bytes) -> Iterator[str]:
    """Has data in a file."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "data.csv")
        Path(path).write_bytes(data)
        yield path


@contextmanager
def limits(block: int, record: int, tally: int) -> Iterator[None]:
    """Sets the limits so low that small files reach them."""
    with ExitStack() as stack:
        for module, name, value in (
            (ranges, "BLOCK", block),
            *((module, "RECORD_LIMIT", record) for module in (ranges, table, reference)),
            *((module, "TALLY_LIMIT", tally) for module in (operations, reference)),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield


tokens = st.sampled_from(
    [
        *(b'"', b'"', b'""', b",", b",", b"\n", b"\n", b"\r\n", b"\r", b'"x,\ny"', b'"",', b"\xff", b"\0"),
        *(b"a", b" ", b"12", b"-0.5", b"1e3", b"0.1", b"1e400", b"-0", b"7.25\n", b"abcdefghijkl", b"nan", b"inf"),
        *("e\u0301 ".encode(), "\u00e9".encode(), "\ufffd".encode(), "\ufeff".encode()),
    ]
)
bodies = st.one_of(st.lists(tokens, max_size=60).map(b"".join), st.binary(max_size=60))


@settings(deadline=None, max_examples=200)
@given(
    head=st.sampled_from(
        [b"a\n", b"a,b\r\n", b'"a\n""",b,c\n', b"\xef\xbb\xbfa,b\n", b"a,b", b"a,b\n1,x\n2.5,y\n", b"a\n1e300\n"]
    ),
    body=bodies,
    cuts=st.lists(st.integers(0, 200), max_size=3),
    block=st.integers(1, 40),
    record=st.integers(12, 60),
    tally=st.integers(1, 5),
    ops=st.lists(st.sampled_from(ALL), max_size=4),
)
def test_ranges_equal_the_single_pass(
    head: bytes, body: bytes, cuts: List[int], block: int, record: int, tally: int, ops: List[str]
) -> None:
    data = head + body if head.endswith(b"\n") or not body else head + b"\n" + body
    with stored(data) as path, limits(block, record, tally):
        _, faults, single = drain(worker.reference(path, 3, ops))
        assert in_ranges(path, cuts, ops) == (faults, single)
        _, whole_faults, whole = drain(worker.process_large_dataset(path, 100, ops))
        assert (whole_faults, whole) == (faults, single)


@pytest.mark.parametrize("block", [1, 2, 20])
@pytest.mark.parametrize(
    "body",
    [
        b'1,"x""\n"\n2,3\n',
        b'"","""\n"""\n"\n\n",""\n\n',
        b'1,"a\r\nb"\r\n\r\n2,"c"',
        b'1,"a"b"\n,"\n2,3\n',
        b"1,2\n3," + b"a" * 60 + b"\n4,5\n",
        b'1,2\n3,"' + b'a""\n' * 20 + b'"\n4,"5\n',
    ],
)
def test_any_byte_may_be_the_last_of_a_range(body: bytes, block: int) -> None:
    with stored(b"a,b\n" + body) as path, limits(block, 30, 3):
        _, faults, single = drain(worker.reference(path, 3, ALL))
        for cut in range(4, 4 + len(body), 1 + len(body) // 25):
            assert in_ranges(path, [cut], ALL) == (faults, single)


texts = st.text(
    st.one_of(st.sampled_from('",\n\r x'), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    max_size=8,
)


@settings(deadline=None)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(texts, min_size=width, max_size=width), min_size=1, max_size=12)
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    block=st.integers(1, 64),
)
def test_every_row_is_read_once_as_it_was_written(rows: List[List[str]], end: str, cuts: List[int], block: int) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    data = text.getvalue().encode()
    offsets = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    schema = table.Schema([str(i) for i in range(len(rows[0]))], [])
    found: List[List[str]] = []
    with mock.patch.object(ranges, "BLOCK", block):
        file, state = io.BytesIO(data), ranges.RECORD
        for start, stop in zip(offsets, offsets[1:]):
            for some in ranges.blocks(file, start, stop, state):
                frame, blank, faults = table.read(some, schema)
                assert (blank, faults) == (0, [])
                found += frame.fillna("").to_numpy().tolist()
            state = ranges.scan(file, start, stop)[1][state].then
    assert found == rows


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (
            b"x,2\n3\n4,5,6\n7,8\n",
            ["line 3 has 1 field, but the header has 2", "line 4 has 3 fields, but the header has 2"],
        ),
        (b"x,y,z\nx\nx,y\n", ["line 2 has 3 fields, but the header has 2", "line 3 has 1 field, but the header has 2"]),
        (b'x,"a\nb"\n3\n', ["line 4 has 1 field, but the header has 2"]),
        (b"1,\xff\n2,2\n", ["line 2 " + table.NOT_UTF8]),
        (b"1,\0\n", ["line 2 " + table.HAS_NUL]),
        (b'1,a"b\n', ["line 2 " + table.STRAY_QUOTE]),
        (b'1,"a"b\n', ["line 2 " + table.STRAY_QUOTE]),
        (b'1,a"\n2,"b\nc"\n3\n', ["line 2 " + table.STRAY_QUOTE, "line 5 has 1 field, but the header has 2"]),
        (b"1,a\rb\n", ["line 2 " + table.STRAY_QUOTE]),
        (b'1,1\n1,"a\n', ["line 3 " + ranges.OPEN_QUOTE]),
        (
            b"1,1\n\n1," + b"a" * 4096 + b"\n2,2\n3\n",
            ["line 4 " + ranges.TOO_LONG, "line 6 has 1 field, but the header has 2"],
        ),
        (
            b'1,1\n1,"' + b"a\n" * 4096 + b'"\n3\n',
            ["line 3 " + ranges.TOO_LONG, "line 4100 has 1 field, but the header has 2"],
        ),
    ],
)
def test_malformed_rows_are_reported_and_skipped(body: bytes, faults: List[str]) -> None:
    with stored(b"a,b\n" + body) as path, limits(1000, 4096, 256):
        for job in worker.process_large_dataset(path, 10, ALL), worker.reference(path, 10, ALL):
            _, found, stats = drain(job)
            assert found == faults
            assert stats["errors"] == len(faults)
        assert in_ranges(path, range(0, len(body), max(1, len(body) // 5)), ALL) == (faults, stats)


def test_what_is_no_number_in_a_column_of_numbers() -> None:
    sample = b"1\n" * (table.SAMPLE // 2)
    with stored(b"n\n" + sample + b"2\ntwo\n1e999\n \n-0.5\n") as path:
        _, faults, stats = drain(worker.process_large_dataset(path, 10_000, ["aggregate"]))
        line = len(sample) // 2 + 3
        assert faults == [
            f"line {line} has 'two' in 'n', a column of numbers",
            f"line {line + 1} has '1e999' in 'n', a column of numbers",
        ]
        # A blank line is no row.
        assert (stats["processed"], stats["skipped"], stats["errors"]) == (len(sample) // 2 + 2, 3, 2)
        assert drain(worker.reference(path, 10_000, ["aggregate"]))[1:] == (faults, stats)

        _, faults, stats = drain(worker.process_large_dataset(path, 10_000, ["aggregate"], ["n"]))
        assert (faults, stats["aggregates"][0][0]["texts"]) == ([], len(sample) // 2 + 4)


@pytest.mark.parametrize("text", ["00501", "1234567890123456", "1_0", "0x10", "nan", "inf", "1e100", "True"])
def test_columns_of_text(text: str) -> None:
    with stored(f"a\n{text}\n".encode()) as path:
        assert worker.open_dataset(path, 1, [])["numbers"] == []


def test_operations() -> None:
    with stored("a,b\n 1 ,x\n2.50,e\u0301\n,\n\n,\nx,\u00e9\n".encode()) as path:
        stats = drain(worker.process_large_dataset(path, 10, ALL))[2]
        assert (stats["processed"], stats["skipped"], stats["errors"]) == (3, 3, 0)
        [[a, b, filled]] = stats["aggregates"]
        assert (a["texts"], a["first"], a["last"], a["longest"], a["empty"]) == (3, "1", "x", 4, 0)
        assert b["tally"] == {"x": 1, "\u00e9": 2}
        assert (filled["name"], filled["numbers"], filled["sum"]) == ("filled_fields", 3, "6")

        before, after = drain(worker.process_large_dataset(path, 10, ["aggregate", "clean", "aggregate"]))[2][
            "aggregates"
        ]
        assert (before[0]["empty"], before[0]["first"]) == (2, " 1 ")
        assert (after[0]["empty"], after[0]["first"]) == (0, "1")


def test_an_operation_of_yours() -> None:
    @operations.operation
    def dear(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["price"] >= 10]

    try:
        with stored(b"item,price\ntea,4.5\nink,12\npen,10\n") as path:
            stats = drain(worker.process_large_dataset(path, 2, ["dear", "aggregate"]))[2]
            assert (stats["processed"], stats["skipped"], stats["aggregates"][0][1]["sum"]) == (2, 1, "22")
            assert not worker.has_reference(["dear"])
        with stored(b"item,cost\n") as path, pytest.raises(
            ValueError, match=r"^operation 'dear' needs a column 'price'; there are item, cost$"
        ):
            worker.open_dataset(path, 2, ["dear"])
    finally:
        del operations.OPERATIONS["dear"]


@given(
    st.lists(
        st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.decimals(-(10**9), 10**9, places=2).map(float)),
        min_size=1,
    )
)
def test_sums_are_exact(values: List[float]) -> None:
    with operations.localcontext(operations.EXACT):
        want = sum(map(Decimal, map(repr, values)), Decimal(0))
    assert operations.exact_sum(np.array(values)) == want


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (b"", (10, ALL), "is empty; its first line must name the columns"),
        (b"\xef\xbb\xbf", (10, ALL), "is empty; its first line must name the columns"),
        (b"\na,b\n", (10, ALL), "has a blank first line, but it must name the columns"),
        (b"\xff\xfea\0", (10, ALL), "is not a CSV file: its first line contains a NUL character"),
        (b"a,b,a\n", (10, ALL), "has two columns 'a'; give each a name of its own"),
        (b"a,b\n", (10, ALL, ["c"]), "has no column 'c'; it has a, b"),
        (b"a,b\n", (-5, ALL), "chunk_size is -5, but it must be at least 1"),
        (
            b"a,b\n",
            (10, ["cleen"]),
            "there is no operation 'cleen'; there are clean, transform, aggregate; add yours to operations.py",
        ),
    ],
)
def test_bad_arguments(data: bytes, arguments: Any, message: str) -> None:
    with stored(data) as path:
        for command in worker.open_dataset, worker.process_large_dataset:
            with pytest.raises(ValueError, match=r".") as error:
                drain(iter(command(path, *arguments)))
            assert str(error.value).replace(path + " ", "") == message


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no\.csv cannot be read: No such file or directory$"):
        worker.open_dataset(str(tmp_path / "no.csv"), 10, ALL)
    with pytest.raises(ValueError, match=r"is not a regular file; name a CSV file$"):
        worker.open_dataset(str(tmp_path), 10, ALL)


def test_progress() -> None:
    with stored(b"a\n" + b"1\n" * 25) as path:
        chunks, _, _ = drain(worker.process_large_dataset(path, 10, ALL))
    assert [(chunk["processed_rows"], chunk["total_rows"], chunk["progress_percent"]) for chunk in chunks] == [
        (10, 25, 40.0),
        (20, 25, 80.0),
        (25, 25, 100.0),
    ]
    assert all(chunk["memory_usage_mb"] >= 0 and chunk["worker_pid"] == os.getpid() for chunk in chunks)


@pytest.mark.parametrize("unit", [b"12,some text\n", b'"open, '])
def test_memory_does_not_grow_with_the_file(unit: bytes) -> None:
    def peak(size: int) -> int:
        with stored(b"a,b\n" + unit * (size // len(unit))) as path, limits(1 << 14, 1 << 15, 256):
            tracemalloc.start()
            try:
                drain(worker.process_large_dataset(path, 1000, ["clean", "aggregate"]))
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(100_000)  # what pandas keeps of its first time
    assert peak(800_000) < peak(200_000) + 50_000


def test_the_unicode_database(tmp_path: Path) -> None:
    some = [*range(0x300), 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFDD0, 0xFFFD, 0xFFFF, 0x1F600, 0x20000, 0x10FFFF]
    text = ",".join(unicode_csv.COLUMNS) + "\n" + "".join(map(unicode_csv.row, some))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [int(row["codepoint"]) for row in rows] == some
    for row in rows:
        char = chr(int(row["codepoint"]))
        assert row["char"] == ("" if char == "\0" or 0xD800 <= ord(char) <= 0xDFFF else char)
    names = {int(row["codepoint"]): row["name"] for row in rows}
    assert [names[0], names[0x41], names[0xFFFF], names[0xD800], names[0xE000]] == [
        "<control-0000>",
        "LATIN CAPITAL LETTER A",
        "<noncharacter-FFFF>",
        "<surrogate-D800>",
        "<private-use-E000>",
    ]
    with stored(text.encode()) as path:
        _, faults, single = drain(worker.reference(path, 100, ALL))
        assert faults == []
        assert in_ranges(path, range(100, len(text), 4999), ALL) == ([], single)


def test_the_unicode_database_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    job = worker.write_unicode(str(tmp_path))
    next(job)
    job.close()
    assert list(tmp_path.iterdir()) == []
    with mock.patch.object(unicode_csv, "CODEPOINTS", 1 << 15):
        path = write(str(tmp_path))
    assert [str(file) for file in tmp_path.iterdir()] == [path]
    assert write(str(tmp_path)) == path  # it is there


def write(directory: str) -> str:
    """Has the Unicode database written and returns its path."""
    job = worker.write_unicode(directory)
    while True:
        try:
            assert next(job)["progress_percent"] > 0
        except StopIteration as end:
            return str(end.value)


def test_the_made_up_sales(tmp_path: Path) -> None:
    script = Path(__file__).with_name("sales_csv.py")
    path = tmp_path / "sales.csv"
    subprocess.run([sys.executable, script, "300KB", path], check=True)
    assert 300_000 <= path.stat().st_size < 301_000
    _, faults, stats = drain(worker.reference(str(path), 1000, ALL))
    assert in_ranges(str(path), [100_001, 200_002], ALL) == (faults, stats)
    assert stats["errors"] == len(faults) > 0
    wrong = subprocess.run([sys.executable, script, "1XB", path], check=False, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "sales_csv.py: '1XB' is no size; write it like 100MB or 1GB\n")
