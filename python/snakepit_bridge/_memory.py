"""Memory for large values, in huge pages where there are any.

glibc takes new pages from the system for each large object. A page fault for each 4 KiB takes more than a copy.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import lru_cache
from typing import Any, Callable, Union

from ._stdlib import stdlib_first

_HUGE = 4 << 20  # from so many bytes on, huge pages are worth a system call
_ADVICE: int = getattr(mmap, "MADV_HUGEPAGE", 0)
_KEPT = 32 << 20  # the largest threshold that glibc takes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # in glibc's malloc.h

getrefcount: Callable[[Any], int] = getattr(sys, "getrefcount", lambda _: sys.maxsize)
_ALONE = 2  # the references to an object that only its attribute and an argument refer to


def memory(size: int) -> Union[bytearray, mmap.mmap]:
    """Returns new memory, in huge pages if it is large."""
    if size < _HUGE or not _ADVICE:
        return bytearray(size)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(_ADVICE)
    except OSError:  # this kernel has none
        pass
    return pages


LARGE = 256 << 10
"""For a body of more bytes, `keep_pages` is called."""

_pages_are_kept = False


def keep_pages() -> None:
    """Has glibc's allocator keep the pages of what is freed, up to 32 MiB in each arena, for the next large value.

    Otherwise it gives them back as soon as 128 KiB are free at the end of an arena, or twice the size of the largest
    block that was freed. Then a value of 1 MiB has new pages in each call. Nothing changes if the environment has
    settings for the allocator. Any thread may call it.
    """
    global _pages_are_kept
    if _pages_are_kept:
        return
    _pages_are_kept = True
    if any(name == "GLIBC_TUNABLES" or name[:7] == "MALLOC_" for name in os.environ):
        return
    try:
        if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
            return
        with stdlib_first():
            import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_M_MMAP_THRESHOLD, _KEPT):
            mallopt(_M_TRIM_THRESHOLD, _KEPT)
    except Exception:  # there is no ctypes, or another library
        return


class Spare:
    """A buffer that is reused once nothing refers to its last view. One thread at a time uses it.

    New memory would have new pages, because the allocator gives that much back to the system.
    """

    def __init__(self) -> None:
        self._kept: Union[bytearray, mmap.mmap] = bytearray()

    def view(self, size: int) -> memoryview:
        """Returns a view of so many bytes. What it holds is undefined."""
        if size >= _HUGE:
            return memoryview(memory(size))
        if size > len(self._kept) or getrefcount(self._kept) > _ALONE:
            self._kept = memory(size)
        return memoryview(self._kept)[:size]


def copy(data: Union[bytes, bytearray, memoryview]) -> memoryview:
    """Returns a copy that nobody else can change."""
    view = memoryview(memory(len(data)))
    view[:] = data
    return view


def bytes_of(data: memoryview) -> bytes:
    """Returns a copy as bytes.

    Large writable memory is copied in huge pages and without the interpreter's lock, if the C API can be called.
    """
    if len(data) < _HUGE or data.readonly:
        return bytes(data)
    return _copier()(data)


@lru_cache(maxsize=None)
def _copier() -> Callable[[memoryview], bytes]:
    """Returns the function that copies large data. That is `bytes` where the C API or huge pages are missing."""
    if not _ADVICE or sys.implementation.name != "cpython":
        return bytes
    try:
        return _c_copier()
    except Exception:  # there is no ctypes, or it lacks a function
        return bytes


def _c_copier() -> Callable[[memoryview], bytes]:
    """Returns the function that copies by the C API.

    The documentation of PyBytes_FromStringAndSize and PyBytes_AsString in Python's C API allows it: new bytes without
    content may be filled as long as nothing else has them.
    """
    with stdlib_first():
        import ctypes

    new: Any = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
        ("PyBytes_FromStringAndSize", ctypes.pythonapi)
    )
    content: Any = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))
    advise: Any = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)(
        ("madvise", ctypes.CDLL(None))
    )
    page = mmap.PAGESIZE

    def copied(data: memoryview) -> bytes:
        size = len(data)
        result: bytes = new(None, size)
        begin = content(result)
        first = (begin + page - 1) // page * page
        advise(first, (begin + size - first) // page * page, _ADVICE)  # without huge pages it fails, and is not needed
        ctypes.memmove(begin, ctypes.addressof(ctypes.c_char.from_buffer(data)), size)
        return result

    return copied
