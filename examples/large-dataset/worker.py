"""The worker of the large-dataset example. Run it by hand to see its commands."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import Any, BinaryIO, Dict, Generator, Iterator, List, Optional, Sequence, Union

import progress
import ranges
import table
from operations import Pipeline, aggregate
from snakepit_bridge import ItemError, Worker

worker = Worker()

Job = Generator[Union[Dict[str, Any], ItemError], None, Dict[str, Any]]


@worker.command
def process_large_dataset(
    file_path: str,
    chunk_size: int,
    operations: List[str],
    text_columns: Sequence[str] = (),
    part: Optional[Dict[str, Any]] = None,
) -> Job:
    """Runs operations over the rows of a CSV file, in constant memory.

    Args:
        file_path: The file, in UTF-8. Its first record names the columns.
        chunk_size: The number of rows that an operation gets at once, and between two progress chunks.
        operations: The names of functions in operations.py, in order.
        text_columns: Columns that hold text, even if they look like numbers.
        part: The range of bytes whose records to read. The Go program computes it by open_dataset and scan_range.
            None means all.

    Yields:
        A chunk of progress whenever chunk_size more rows have been read, skipped ones included, and at the end.
        An ItemError for each malformed row, which is skipped.

    Returns:
        final_stats: the numbers of rows that were processed and skipped, how many of the skipped were errors, and the
        results of each aggregate.
    """
    with opened(file_path) as file:
        part = part or whole(file, text_columns)
        schema = table.Schema(part["columns"], part["numbers"])
        pipeline = check(schema, chunk_size, operations)
        processed = skipped = errors = told = 0
        for block in ranges.blocks(file, part["start"], part["end"], ranges.STATES[part["state"]], part["line"]):
            frame, blank, faults = table.read(block, schema)
            for line, fault in faults:
                yield ItemError(f"line {line} {fault}")
            errors += len(faults)
            skipped += len(faults) + blank
            for first in range(0, len(frame), chunk_size):
                some = frame.iloc[first : first + chunk_size]
                kept = pipeline.run(some)
                processed += kept
                skipped += len(some) - kept
                if processed + skipped - told >= chunk_size:
                    told = processed + skipped
                    yield progress.chunk(told, part["rows"])
        if processed + skipped > told:
            yield progress.chunk(processed + skipped, part["rows"])
    return final_stats(processed, skipped, errors, pipeline.aggregates())


def final_stats(processed: int, skipped: int, errors: int, aggregates: List[aggregate]) -> Dict[str, Any]:
    """Returns the result of a job."""
    return {
        "final_stats": {
            "processed": processed,
            "skipped": skipped,
            "errors": errors,
            "aggregates": [step.result() for step in aggregates],
        }
    }


@worker.command
def merge_stats(parts: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Adds up the final_stats of a file's parts."""
    aggregates = [aggregate() for _ in parts[0]["aggregates"]] if parts else []
    for part in parts:
        for step, result in zip(aggregates, part["aggregates"]):
            step.merge(result)
    processed, skipped, errors = (sum(part[key] for part in parts) for key in ("processed", "skipped", "errors"))
    return final_stats(processed, skipped, errors, aggregates)


@worker.command
def open_dataset(
    file_path: str, chunk_size: int, operations: List[str], text_columns: Sequence[str] = ()
) -> Dict[str, Any]:
    """Checks a job's arguments. Returns where the rows begin and end, their first line, the columns and their types."""
    with opened(file_path) as file:
        header = table.header(file, text_columns)
        check(header.schema, chunk_size, operations)
        return {
            "start": header.size,
            "end": os.fstat(file.fileno()).st_size,
            "line": header.lines + 1,
            "columns": header.schema.columns,
            "numbers": header.schema.numbers,
        }


@worker.command
def scan_range(file_path: str, start: int, end: int) -> Dict[str, Any]:
    """Counts the lines of a range. For each state at its start, finds its rows and the state at its end.

    See ranges.py.
    """
    with opened(file_path) as file:
        lines, scans = ranges.scan(file, start, end)
    states = {
        ranges.NAMES[state]: {"rows": scan.rows, "then": ranges.NAMES[scan.then]} for state, scan in scans.items()
    }
    return {"lines": lines, "states": states}


@worker.command
def reference(
    file_path: str, chunk_size: int, operations: List[str], text_columns: Sequence[str] = (), total_rows: int = 0
) -> Job:
    """Does the whole job in one plain pass, to compare with. See reference.py."""
    import reference as plain

    with opened(file_path) as file:
        schema = table.header(file, text_columns).schema
        return (yield from plain.run(file, schema, chunk_size, operations, total_rows))


@worker.command
def has_reference(operations: List[str]) -> bool:
    """Reports whether reference knows all of these operations."""
    import reference as plain

    return set(operations) <= set(plain.KNOWN)


@worker.command
def write_unicode(directory: str) -> Generator[Dict[str, Any], None, str]:
    """Writes the Unicode character database into a directory as CSV, unless it exists. Returns the file's path."""
    import unicode_csv

    return (yield from unicode_csv.write(directory))


@worker.command
def environment_without_grpc(directory: str) -> str:
    """Makes a virtual environment that has pandas but neither grpcio nor msgpack. Returns its interpreter's path."""
    import sysconfig
    import venv
    from pathlib import Path

    import pandas

    venv.create(directory, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": directory, "platbase": directory}))
    for entry in Path(pandas.__file__).parents[1].iterdir():
        if not entry.name.startswith(("grpc", "msgpack")):
            (packages / entry.name).symlink_to(entry)
    return os.path.join(directory, "bin", "python")


@contextmanager
def opened(file_path: str) -> Iterator[BinaryIO]:
    """Opens a regular file. If that fails, raises an error that says why."""
    try:
        if not stat.S_ISREG(os.stat(file_path).st_mode):
            raise ValueError(f"{file_path} is not a regular file; name a CSV file")
        file = open(file_path, "rb")  # noqa: SIM115 (only its opening is to be tried)
    except OSError as error:
        raise OSError(f"{file_path} cannot be read: {error.strerror}") from None
    with file:
        yield file


def whole(file: BinaryIO, text_columns: Sequence[str]) -> Dict[str, Any]:
    """Returns the part that covers a whole file."""
    header = table.header(file, text_columns)
    end = os.fstat(file.fileno()).st_size
    rows = ranges.scan(file, header.size, end)[1][ranges.RECORD].rows
    return {
        **header.schema._asdict(),
        "start": header.size,
        "end": end,
        "state": "record",
        "line": header.lines + 1,
        "rows": rows,
    }


def check(schema: table.Schema, chunk_size: int, operations: List[str]) -> Pipeline:
    """Checks a job's arguments and makes its pipeline."""
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, but it must be at least 1")
    return Pipeline(operations, table.empty(schema))


if __name__ == "__main__":
    worker.run()
