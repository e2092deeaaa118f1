"""A plain grpcio server as in its tutorial, on raw bytes.

Echo returns its request. Count streams as many messages as the request says.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def echo(request, context):
    return request


def count(request, context):
    for i in range(int(request)):
        yield b"%d" % i


handlers = grpc.method_handlers_generic_handler(
    "bench.Peer",
    {"Echo": grpc.unary_unary_rpc_method_handler(echo), "Count": grpc.unary_stream_rpc_method_handler(count)},
)
sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(ThreadPoolExecutor(max_workers=8), options=sizes)
server.add_generic_rpc_handlers((handlers,))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
