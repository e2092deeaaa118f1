"""A worker that speaks the protocol without any library of this project's. Its first argument says what it does wrong.

It serves jsonstdio and msgpack, as the host says in SNAKEPIT_PROTOCOL.
"""

import base64
import json
import os
import socket
import struct
import sys

NAMES = ("", "hello", "call", "item", "end", "error", "cancel", "credit", "ping", "pong", "log", "bye")


class Lines:
    codec = "json"

    def __init__(self):
        self.input, self.output = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")

    def read(self):
        line = self.input.readline()
        if not line:
            return None
        header, _, body = line.partition(b"\t")
        frame = json.loads(header)
        frame["body"] = body.rstrip(b"\n")
        return frame

    def write(self, kind, body=b"", **fields):
        header = json.dumps({"kind": kind, **fields}).encode()
        self.garbage(header + (b"\t" + body if body else b"") + b"\n")

    def text(self, body):
        return json.loads(body)

    def garbage(self, data):
        self.output.write(data)
        self.output.flush()


class Packed:
    codec = "msgpack"

    def __init__(self):
        import msgpack

        self.msgpack = msgpack
        self.socket = socket.socket(fileno=int(os.environ["SNAKEPIT_CONN_FD"]))
        self.input = self.socket.makefile("rb")

    def read(self):
        length = self.input.read(4)
        if len(length) < 4:
            return None
        frame = self.msgpack.unpackb(self.input.read(*struct.unpack(">I", length)))
        frame["kind"] = NAMES[frame["kind"]]
        return frame

    def write(self, kind, body=b"", **fields):
        frame = {"kind": NAMES.index(kind), "body": body, **fields}
        data = self.msgpack.packb(frame)
        self.garbage(struct.pack(">I", len(data)) + data)

    def text(self, body):
        return self.msgpack.unpackb(body)

    def garbage(self, data):
        self.socket.sendall(data)


def main(what):
    if what == "chatter":
        print("good morning", flush=True)
    conn = Lines() if os.environ["SNAKEPIT_PROTOCOL"] == "jsonstdio" else Packed()
    hello = {
        "versions": [1],
        "features": ["exact-numbers", "telepathy"],
        "codecs": [conn.codec],
        "max_frame": 4 << 20,
        "window": {"items": 16, "bytes": 1 << 16},
        "concurrency": 1,
        "commands": None,
        "pid": os.getpid(),
        "runtime": "raw",
        "library": "raw 1.2.3",
    }
    if what == "version":
        hello["versions"] = [7]
    elif what == "codecs":
        hello["codecs"] = ["smoke-signals"]
    elif what == "limits":
        hello["concurrency"] = 0
    elif what == "no-hello":
        conn.write("ping", id=1)
    elif what == "torn-hello":
        conn.write("hello", b'{"versions": [1')
    elif what == "exit":
        print("giving up", file=sys.stderr)
        sys.exit(5)
    elif what == "refuse":
        conn.write("error", json.dumps({"type": "NoLicence", "message": "the licence has run out"}).encode())
    elif what == "garbage":
        print("giving up", file=sys.stderr, flush=True)
        conn.garbage(b"\xff" * (2 << 20))
        sys.exit(6)
    conn.write("hello", json.dumps(hello).encode())
    frame = conn.read()
    while frame is not None:
        if frame["kind"] == "call" and frame["name"] == "answer":
            conn.write("end", base64.b64decode(conn.text(frame["body"])), id=frame["id"])
        elif frame["kind"] == "call" and frame["name"] == "send":
            conn.garbage(base64.b64decode(conn.text(frame["body"])))
        elif frame["kind"] == "call":
            conn.write("end", frame["body"], id=frame["id"])
        elif frame["kind"] == "ping":
            conn.write("pong", b'{"running":[]}' if conn.codec == "json" else b"\x81\xa7running\x90", id=frame["id"])
        frame = conn.read()


try:
    main(sys.argv[1])
except (BrokenPipeError, ConnectionResetError):  # the host has heard enough
    os._exit(6)
