"""A small host for the tests. It starts a worker process like the Go host and speaks the protocol with it."""

from __future__ import annotations

import json
import os
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 20.0  # seconds until a test gives up

Frame = Dict[str, Any]


def clean_environ() -> Dict[str, str]:
    """Returns the environment without the variables of hosts and of test runners."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "PYTEST", "COV"))}


class Gone(Exception):
    """The worker closed the connection."""


class Host:
    """One worker process and the connection to it.

    Frames are dicts with kinds by name and decoded bodies.
    """

    def __init__(
        self, *command: Any, protocol: str = "jsonstdio", env: Optional[Dict[str, str]] = None, **options: Any
    ) -> None:
        self.protocol = protocol
        report_read, report_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        environ = clean_environ()
        environ.update(
            SNAKEPIT_PROTOCOL=protocol, SNAKEPIT_CONTROL_FD=str(report_write), SNAKEPIT_LIFELINE_FD=str(lifeline_read)
        )
        inherited = [report_write, lifeline_read]
        self._socket: Optional[socket.socket] = None
        theirs: Optional[socket.socket] = None
        self._rpc: Any = None  # of the host's connection by gRPC
        self._sent: queue.Queue[Any] = queue.Queue()
        self._folder: Any = None
        stdin: int = subprocess.PIPE
        if protocol == "grpc":
            self._folder = tempfile.TemporaryDirectory()  # with a name that is short enough for a socket
            environ.update(SNAKEPIT_DIR=self._folder.name, SNAKEPIT_HOST_TOKEN="the host's")
            stdin = subprocess.DEVNULL
        if protocol == "msgpack":
            self._socket, theirs = socket.socketpair()
            inherited.append(theirs.fileno())
            environ["SNAKEPIT_CONN_FD"] = str(theirs.fileno())
            stdin = subprocess.DEVNULL
        environ.update(env or {})
        self.process = self._start(command, inherited, stdin=stdin, env=environ, **options)
        os.close(report_write)
        os.close(lifeline_read)
        if theirs is not None:
            theirs.close()
        self.report = self._read_report(report_read)
        self.frames: queue.Queue[Optional[Frame]] = queue.Queue()
        self.others: List[Frame] = []  # received while something else was waited for
        self.printed: List[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        if protocol == "grpc" and "endpoint" in (self.report or {}):
            self._dial(self.report["endpoint"])
        self._threads = [
            threading.Thread(target=self._read_frames),
            threading.Thread(target=self._read_output, args=(self.process.stderr,)),
        ]
        if protocol in ("msgpack", "grpc"):
            self._threads.append(threading.Thread(target=self._read_output, args=(self.process.stdout,)))
        for thread in self._threads:
            thread.start()
        self.next_id = 1
        self.hello: Any = None

    def _start(self, command: Sequence[Any], inherited: Sequence[int], **options: Any) -> Any:
        """Starts the process. A worker that is forked has another way."""
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=inherited,
            **options,
        )

    def _dial(self, endpoint: str) -> None:
        import grpc

        from snakepit_bridge.grpc.snakepit_pb2_grpc import WorkerStub

        # A client that writes to a worker which has ended drops what it has not read, and this would make it write.
        self._channel = grpc.insecure_channel(endpoint, options=[("grpc.http2.bdp_probe", 0)])
        self._rpc = WorkerStub(self._channel).Attach(
            iter(self._sent.get, None), metadata=[("snakepit-token", "the host's")]
        )

    @staticmethod
    def _read_report(fd: int) -> Any:
        with open(fd) as file:
            text = file.read()
        return json.loads(text) if text else None

    # --- reading

    def _read_output(self, stream: Any) -> None:
        for line in stream:
            self.printed.append(line.decode("utf-8", "replace").rstrip("\n"))
            self._lines.put(self.printed[-1])

    def _read_frames(self) -> None:
        try:
            if self._rpc is not None:
                self._read_grpc()
            elif self._socket is None:
                for line in self.process.stdout or ():
                    if line != b"\n":
                        header, _, body = line.partition(b"\t")
                        frame = json.loads(header)
                        frame["body"] = json.loads(body) if body else None
                        self.frames.put(frame)
            else:
                self._read_msgpack(self._socket)
        except Exception as exc:  # so that the test sees it, and does not hang
            self.frames.put({"kind": "broken", "id": 0, "body": repr(exc)})
        self.frames.put(None)

    def _read_grpc(self) -> None:
        import grpc

        from snakepit_bridge.transport import KINDS

        try:
            for batch in self._rpc:
                for f in batch.frames:
                    frame = {
                        "kind": KINDS[f.kind],
                        "flags": f.flags,
                        "id": f.id,
                        "items": f.items,
                        "bytes": f.bytes,
                        "name": f.name,
                        "meta": dict(f.meta),
                    }
                    self.frames.put({**frame, "body": json.loads(f.body) if f.body else None})
        except grpc.RpcError:  # the worker has ended
            pass

    def _read_msgpack(self, connection: socket.socket) -> None:
        import msgpack

        from snakepit_bridge.transport import KINDS

        with connection.makefile("rb") as file:
            while True:
                head = file.read(4)
                if not head:
                    return
                frame = msgpack.unpackb(file.read(struct.unpack(">I", head)[0]))
                frame["kind"] = KINDS[frame["kind"]]
                body = frame.get("body")
                decode = json.loads if frame["kind"] == "hello" else msgpack.unpackb
                frame["body"] = decode(body) if body else None
                self.frames.put(frame)

    def recv(self) -> Frame:
        """Returns the next frame."""
        frame = self.frames.get(timeout=PATIENCE)
        if frame is None:
            self.frames.put(None)
            raise Gone("\n".join(self.printed))
        return frame

    def wait_for(self, kind: str, id: int = 0) -> Frame:
        """Returns the next frame of that kind, and of that id if one is given. Others are kept."""
        for frame in self.others:
            if frame["kind"] == kind and id in (0, frame.get("id")):
                self.others.remove(frame)
                return frame
        while True:
            frame = self.recv()
            if frame["kind"] == kind and id in (0, frame.get("id")):
                return frame
            self.others.append(frame)

    def answer(self, id: int) -> Frame:
        """Returns the end or error of a call."""
        for frame in self.others:
            if frame["kind"] in ("end", "error") and frame["id"] == id:
                self.others.remove(frame)
                return frame
        while True:
            frame = self.recv()
            if frame["kind"] in ("end", "error") and frame["id"] == id:
                return frame
            self.others.append(frame)

    def logs(self, message: str) -> Frame:
        """Returns the body of the log frame with that message."""
        while True:
            body = self.wait_for("log")["body"]
            if body["message"] == message:
                return body

    def wait_line(self, text: str) -> None:
        """Waits until the worker has printed that line; each line counts once."""
        while self._lines.get(timeout=PATIENCE) != text:
            pass

    # --- writing

    def send(self, kind: str, body: Any = None, raw: Optional[bytes] = None, **fields: Any) -> None:
        """Sends one frame."""
        if self._rpc is not None:
            from snakepit_bridge.grpc.snakepit_pb2 import Batch
            from snakepit_bridge.grpc.snakepit_pb2 import Frame as Message
            from snakepit_bridge.transport import KINDS

            raw = json.dumps(body).encode() if raw is None and body is not None else raw
            self._sent.put(Batch(frames=[Message(kind=KINDS.index(kind), body=raw or b"", **fields)]))
            return
        self.send_bytes(self.encode(kind, body, raw, **fields))

    def encode(self, kind: str, body: Any = None, raw: Optional[bytes] = None, **fields: Any) -> bytes:
        if self._socket is None:
            if raw is None and body is not None:
                raw = json.dumps(body).encode()
            return json.dumps({"kind": kind, **fields}).encode() + (b"\t" + raw if raw is not None else b"") + b"\n"
        import msgpack

        from snakepit_bridge.transport import KINDS

        if raw is None and body is not None:
            raw = json.dumps(body).encode() if kind == "hello" else msgpack.packb(body)
        frame = {"kind": KINDS.index(kind), **fields}
        if raw is not None:
            frame["body"] = raw
        packed = msgpack.packb(frame)
        return struct.pack(">I", len(packed)) + packed

    def encode_body(self, body: Any) -> bytes:
        """Returns the body of a frame."""
        if self._socket is None:
            return json.dumps(body).encode()
        import msgpack

        packed: bytes = msgpack.packb(body)
        return packed

    def send_bytes(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.sendall(data)
        else:
            stdin = self.process.stdin
            assert stdin is not None
            stdin.write(data)
            stdin.flush()

    def greet(self, **changes: Any) -> Any:
        """Exchanges hellos and returns the worker's."""
        frame = self.recv()
        assert frame["kind"] == "hello", frame
        self.hello = frame["body"]
        codec = "msgpack" if self._socket is not None else "json"
        window = {"items": 1000, "bytes": 1 << 20}
        self.send(
            "hello",
            {
                "version": 1,
                "codec": codec,
                "max_frame": 1 << 20,
                "window": window,
                "concurrency": 64,
                "calls": 8,
                **changes,
            },
        )
        return self.hello

    def open(self, name: str, body: Any = None, *, flags: int = 1, **fields: Any) -> int:
        """Sends a call frame and returns its id."""
        id, self.next_id = self.next_id, self.next_id + 2
        self.send("call", body, id=id, flags=flags, name=name, **fields)
        return id

    def call(self, name: str, body: Any = None, **fields: Any) -> Any:
        """Calls a command and returns its result."""
        frame = self.answer(self.open(name, body, **fields))
        assert frame["kind"] == "end", frame
        return frame["body"]

    def fail(self, name: str, body: Any = None, **fields: Any) -> Any:
        """Calls a command that fails and returns its error."""
        frame = self.answer(self.open(name, body, **fields))
        assert frame["kind"] == "error", frame
        return frame["body"]

    def cancel(self, id: int, reason: str = "the caller left") -> None:
        self.send("cancel", id=id, name=reason)

    # --- the end

    def hang_up(self) -> None:
        """Closes the host's side of the connection."""
        if self._rpc is not None:
            self._sent.put(None)
        elif self._socket is not None:
            self._socket.shutdown(socket.SHUT_WR)
        elif self.process.stdin is not None:
            self.process.stdin.close()

    def cut_lifeline(self) -> None:
        os.close(self._lifeline)
        self._lifeline = -1

    def wait(self) -> int:
        """Waits for the process and returns its exit code."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code

    def bye(self) -> int:
        """Ends the worker in peace and returns its exit code."""
        self.send("bye")
        self.hang_up()
        return self.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._rpc is not None:
            self._sent.put(None)
            self._rpc.cancel()
            self._channel.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        if self._folder is not None:
            self._folder.cleanup()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr, self._socket):
            if file is not None:
                try:
                    file.close()
                except OSError:  # what was never flushed to a worker that has gone
                    pass
        if self._lifeline >= 0:
            self.cut_lifeline()
