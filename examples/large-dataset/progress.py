"""The chunks that a job streams while it runs."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict


def chunk(processed: int, total: int) -> Dict[str, Any]:
    """Returns the chunk of a job that has read so many of its rows; a total of 0 is unknown."""
    return {
        "progress_percent": 100.0 * processed / total if total else 0.0,
        "processed_rows": processed,
        "total_rows": total,
        "memory_usage_mb": memory_usage_mb(),
        "worker_pid": os.getpid(),
    }


def memory_usage_mb() -> float:
    """Returns this process's resident memory in MiB.

    Other Unix systems than Linux tell only its peak. Where the system does not tell, it is 0.
    """
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
