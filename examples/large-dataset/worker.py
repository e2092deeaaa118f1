"""The worker of the large-dataset example. Run it by hand to see its commands."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import Any, BinaryIO, Dict, Generator, Iterator, List, Optional, Union

import progress
import ranges
from operations import Pipeline
from snakepit_bridge import ItemError, Worker

worker = Worker()

Job = Generator[Union[Dict[str, Any], ItemError], None, Dict[str, Any]]


@worker.command
def process_large_dataset(
    file_path: str,
    chunk_size: int,
    operations: List[str],
    start: int = 0,
    end: Optional[int] = None,
    state: str = "record",
    line: int = 1,
    total_rows: Optional[int] = None,
) -> Job:
    """Runs operations over the rows that begin in a range of a CSV file's bytes, in constant memory.

    Args:
        file_path: The file, in UTF-8. Its first record names the columns.
        chunk_size: How many rows to read from one progress chunk to the next. Memory does not depend on it.
        operations: Of "clean", "transform" and "aggregate", in the order in which they are to run; see operations.py.
        start: Where the range begins. The header does not count as a row.
        end: Where it ends; None is the end of the file.
        state: What the bytes before start have led to; see ranges.py.
        line: The number of the line that start is in.
        total_rows: The number of rows that begin in the range. If it is None, they are counted first.

    Yields:
        A chunk of progress whenever chunk_size more rows, or a few thousand above, have been read, skipped ones included, and at the end.
        An ItemError for each malformed row, which is skipped.

    Returns:
        final_stats: how many rows were processed, how many skipped, how many of those were errors, and each column's aggregates.
    """
    with opened(file_path) as file:
        header = read_header(file)
        pipeline = check(header, chunk_size, operations)
        before = ranges.STATES[state]
        if start < header.size:
            start, before, line = header.size, ranges.RECORD, header.lines + 1
        if end is None:
            end = os.fstat(file.fileno()).st_size
        if total_rows is None:
            total_rows = ranges.scan(file, start, end)[1][before].rows

        processed = skipped = errors = told = 0
        for block in ranges.blocks(file, start, end, before, line):
            rows, blank, faults = ranges.rows(block, len(header.columns))
            for where, fault in faults:
                yield ItemError(f"line {where} {fault}")
            errors += len(faults)
            skipped += len(faults) + blank
            while rows:
                some, rows = rows[:chunk_size], rows[chunk_size:]
                kept = pipeline.run(some)
                processed += kept
                skipped += len(some) - kept
                if processed + skipped - told >= chunk_size:
                    told = processed + skipped
                    yield progress.chunk(told, total_rows)
        if processed + skipped > told:
            yield progress.chunk(processed + skipped, total_rows)
    columns = [column.result() for column in pipeline.columns]
    return {"final_stats": {"processed": processed, "skipped": skipped, "errors": errors, "columns": columns}}


@worker.command
def open_dataset(file_path: str, chunk_size: int, operations: List[str]) -> Dict[str, Any]:
    """Checks a job's arguments, and says where the rows begin, on which line, where the file ends and what its columns are called."""
    with opened(file_path) as file:
        header = read_header(file)
        check(header, chunk_size, operations)
        return {"start": header.size, "line": header.lines + 1, "end": os.fstat(file.fileno()).st_size, "columns": header.columns}


@worker.command
def scan_range(file_path: str, start: int, end: int) -> Dict[str, Any]:
    """Counts the lines of a range, and for each state that it may begin with its rows and the state where it ends. See ranges.py."""
    with opened(file_path) as file:
        lines, scans = ranges.scan(file, start, end)
    states = {ranges.NAMES[state]: {"rows": scan.rows, "then": ranges.NAMES[scan.then]} for state, scan in scans.items()}
    return {"lines": lines, "states": states}


@worker.command
def reference(file_path: str, chunk_size: int, operations: List[str]) -> Job:
    """Does the whole job in one plain pass, to compare with. See reference.py."""
    import reference as plain

    with opened(file_path) as file:
        check(read_header(file), chunk_size, operations)
        file.seek(0)
        return (yield from plain.run(file, chunk_size, operations))


@worker.command
def write_unicode(folder: str) -> Generator[Dict[str, Any], None, str]:
    """Writes the Unicode character database into a folder as CSV, unless it is there, and returns the file's path."""
    import unicode_csv

    return (yield from unicode_csv.write(folder))


@worker.command
def empty_environment(folder: str) -> str:
    """Makes a virtual environment of this Python that has no packages, and returns its interpreter's path."""
    import venv

    posix = os.name == "posix"
    venv.create(folder, with_pip=False, symlinks=posix)
    return os.path.join(folder, "bin", "python") if posix else os.path.join(folder, "Scripts", "python.exe")


@contextmanager
def opened(file_path: str) -> Iterator[BinaryIO]:
    """Opens a regular file, or says in a sentence why that can't be."""
    try:
        if not stat.S_ISREG(os.stat(file_path).st_mode):
            raise ValueError(f"{file_path} is not a regular file; name a CSV file")
        file = open(file_path, "rb")  # noqa: SIM115 (only its opening is to be tried)
    except OSError as error:
        raise OSError(f"{file_path} cannot be read: {error.strerror}") from None
    with file:
        yield file


def read_header(file: BinaryIO) -> ranges.Header:
    """Reads the header, or says of which file it is missing."""
    try:
        return ranges.header(file)
    except ValueError as fault:
        raise ValueError(f"{file.name} {fault}") from None


def check(header: ranges.Header, chunk_size: int, operations: List[str]) -> Pipeline:
    """Checks a job's arguments and makes its pipeline."""
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, but it must be at least 1")
    return Pipeline(header.columns, operations)


if __name__ == "__main__":
    worker.run()
