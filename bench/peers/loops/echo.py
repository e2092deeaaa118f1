"""The bare echo of large values over a socket: a length, the bytes, and both back."""

import socket
from struct import Struct

length = Struct(">I")
host = socket.socket(fileno=3)
while True:
    prefix = host.recv(length.size, socket.MSG_WAITALL)
    if not prefix:
        break
    data = bytearray(length.unpack(prefix)[0])
    rest = memoryview(data)
    while rest:
        rest = rest[host.recv_into(rest) :]
    host.sendall(prefix)
    host.sendall(data)
