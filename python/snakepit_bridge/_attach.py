"""Connects a worker that somebody has started by hand to a host that waits for one."""

from __future__ import annotations

import os
import sys
from typing import Optional

ATTACH = "SNAKEPIT_ATTACH"
"""The variable with the path of the host's Unix socket."""

_PATIENCE = 0.2  # seconds between two attempts


def attach() -> bool:
    """Waits for the host at the socket in SNAKEPIT_ATTACH, and sets the environment as if the host had started us.

    Returns:
        Whether there is a host: False without the variable.
    """
    path = os.environ.pop(ATTACH, None)
    if not path:
        return False
    # Imported here, because other workers do not need them.
    import json
    import socket
    import time

    told = False
    sock: Optional[socket.socket] = None
    while sock is None:
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            candidate.connect(path)
            sock = candidate
        except (FileNotFoundError, ConnectionRefusedError):
            candidate.close()
            if not told:
                print(f"snakepit: waiting for a program that waits for a worker at {path}", file=sys.stderr)
                told = True
            time.sleep(_PATIENCE)
    sock.sendall(b"attach\n")
    line = b""
    while not line.endswith(b"\n"):  # byte by byte, because frames follow
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError(f"the program at {path} has closed the connection")
        line += byte
    os.environ.update(json.loads(line)["env"])
    os.environ["SNAKEPIT_CONN_FD"] = str(sock.detach())
    return True
