"""One session for each supported Python: it runs the tests there, or says why it can't."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

SUPPORTED = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
MATRIX = ("3.8", "3.13") if os.environ.get("SNAKEPIT_MATRIX") else ()
"""Where the generated code is tried too, beside many versions of protobuf and grpcio."""

REQUIREMENTS = (
    "attrs",
    "cryptography",
    "eventlet",
    "gevent",
    "grpcio",
    "hypothesis",
    "msgpack",
    "msgspec",
    "numpy",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "protobuf",
    "pydantic",
    "pytest",
    "pytest-timeout",
    "typing-extensions",
)

nox.options.reuse_venv = "yes"


def find(version: str) -> str | None:
    """Returns a Python of that version that can make virtual environments, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}"))]
    for candidate in filter(None, candidates):
        # The file in PATH may be a version manager's shim that starts nothing, or a Python without the modules that
        # Debian packages separately.
        code = "import ensurepip, sys; print(sys.executable, end='')"
        found = subprocess.run([candidate, "-c", code], check=False, capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout
    return None


def define(version: str) -> None:
    """Defines the session of one version."""
    name = f"tests-{version}"
    if version == "{}.{}".format(*sys.version_info):
        reason = "this Python runs the tests without nox"
    elif python := find(version):

        @nox.session(name=name, python=python, venv_backend="venv")
        def tests(session: nox.Session) -> None:
            session.install("--quiet", "--constraint", "requirements-dev.txt", *REQUIREMENTS)
            session.run("python", "-m", "pytest", *session.posargs)
            if version in MATRIX:
                session.run("python", "-m", "pytest", "-m", "matrix")

        return
    else:
        reason = f"this machine has no Python {version} that can make a virtual environment"

    @nox.session(name=name, python=False)
    def skipped(session: nox.Session) -> None:
        session.skip(reason)


for supported in SUPPORTED:
    define(supported)
