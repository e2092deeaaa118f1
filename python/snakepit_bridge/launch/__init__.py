"""The back end: starts workers on this machine for hosts on other machines. ``snakepit_bridge.serve`` is its command.

Importing this package imports nothing else. `seat` needs the package cryptography where workers serve TLS, and
`service` needs grpcio and protobuf.
"""
