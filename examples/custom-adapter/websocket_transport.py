"""The worker's side of the adapter: a WebSocket server for one host. websocket.go describes the encoding.

A launched worker listens on a Unix socket in SNAKEPIT_DIR. A worker may also be started by hand, for a host that has
its URL. It listens at the address in SNAKEPIT_WEBSOCKET_LISTEN, and the host shows the token in SNAKEPIT_HOST_TOKEN:

    SNAKEPIT_PROTOCOL=websocket_transport:WebSocket SNAKEPIT_HOST_TOKEN=secret \\
        SNAKEPIT_WEBSOCKET_LISTEN=127.0.0.1:8765 python worker.py
"""

from __future__ import annotations

import hmac
import logging
import os
import shlex
import socket
import sys
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, Dict, List, Optional, Sequence

from snakepit_bridge.transport import Frame, JsonFrames, Launch, Transport, Unavailable

try:
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
    from websockets.sync.server import ServerConnection, serve, unix_serve
    from websockets.version import version

    if int(version.split(".")[0]) < 15:
        raise ImportError(f"websockets {version} is too old")
except ImportError as error:
    raise Unavailable(str(error), f"{shlex.quote(sys.executable)} -m pip install 'websockets>=15'") from error

__all__ = ["WebSocket"]

BATCH_BYTES = 1 << 20
"""A message of this size takes no more frames."""


class WebSocket(Transport):
    """Carries frames over the WebSocket of the first host that shows the token."""

    def __init__(self, launch: Launch) -> None:
        if not launch.host_token:
            raise RuntimeError(
                "SNAKEPIT_HOST_TOKEN is not set: without a token anybody could run this worker's commands"
            )
        self._frames = JsonFrames(launch.max_frame)
        self._credentials = f"Bearer {launch.host_token}".encode()
        self._arrived: Future[ServerConnection] = Future()
        self._closed = threading.Event()
        # The library's own log stays off the connection. Otherwise each message would cause another one.
        logger = logging.getLogger("websocket_transport")
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        options: Dict[str, Any] = {
            "process_request": self._admit,
            "compression": None,
            "max_size": 6 * launch.max_frame + 2 * BATCH_BYTES,  # JSON writes a byte of text as at most six
            "ping_interval": None,  # the host has its own pings, and knows that a handler may be busy
            "close_timeout": 2,
            "logger": logger,
        }
        if launch.directory:
            path = os.path.join(launch.directory, f"websocket-{os.getpid()}.sock")
            self.endpoint = f"unix:{path}"
            self._server = unix_serve(self._attach, path, **options)
        else:
            host, _, port = launch.environ.get("SNAKEPIT_WEBSOCKET_LISTEN", "127.0.0.1:0").rpartition(":")
            self._server = serve(self._attach, host, int(port), **options)
            self.endpoint = "ws://{}:{}".format(*self._server.socket.getsockname())
        # A daemon, like the threads that it starts. So they do not keep the process alive.
        threading.Thread(target=self._server.serve_forever, name="websocket", daemon=True).start()

    def _admit(self, connection: ServerConnection, request: Request) -> Optional[Response]:
        shown = ", ".join(request.headers.get_all("Authorization"))
        if hmac.compare_digest(shown.encode(), self._credentials):
            return None
        return connection.respond(401, "the token is missing or wrong\n")

    def _attach(self, connection: ServerConnection) -> None:
        """Runs in the connection's own thread. The connection lasts as long as this function."""
        try:
            # Otherwise a remote host could vanish unnoticed.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._arrived.set_result(connection)
        except InvalidStateError:
            connection.close(1013, "this worker has or had its host already")
        else:
            self._closed.wait()

    def _host(self) -> ServerConnection:
        """Waits until a host has connected."""
        try:
            return self._arrived.result()
        except CancelledError:
            raise BrokenPipeError("closed before a host came") from None

    def read(self) -> List[Frame]:
        try:
            message = self._host().recv(decode=False)
        except (ConnectionClosed, BrokenPipeError):
            return []
        # The empty message is the end of the host's side, as the empty list is here.
        return [self._frames.parse(line) for line in message.split(b"\n")[:-1]]

    def write(self, frames: Sequence[Frame]) -> None:
        parts: List[bytes] = []
        size = 0
        for i, frame in enumerate(frames):
            line = self._frames.dump(frame)
            parts += line
            size += sum(map(len, line))
            if size >= BATCH_BYTES or i == len(frames) - 1:
                try:
                    self._host().send(b"".join(parts), text=True)
                except ConnectionClosed as error:
                    raise ConnectionResetError(str(error)) from None
                parts, size = [], 0

    def close(self) -> None:
        if not self._arrived.cancel():  # a host has connected
            self._arrived.result().close()
        self._closed.set()

    def close_in_child(self) -> None:
        self._server.socket.close()
        if self._arrived.done() and not self._arrived.cancelled():
            self._arrived.result().socket.close()
