"""A worker that sends back every frame that it gets, with no runner in between."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "python"))

from snakepit_bridge.grpc.transport import GrpcTransport
from snakepit_bridge.transport import Launch, Unavailable

launch = Launch.take()
assert launch.control_fd is not None
try:
    transport = GrpcTransport(launch)
    report = {"endpoint": transport.endpoint}
except Unavailable as error:
    report = {"unavailable": str(error), "remedy": error.remedy}
with open(launch.control_fd, "w") as control:
    print(json.dumps(report), file=control)
if "unavailable" not in report:
    while True:
        frames = transport.read()
        if not frames:
            break
        transport.write(frames)
    transport.close()
