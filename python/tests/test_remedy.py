"""What to do where a package is missing."""

import shlex
import subprocess
import sys
import sysconfig

import pytest
from host import ROOT

from snakepit_bridge._remedy import install

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


def test_it_costs_nothing_until_it_is_asked_for():
    code = (
        "import sys; from snakepit_bridge import _boot, _remedy; "
        "print([m for m in ('shlex', 'sysconfig') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    assert done.stdout.strip() == b"[]"
