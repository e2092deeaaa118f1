"""A seat: it starts a worker process, passes on what it says, and ends it together with its children."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from host import PATIENCE, ROOT

pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
if not hasattr(os, "killpg"):
    pytest.skip("this system has no process groups", allow_module_level=True)

from snakepit_bridge.launch import seat as module
from snakepit_bridge.launch.directory import Directory
from snakepit_bridge.launch.memory import OomCounter
from snakepit_bridge.launch.seat import Ending, Exited, Memory, Output, Report, Seat, Start, Started

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of this system does not end groups")


def start(**more):
    return Start(
        **{"run_id": "pool-1", "index": 3, "max_frame": 1 << 20, "host_token": "h", "worker_token": "w", **more}
    )


@pytest.fixture
def sit(script):
    """Starts a worker of the given source in a seat, and closes the seat with the test."""
    seats = []

    def begin(source, *args, ports="", memory=None, address="127.0.0.1", **more):
        seats.append(Seat([str(script(source)), *args], address, ports, start(**more), memory))
        return seats[-1]

    yield begin
    for seat in seats:
        seat.close()


def until(true):
    """Waits until something is true, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_ended(pid):
    """Reports whether a process has ended. Its parent may not have reaped it."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state in "ZX"


def lines(events):
    """Yields the lines that a worker prints."""
    text = b""
    for event in events:
        if isinstance(event, Output):
            text += event.data
            *whole, text = text.split(b"\n")
            for line in whole:
                yield line.decode()
    if text:
        yield text.decode()


def test_a_worker_that_ends_by_itself(sit):
    seat = sit("import os\nprint('one', flush=True)\nos.write(2, b'two')\nos._exit(3)\n")
    first, *middle, last = seat.events()
    assert (first.pid > 0, bool(first.host), first.certificate) == (True, True, b"")
    assert last == Exited(3, 0, False)
    assert b"".join(event.data for event in middle if isinstance(event, Output)) == b"one\ntwo"
    (report,) = [event for event in middle if isinstance(event, Report)]
    assert report.data.endswith(b"\n")
    assert json.loads(report.data)["endpoint"].startswith("127.0.0.1:")
    assert seat.ending
    assert seat.wait(0)


def test_a_worker_that_can_not_listen(sit):
    *_, report, exited = [event for event in sit("", address="no address").events() if not isinstance(event, Output)]
    assert "that is no IP address" in json.loads(report.data)["unavailable"]
    assert exited == Exited(1, 0, False)


@pytest.mark.parametrize("kill, number", [(False, signal.SIGTERM), (True, signal.SIGKILL)])
def test_signals(sit, kill, number):
    class Guilty(OomCounter):
        def claim(self, base):
            return True

    seat = sit("print('ready', flush=True)\n", memory=Guilty())
    events = seat.events()
    assert next(lines(events)) == "ready"
    seat.signal(kill)
    *_, last = events
    assert last == Exited(-1, number, False)  # we have killed it, so memory has not
    seat.signal(kill)  # it hits nobody


@pytest.mark.parametrize("guilty", [True, False])
def test_a_kill_that_memory_explains(sit, guilty):
    class Counter(OomCounter):
        def base(self):
            return 7

        def claim(self, base):
            assert base == 7
            return guilty

    *_, last = sit("import os\nos.kill(os.getpid(), 9)\n", memory=Counter()).events()
    assert last == Exited(-1, signal.SIGKILL, guilty)


def test_all_output_arrives_before_the_end(sit):
    seat = sit("import os\nos.write(1, b'x' * 3_000_000)\nos._exit(0)\n")
    total = 0
    for event in seat.events():
        if isinstance(event, Output):
            assert 0 < len(event.data) <= module.CHUNK_BYTES
            total += len(event.data)
    assert total == 3_000_000
    assert event == Exited(0, 0, False)


def test_a_worker_waits_until_its_output_is_taken(sit, tmp_path):
    """Nothing is read before it is taken, so the worker gets no further than its pipe is large."""
    path = tmp_path / "written"
    seat = sit(
        f"""
        import os
        os.set_blocking(1, False)
        count = 0
        try:
            while True:
                count += os.write(1, bytes(1000))
        except BlockingIOError:
            pass
        with open({str(path)!r} + ".new", "w") as file:
            file.write(str(count))
        os.rename({str(path)!r} + ".new", {str(path)!r})
        os._exit(0)
        """
    )
    until(path.exists)
    assert seat.wait(PATIENCE)
    assert sum(len(event.data) for event in seat.events() if isinstance(event, Output)) == int(path.read_text())


CHILD = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session={apart})
print(os.getpid(), child.pid, flush=True)
"""


def test_the_children_end_with_the_worker(sit):
    events = sit(CHILD.format(apart=False) + "os._exit(0)\n").events()
    _, child = map(int, next(lines(events)).split())
    *_, last = events
    assert last == Exited(0, 0, False)
    until(lambda: has_ended(child))


def test_the_children_end_with_a_closed_seat(sit):
    seat = sit(CHILD.format(apart=False))
    worker, child = map(int, next(lines(seat.events())).split())
    seat.close()
    assert has_ended(worker)
    until(lambda: has_ended(child))


def test_a_process_outside_the_group_does_not_delay_the_end(sit):
    events = sit(CHILD.format(apart=True) + "os._exit(0)\n").events()
    _, child = map(int, next(lines(events)).split())
    try:
        *_, last = events
        assert last == Exited(0, 0, False)
        assert not has_ended(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_outside_the_group_that_prints_does_not_delay_the_end(sit):
    source = """
        import os, subprocess, sys
        code = "while True: print('x' * 1000)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
        os.write(1, b"%d\\n" % child.pid)
        os._exit(0)
        """
    events = sit(source).events()
    child = 0
    text = b""
    try:
        for event in events:
            if isinstance(event, Output) and not child:
                text += event.data
                numbers = [line for line in text.split(b"\n")[:-1] if line.isdigit()]
                child = int(numbers[0]) if numbers else 0
        assert event == Exited(0, 0, False)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("moment", ["before", "started", "ended"])
def test_nothing_stays_behind(script, monkeypatch, tmp_path, moment):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seats = []
    for _ in range(2):  # the first one may open files that stay open
        before = len(os.listdir("/dev/fd"))
        seat = Seat([str(script("import os\nos._exit(0)\n" if moment == "ended" else ""))], "127.0.0.1", "", start())
        seats.append(seat)
        events = seat.events()
        if moment == "started":
            assert isinstance(next(events), Started)
        if moment == "ended":
            list(events)
        assert os.stat(seat._directory.path).st_mode & 0o777 == 0o700 if not seat.wait(0) else True
        seat.close()
        seat.close()
        assert len(os.listdir("/dev/fd")) == before
        assert not list(tmp_path.glob("snakepit-*"))
    if moment != "ended":
        assert list(events)[-1] == Exited(-1, signal.SIGKILL, False)
    with pytest.raises(ProcessLookupError):
        os.kill(seats[0]._process.pid, 0)


def test_close_wakes_the_thread_that_waits_for_events(sit):
    seat = sit("")
    seen, began = [], threading.Event()

    def watch():
        for event in seat.events():
            seen.append(event)
            if isinstance(event, Report):
                began.set()

    thread = threading.Thread(target=watch)
    thread.start()
    assert began.wait(PATIENCE)
    seat.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert seen[-1] == Exited(-1, signal.SIGKILL, False)


def test_directories_that_killed_programs_left_behind_are_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    used = Directory()
    for name in ("snakepit-seat-left", "snakepit-pool-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stacks").touch()
    (tmp_path / "snakepit-seat-link").symlink_to(tmp_path / "snakepit-pool-other")
    (tmp_path / "snakepit-seat-file").touch()
    new = Directory()
    kept = {"snakepit-pool-other", "snakepit-seat-link", "snakepit-seat-file"}
    assert {path.name for path in tmp_path.iterdir()} == {Path(used.path).name, Path(new.path).name} | kept
    for directory in (used, new):
        directory.remove()
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("step", ["mkdtemp", "open"])
def test_a_sweep_may_remove_a_directory_before_it_is_locked(monkeypatch, tmp_path, step):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    owner, sweep = (tempfile, tempfile.mkdtemp) if step == "mkdtemp" else (os, os.open)
    removed = []

    def then_removed(*args, **options):
        result = sweep(*args, **options)
        if not removed:
            removed.append(result if step == "mkdtemp" else args[0])
            os.rmdir(removed[0])
        return result

    monkeypatch.setattr(owner, step, then_removed)
    directory = Directory()
    assert directory.path != removed[0]
    assert [path.name for path in tmp_path.iterdir()] == [Path(directory.path).name]
    directory.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["Popen", "Thread", "pipe"])
def test_a_start_that_fails_leaves_nothing_behind(script, monkeypatch, tmp_path, call):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    processes = []
    before = len(os.listdir("/dev/fd"))

    def fail(*args, **options):
        raise OSError(errno.EAGAIN, "no more")

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            processes.append(self)

    monkeypatch.setattr(module.subprocess, "Popen", fail if call == "Popen" else Noted)
    if call == "Thread":
        monkeypatch.setattr(module.threading, "Thread", fail)
    if call == "pipe":
        left = iter([os.pipe] * 2)
        monkeypatch.setattr(module.os, "pipe", lambda: next(left, fail)())
    with pytest.raises(OSError, match="no more"):
        Seat([str(script(""))], "127.0.0.1", "", start())
    monkeypatch.undo()
    assert len(os.listdir("/dev/fd")) == before
    assert not list(tmp_path.glob("snakepit-*"))
    assert [process.returncode for process in processes] == ([-signal.SIGKILL] if call == "Thread" else [])


HOLDER = """
import sys
sys.path[:0] = [{root!r}]
from snakepit_bridge.launch.seat import Output, Seat, Start
seat = Seat([{worker!r}], "127.0.0.1", "", Start("pool-1", 0, 1 << 20, "h", "w"))
for event in seat.events():
    if isinstance(event, Output):
        sys.stdout.write(event.data.decode())
        sys.stdout.flush()
"""


@on_linux
def test_all_end_with_the_program_that_holds_the_seat(script):
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code = HOLDER.format(root=str(ROOT), worker=str(script(deaf + CHILD.format(apart=False))))
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with holder:
        worker, child = map(int, holder.stdout.readline().split())
        assert not has_ended(worker)
        assert not has_ended(child)
        holder.kill()
    until(lambda: has_ended(worker) and has_ended(child))


SHOW = """
import json, os, sys
import grpc, snakepit_bridge
shown = {name: value for name, value in os.environ.items() if name.startswith(("SNAKEPIT_", "OWN_"))}
print(json.dumps([sys.argv[1:], shown, hasattr(grpc, "server"), snakepit_bridge.__file__]), flush=True)
"""


def test_what_a_worker_finds(sit, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SNAKEPIT_")]:
        monkeypatch.delenv(name)  # of the developer
    for name in ("SNAKEPIT_CACHE", "SNAKEPIT_CONN_FD", "SNAKEPIT_FORK_SERVER", "OWN_A", "OWN_B", "SNAKEPIT_OTHER"):
        monkeypatch.setenv(name, "the back end's")
    env = (
        "OWN_B=the host's",
        "SNAKEPIT_RUN_ID=other",
        "SNAKEPIT_FORK_SERVER=1",
        "SNAKEPIT_GRPC_CLIENT_TOKEN=t",
        "OWN_C=",
    )
    seat = sit(SHOW, "--model", "a b", ports="1024-65535", env=env)
    args, shown, is_grpcio, package = json.loads(next(lines(seat.events())))
    assert args == ["--model", "a b"]
    assert is_grpcio
    assert Path(package) == ROOT / "snakepit_bridge" / "__init__.py"
    assert shown.pop("SNAKEPIT_DIR") == seat._directory.path
    assert shown == {
        "OWN_A": "the back end's",
        "OWN_B": "the host's",
        "OWN_C": "",
        "SNAKEPIT_OTHER": "the back end's",
        "SNAKEPIT_RUN_ID": "pool-1",
        "SNAKEPIT_WORKER_INDEX": "3",
        "SNAKEPIT_MAX_FRAME": str(1 << 20),
        "SNAKEPIT_GRPC_HOST": "127.0.0.1",
        "SNAKEPIT_GRPC_TLS": "off",
        "SNAKEPIT_GRPC_PORTS": "1024-65535",
    }


def test_the_variables_of_the_contract_are_those_of_the_documentation():
    page = (ROOT.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    table = page[page.index("## The launch contract") : page.index("The host never writes to the lifeline")]
    named = {part for part in table.split("`") if part.startswith("SNAKEPIT_") and part.isupper()}
    assert named - {"SNAKEPIT_NODE"} == module.CONTRACT  # an actor of Ray hands that on


def test_a_start_can_be_pickled():
    assert pickle.loads(pickle.dumps(start(env=("A=b",)))) == start(env=("A=b",))


@pytest.mark.parametrize(
    ("groups", "path", "text"),
    [
        ("0::/a/b\n", "a/b/memory.events", "low 0\noom 9\noom_kill {}\noom_group_kill 5\n"),
        ("4:memory:/a\n0::/\n", "memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    ],
)
def test_each_kill_is_claimed_once(tmp_path, groups, path, text):
    (tmp_path / "groups").write_text(groups)
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text.format(2))
    counter = OomCounter(str(tmp_path / "groups"), str(tmp_path))
    assert counter.base() == 2
    assert not counter.claim(2)
    file.write_text(text.format(4))
    assert counter.claim(2)
    assert counter.claim(2)
    assert not counter.claim(2)
    file.write_text(text.format(6))
    assert counter.claim(5)  # a worker that was started after the fifth
    assert not counter.claim(2)
    file.write_text("")
    assert not counter.claim(0)


@pytest.mark.parametrize("groups", [None, "", "0::/missing\n", "broken"])
def test_no_counter(tmp_path, groups):
    if groups is not None:
        (tmp_path / "groups").write_text(groups)
    counter = OomCounter(str(tmp_path / "groups"), str(tmp_path))
    assert counter.base() == 0
    assert not counter.claim(0)


def test_a_certificate():
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    from snakepit_bridge.launch.certificate import make_certificate

    own, other = make_certificate(), make_certificate()
    assert own.key != other.key
    certificate = x509.load_pem_x509_certificate(own.pem.encode())
    assert certificate.public_bytes(Encoding.DER) == own.der
    key = load_pem_private_key(own.key.encode(), None)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key().public_numbers() == certificate.public_key().public_numbers()
    certificate.public_key().verify(
        certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(certificate.signature_hash_algorithm)
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert own.pem.count("BEGIN CERTIFICATE") == own.key.count("BEGIN PRIVATE KEY") == 1


def test_cryptography_is_missing(monkeypatch, script):
    from snakepit_bridge.transport import Unavailable

    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(Unavailable, match="cryptography cannot be imported") as caught:
        Seat([str(script(""))], "127.0.0.1", "", start(certificate="host's"))
    assert "-m pip install 'cryptography>=42'" in caught.value.remedy


def test_the_memory_of_a_worker_and_its_children(sit):
    own, child = "x = bytearray(os.urandom(30 << 20))\n", "x = bytearray(30 << 20); x[::4096] = b'1' * 7680; "
    source = CHILD.format(apart=False).replace("import time;", child + "import time;")
    seat = sit(source + own + "import time\ntime.sleep(600)\n", watch_memory=True)
    told = (event.size >> 20 for event in seat.events() if isinstance(event, Memory))
    assert 60 < next(size for size in told if size > 60) < 200


def test_the_end_of_the_back_end_is_an_event(sit):
    seat = sit("import time\nprint('here', flush=True)\ntime.sleep(1000)")
    events = seat.events()
    next(event for event in events if isinstance(event, Output))
    seat.announce_end("it is late")
    assert next(events) == Ending("it is late")
    seat.close()
    seat.announce_end("too late")
    assert isinstance(next(events), Exited)
