"""A grpcio server with a method for each function. Its messages are JSON."""

import base64
import inspect
import json
import traceback
from concurrent.futures import ThreadPoolExecutor

import functions
import grpc


def unary(function):
    def method(args, context):
        try:
            return function(**args)
        except Exception:
            context.abort(grpc.StatusCode.INTERNAL, traceback.format_exc())

    return grpc.unary_unary_rpc_method_handler(method, json.loads, encode)


def stream(function):
    def method(args, context):
        try:
            yield from function(**args)
        except Exception:
            context.abort(grpc.StatusCode.INTERNAL, traceback.format_exc())

    return grpc.unary_stream_rpc_method_handler(method, json.loads, encode)


def encode(value):
    return json.dumps(value, default=lambda data: base64.b64encode(data).decode()).encode()


methods = {
    name: stream(function) if inspect.isgeneratorfunction(function) else unary(function)
    for name, function in inspect.getmembers(functions, inspect.isfunction)
}
server = grpc.server(ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Functions", methods),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
