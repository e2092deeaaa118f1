"""The program that ``snakepit doctor`` runs.

With ``--probe`` it tells what this Python has. Started by a host, it is a worker with one command.
"""

import json
import platform
import sys

from snakepit_bridge import Worker, __version__

worker = Worker()


@worker.command
def ping(text: str) -> str:
    """Returns its argument."""
    return text


def version(package: str) -> str:
    """Returns the version of an installed package, or "".

    Args:
        package: The name by which pip knows it.
    """
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def generated() -> str:
    """Returns why the generated code of the gRPC transport cannot be imported, or "" if it can."""
    try:
        from snakepit_bridge.grpc import snakepit_pb2, snakepit_pb2_grpc  # noqa: F401
    except Exception as error:  # also what a broken installation raises
        return f"{type(error).__name__}: {error}"
    return ""


def open_files() -> int:
    """Returns how many files a process may have open, or 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def probe() -> dict:
    """Returns what the doctor wants to know of this Python."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "environment": sys.prefix if sys.prefix != sys.base_prefix else "",
        "bridge": __version__,
        "packages": {package: version(package) for package in ("grpcio", "protobuf", "msgpack")},
        "generated": generated(),
        "open_files": open_files(),
    }


if "--probe" in sys.argv:
    print(json.dumps(probe()))
    sys.exit()
