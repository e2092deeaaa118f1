"""Tells whether the kernel killed a process because memory ran out."""

from __future__ import annotations

import threading
from typing import Iterator, Optional

__all__ = ["OomCounter"]


class OomCounter:
    """The kernel's count of the processes that it killed in this program's control group because memory ran out.

    Workers start in the same group. The count does not say which process was killed, so each increase explains one
    SIGKILL that was not ours. Any thread may call the methods.

    Args:
        groups: The file that names the control groups of this process.
        mounts: The directory where the control groups are mounted.
    """

    def __init__(self, groups: str = "/proc/self/cgroup", mounts: str = "/sys/fs/cgroup") -> None:
        self._lock = threading.Lock()  # guards _claimed
        self._claimed = 0  # increases up to this count explain an earlier exit
        self._path = next((path for path in _paths(groups, mounts) if _read(path) is not None), "")

    def base(self) -> int:
        """Returns the count for a process that is about to start."""
        return _read(self._path) or 0

    def claim(self, base: int) -> bool:
        """Reports whether the count has increased since ``base``, by more than earlier claims explain.

        If so, it claims one increase.
        """
        with self._lock:
            count = _read(self._path) or 0
            start = max(base, self._claimed)
            if count <= start:
                return False
            self._claimed = start + 1
            return True


def _paths(groups: str, mounts: str) -> Iterator[str]:
    """Yields the files that may have the count."""
    try:
        with open(groups, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:  # this system has no control groups
        return
    for line in lines:
        fields = line.split(":", 2)  # "0::/path" in version 2, "4:memory:/path" in version 1
        if len(fields) != 3:
            continue
        number, controller, path = fields
        if number == "0" and not controller:
            yield f"{mounts}{path}/memory.events"
        elif controller == "memory":
            yield f"{mounts}/memory{path}/memory.oom_control"


def _read(path: str) -> Optional[int]:
    """Returns the count in a file, or None if it has none."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    except (OSError, ValueError):
        pass
    return None
