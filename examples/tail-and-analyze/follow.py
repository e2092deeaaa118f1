"""Follows a log file: reads each appended line once, through rotation and truncation."""

from __future__ import annotations

import os
import stat
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Union

BLOCK = 1 << 16
"""How many bytes are read at once."""

LONGEST = 1 << 14
"""How many bytes of a line are kept. The rest of a longer one is read and dropped."""

MARK = 256
"""How many of the file's first bytes, and of the last ones read, are remembered to check that they are still there."""

GRACE = 5.0
"""How many seconds a rotated file is still read after its last line. A process may still be writing to it."""


class Line(NamedTuple):
    """A line of the file.

    Attributes:
        number: Its number in the file, from 1. A new or truncated file begins again at 1.
        text: The line without its end. Bytes that are not UTF-8 become U+FFFD.
        dropped: How many bytes of a long line are not in the text.
    """

    number: int
    text: str
    dropped: int = 0


class Note(NamedTuple):
    """An event of the file. The text continues a sentence that begins with the file's name."""

    text: str


class Follower:
    """Reads a file that grows.

    After a rotation (the file was renamed and made anew) another file has the name. The old file is read to its end,
    and for a while after that. A truncated file no longer has the bytes that were read, whether it is shorter now or
    was filled again. This is checked after each read, so new text is never taken for the rest of old text.

    Args:
        path: The file.
        from_start: Whether to read the present content too, not only new lines.
        wait: Whether the file may appear later. It is then read from its start.
        grace: See `GRACE`.
        clock: Returns the time in seconds, to measure grace.

    Raises:
        OSError: The file cannot be followed.
    """

    def __init__(
        self,
        path: str,
        from_start: bool = False,
        wait: bool = False,
        grace: float = GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rotations = 0
        self.truncations = 0
        self._path = path
        self._grace = grace
        self._clock = clock
        self._files: List[_File] = []  # the rotated ones, the oldest first, then the one that has the name now
        self._problem = ""
        self._notes: List[Union[Line, Note]] = self._look()
        if self._files:
            where = "beginning" if from_start else f"end, line {self._files[0].skip() + 1}"
            self._notes = [Note(f"is followed from its {where}")]
        elif not (wait and self._problem == MISSING):
            raise OSError(f"{path} {self._problem}" + ("; -wait waits for it" if self._problem == MISSING else ""))

    def read(self) -> Optional[List[Union[Line, Note]]]:
        """Returns the lines that end in the next block, and notes. None means that there is nothing new."""
        if self._notes:
            notes, self._notes = self._notes, []
            return notes
        for file in self._files:
            try:
                block = file.read()
                file.failing = False
            except OSError as error:
                if file.failing:
                    continue
                file.failing = True
                return [Note(f"cannot be read: {error.strerror}; it is tried again")]
            if block is None:
                self.truncations += 1
                return [*file.restart(), Note("was truncated; it is read from its beginning")]
            if block:
                if file.until is not None:
                    file.until = self._clock() + self._grace
                return list(file.split(block))
        return self._look() or None

    def rest(self) -> List[Line]:
        """Returns the last lines, which have no line feed yet."""
        return [line for file in self._files for line in file.flush()]

    def close(self) -> None:
        """Closes the file."""
        for file in self._files:
            file.close()

    def _look(self) -> List[Union[Line, Note]]:
        """Checks which file has the name now, and which were rotated long enough ago."""
        now = self._clock()
        items: List[Union[Line, Note]] = []
        for file in [file for file in self._files if file.until is not None and file.until <= now]:
            items += file.flush()
            file.close()
            self._files.remove(file)
        try:
            status = os.stat(self._path)
            if not stat.S_ISREG(status.st_mode):
                return items + self._trouble("is not a regular file")
            if self._files and self._files[-1].is_at(status):
                self._problem = ""
                return items
            items += self._change(now, status)
            self._problem = ""
        except FileNotFoundError:
            items += self._trouble(MISSING)
        except OSError as error:
            items += self._trouble(f"cannot be read: {error.strerror}")
        return items

    def _change(self, now: float, status: os.stat_result) -> List[Union[Line, Note]]:
        """Switches to the file that has the name now."""
        known = [file for file in self._files if file.is_at(status)]  # was renamed back
        file = known[0] if known else _File(self._path)
        if not known and any(other.is_at(file.status) for other in self._files):  # renamed back since
            file.close()
            return []
        for other in self._files:
            other.until = now + self._grace if other.until is None else other.until
        self._files = [other for other in self._files if other is not file] + [file]
        file.until = None
        if len(self._files) == 1:
            return [Note("is there; it is read from its beginning")]
        self.rotations += 1
        return [Note("was rotated; the new file is read from its beginning")]

    def _trouble(self, problem: str) -> List[Union[Line, Note]]:
        """Reports a problem once."""
        if problem == self._problem:
            return []
        self._problem = problem
        return [Note(f"{problem}; it is tried again")]


MISSING = "does not exist"


class _File:
    """An open file. It may be renamed meanwhile.

    Attributes:
        status: Its identity among other files.
        until: When to stop reading it. None while it has its name.
        failing: Whether the last read failed.
    """

    def __init__(self, path: str) -> None:
        self.until: Optional[float] = None
        self.failing = False
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  close closes it
        self.status = os.fstat(self._file.fileno())
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._first = b""  # bytes of the file
        self._last = b""  # bytes before the offset
        self._number = 0
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._dropped = 0

    def is_at(self, status: os.stat_result) -> bool:
        return os.path.samestat(self.status, status)

    def read(self) -> Optional[bytes]:
        """Returns the next block, empty at the end, or None if the file was truncated."""
        block = self._at(self._offset, BLOCK)
        last = self._offset - len(self._last)
        if self._at(0, len(self._first)) != self._first or self._at(last, len(self._last)) != self._last:
            return None
        self._offset += len(block)
        self._last = (self._last + block)[-MARK:]
        if len(self._first) < MARK:
            self._first = (self._first + block)[:MARK]
        return block

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size) or b""

    def skip(self) -> int:
        """Goes to the beginning of the last line. Returns the number of lines before it."""
        begin = number = 0
        while block := self.read():
            number += block.count(b"\n")
            if b"\n" in block:
                begin = self._offset - len(block) + block.rindex(b"\n") + 1
        size = min(begin, MARK)
        first, last = self._at(0, size), self._at(begin - size, size)
        self._begin()
        if len(last) == size:  # else it was truncated just now
            self._offset, self._first, self._last, self._number = begin, first, last, number
        return self._number

    def restart(self) -> List[Line]:
        """Goes to the beginning of a truncated file. Returns the line that has lost its end."""
        lines = list(self.flush())
        self._begin()
        return lines

    def split(self, block: bytes) -> Iterator[Line]:
        """Yields the lines that end in a block."""
        *ends, begin = block.split(b"\n")
        for end in ends:
            self._add(end)
            yield self._take()
        self._add(begin)

    def flush(self) -> Iterator[Line]:
        """Yields the line that has no end yet, if there is one."""
        if self._line:
            yield self._take()

    def _add(self, part: bytes) -> None:
        if not self._line:
            # A process that still writes at the old end of a truncated file leaves a hole of NULs.
            part = part.lstrip(b"\0")
        room = LONGEST - len(self._line)
        self._line += part[:room]
        self._dropped += max(0, len(part) - room)

    def _take(self) -> Line:
        self._number += 1
        text = self._line.decode("utf-8", "replace").rstrip("\r")
        if self._dropped:
            text = text.rstrip("\ufffd")  # of a character that was cut
        line = Line(self._number, text, self._dropped)
        self._line, self._dropped = bytearray(), 0
        return line

    def close(self) -> None:
        self._file.close()
