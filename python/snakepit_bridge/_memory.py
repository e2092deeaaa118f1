"""Memory for large values, in huge pages where there are any.

glibc takes new pages from the system for each large object. A page fault for each 4 KiB takes more than a copy.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any, Callable, Optional, Union

_HUGE = 4 << 20  # from so many bytes on, huge pages are worth a system call
_ADVICE: int = getattr(mmap, "MADV_HUGEPAGE", 0)


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


def copy(data: Union[bytes, bytearray, memoryview]) -> memoryview:
    """Returns a copy that nobody else can change."""
    view = memoryview(memory(len(data)))
    view[:] = data
    return view


def bytes_of(data: memoryview) -> bytes:
    """Returns a copy as bytes. While it copies large data, other threads can run."""
    global _copy
    if len(data) < _HUGE or data.readonly or _copy is None:
        return bytes(data)
    if _copy is _untried:
        try:
            _copy = _copier()
        except Exception:  # there is no ctypes, or this Python has not all that is needed
            _copy = None
            return bytes(data)
    return _copy(data)


def _untried(data: memoryview) -> bytes:
    raise NotImplementedError


_copy: Optional[Callable[[memoryview], bytes]] = _untried if _ADVICE and sys.implementation.name == "cpython" else None


def _copier() -> Callable[[memoryview], bytes]:
    """Returns the function that copies large data.

    The documentation of PyBytes_FromStringAndSize and PyBytes_AsString in Python's C API allows it: new bytes without
    content may be filled as long as nothing else has them.
    """
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
        ctypes.memmove(begin, ctypes.addressof((ctypes.c_char * size).from_buffer(data)), size)
        return result

    return copied
