"""Starts a worker: transport, report, the user's program, hello, calls, tear-down, in this order."""

from __future__ import annotations

import os
import re
import sys
from typing import List, Optional, Sequence

from . import _server
from ._attach import attach
from ._description import describe
from ._errors import shown, simple_error
from ._loader import prepare, run_script
from ._version import __version__
from ._worker import NoWorker, only_worker
from .transport import Launch

_USAGE = """usage: python {program} worker.py

Shows the commands of a worker file. A Snakepit host starts it the same way and serves them.
"""


def main(here: str, original: Sequence[str], args: Sequence[str], other: Optional[str]) -> int:
    """Serves a script to the host that started this process. Without a host, prints the script's commands.

    Args:
        here: The directory that holds this package.
        original: sys.path as Python made it, without that directory.
        args: The script and its arguments.
        other: The file of another copy of the package that was imported before this one, or None.

    Returns:
        The process's exit code.
    """
    if os.environ.pop("SNAKEPIT_FORK_SERVER", None):
        server = _server.fork(Launch.take())
    elif os.environ.get("SNAKEPIT_PROTOCOL"):
        server = _server.connect(Launch.take())
    elif attach():
        server = _server.connect(Launch.take(), by_hand=True)
    else:
        return _by_hand(here, original, args)
    script = args[0] if args else ""
    try:
        _serve(server, script, here, original, args, other)
    except SystemExit as exc:
        if server.exit_code is None:
            server.refuse(
                simple_error(
                    "SystemExit", f"{script} ended by itself with exit code {shown(exc.code)} before it served"
                )
            )
        raise
    except BaseException as exc:
        if server.exit_code is not None:
            raise
        server.refuse(describe(exc))
    return server.exit_code or 0


def _serve(
    server: _server.Server, script: str, here: str, original: Sequence[str], args: Sequence[str], other: Optional[str]
) -> None:
    # Import everything that serving needs before the program's directory is in sys.path: a file there may have the
    # name of one of these modules.
    from . import _executors, _runner  # noqa: F401
    from ._codecs import get_codec

    for codec in server.transport.codecs:
        get_codec(codec)
    for message in _other_copies(here, original, other):
        server.log({"level": "warn", "logger": "snakepit_bridge", "message": message})
    server.attach()
    prepare(script, args[1:], here, original)
    if not script:
        raise FileNotFoundError("no worker script was named")
    try:
        namespace = run_script(script)
        if server.exit_code is None:
            server.serve(only_worker(namespace, script))
    except NoWorker as exc:
        server.refuse(simple_error("NoWorker", str(exc)))


def _other_copies(here: str, original: Sequence[str], imported: Optional[str]) -> List[str]:
    """Returns a warning, if the program may expect another version of this package. There is at most one."""
    own = os.path.join(here, "snakepit_bridge", "__init__.py")
    places = [os.path.join(entry, "snakepit_bridge", "__init__.py") for entry in original]
    if imported is not None:
        places.insert(0, imported)
    for place in dict.fromkeys(places):
        if place == own or not os.path.isfile(place):
            continue
        version = _version_at(os.path.dirname(place))
        if version != __version__:
            return [
                f"snakepit_bridge {__version__} of {os.path.dirname(own)} serves this worker, not the {version} of "
                f"{os.path.dirname(place)}; install the same version, or none"
            ]
    return []


def _version_at(directory: str) -> str:
    """Returns the version that a copy states, without importing it."""
    for name in ("_version.py", "__init__.py"):
        try:
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                found = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", file.read(1 << 16), re.MULTILINE)
        except (OSError, ValueError):
            continue
        if found:
            return found.group(1)
    return "unknown version"


def _by_hand(here: str, original: Sequence[str], args: Sequence[str]) -> int:
    """Prints the commands of a script that a person started."""
    if not args or args[0] in ("-h", "--help"):
        own = os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.abspath(__file__))
        print(_USAGE.format(program=f"-m {__package__}" if own else sys.argv[0]), end="")
        return 0
    if not os.path.isfile(args[0]):
        print(f"{args[0]}: no such file (the working directory is {os.getcwd()})", file=sys.stderr)
        return 1

    prepare(args[0], args[1:], here, original)
    try:
        namespace = run_script(args[0])
        if not _server.shown_workers:
            _server.show(only_worker(namespace, args[0]), args[0])
    except NoWorker as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0
