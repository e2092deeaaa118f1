"""What the adapter is measured against: a grpcio server whose one unary RPC returns the request's bytes."""

import json
import os
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, _):
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request)


server = grpc.server(
    futures.ThreadPoolExecutor(8), handlers=[Echo()], options=[("grpc.max_receive_message_length", -1)]
)
path = os.path.join(os.environ["SNAKEPIT_DIR"], "plain.sock")
server.add_insecure_port("unix:" + path)
server.start()
with open(int(os.environ["SNAKEPIT_CONTROL_FD"]), "w") as control:
    print(json.dumps({"endpoint": "unix:" + path}), file=control)
server.wait_for_termination()
