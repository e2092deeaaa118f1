"""What to do where a package is missing."""

import shlex
import subprocess
import sys
import sysconfig

import pytest
from host import ROOT

from snakepit_bridge._remedy import install, missing_module

PYTHON = "/usr/bin/my python"


@pytest.mark.parametrize(
    ("managed", "in_venv", "expected"),
    [
        (False, False, "{} -m pip install 'x>=1'"),
        (True, True, "{} -m pip install 'x>=1'"),
        (True, False, "{} -m venv .venv && .venv/bin/python -m pip install 'x>=1' (in the script's directory, "),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="directories are called otherwise there")
def test_install(tmp_path, monkeypatch, managed, in_venv, expected):
    if managed:
        (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.__getitem__)
    monkeypatch.setattr(sys, "executable", PYTHON)
    monkeypatch.setattr(sys, "prefix", "/env" if in_venv else sys.base_prefix)
    assert install("'x>=1'").startswith(expected.format(shlex.quote(PYTHON)))


@pytest.mark.parametrize(
    ("message", "package"),
    [
        ("No module named 'yaml'", "install it for this interpreter: {} -m pip install pyyaml"),
        (
            "No module named 'torch'",
            "if it has the same name, install it for this interpreter: {} -m pip install torch",
        ),
        ("No module named 'google.cloud'", "install the one with google.cloud for this interpreter, {}"),
        ("No module named 'numpy.nope'", "install the one with numpy.nope for this interpreter, {}"),
        (
            "No module named 'json.nope'; 'json' is not a package",
            "install the one with json.nope for this interpreter, {}",
        ),
        ("the program's own words", "install it for this interpreter, {}"),
    ],
)
def test_missing_module(monkeypatch, message, package):
    monkeypatch.setattr(sys, "executable", "/env/bin/python")
    monkeypatch.setattr(sys, "prefix", "/env")
    assert missing_module(message) == (
        "Your own file: put it beside the worker's script, and embed it if the script is embedded. "
        f"A package: {package.format('/env/bin/python')}"
    )


def test_it_costs_nothing_until_it_is_asked_for():
    code = (
        "import sys; from snakepit_bridge import _boot, _remedy; "
        "print([m for m in ('shlex', 'sysconfig') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    assert done.stdout.strip() == b"[]"
