"""The remedies for missing packages and modules."""

from __future__ import annotations

import os
import re
import sys

from ._stdlib import stdlib_first


def install(packages: str) -> str:
    """Returns the command that installs packages for the workers of this interpreter.

    If the system's package manager owns the interpreter (PEP 668), pip refuses to install into it. Then the command
    makes a virtual environment in the script's directory. The host finds that by itself.

    Args:
        packages: The requirements for pip, quoted for a shell.
    """
    with stdlib_first():
        import shlex
        import sysconfig
    python = shlex.quote(sys.executable or "python3")
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix != sys.base_prefix or not os.path.exists(marker):
        return f"{python} -m pip install {packages}"
    inside = os.path.join(".venv", "Scripts" if os.name == "nt" else "bin", "python")
    where = "(in the script's directory, where the host finds .venv by itself)"
    return f"{python} -m venv .venv && {inside} -m pip install {packages} {where}"


_PACKAGES = {  # the packages of modules that have another name
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def missing_module(message: str) -> str:
    """Returns what to do about a module that can't be imported.

    Args:
        message: The message of the ModuleNotFoundError.
    """
    named = re.search(r"No module named '([\w.]+)'", message)
    name = named.group(1) if named else ""
    if name == "snakepit":
        return "the Python package is snakepit_bridge: from snakepit_bridge import Worker"
    if name in _PACKAGES:
        package = f"install it for this interpreter: {install(_PACKAGES[name])}"
    elif name and "." not in name:  # the name of the package is a guess
        package = f"if it has the same name, install it for this interpreter: {install(name)}"
    else:
        module = f"the one with {name}" if name else "it"
        package = f"install {module} for this interpreter, {sys.executable or 'python3'}"
    own = "Your own file: put it beside the worker's script, and embed it if the script is embedded."
    return f"{own} A package: {package}"
