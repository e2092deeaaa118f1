"""The golden files of frames, which the Go tests write and read."""

from __future__ import annotations

import json
from typing import Any, List

from host import ROOT

from snakepit_bridge.transport import KINDS


def frames(adapter: str) -> List[Any]:
    """Returns the entries of an adapter's frames.txtar: a name, a frame as a dict, and lines that mean the frame.

    The kinds in the dicts are numbers.
    """
    found: List[Any] = []
    path = ROOT.parent / "adapters" / adapter / "testdata" / "frames.txtar"
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("-- ") and line.endswith(" --"):
            found.append((line[3:-3], []))
        elif found and line:
            found[-1][1].append(line)
    goldens = []
    for name, lines in found:
        frame = json.loads(lines[0])
        frame["kind"] = KINDS.index(frame["kind"])
        if "body" in frame:
            frame["body"] = frame["body"].encode() if adapter == "jsonstdio" else bytes.fromhex(frame["body"])
        goldens.append((name, frame, lines[1:]))
    assert len(goldens) >= 10
    return goldens


def meaning(frame: Any) -> Any:
    """Returns a frame without what is zero, empty or unknown, which means the same."""
    return {name: value for name, value in frame.items() if value and name != "future"}
