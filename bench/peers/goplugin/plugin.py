"""A go-plugin plugin: a grpcio server on the Unix socket of its argument."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer


def call(args, context):
    return args


def decode(message):
    return json.loads(BytesValue.FromString(message).value)


def encode(result):
    return BytesValue(value=json.dumps(result).encode()).SerializeToString()


def serve(path):
    stopped = threading.Event()

    def shutdown(request, context):
        stopped.set()
        return b""

    def stdio(request, context):
        # This plugin has no output to copy. An ended stream holds no thread of the server.
        return iter(())

    health = HealthServicer()
    health.set("plugin", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(max_workers=10))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    # Without serializers, messages are bytes. The bytes of an empty message are b"".
    for service, method, handler in (
        ("bench.Echo", "Call", grpc.unary_unary_rpc_method_handler(call, decode, encode)),
        ("plugin.GRPCController", "Shutdown", grpc.unary_unary_rpc_method_handler(shutdown)),
        ("plugin.GRPCStdio", "StreamStdio", grpc.unary_stream_rpc_method_handler(stdio)),
    ):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    print(f"1|1|unix|{path}|grpc", flush=True)
    stopped.wait()
    server.stop(0).wait()


serve(sys.argv[1])
