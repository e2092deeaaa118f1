"""The fork server, as a process that the tests drive over its socket, and its workers. internal/e2e has the Go host."""

import array
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import transports
from host import PATIENCE, ROOT, Host, clean_environ

if not sys.platform.startswith("linux"):
    pytest.skip("the fork server needs Linux: it reads /proc, and Open refuses it elsewhere", allow_module_level=True)

from snakepit_bridge import _forkserver

NAMED = ("SNAKEPIT_CONN_FD", "SNAKEPIT_CONTROL_FD", "SNAKEPIT_LIFELINE_FD")  # variables with numbers of descriptors


class Server:
    """A fork server, and the host's end of its socket.

    Attributes:
        report: Its report, or None if it has ended without one.
        printed: The lines that it has printed.
    """

    def __init__(self, script, env):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        report_read, report_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        inherited = [theirs.fileno(), report_write, lifeline_read]
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "__main__.py"), str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            env={
                **clean_environ(),
                "SNAKEPIT_FORK_SERVER": "1",
                "SNAKEPIT_MAX_FRAME": str(1 << 20),
                "OPENBLAS_NUM_THREADS": "1",  # of NumPy
                **dict(zip(NAMED, map(str, inherited))),
                **env,
            },
        )
        for fd in (theirs.detach(), report_write, lifeline_read):
            os.close(fd)
        self.printed = []
        self.sent = 0  # requests for workers
        self.hosts = []
        self._messages = []
        self._came = threading.Condition()  # guards the messages; notified of each, and of the end
        self._ended = False
        with open(report_read) as file:
            text = file.read()
        self.report = json.loads(text) if text else None
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_output)]
        for thread in self._threads:
            thread.start()

    def _read(self):
        while True:
            try:
                message = self.socket.recv(1 << 16)
            except ConnectionResetError:  # it was killed, and has not read everything
                message = b""
            with self._came:
                self._messages.append(json.loads(message) if message else None)
                self._came.notify_all()
            if not message:
                return

    def _read_output(self):
        for line in self.process.stdout:
            self.printed.append(line.decode().rstrip("\n"))

    def wait_for(self, key, value):
        """Returns the message with this entry. Others are kept, and so is the end of the connection, which is None."""

        def found():
            return [m for m in self._messages if m is None or m.get(key) == value]

        with self._came:
            assert self._came.wait_for(found, PATIENCE)
            message = found()[0]
            assert message is not None, self.printed
            self._messages.remove(message)
            return message

    def wait_end(self):
        """Waits until the server's end of the socket is closed."""
        with self._came:
            assert self._came.wait_for(lambda: None in self._messages, PATIENCE)

    def send(self, files=(), env=b"", **request):
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        self.socket.sendmsg([json.dumps(request).encode(), b"\n", env], fds)

    def request(self, files, env):
        """Asks for a worker, and returns the answer."""
        self.sent += 1
        number = self.sent
        self.send(files, start=number, env=b"\0".join(os.fsencode(f"{name}={value}") for name, value in env.items()))
        with self._came:
            assert self._came.wait_for(
                lambda: any(m is None or number in (m.get("started"), m.get("failed")) for m in self._messages),
                PATIENCE,
            )
            kept = [m for m in self._messages if m and number in (m.get("started"), m.get("failed"))]
        assert kept, self.printed
        return self.wait_for(*next(iter(kept[0].items())))

    def fork(self, protocol="jsonstdio", **env):
        """Returns the host of a new worker, which has said hello."""
        host = Forked(self, protocol=protocol, env=env)
        self.hosts.append(host)
        assert host.report == {}, host.printed
        host.greet()
        return host

    def wait(self):
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code

    def hang_up(self):
        """Closes the host's end of the socket, as far as the server sees."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        for host in self.hosts:
            host.close()
        self.process.kill()
        self.wait()
        self.process.stdout.close()
        self.socket.close()
        os.close(self._lifeline)


class Forked(Host):
    """The host of a worker that a fork server has forked."""

    def __init__(self, server, **options):
        self._server = server
        super().__init__(**options)

    def _start(self, command, inherited, stdin, env):
        return Worker(self._server, inherited, stdin, env)


class Worker:
    """A worker that is the child of a fork server, with as much of subprocess.Popen as `Host` uses."""

    def __init__(self, server, inherited, stdin, env):
        self.returncode = None
        self._server = server
        self.stdin = None
        if stdin == subprocess.PIPE:
            standard_input, ours = os.pipe()
            self.stdin = os.fdopen(ours, "wb")
        else:
            standard_input = os.open(os.devnull, os.O_RDONLY)
        (output, printed), (errors, complained) = os.pipe(), os.pipe()
        self.stdout, self.stderr = os.fdopen(output, "rb"), os.fdopen(errors, "rb")
        files = [standard_input, printed, complained, *inherited]
        for name in NAMED:
            if name in env:
                env[name] = str(files.index(int(env[name])))
        answer = server.request(files, env)
        for fd in files[:3]:
            os.close(fd)
        assert "pid" in answer, answer
        self.pid = answer["pid"]

    def poll(self):
        return self.returncode

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)  # it is a zombie until it is reaped

    def wait(self, timeout=None):
        """Waits until the worker has ended, and has it reaped. Returns its exit code, or its signal as a negative."""
        if self.returncode is None:
            message = self._server.wait_for("exited", self.pid)
            self.returncode = -message["signal"] if message["signal"] else message["code"]
            self._server.send(reap=self.pid)
        return self.returncode


@pytest.fixture
def start(script):
    """Starts a fork server for a worker file with the given source."""
    servers = []

    def start(source, options="", **env):
        servers.append(Server(script(source, options), env))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def begin(start):
    """Like `start`, for a server that is able to fork."""

    def begin(*args, **env):
        server = start(*args, **env)
        assert server.report == {}, (server.report, server.printed)
        return server

    return begin


FACTS = """
import os

@worker.command
def facts():
    return {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0)}

@worker.command
def environ(): return dict(os.environ)

@worker.command
def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try: found[name] = os.readlink("/proc/self/fd/" + name)
        except OSError: pass
    return found
"""


@pytest.mark.parametrize("protocol", [name for name in transports() if name != "grpc"])
def test_two_workers_at_once(begin, protocol):
    server = begin(FACTS)
    server.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        forking = [pool.submit(server.fork, protocol) for _ in range(2)]
        while server.sent < 2:
            time.sleep(0.001)
        server.process.send_signal(signal.SIGCONT)
        hosts = [future.result() for future in forking]
    for host in hosts:
        pid = host.process.pid
        assert host.hello["pid"] == pid
        assert host.call("facts") == {"pid": pid, "parent": server.process.pid, "group": pid}
    assert len({host.process.pid for host in hosts}) == 2
    for host in hosts:
        assert host.bye() == 0


def test_a_worker_has_its_own_descriptors_and_no_others(begin):
    server = begin(FACTS + "own = open(__file__)\n")  # a file that the program has opened stays
    first, second = server.fork(), server.fork()
    mine, others = first.call("descriptors"), second.call("descriptors")
    sockets_and_pipes = ("socket:", "pipe:")
    shared = {at for at in mine.values() if at.startswith(sockets_and_pipes)} & set(others.values())
    assert shared == set()
    assert [at for at in mine.values() if at.endswith("worker.py")] != []
    assert mine["0"] == os.devnull
    server.process.kill()
    server.wait_end()  # the workers have no copy of its end
    assert first.call("facts")["pid"] == first.process.pid
    for host in (first, second):
        host.process.kill()
        host.process.returncode = -signal.SIGKILL  # nobody says so any more


def test_a_program_that_closes_standard_input(begin):
    """The first descriptor of a request then takes its number."""
    server = begin(FACTS + "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: os.close(0))\n")
    server.process.send_signal(signal.SIGUSR1)
    while os.path.lexists(f"/proc/{server.process.pid}/fd/0"):
        time.sleep(0.001)
    for _ in range(2):
        host = server.fork()
        assert host.call("facts")["pid"] == host.process.pid
        assert host.bye() == 0


def test_the_environment_is_that_of_the_request_and_what_the_import_has_changed(begin):
    server = begin(
        FACTS
        + """
os.environ["ADDED"] = os.environ["CHANGED"] = "by the import"
del os.environ["DELETED"]
""",
        **dict.fromkeys(("CHANGED", "DELETED", "SAME", "THE_SERVER_S"), "the server's"),
    )
    own = dict.fromkeys(("CHANGED", "DELETED", "SAME", "NEW"), "the worker's")
    for number in ("0", "1"):
        environ = server.fork(**own, NUMBER=number).call("environ")
        assert "THE_SERVER_S" not in environ
        assert "DELETED" not in environ
        assert (environ["ADDED"], environ["CHANGED"]) == ("by the import", "by the import")
        assert (environ["SAME"], environ["NEW"], environ["NUMBER"]) == ("the worker's", "the worker's", number)
        assert not any(name in environ for name in (*NAMED, "SNAKEPIT_PROTOCOL", "SNAKEPIT_FORK_SERVER"))


@pytest.mark.parametrize("locale", ["C.UTF-8", "en_US.ISO-8859-1", "C"])
def test_the_environment_may_have_any_bytes(begin, locale):
    """Variables need not be UTF-8, nor have a name."""
    server = begin(
        """
        import os

        @worker.command
        def environ(): return [[name.hex(), value.hex()] for name, value in os.environb.items()]
        """,
        LC_ALL=locale,
        PYTHONUTF8="0",
    )
    own = {"LATIN": b"caf\xe9", "UNICODE": "€".encode(), "MARKUP": b"<&>=\n", "EMPTY": b"", "": b"no name"}
    host = server.fork(**{name: os.fsdecode(value) for name, value in own.items()})
    got = {bytes.fromhex(name): bytes.fromhex(value) for name, value in host.call("environ")}
    assert {name: got.get(name.encode()) for name in own} == {**own, "": None}


def test_output_goes_to_the_server_or_to_the_worker(begin):
    server = begin(
        """
        import logging, os, sys
        print("printed by the import")
        logging.warning("logged by the import")
        sys.stderr.write("complained by the import\\n")
        os.system("echo printed by a child")
        sys.stdout.write("half a line")

        @worker.command
        def say(text):
            print("printed", text)
            os.system("echo a child printed " + text)
            logging.warning("logged " + text)
        """
    )
    hosts = [server.fork() for _ in range(2)]
    for host, text in zip(hosts, ("one", "two")):
        host.call("say", text)
        assert host.logs(f"logged {text}")["level"] == "warn"
        assert host.bye() == 0
        assert host.printed == [f"printed {text}", f"a child printed {text}"]
    server.hang_up()
    assert server.wait() == 0
    text = "\n".join(server.printed)
    for once in ("printed by the import", "complained by the import", "printed by a child", "logged by the import"):
        assert text.count(once) == 1
    assert text.count("half a line") == 1
    assert "two" not in text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()",
            "has started threads before worker.run(): poller;",
        ),
        (  # as a library in C does: the module threading does not know it
            "import _thread, time\n_thread.start_new_thread(time.sleep, (60,))",
            "a library has started threads before worker.run() (1)",
        ),
        (  # as gevent does
            "import _thread\noriginal = _thread.start_new_thread\n_thread.start_new_thread = lambda *a: original(*a)",
            "has replaced Python's threads",
        ),
    ],
)
def test_a_program_that_must_not_be_forked(start, source, says):
    server = start(source + "\nworker.run()\n")
    error = server.report["failed"]
    assert error["type"] == "Unsafe"
    assert says in error["message"]
    assert server.wait() == 1


def test_a_program_with_gevent_is_refused(start):
    pytest.importorskip("gevent", reason="gevent is not installed for this Python")
    server = start("from gevent import monkey\nmonkey.patch_all()\n")
    assert "has replaced Python's threads" in server.report["failed"]["message"]


def test_a_thread_that_has_just_ended_is_no_obstacle(begin):
    server = begin(
        FACTS
        + """
import threading
for _ in range(20):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

listdir, late = os.listdir, [1, 2, 3]
def listdir_with_a_late_thread(path):
    if path == "/proc/self/task" and late:
        late.pop()
        return [*listdir(path), "4711"]
    return listdir(path)
os.listdir = listdir_with_a_late_thread
"""
    )
    assert server.fork().call("facts")["parent"] == server.process.pid


def test_a_thread_that_starts_later_has_a_fork_refused(begin):
    """Such as one that a signal handler of the program starts."""
    server = begin(
        """
        import signal, threading
        def start(*_): threading.Thread(target=threading.Event().wait, name="late", daemon=True).start()
        signal.signal(signal.SIGUSR1, start)
        """
    )
    assert server.fork().bye() == 0
    server.process.send_signal(signal.SIGUSR1)
    while True:
        answer = server.request([], {})  # it fails as soon as the handler has run
        if "failed" in answer:
            break
        server.wait_for("exited", answer["pid"])
        server.send(reap=answer["pid"])
    assert "threads before worker.run(): late;" in answer["error"]
    assert "errno" not in answer
    assert server.process.poll() is None


@pytest.mark.parametrize("library", ["random", "numpy.random"])
def test_workers_draw_different_numbers(begin, library):
    if find_spec(library.partition(".")[0]) is None:
        pytest.skip("NumPy is optional, and not installed for this Python")
    server = begin(
        f"""
        import {library}
        {library}.seed(1)

        @worker.command
        def draw(): return [{library}.random() for _ in range(4)]
        """
    )
    drawn = [tuple(server.fork().call("draw")) for _ in range(3)]
    assert len(set(drawn)) == 3


def test_what_the_import_has_made_outlives_a_worker(begin, tmp_path):
    server = begin(
        """
        import os, pathlib, tempfile, weakref
        directory = tempfile.TemporaryDirectory(dir=os.environ["PLACE"])
        class Owner: pass
        owner = Owner()
        owned = pathlib.Path(os.environ["PLACE"], "owned")
        owned.touch()
        weakref.finalize(owner, owned.unlink)

        @worker.command
        def make():
            global another
            another = tempfile.TemporaryDirectory(dir=os.environ["PLACE"])
            return [directory.name, another.name, str(owned)]
        """,
        PLACE=str(tmp_path),
    )
    host = server.fork(PLACE=str(tmp_path))
    made, its_own, owned = host.call("make")
    assert host.bye() == 0
    assert (os.path.isdir(made), os.path.exists(owned)) == (True, True)
    assert not os.path.exists(its_own)
    server.hang_up()
    assert server.wait() == 0
    assert (os.path.isdir(made), os.path.exists(owned)) == (False, False)


def state(pid):
    """Returns the letter of a process's state, or "" if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("end", "code", "number"),
    [
        ("os._exit(7)", 7, 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", -1, signal.SIGKILL),
        ("os.abort()", -1, signal.SIGABRT),
    ],
)
def test_ends_are_reported_and_leave_a_zombie_until_it_is_reaped(begin, end, code, number):
    server = begin(
        f"""
        import os, resource, signal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        @worker.command
        def end(): {end}
        """
    )
    host, other = server.fork(), server.fork()
    pid = host.process.pid
    host.open("end")
    message = server.wait_for("exited", pid)
    assert message == {"exited": pid, "code": code, "signal": number}
    assert state(pid) == "Z"
    assert server.fork().bye() == 0
    assert state(pid) == "Z"  # nobody else's end reaps it
    server.send(reap=pid)
    until = time.monotonic() + PATIENCE
    while state(pid) and time.monotonic() < until:
        time.sleep(0.001)
    assert state(pid) == ""
    host.process.returncode = code
    assert other.bye() == 0


def test_it_ends_with_the_socket(begin):
    server = begin(FACTS)
    host = server.fork()
    server.hang_up()
    assert server.wait() == 0
    assert host.call("facts")["pid"] == host.process.pid  # a worker has a host of its own
    host.process.kill()
    host.process.returncode = -signal.SIGKILL


@pytest.mark.parametrize(("link", "refused"), [("/dev/nvidia0", True), ("/dev/nvidiactl", True), ("/dev/null", False)])
def test_a_program_that_has_used_cuda_is_refused(monkeypatch, link, refused):
    monkeypatch.setattr(_forkserver.threading, "enumerate", lambda: [threading.main_thread()])
    monkeypatch.setattr(_forkserver.os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(_forkserver.os, "readlink", lambda path: link)
    if refused:
        with pytest.raises(_forkserver.Unsafe, match="has used CUDA"):
            _forkserver.check()
    else:
        _forkserver.check()


def open_files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_a_request_whose_descriptors_did_not_all_arrive(begin):
    server = begin(FACTS)
    before = open_files(server)
    null = os.open(os.devnull, os.O_RDONLY)
    answer = server.request([null] * (_forkserver._FILES + 1), {})
    os.close(null)
    assert "did not arrive as a whole" in answer["error"]
    host = server.fork()
    assert host.call("facts")["parent"] == server.process.pid
    assert host.bye() == 0
    assert open_files(server) == before


def test_a_server_without_room_for_descriptors_goes_on(begin):
    server = begin(
        FACTS
        + """
import resource
used = set(map(int, os.listdir("/proc/self/fd")))
free = [number for number in range(1000) if number not in used]
resource.setrlimit(resource.RLIMIT_NOFILE, (free[6], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""
    )
    null = os.open(os.devnull, os.O_RDONLY)
    answer = server.request([null] * 12, {})
    os.close(null)
    assert "too many files are open" in answer["error"]
    assert answer["errno"] == errno.EMFILE
    import resource

    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    assert server.fork().call("facts")["parent"] == server.process.pid


def test_a_server_with_many_files_goes_on(begin):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip(f"this needs 2,000 open files, and this system allows {hard}: raise it with ulimit -Hn")
    server = begin(
        FACTS
        + """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = [open(os.devnull) for _ in range(1100)]
"""
    )
    for _ in range(2):
        host = server.fork()
        assert host.call("facts")["parent"] == server.process.pid
        assert host.bye() == 0


def test_an_error_of_the_server_goes_to_standard_error(begin):
    """Such as one that a signal handler of the program raises. The report was sent long ago."""
    server = begin("import signal\nsignal.signal(signal.SIGUSR1, lambda *_: 1 / 0)\n")
    until = time.monotonic() + PATIENCE
    while server.process.poll() is None and time.monotonic() < until:
        server.process.send_signal(signal.SIGUSR1)  # the report's own cleaning up may swallow the first error
        time.sleep(0.05)
    assert server.wait() == 1
    assert "ZeroDivisionError" in "\n".join(server.printed)


def test_a_fork_that_the_system_refuses(begin):
    server = begin(
        FACTS
        + """
import errno, snakepit_bridge._forkserver as module
fork, refused = module.fork, []
def refuse():
    module.fork = fork
    raise BlockingIOError(errno.EAGAIN, "no more processes")
module.fork = refuse
"""
    )
    assert server.request([], {}) == {"failed": 1, "error": "no more processes", "errno": errno.EAGAIN}
    assert server.fork().bye() == 0


def test_an_error_of_the_import_is_the_report(start):
    server = start("raise ValueError('no weights')\n")
    assert (server.report["failed"]["type"], server.report["failed"]["message"]) == ("ValueError", "no weights")
    assert server.wait() == 1


def test_what_children_of_the_server_have(begin):
    """They are no workers, and hold none of its descriptors."""
    server = begin(
        FACTS
        + """
import subprocess
child = subprocess.Popen(["sleep", "600"])
print(child.pid)
"""
    )
    assert server.fork().bye() == 0
    assert not any(m and m.get("exited") for m in server._messages)
    server.process.kill()
    server.wait_end()
    os.kill(int(server.printed[0]), signal.SIGKILL)
