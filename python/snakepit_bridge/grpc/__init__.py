"""The gRPC transport and its generated code.

Importing this package imports nothing else. Only the modules in it need grpcio and protobuf.
"""
