"""Tests of the worker without a host: following a file, and what is found in its lines."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, List, Optional, Tuple

import follow
import pytest
from analysis import Analysis, parse
from follow import Follower, Line, Note
from hypothesis import given, settings
from hypothesis import strategies as st
from snakepit_bridge import RemoteError, testing

HERE = Path(__file__).parent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drain(follower: Follower) -> Tuple[List[str], List[str]]:
    """Reads what there is, and returns its lines and its notes."""
    lines, notes = [], []
    while (items := follower.read()) is not None:
        for item in items:
            if isinstance(item, Note):
                notes.append(item.text)
            else:
                lines.append(item.text)
    return lines, notes


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def texts(data: bytes) -> List[str]:
    """What the complete lines in the data are."""
    return [line.decode("utf-8", "replace").rstrip("\r").lstrip("\0") for line in data.split(b"\n")[:-1]]


piece = st.lists(
    st.sampled_from([b"a", "\u00e9".encode()[:1], "\u00e9".encode()[1:], b"\n", b"\r\n", b"\xff", b"b" * 300]),
    max_size=8,
).map(b"".join)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), piece),
        st.tuples(st.just("read"), st.just(b"")),
        st.tuples(st.just("rotate"), piece),
        st.tuples(st.just("truncate"), piece),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=200)
@given(steps=steps, block=st.integers(1, 400), mark=st.integers(8, 300))
def test_each_line_once_whatever_happens(steps: List[Tuple[str, bytes]], block: int, mark: int) -> None:
    expected: List[str] = []
    found: List[str] = []
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "BLOCK", block)
        patch.setattr(follow, "MARK", mark)
        path = Path(directory, "app.log")
        content = b"0:"
        path.write_bytes(content)
        follower = Follower(str(path), from_start=True, grace=0)
        for n, (step, data) in enumerate(steps, 1):
            if step == "write":
                append(path, data)
                content += data
            elif step == "read":
                items = follower.read() or []
                found += [item.text for item in items if isinstance(item, Line)]
            else:
                found += drain(follower)[0]
                *_ends, begin = content.split(b"\n")
                expected += texts(content)
                begin = begin.decode("utf-8", "replace").rstrip("\r")
                content = b"%d:" % n + data
                if step == "rotate":
                    path.rename(f"{path}.{n}")
                    path.write_bytes(content)
                    found += drain(follower)[0]  # a second rotation before this look could not be seen
                    # No line feed came until its grace was over.
                    expected += [*texts(content), begin] if begin else texts(content)
                    content = content[content.rfind(b"\n") + 1 :]
                else:
                    path.write_bytes(content)  # truncates
                    expected += [begin] if begin else []
        found += drain(follower)[0] + [line.text for line in follower.rest()]
        follower.close()
        *_, begin = content.split(b"\n")
        expected += texts(content) + ([begin.decode("utf-8", "replace").rstrip("\r")] if begin else [])
    assert found == expected


def test_each_line_once_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"")
    follower = Follower(str(path))
    lines: List[str] = []
    count = 5000

    def until(condition: Any) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(lines)} lines were read")
            time.sleep(0.001)

    def write() -> None:
        file = open(path, "ab", buffering=0)  # noqa: SIM115  is made anew
        for n in range(1, count + 1):
            line = f"line {n} caf\u00e9 {'x' * (n % 90)}\n".encode()
            cut = n % len(line)
            file.write(line[:cut])
            file.write(line[cut:])
            if n % 1000 == 0:  # what is not yet read of a rotated file stays there
                before = follower.rotations
                path.rename(tmp_path / f"app.log.{n}")
                file.write(f"late {n}\n".encode())
                file.close()
                file = open(path, "ab", buffering=0)  # noqa: SIM115
                until(lambda before=before: follower.rotations > before)
            elif n % 1000 == 500:  # what is not yet read of a truncated file is lost, so all of it has to be
                until(lambda n=n: lines and lines[-1].startswith(f"line {n} "))
                os.truncate(path, 0)
        file.close()

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        lines += [item.text for item in follower.read() or [] if isinstance(item, Line)]
    lines += drain(follower)[0]
    follower.close()
    assert [line.split()[1] for line in lines if line.startswith("line ")] == [str(n) for n in range(1, count + 1)]
    assert [line for line in lines if line.startswith("late ")] == [f"late {n}" for n in range(1000, count + 1, 1000)]
    assert follower.rotations == count // 1000
    assert follower.truncations == count // 1000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\r\nb\n\nc", [Line(1, "a"), Line(2, "b"), Line(3, ""), Line(4, "c")]),
        (b"\xff\xfe\xc3\n", [Line(1, "\ufffd\ufffd\ufffd")]),
        (b"\0\0\0a\0b\n", [Line(1, "a\0b")]),
        (b"x" * 20 + b"\ny\n", [Line(1, "x" * 10, 10), Line(2, "y")]),
        (b"x" * 9 + "\u00e9".encode() + b"\n", [Line(1, "x" * 9, 1)]),
        (b"x" * 20, [Line(1, "x" * 10, 10)]),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 100])
def test_lines(tmp_path: Path, data: bytes, expected: List[Line], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "BLOCK", block)
    monkeypatch.setattr(follow, "LONGEST", 10)
    path = tmp_path / "app.log"
    path.write_bytes(data)
    follower = Follower(str(path), from_start=True)
    found: List[Any] = []
    while (items := follower.read()) is not None:
        found += items
    assert [item for item in found if isinstance(item, Line)] + follower.rest() == expected
    follower.close()


def test_only_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\ntwo\nthr")
    follower = Follower(str(path))
    assert drain(follower) == ([], ["is followed from its end, line 3"])
    append(path, b"ee\nfour\n")
    assert follower.read() == [Line(3, "three"), Line(4, "four")]
    path.write_bytes(b"1\n2\n3\n4\n5\n6\n7\n8\n9\n")  # longer than before
    assert drain(follower)[0] == list("123456789")
    follower.close()


def test_a_new_content_that_begins_like_the_old_one(tmp_path: Path) -> None:
    path, header = tmp_path / "app.log", "#" * (2 * follow.MARK)
    path.write_text(f"{header}\none\n")
    follower = Follower(str(path), from_start=True)
    assert drain(follower)[0] == [header, "one"]
    path.write_text(f"{header}\ntwo\nthree\n")
    assert drain(follower)[0] == [header, "two", "three"]
    follower.close()


def test_a_file_that_was_rotated_is_read_on(tmp_path: Path) -> None:
    path, old, clock = tmp_path / "app.log", tmp_path / "app.log.1", Clock()
    path.write_bytes(b"one\n")
    follower = Follower(str(path), from_start=True, clock=clock)
    assert drain(follower) == (["one"], ["is followed from its beginning"])
    path.rename(old)
    append(old, b"two\n")
    assert drain(follower) == (["two"], ["does not exist; it is tried again"])
    path.write_bytes(b"1\n")
    assert drain(follower) == (["1"], ["was rotated; the new file is read from its beginning"])
    clock.now = follow.GRACE - 1
    append(old, b"three\nfou")
    assert drain(follower) == (["three"], [])
    clock.now += follow.GRACE - 1
    append(path, b"2\n")
    assert drain(follower) == (["2"], [])
    clock.now += 1
    assert drain(follower) == (["fou"], [])
    append(old, b"nobody reads this\n")
    assert drain(follower) == ([], [])
    assert follower.rotations == 1
    follower.close()


def test_a_file_that_is_renamed_back_is_not_read_again(tmp_path: Path) -> None:
    path, other = tmp_path / "app.log", tmp_path / "other"
    path.write_bytes(b"one\n")
    follower = Follower(str(path), from_start=True)
    drain(follower)
    path.rename(other)
    path.write_bytes(b"1\n")
    assert drain(follower)[0] == ["1"]
    other.rename(path)
    append(path, b"two\n")
    assert drain(follower)[0] == ["two"]
    follower.close()


def test_waiting(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with pytest.raises(OSError, match=r"app\.log does not exist; -wait waits for it$"):
        Follower(str(path))
    follower = Follower(str(path), wait=True)
    assert drain(follower) == ([], ["does not exist; it is tried again"])
    assert drain(follower) == ([], [])
    path.write_bytes(b"one\n")
    assert drain(follower) == (["one"], ["is there; it is read from its beginning"])
    follower.close()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with pytest.raises(OSError, match=r" is not a regular file$"):
        Follower(str(tmp_path), wait=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match=r"loop cannot be read: Too many levels of symbolic links$"):
        Follower(str(tmp_path / "loop"))
    path.write_bytes(b"one\n")
    follower = Follower(str(path), from_start=True)
    drain(follower)

    class Broken:
        def seek(self, offset: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

    [file] = follower._files
    whole, file._file = file._file, Broken()  # type: ignore[assignment]
    append(path, b"two\n")
    assert drain(follower) == ([], ["cannot be read: Input/output error; it is tried again"])
    assert drain(follower) == ([], [])
    file._file = whole
    assert drain(follower) == (["two"], [])

    path.rename(tmp_path / "old")
    path.mkdir()
    assert drain(follower) == ([], ["is not a regular file; it is tried again"])
    path.rmdir()
    path.write_bytes(b"three\n")
    assert drain(follower)[0] == ["three"]
    follower.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_one_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n")
    path.chmod(0)
    with pytest.raises(OSError, match=r"app\.log cannot be read: Permission denied$"):
        Follower(str(path))


@settings(deadline=None)
@given(lines=st.lists(st.sampled_from(["a", "b", "ERROR", "WARN ERROR"]), max_size=20), context=st.integers(0, 5))
def test_context(lines: List[str], context: int) -> None:
    analysis = Analysis("app.log", ["WARN", "ERROR"], context)
    found = [chunk for n, text in enumerate(lines, 1) for chunk in analysis.feed(Line(n, text))]
    for n, chunk in enumerate(found, 1):  # only those whose context is complete
        assert len(chunk["context_after"]) == context, n
    found += analysis.flush()
    expected = [n for n, text in enumerate(lines) if "ERROR" in text]
    assert [chunk["line_number"] - 1 for chunk in found] == expected
    for n, chunk in zip(expected, found):
        assert chunk["log_line"] == lines[n]
        assert chunk["pattern_matched"] == lines[n].split()[0]
        assert chunk["context_before"] == lines[max(0, n - context) : n]
        assert chunk["context_after"] == lines[n + 1 : n + 1 + context]
    assert analysis.lines == len(lines)
    assert sum(analysis.patterns.values()) == sum(analysis.severities.values()) == len(expected)


@pytest.mark.parametrize(
    ("text", "severity", "timestamp", "message"),
    [
        ("2025-01-20T15:30:45 ERROR Database failed", "ERROR", "2025-01-20T15:30:45", "Database failed"),
        ("2025-01-20 15:30:45,123 - app - WARNING - hot", "WARN", "2025-01-20T15:30:45.123", "app - WARNING - hot"),
        ("2025-01-20T15:30:45.123456789Z FATAL: gone", "FATAL", "2025-01-20T15:30:45.123456+00:00", "gone"),
        ("[2025-01-20T15:30:45+01:30] [error] x", "ERROR", "2025-01-20T15:30:45+01:30", "x"),
        ("2025/01/20 15:30:45 [warn] 12#0: x", "WARN", "2025-01-20T15:30:45", "12#0: x"),
        ("2025/01/20 15:30:45 listening", None, "2025-01-20T15:30:45", "listening"),
        (
            '1.2.3.4 - - [20/Jan/2025:15:30:45 -0800] "GET /"',
            None,
            "2025-01-20T15:30:45-08:00",
            '1.2.3.4 - - [20/Jan/2025:15:30:45 -0800] "GET /"',
        ),
        ("[Mon Jan 20 15:30:45.5 2025] [core:crit] [pid 1] x", "FATAL", "2025-01-20T15:30:45.500", "[pid 1] x"),
        ("Mon, 20 Jan 2025 15:30:45 GMT info: x", "INFO", "2025-01-20T15:30:45", "x"),
        ("Jan  2 15:30:45 host kernel: x", None, "2025-01-02T15:30:45", "host kernel: x"),
        ("Dec 31 15:30:45 host cron[1]: x", None, "2024-12-31T15:30:45", "host cron[1]: x"),
        ("E0120 15:30:45.123456 7 main.go:9] x", "ERROR", "2025-01-20T15:30:45.123456", "7 main.go:9] x"),
        (
            'time="2025-01-20T15:30:45Z" level=warning msg="x"',
            "WARN",
            "2025-01-20T15:30:45+00:00",
            'time="2025-01-20T15:30:45Z" level=warning msg="x"',
        ),
        ('{"level":"debug","msg":"no error here"}', "DEBUG", None, '{"level":"debug","msg":"no error here"}'),
        ("INFO 0 ERROR lines", "INFO", None, "0 ERROR lines"),
        ("there was an error", None, None, "there was an error"),
        ("2025-13-45 15:30:45 x", None, None, "2025-13-45 15:30:45 x"),
        ("at 2025-02-29T00:00:00 there was no day", None, None, "at 2025-02-29T00:00:00 there was no day"),
        ("", None, None, ""),
    ],
)
def test_parse(text: str, severity: Optional[str], timestamp: Optional[str], message: str) -> None:
    assert parse(text, datetime(2025, 1, 20, 16)) == (severity, timestamp, message)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"INFO a\nERROR b\nFATAL c")
    stopping: List[bool] = []
    with testing.load(HERE / "worker.py", functions={"stopping": lambda: bool(stopping)}) as worker:
        stream = worker.stream(
            "tail_and_analyze", log_path=str(path), patterns=["ERROR", "FATAL"], context_lines=1, once=True
        )
        note, error, fatal = stream
        assert note == {"file": str(path), "note": "is followed from its beginning"}
        assert (error["context_before"], error["context_after"]) == (["INFO a"], ["FATAL c"])
        assert (fatal["severity"], fatal["line_number"], fatal["context_after"]) == ("FATAL", 3, [])
        assert stream.result == {
            "is_final": True,
            "lines": 3,
            "patterns": {"ERROR": 1, "FATAL": 1},
            "severities": {"ERROR": 1, "FATAL": 1},
            "rotations": 0,
            "truncations": 0,
        }

        stream = worker.stream("tail_and_analyze", log_path=str(path), patterns=["b", "c"], context_lines=3)
        assert next(stream)["note"] == "is followed from its end, line 3"
        append(path, b"\n")
        assert next(stream)["log_line"] == "FATAL c"  # though the lines after it do not come
        stopping.append(True)
        assert list(stream) == []
        assert (stream.result["lines"], stream.result["patterns"]) == (1, {"c": 1})


def test_what_was_written_before_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"")
    asked = iter(range(9))

    def stopping() -> bool:
        if next(asked) < 3:
            return False
        append(path, b"ERROR at last\n")
        return True

    with testing.load(HERE / "worker.py", functions={"stopping": stopping}) as worker:
        stream = worker.stream("tail_and_analyze", log_path=str(path), patterns=["ERROR"])
        assert [chunk.get("log_line") for chunk in stream] == [None, "ERROR at last"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": []}, "patterns is empty; give at least one"),
        (
            {"patterns": ["a(b"]},
            r"the pattern 'a\(b' is not a regular expression: missing \), unterminated subpattern at position 1",
        ),
        ({"context_lines": -1}, "context_lines is -1, but it must be from 0 to 100"),
        ({"context_lines": 101}, "context_lines is 101, but it must be from 0 to 100"),
        ({"log_path": "nowhere.log"}, r"nowhere\.log does not exist; -wait waits for it"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with testing.load(HERE / "worker.py") as worker, pytest.raises(RemoteError, match=rf"Error: {message}$"):
        list(worker.stream("tail_and_analyze", **{"log_path": __file__, "patterns": ["x"], **arguments}))
