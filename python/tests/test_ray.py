"""The command that starts workers in a Ray cluster. The tests start a cluster of several nodes on this machine."""

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec

import pytest
from host import PATIENCE, ROOT, clean_environ

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
pytest.importorskip("cryptography")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("ray", reason="Ray is not installed; `make install-ray` installs it")
    from ray.cluster_utils import Cluster

from test_launch_service import Lease  # noqa: E402
from test_seat import CHILD, has_ended, until  # noqa: E402

from snakepit_bridge import ray as command  # noqa: E402
from snakepit_bridge.grpc.snakepit_pb2_grpc import WorkerStub  # noqa: E402
from snakepit_bridge.launch import launch_pb2 as pb2  # noqa: E402
from snakepit_bridge.launch.certificate import make_certificate  # noqa: E402
from snakepit_bridge.launch.launch_pb2_grpc import LaunchStub  # noqa: E402

# Ray leaves files and processes to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel of this system does not end groups"),
]

ENVIRON = {
    **{name: value for name, value in clean_environ().items() if not name.startswith("RAY_")},
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # the default depends on files of the user
}
PROGRAM = "python -m snakepit_bridge.ray"
HOST, STRANGER = make_certificate(), make_certificate()
READY = "print('ready', flush=True)\n"

# Prints the ids of the worker, its child, its actor, and the program of Ray's on the node.
WHERE = CHILD.format(apart=False) + "print(os.getppid(), os.environ['RAY_RAYLET_PID'], flush=True)\n"


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a node without room and a node for two workers."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(ENVIRON)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # By default Ray takes up to half a minute to notice that a node is gone.
            notice = {
                "health_check_period_ms": 500,
                "health_check_timeout_ms": 1000,
                "health_check_failure_threshold": 2,
            }
            head = {"num_cpus": 0, "include_dashboard": False, "_system_config": notice}
            one = Cluster(initialize_head=True, head_node_args=head)
            try:
                one.add_node(num_cpus=2, resources={"slot": 2})
                yield one
            finally:
                one.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)


class BackEnd:
    """The command as a process."""

    def __init__(self, cluster, directory, *args, before="", **environ):
        environ = {**ENVIRON, "RAY_ADDRESS": cluster.address, **environ}
        self.errors = directory / "errors"
        code = f"import os, sys; from snakepit_bridge import ray; {before}; os._exit(ray.main(sys.argv[1:]))"
        run = ["-c", code] if before else ["-m", "snakepit_bridge.ray"]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *run, "--announce", "T", *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environ,
                cwd=directory,
            )
        self.timer = threading.Timer(3 * PATIENCE, self.process.kill)
        self.timer.start()
        self.channel = None
        self.leases = []

    def announced(self):
        for line in self.process.stdout:
            if line.startswith("snakepit-backend T "):
                return json.loads(line.split(" ", 2)[2])
        raise AssertionError(self.errors.read_text())

    def dial(self, own=None):
        facts = self.announced()
        if own is None:
            self.channel = grpc.insecure_channel(facts["endpoint"])
            return self
        der = base64.b64decode(facts["certificate"])
        pem = command.ssl.DER_cert_to_PEM_cert(der).encode()
        credentials = grpc.ssl_channel_credentials(pem, own.key.encode(), own.pem.encode())
        self.channel = grpc.secure_channel(
            facts["endpoint"], credentials, [("grpc.ssl_target_name_override", "localhost")]
        )
        return self

    def lease(self, **more):
        self.leases.append(Lease(self.channel, **more))
        return self.leases[-1]

    def close(self):
        for lease in self.leases:
            lease.close()
        if self.channel is not None:
            self.channel.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.timer.cancel()
        self.timer.join()


@pytest.fixture
def begin(cluster, script, tmp_path):
    """Starts a back end for a worker of the given source, in plain text by default."""
    ends = []

    def start(source, *args, plaintext=True, **environ):
        more = ["--plaintext"] if plaintext else []
        ends.append(BackEnd(cluster, tmp_path, script(source).name, *more, *args, **environ))
        return ends[-1]

    yield start
    for one in ends:
        one.close()


def where(lease):
    """Returns the ids of the processes of a lease, and what `raylet` returns for its node."""
    lines = lease.lines()
    worker, child = map(int, next(lines).split())
    actor, node = map(int, next(lines).split())
    return [worker, child, actor], node


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


SOURCE = f"""\
import os, sys, time
assert len(os.environ["SNAKEPIT_NODE"]) > 30
if os.environ["KIND"] == "output":
    import importlib.util
    found = importlib.util.find_spec("ray").origin  # not the module of the bridge with this name
    print(sys.argv[1:], os.environ["PURPOSE"], found, flush=True)
    os.write(1, b"x" * 1_000_000)
    os._exit(5)
if os.environ["KIND"] == "raises":
    raise ValueError("no such model")
if os.environ["KIND"] == "children":
    exec({WHERE!r})
"""


def test_leases(begin):
    """One back end: output, reports, signals, exits, and what the end of a lease ends."""
    back_end = begin(SOURCE, "--", "--model", "a").dial()

    lease = back_end.lease(env=["KIND=output", "PURPOSE=trial"])
    kinds = {}
    for event in lease.call:
        kind = event.WhichOneof("event")
        kinds.setdefault(kind, []).append(getattr(event, kind))
    assert next(iter(kinds)) == "started"
    assert list(kinds)[-1] == "exited"
    assert kinds["started"][0].host
    line = f"['--model', 'a'] trial {find_spec('ray').origin}\n"
    assert b"".join(kinds["output"]) == line.encode() + b"x" * 1_000_000
    assert kinds["exited"] == [pb2.Exited(code=5)]
    assert lease.call.code() == grpc.StatusCode.OK

    report = json.loads(back_end.lease(env=["KIND=raises"]).next("report"))
    with grpc.insecure_channel(report["endpoint"]) as channel:
        token = [("snakepit-token", "host's")]
        rpc = WorkerStub(channel).Attach(iter(queue.SimpleQueue().get, None), metadata=token, timeout=PATIENCE)
        said = json.loads(next(rpc).frames[0].body)
        rpc.cancel()
    assert said["message"] == "no such model"
    assert "worker.py" in said["traceback"]

    for number, sent in (signal.SIGTERM, pb2.SIGNAL_TERMINATE), (signal.SIGKILL, pb2.SIGNAL_KILL):
        lease = back_end.lease(env=["KIND="])
        assert json.loads(lease.next("report"))["endpoint"].startswith("127.0.0.1:")
        lease.signal(sent)
        assert lease.next("exited") == pb2.Exited(code=-1, signal=number)

    lease = back_end.lease(env=["KIND=children"])
    pids, _ = where(lease)
    lease.close()
    until(lambda: all(map(has_ended, pids)))

    refused = back_end.lease(env=["LONG=" + "x" * 200_000]).refused()
    assert refused[0] == "FAILED_PRECONDITION"
    assert refused[1].startswith("the worker could not be started: ")

    lease = back_end.lease(env=["KIND=children"])
    pids, _ = where(lease)
    os.kill(pids[2], signal.SIGKILL)
    code, details = lease.refused()
    assert code == "ABORTED"
    assert details.startswith("the actor on the node ")
    until(lambda: all(map(has_ended, pids)))

    back_end.process.terminate()
    assert back_end.process.wait(PATIENCE) == 0


def test_a_killed_back_end_leaves_no_process(begin):
    back_end = begin(WHERE).dial()
    pids = [pid for lease in (back_end.lease(), back_end.lease()) for pid in where(lease)[0]]
    back_end.process.kill()
    until(lambda: all(map(has_ended, pids)))


def test_one_host(begin):
    """The end of its Hold call ends the workers and the command."""
    back_end = begin(WHERE, "--for-one-host").dial()
    hold = LaunchStub(back_end.channel).Hold(pb2.HoldRequest())
    assert next(hold) == pb2.HoldEvent()
    pids, _ = where(back_end.lease())
    hold.cancel()
    assert back_end.process.wait(PATIENCE) == 0
    until(lambda: all(map(has_ended, pids)))


def test_a_host_that_does_not_come(begin):
    back_end = begin("", "--for-one-host", before="ray.HOLD_SECONDS = 0.1")
    back_end.announced()
    assert back_end.announced() == {"error": "no host has come within 0.1 s", "remedy": ""}
    assert back_end.process.wait(PATIENCE) == 1


def test_room(begin, cluster):
    """What a worker needs places it. Without room it is refused, or it waits until there is some."""
    back_end = begin(WHERE, "--resources", '{"slot": 1}', "--num-cpus", "0.5").dial()
    first = [back_end.lease(), back_end.lease()]
    nodes = [where(lease)[1] for lease in first]
    assert nodes[0] == nodes[1]
    assert back_end.lease().refused() == (
        "RESOURCE_EXHAUSTED",
        "the cluster has no room: a worker needs {CPU: 0.5, slot: 1}; available now: {CPU: 1, slot: 0}, "
        "of {CPU: 2, slot: 2} in all",
    )
    given_up = back_end.lease(wait=True)
    waiting = back_end.lease(wait=True)
    time.sleep(0.2)
    given_up.close()
    node = cluster.add_node(num_cpus=2, resources={"slot": 1})
    _, place = where(waiting)
    assert place == raylet(node)
    assert place != nodes[0]

    # The node is lost. The next worker lands elsewhere, once there is room.
    cluster.remove_node(node, allow_graceful=False)
    code, details = waiting.refused()
    assert code == "ABORTED"
    assert node.node_id in details
    first[0].close()
    assert where(back_end.lease())[1] == nodes[0]


def test_spread(begin, cluster):
    node = cluster.add_node(num_cpus=2)
    try:
        back_end = begin(WHERE, "--strategy", "SPREAD", "--num-cpus", "0.5").dial()
        leases = [back_end.lease() for _ in range(4)]
        places = [where(lease)[1] for lease in leases]
        assert places.count(raylet(node)) == 2
        assert len(set(places)) == 2
    finally:
        cluster.remove_node(node)


def test_what_no_node_has(begin):
    back_end = begin(
        "", "--num-gpus", "2", "--num-cpus", "8", "--memory", str(2**50), "--labels", '{"zone": "a"}'
    ).dial()
    code, details = back_end.lease().refused()
    assert code == "RESOURCE_EXHAUSTED"
    assert details.startswith(
        "the cluster has no room: a worker needs {CPU: 8, GPU: 2, memory: 1.05e+06 GiB} on a node with the labels "
        "{zone: a}; available now: {"
    )
    assert "; no node has more than {CPU: 2}; no node has any GPU; no node has more than {memory: " in details


def test_the_limit_of_workers(begin):
    back_end = begin(READY, "--workers", "1").dial()
    assert next(back_end.lease().lines()) == "ready"
    assert back_end.lease().refused() == ("RESOURCE_EXHAUSTED", "all 1 workers are leased")
    waiting = back_end.lease(wait=True)
    back_end.leases[0].close()
    assert next(waiting.lines()) == "ready"


def test_tls(begin):
    """Only a program with the certificate may connect. The workers listen on the address of their node."""
    back_end = begin("", plaintext=False, SNAKEPIT_LAUNCH_CLIENTS=HOST.pem).dial(HOST)
    lease = back_end.lease(certificate=HOST.pem)
    certificate = lease.next("started").certificate
    assert command.ssl.DER_cert_to_PEM_cert(certificate)
    assert not json.loads(lease.next("report"))["endpoint"].startswith("127.0.0.1:")


def test_a_wrong_certificate(begin, tmp_path):
    (tmp_path / "clients.pem").write_text(HOST.pem)
    back_end = begin("", "--clients", "clients.pem", plaintext=False).dial(STRANGER)
    assert back_end.lease(certificate=HOST.pem).refused()[0] == "UNAVAILABLE"


def test_certificates_of_a_directory(begin, tmp_path):
    own = make_certificate()
    for name, text in {"backend.key": own.key, "backend.pem": own.pem + HOST.pem, "authority.pem": HOST.pem}.items():
        (tmp_path / name).write_text(text)
    back_end = begin("", "--certificates", ".", plaintext=False, SNAKEPIT_LAUNCH_CLIENTS=STRANGER.pem)
    assert base64.b64decode(back_end.announced()["certificate"]) == own.der


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "the following arguments are required: worker"),
        (["w.py"], "--clients or the variable SNAKEPIT_LAUNCH_CLIENTS is required"),
        (["w.py", "--plaintext", "--listen", "10.0.0.5:0"], "--plaintext: others could listen in at 10.0.0.5"),
        (["w.py", "--listen", "::1:0"], "--listen ::1:0: write HOST:PORT"),
        (["w.py", "--certificate", "c"], "--certificates is required, or --certificate, --key and --clients"),
        (["w.py", "--certificates", "d", "--key", "k"], "--certificates excludes --key"),
        (["w.py", "--workers", "0"], "--workers 0: there must be one at least"),
        (["w.py", "--grace", "-1"], "--grace -1: it must not be negative"),
        (["w.py", "--worker-ports", "5-4"], "--worker-ports 5-4: write FIRST-LAST"),
        (["w.py", "--num-cpus", "-1"], "--num-cpus -1: it must not be negative"),
        (["w.py", "--num-gpus", "nan"], "--num-gpus nan: it must not be negative"),
        (["w.py", "--num-gpus", "1.5"], "--num-gpus 1.5: more than one must be a whole number"),
        (["w.py", "--num-cpus", "0"], "a worker must need something: --num-cpus, --num-gpus, --memory or --resources"),
        (["w.py", "--resources", "TPU"], "--resources: it is no JSON: "),
        (["w.py", "--resources", "[]"], "--resources: it must be an object of JSON"),
        (["w.py", "--resources", '{"CPU": 1}'], "--resources: CPU has an option of its own"),
        (["w.py", "--resources", '{"TPU": true}'], "--resources: the amount of TPU must be a number"),
        (["w.py", "--labels", '{"zone": 1}'], "--labels: the values must be strings"),
        (["w.py", "--strategy", "PACK"], "argument --strategy: invalid choice: 'PACK'"),
    ],
)
def test_wrong_arguments(capsys, monkeypatch, args, message):
    monkeypatch.delenv("SNAKEPIT_LAUNCH_CLIENTS", raising=False)
    with pytest.raises(SystemExit) as caught:
        command.main([*args, "--announce", "T"])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert f"{PROGRAM}: error: {message}" in printed.err
    announced = json.loads(printed.out[len("snakepit-backend T ") :])
    assert announced["error"].startswith(message)


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    assert "--listen :7000 --certificates certs" in capsys.readouterr().out


def failure(tmp_path, *args, code="", **environ):
    """Runs the command in a process of its own. Returns the lines of its failure, and what it announces."""
    (tmp_path / "w.py").touch()
    run = ["-c", code + "from snakepit_bridge import ray; sys.exit(ray.main(sys.argv[1:]))"] if code else []
    done = subprocess.run(
        [sys.executable, *(run or ["-m", "snakepit_bridge.ray"]), *args, "--announce", "T"],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        cwd=tmp_path,
        env={**ENVIRON, **environ},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{PROGRAM}: ")
    text, _, hint = done.stderr[len(PROGRAM) + 2 :].rstrip("\n").partition("\nhint: ")
    assert json.loads(done.stdout[len("snakepit-backend T ") :]) == {"error": text, "remedy": hint}
    return text, hint


def test_failures(tmp_path):
    plain = ("w.py", "--plaintext")
    assert failure(tmp_path, "gone.py", "--plaintext") == (
        f"gone.py: no such file (the working directory is {tmp_path})",
        "",
    )
    assert failure(tmp_path, "w.py", "--clients", "gone") == ("--clients gone: No such file or directory", "")
    assert failure(tmp_path, "w.py", "--clients", "w.py")[0].startswith("--clients w.py: it has no certificate in PEM")
    text, hint = failure(tmp_path, *plain, code="import sys; sys.modules['ray'] = None\n")
    assert text.startswith("a package is missing: ")
    assert "-m pip install 'ray[default]" in hint
    text, hint = failure(tmp_path, *plain, RAY_ADDRESS="ray://head:10001")
    assert text == "RAY_ADDRESS is ray://head:10001, and this command has to run in the cluster"
    assert "ray job submit" in hint
    text, hint = failure(tmp_path, *plain, RAY_ADDRESS="127.0.0.1:1")
    assert text.startswith("no Ray cluster answers at RAY_ADDRESS, 127.0.0.1:1: ")
    assert hint == "start it, or correct it"


def test_versions_differ(cluster, tmp_path):
    older = "import sys, ray; ray.__version__ = '1.0.0'\n"
    text, hint = failure(tmp_path, "w.py", "--plaintext", code=older, RAY_ADDRESS=cluster.address)
    assert text.startswith("Ray does not connect: Version mismatch: The cluster was started with: Ray: ")
    assert "Ray: 1.0.0" in text
    assert hint == "run it with the cluster's versions of Ray and Python, or by `ray job submit`"


@pytest.mark.parametrize("end", [lambda seat: seat.signal(kill=True), lambda seat: seat.announce_end("it ends")])
def test_a_seat_that_is_given_up_while_ray_makes_its_actor(monkeypatch, end):
    from snakepit_bridge.launch import cluster as module

    killed, removed = [], []
    monkeypatch.setattr(module, "_kill", killed.append)
    monkeypatch.setattr(module, "remove_placement_group", removed.append)
    seat = module.Cluster(["w.py"], 1, module.Need()).take(None)
    seat._actor, seat._group = "the actor", "its room"
    end(seat)
    assert (killed, removed) == (["the actor"], ["its room"])
