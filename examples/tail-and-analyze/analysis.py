"""Finds patterns in the lines of a log, with the lines around them, their severities and timestamps."""

from __future__ import annotations

import re
from collections import Counter, deque
from datetime import datetime, timedelta, timezone
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

from follow import Line

MOST_CONTEXT = 100
"""The most lines of context. It keeps a chunk far below the frame limit."""


class Analysis:
    """Finds the lines that match patterns. A match is kept until the lines after it have come, or `flush` is called.

    Args:
        file: The file's name for the chunks.
        patterns: Regular expressions. The first that matches a line counts.
        context_lines: How many lines before and after a match belong to it.

    Raises:
        ValueError: An argument is invalid.
    """

    def __init__(self, file: str, patterns: List[str], context_lines: int) -> None:
        if not patterns:
            raise ValueError("patterns is empty; give at least one")
        if not 0 <= context_lines <= MOST_CONTEXT:
            raise ValueError(f"context_lines is {context_lines}, but it must be from 0 to {MOST_CONTEXT}")
        self.lines = 0
        self.patterns: Counter[str] = Counter()
        self.severities: Counter[str] = Counter()
        self._file = file
        self._patterns = [(pattern, compiled(pattern)) for pattern in patterns]
        self._context = context_lines
        self._before: Deque[str] = deque(maxlen=context_lines)
        self._kept: Deque[Dict[str, Any]] = deque()  # matches that wait for the lines after them

    def feed(self, line: Line) -> Iterator[Dict[str, Any]]:
        """Takes the next line and yields the matches that it completes."""
        self.lines += 1
        for match in self._kept:
            match["context_after"].append(line.text)
        for pattern, expression in self._patterns:
            if expression.search(line.text):
                self._kept.append(self._match(pattern, line))
                break
        self._before.append(line.text)
        while self._kept and len(self._kept[0]["context_after"]) == self._context:
            yield self._kept.popleft()

    def flush(self) -> Iterator[Dict[str, Any]]:
        """Yields the kept matches, with the lines after them so far."""
        while self._kept:
            yield self._kept.popleft()

    def _match(self, pattern: str, line: Line) -> Dict[str, Any]:
        severity, timestamp, message = parse(line.text)
        self.patterns[pattern] += 1
        self.severities[severity or "none"] += 1
        return {
            "severity": severity,
            "timestamp": timestamp,
            "log_line": line.text,
            "pattern_matched": pattern,
            "message": message,
            "file": self._file,
            "line_number": line.number,
            "dropped_bytes": line.dropped,
            "context_before": list(self._before),
            "context_after": [],
        }


def compiled(pattern: str) -> Any:
    """Compiles a regular expression. For an invalid one, raises an error that says why."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is not a regular expression: {error}") from None


def parse(text: str, now: Optional[datetime] = None) -> Tuple[Optional[str], Optional[str], str]:
    """Parses the beginning of a line.

    Args:
        text: The line.
        now: The time from which a missing year is guessed.

    Returns:
        The severity (FATAL, ERROR, WARN, INFO, DEBUG), the timestamp in ISO 8601, and the message. A missing severity
        or timestamp is None. The message is the line without them, if they are at its beginning.
    """
    head = text[:200]
    message = text
    found = next((match for match in (form.search(head) for form in _TIMESTAMPS) if match), None)
    timestamp = iso(found, now or datetime.now()) if found else None
    if found and timestamp and found.start() <= 5:  # behind a bracket, or glog's letter, or the day of the week
        message = text[found.end() :].lstrip(_SEPARATORS)
    severity = None
    glog = re.match(r"([IWEF])\d{4} ", head)
    if glog:
        severity = {"I": "INFO", "W": "WARN", "E": "ERROR", "F": "FATAL"}[glog[1]]
    else:
        level = _LEVEL.search(head)
        if level:
            severity = _SEVERITIES[next(filter(None, level.groups())).upper()]
        level = _LEVEL.search(message[:200])
        if level and level.start() == 0:
            message = message[level.end() :].lstrip(_SEPARATORS)
    return severity, timestamp, message


_SEPARATORS = " \t]):|>-,"

_SEVERITIES = {
    **dict.fromkeys(["FATAL", "CRITICAL", "CRIT", "EMERGENCY", "EMERG", "ALERT", "PANIC"], "FATAL"),
    **dict.fromkeys(["ERROR", "ERR", "SEVERE"], "ERROR"),
    **dict.fromkeys(["WARNING", "WARN"], "WARN"),
    **dict.fromkeys(["NOTICE", "INFO"], "INFO"),
    **dict.fromkeys(["DEBUG", "TRACE"], "DEBUG"),
}

# A word in capitals counts anywhere. A word in small letters counts only if it is marked as a level: level=error,
# [error], [core:error], error:
_WORDS = "|".join(_SEVERITIES)
_LEVEL = re.compile(
    rf"\b({_WORDS})\b|\b(?i:level|lvl|severity)\"?\s*[=:]\s*\"?((?i:{_WORDS}))\b"
    rf"|[\[<(](?:[\w.-]+:)?((?i:{_WORDS}))[\]>)]|\b((?i:{_WORDS})):"
)

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
_ZONE = r"(?P<zone>Z\b|[+-]\d\d:?\d\d\b)"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIMESTAMPS = [
    re.compile(pattern)
    for pattern in (
        # ISO 8601; Go and nginx with slashes
        rf"(?<!\d)(?P<year>\d{{4}})([-/])(?P<month>\d\d)\2(?P<day>\d\d)[T _]{_TIME}(?: ?{_ZONE})?",
        rf"(?<!\d)(?P<day>\d\d)/{_MONTH}/(?P<year>\d{{4}}):{_TIME} {_ZONE}",  # access logs
        rf"\b(?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME}(?: (?:GMT|{_ZONE}))?",  # mail, HTTP
        rf"\b{_MONTH} +(?P<day>\d\d?) {_TIME}(?: (?P<year>\d{{4}})\b)?",  # syslog; ctime with a year
        rf"(?<=^[IWEF])(?P<month>\d\d)(?P<day>\d\d) {_TIME}",  # glog
    )
]


def iso(match: Any, now: datetime) -> Optional[str]:
    """Returns the time of a match in ISO 8601, with a zone if the line has one, or None if there is no such time."""
    part: Dict[str, Optional[str]] = {"year": None, "fraction": None, "zone": None, **match.groupdict()}
    fraction = part["fraction"] or ""
    month = part["month"] or ""
    try:
        zone = None
        if part["zone"] == "Z":
            zone = timezone.utc
        elif part["zone"]:
            digits = part["zone"].replace(":", "")
            offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
            zone = timezone(-offset if digits[0] == "-" else offset)
        time = datetime(
            int(part["year"] or now.year),
            _MONTHS.index(month) + 1 if month in _MONTHS else int(month),
            int(part["day"] or 0),
            int(part["hour"] or 0),
            int(part["minute"] or 0),
            int(part["second"] or 0),
            int(fraction[:6].ljust(6, "0")),
            zone,
        )
        if not part["year"] and time > now + timedelta(days=1):  # December's, read in January
            time = time.replace(year=now.year - 1)
    except ValueError:
        return None
    return time.isoformat(
        timespec="seconds" if not fraction else "milliseconds" if len(fraction) <= 3 else "microseconds"
    )
