"""The gRPC transport and the code that is generated for it.

Importing this package imports nothing: only the modules in it need grpcio and protobuf.
"""
