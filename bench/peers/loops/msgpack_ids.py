"""MessagePack with many requests in flight: one thread reads all that have come, runs them and replies in one write."""

import os

import msgpack

unpacker = msgpack.Unpacker()
pack = msgpack.Packer().pack
while True:
    data = os.read(0, 1 << 18)
    if not data:
        break
    unpacker.feed(data)
    rest = memoryview(b"".join([pack({"id": request["id"], "result": request["args"]}) for request in unpacker]))
    while rest:
        rest = rest[os.write(1, rest) :]
