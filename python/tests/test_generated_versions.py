"""The generated code beside the versions of protobuf and grpcio that users may be held at by other libraries.

It installs each of them from the package index into a directory of its own. So it runs only on request, with
``pytest -m matrix``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent
PY = sys.version_info[:2]

# For each version the Pythons that it runs on. protobuf's wheels are for every Python from the oldest on.
PROTOBUF = {
    "3.20.3": (3, 7),
    "4.25.8": (3, 8),
    "5.29.5": (3, 8),
    "6.33.0": (3, 9),
    "7.36.2": (3, 10),
}
GRPCIO = {
    "1.50.0": ((3, 7), (3, 11)),
    "1.59.5": ((3, 7), (3, 12)),
    "1.70.0": ((3, 8), (3, 13)),
    "1.85.1": ((3, 10), (3, 14)),
}

# Frames with every field go through both directions of the transport. From the generated code on, every warning is an
# error.
CHECK = """
import os, sys, tempfile, warnings
# Old versions warn of themselves on newer Pythons.
import google.protobuf.message, google.protobuf.internal.builder, grpc
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
import snakepit_bridge.grpc.snakepit_pb2 as pb2, snakepit_bridge.grpc.snakepit_pb2_grpc as pb2_grpc
import snakepit_bridge.launch.launch_pb2_grpc
from snakepit_bridge.grpc.transport import GrpcTransport
from snakepit_bridge.transport import Launch
assert google.protobuf.__version__ == sys.argv[2], google.protobuf.__version__
assert grpc.__version__ == sys.argv[3], grpc.__version__
call = {"kind": 2, "flags": 1, "id": 2**53 - 1, "parent": 2, "name": "n", "ttl": 5, "session": "s", "meta": {"k": "v"}}
call["body"] = b"\\xff"
credit = {"kind": 7, "flags": 0, "id": 3, "items": 4, "bytes": 5, "body": b""}
large = {"kind": 3, "flags": 0, "id": 3, "body": bytes(1 << 20)}
with tempfile.TemporaryDirectory(prefix="s p#?%20") as directory:
    transport = GrpcTransport(Launch({"SNAKEPIT_DIR": directory, "SNAKEPIT_HOST_TOKEN": "t"}))
    os.chdir(directory)
    with grpc.insecure_channel("unix:" + os.path.basename(transport.endpoint)) as channel:
        stub = pb2_grpc.WorkerStub(channel)
        sent = [pb2.Batch(frames=[pb2.Frame(**f) for f in (call, credit, large)])]
        stream = stub.Attach(iter(sent), metadata=[("snakepit-token", "t")])
        frames = transport.read()
        assert frames == [call, credit, large], frames
        transport.write([dict(f) for f in frames])
        got = []
        while len(got) < len(frames):
            got += next(stream).frames
        transport.close()
        assert got + [f for batch in stream for f in batch.frames] == list(sent[0].frames), got
    os.chdir("/")
print(google.protobuf.internal.api_implementation.Type())
"""

pytestmark = pytest.mark.matrix


def pairs():
    """Each protobuf beside the newest grpcio of this Python, and each grpcio beside a protobuf in the middle.

    The oldest of each are marked.
    """
    grpcio = [version for version, (first, last) in GRPCIO.items() if first <= PY <= last]
    protobuf = [version for version, first in PROTOBUF.items() if first <= PY]
    oldest = [(protobuf[0], grpcio[-1]), ("4.25.8", grpcio[0])]
    every = dict.fromkeys(oldest + [(p, grpcio[-1]) for p in protobuf] + [("4.25.8", g) for g in grpcio])
    return [pytest.param(*pair, marks=[pytest.mark.oldest] if pair in oldest else []) for pair in every]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Installs one version into a directory, once."""
    root = tmp_path_factory.mktemp("matrix")

    def install(package, version):
        target = root / f"{package}-{version}"
        if not target.exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
            # Of protobuf 3.20.3 there are wheels in C++ up to Python 3.10, and one in Python for all.
            subprocess.run([*command, "--only-binary", ":all:", f"{package}=={version}"], check=True)
        return str(target)

    return install


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("protobuf", "grpcio"), pairs())
def test_versions(directory, protobuf, grpcio):
    paths = [
        directory("protobuf", protobuf),
        directory("grpcio", grpcio),
        directory("typing_extensions", "4.12.2"),
        directory("six", "1.17.0"),
    ]
    environ = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", CHECK, str(PACKAGE), protobuf, grpcio]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
