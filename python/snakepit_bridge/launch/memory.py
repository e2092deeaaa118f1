"""Tells how much memory a worker has, and whether the kernel killed it because memory ran out."""

from __future__ import annotations

import os
import threading
from typing import Iterator, List, Optional, Tuple

__all__ = ["OomCounter", "resident_memory"]


def resident_memory(leader: int) -> int:
    """Returns the resident memory of a process, its group and its descendants, in bytes.

    Pages that several of them share count once. A process that has ended counts as nothing. Without /proc the result
    is 0.

    Args:
        leader: The leader of the group.
    """
    table = dict(_processes())
    tree = [leader] + [pid for pid, (_, group) in table.items() if group == leader and pid != leader]
    for pid in tree:
        tree += [child for child, (parent, _) in table.items() if parent == pid and child not in tree]
    return sum(map(_resident, tree)) if len(tree) == 1 else sum(map(_proportional, tree))


def _processes() -> Iterator[Tuple[int, Tuple[int, int]]]:
    """Yields the ids of all processes, each with the ids of its parent and its group. See proc_pid_stat(5)."""
    try:
        names: List[str] = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            stat = _text(f"/proc/{name}/stat").rpartition(")")[2].split()
            if len(stat) > 2:
                yield int(name), (int(stat[1]), int(stat[2]))


def _resident(pid: int) -> int:
    fields = _text(f"/proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def _proportional(pid: int) -> int:
    """Returns the memory of a process. A page that n processes share counts as 1/n. See proc_pid_smaps(5)."""
    for line in _text(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return _resident(pid)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # it has ended
        return ""


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
