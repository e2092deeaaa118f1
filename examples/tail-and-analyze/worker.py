"""The worker of the tail-and-analyze example. Run it by hand to see its command."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Dict, Generator, List

from analysis import Analysis
from follow import Follower, Note
from snakepit_bridge import Context, Worker

worker = Worker()

POLL = 0.1
"""How many seconds to wait before the next look at a file that has nothing new."""

SETTLED = 1.0
"""How many seconds without a new line end a match's wait for the lines after it."""


@worker.command
def tail_and_analyze(
    ctx: Context,
    log_path: str,
    patterns: List[str],
    context_lines: int = 3,
    from_start: bool = False,
    wait: bool = False,
    once: bool = False,
) -> Generator[Dict[str, Any], None, Dict[str, Any]]:
    """Follows a log file, through rotation and truncation, and reports the lines that match a pattern.

    Args:
        ctx: The call. The host's function stopping says whether to end.
        log_path: The file.
        patterns: Regular expressions.
        context_lines: How many lines before and after a match to report with it.
        from_start: Whether to read the present content too, not only new lines.
        wait: Whether the file may appear later.
        once: Whether to read the present content and then end.

    Yields:
        A chunk for each line that matches: its severity, timestamp, log_line, pattern_matched, message, file,
        line_number, dropped_bytes, context_before and context_after. A chunk with only a file and a note reports an
        event of the file.

    Returns:
        is_final, the number of lines, the matches by pattern and by severity, and the numbers of rotations and of
        truncations.
    """
    analysis = Analysis(log_path, patterns, context_lines)
    with closing(Follower(log_path, from_start or once, wait)) as follower:
        last = time.monotonic()
        while True:
            stopping = ctx.call("stopping")
            items = follower.read()
            for item in items or []:
                last = time.monotonic()
                if isinstance(item, Note):
                    yield {"file": log_path, "note": item.text}
                else:
                    yield from analysis.feed(item)
            if stopping or (once and items is None):
                break
            if items is None:
                if time.monotonic() - last > SETTLED:
                    yield from analysis.flush()
                time.sleep(POLL)
        for line in follower.rest():
            yield from analysis.feed(line)
        yield from analysis.flush()
        return {
            "is_final": True,
            "lines": analysis.lines,
            "patterns": analysis.patterns,
            "severities": analysis.severities,
            "rotations": follower.rotations,
            "truncations": follower.truncations,
        }


if __name__ == "__main__":
    worker.run()
