"""What to do where a package is missing."""

from __future__ import annotations

import os
import sys

from ._late import stdlib_first


def install(packages: str) -> str:
    """Returns the command that makes packages importable for workers that this interpreter would run.

    Where the system's package manager owns the interpreter (PEP 668), pip refuses to install into it. A virtual environment beside the
    script is what the host takes by itself.

    Args:
        packages: What pip is to install, quoted for a shell.
    """
    with stdlib_first():
        import shlex
        import sysconfig
    python = shlex.quote(sys.executable or "python3")
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix != sys.base_prefix or not os.path.exists(marker):
        return f"{python} -m pip install {packages}"
    inside = os.path.join(".venv", "Scripts" if os.name == "nt" else "bin", "python")
    return f"{python} -m venv .venv && {inside} -m pip install {packages} (in the script's directory, where the host finds .venv by itself)"
