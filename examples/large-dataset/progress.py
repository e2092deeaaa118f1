"""The chunks that a job streams while it runs."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict


def chunk(processed: int, total: int) -> Dict[str, Any]:
    """Returns a job's chunk after this many processed rows. A total of 0 means unknown."""
    return {
        "progress_percent": 100.0 * processed / total if total else 0.0,
        "processed_rows": processed,
        "total_rows": total,
        "memory_usage_mb": memory_usage_mb(),
        "worker_pid": os.getpid(),
    }


def memory_usage_mb() -> float:
    """Returns this process's resident memory in MiB.

    Unix systems other than Linux report only the peak. If the system reports nothing, the result is 0.
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
