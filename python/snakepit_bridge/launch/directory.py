"""Private directories of seats. Those that killed programs left behind are removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

# Windows has no such locks.
fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

__all__ = ["Directory"]

PREFIX = "snakepit-seat-"


class Directory:
    """A new directory that only this user can enter. It is locked as long as it is in use.

    Attributes:
        path: Its path.
    """

    def __init__(self) -> None:
        _sweep()
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX)  # mode 0700
            try:
                self._claim = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:  # another start's sweep has removed it
                continue
            try:
                fcntl.flock(self._claim, fcntl.LOCK_EX)
            except OSError:  # this file system has no locks, so no sweep removes the directory
                return
            if _names(self.path, self._claim):
                return
            os.close(self._claim)  # the same

    def remove(self) -> None:
        """Removes the directory. It is called once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._claim)


def _sweep() -> None:
    """Removes this user's directories that nobody uses."""
    parent = tempfile.gettempdir()
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(PREFIX) or os.path.islink(path):
            continue
        try:
            claim = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # it is another user's, no directory, or has just been removed
            continue
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(claim).st_uid == os.geteuid() and _names(path, claim):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # it is in use
            pass
        finally:
            os.close(claim)


def _names(path: str, claim: int) -> bool:
    """Reports whether a path still names the open directory."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(claim))
    except OSError:
        return False
