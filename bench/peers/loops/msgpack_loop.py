"""The bare loop over length-prefixed MessagePack: one request, one reply, nothing else."""

import sys
from struct import Struct

import msgpack

length = Struct(">I")
requests, replies = sys.stdin.buffer, sys.stdout.buffer
pack = msgpack.Packer().pack
while True:
    prefix = requests.read(length.size)
    if not prefix:
        break
    request = msgpack.unpackb(requests.read(length.unpack(prefix)[0]))
    reply = pack({"id": request["id"], "result": request["args"]})
    replies.write(length.pack(len(reply)) + reply)
    replies.flush()
