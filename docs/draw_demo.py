"""Draws the demo's screen as a picture: draw_demo.py COMMAND... FILE.svg

It runs the demo with a killed worker in a pseudo-terminal, and draws the screen at the end.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 104, 60

SHOWN = "$ make demo"
"""What the picture shows as the command. The picture has the last of the demo's runs."""

FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""The picture's template without the fonts that it would fetch."""


def run(command: list[str]) -> list[str]:
    """Runs a command in a terminal and returns the lines that it leaves there.

    Raises:
        CalledProcessError: It failed.
    """
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    try:
        while data := os.read(terminal, 1 << 16):
            stream.feed(data)
    except OSError:  # Linux's way to say that the other side is closed
        pass
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command, "\n".join(screen.display))
    return [line.rstrip() for line in screen.display]


def draw(lines: list[str], path: str) -> None:
    """Writes the lines as a picture, with what happens to the worker in colour."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in lines:
        text = Text(line, no_wrap=True)
        text.highlight_regex(r"^killing process.*|worker lost", "bold red")
        text.highlight_regex(r"^range .* is run again|\byes$", "bold green")
        text.highlight_regex(r"^(==|\$) .*", "bold")
        console.print(text)
    console.save_svg(path, title="make demo", code_format=FORMAT)


def main() -> None:
    """Does what the command line says."""
    *command, path = sys.argv[1:]
    lines = run(command)
    while lines and not lines[-1]:
        lines.pop()
    text = "\n".join(lines)
    for wanted in ("killing process", "is run again", " yes"):
        if wanted not in text:
            sys.exit(f"the demo's output has no {wanted!r}; run it again:\n{text}")
    home = os.path.expanduser("~")
    draw([SHOWN, *(line.replace(home, "~") for line in lines)], path)


if __name__ == "__main__":
    main()
