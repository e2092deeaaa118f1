"""The command that serves workers: its arguments, its ready line, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from host import PATIENCE, ROOT, clean_environ

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
pytest.importorskip("cryptography")

from test_launch_service import HOST, Lease, client  # noqa: E402
from test_seat import CHILD, has_ended, until  # noqa: E402

from snakepit_bridge import serve  # noqa: E402
from snakepit_bridge.launch.certificate import make_certificate  # noqa: E402

PROGRAM = "python -m snakepit_bridge.serve"
READY = "print('ready', flush=True)\n"


class Command:
    """The command as a process."""

    def __init__(self, *args, cwd=None):
        environ = {**clean_environ(), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error,ignore:Python 3.8 is no longer"}
        command = [sys.executable, "-m", "snakepit_bridge.serve", *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ, cwd=cwd
        )
        self.timer = threading.Timer(2 * PATIENCE, self.process.kill)
        self.timer.start()

    def line(self):
        return self.process.stderr.readline().rstrip("\n")

    def end(self):
        """Waits for the end. Returns the exit code and what was printed."""
        rest = self.process.stderr.read()
        return self.process.wait(PATIENCE), rest

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.timer.cancel()
        self.timer.join()


@pytest.fixture
def command():
    commands = []

    def start(*args, **options):
        commands.append(Command(*args, **options))
        return commands[-1]

    yield start
    for one in commands:
        one.close()


@pytest.fixture
def channels():
    """Returns a function that dials a command."""
    opened = []

    def dial(one, credentials=None):
        address = one.line().split(" at ")[1].split(",")[0]
        opened.append(grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address))
        return opened[-1]

    yield dial
    for channel in opened:
        channel.close()


@pytest.fixture
def files(tmp_path):
    """Writes the files for TLS, and returns the arguments that name them."""
    own = make_certificate()
    for name, text in {"backend.key": own.key, "backend.pem": own.pem, "authority.pem": HOST.pem}.items():
        (tmp_path / name).write_text(text)
    files = {"--certificate": "backend.pem", "--key": "backend.key", "--clients": "authority.pem"}
    arguments = [part for option, name in files.items() for part in (option, str(tmp_path / name))]
    return own, arguments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_without_leases_ends_at_once(command, script, number):
    one = command("worker.py", "--plaintext", "--listen", "127.0.0.1:0", "--workers", 3, cwd=script("").parent)
    line = one.line()
    assert line.startswith("serving worker.py at 127.0.0.1:")
    assert line.endswith(", 3 workers")
    one.process.send_signal(number)
    assert one.end() == (0, "")


def test_tls_and_arguments_of_the_worker(command, channels, script, files):
    own, arguments = files
    source = "import sys\nprint(sys.argv[1:], flush=True)\n"
    one = command(*arguments, "--listen", "localhost:0", "--workers=1", script(source), "--", "--model", "a", "--", "b")
    lease = Lease(channels(one, client(HOST, own.pem)), certificate=HOST.pem)
    assert next(lease.lines()) == "['--model', 'a', '--', 'b']"
    lease.close()


def test_running_workers_get_their_grace(command, channels, script):
    one = command(script(READY), "--plaintext", "--listen", "127.0.0.1:0", "--grace", "1e6")
    channel = channels(one)
    first, second = Lease(channel), Lease(channel)
    for lease in (first, second):
        assert next(lease.lines()) == "ready"
    one.process.terminate()
    assert one.line() == "ending: 2 workers may go on for 1e+06 s; a second signal ends them now"
    late = Lease(channel)
    assert late.refused() == ("UNAVAILABLE", "the back end is ending")
    assert one.process.poll() is None
    first.signal(2)
    assert first.next("exited").signal == signal.SIGKILL
    assert one.process.poll() is None
    second.close()
    assert one.end() == (0, "")
    first.close()
    late.close()


def test_the_end_of_the_grace(command, channels, script):
    """SIGTERM comes first, and SIGKILL for a worker that goes on."""
    polite = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os.write(1, b'asked\\n') and os._exit(7))\n"
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    source = f"import os\nexec({polite!r} if os.environ['KIND'] == 'polite' else {deaf!r})\n"
    one = command(script(source + READY), "--plaintext", "--listen", "127.0.0.1:0", "--grace", "0.01")
    channel = channels(one)
    leases = [Lease(channel, env=[f"KIND={kind}"]) for kind in ("polite", "deaf")]
    for lease in leases:
        assert next(lease.lines()) == "ready"
    one.process.terminate()
    assert [lease.next("exited").signal for lease in leases] == [0, signal.SIGKILL]
    assert one.end()[0] == 0
    for lease in leases:
        lease.close()


def test_a_second_signal_ends_all_at_once(command, channels, script):
    source = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + CHILD.format(apart=False)
    one = command(script(source), "--plaintext", "--listen", "127.0.0.1:0", "--grace", "1e6")
    lease = Lease(channels(one))
    pids = [int(pid) for pid in next(lease.lines()).split()]
    one.process.terminate()
    assert one.line().startswith("ending: 1 worker may go on")
    one.process.send_signal(signal.SIGINT)
    assert one.end() == (0, "")
    until(lambda: all(map(has_ended, pids)))
    lease.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of this system does not end groups")
def test_a_killed_command_leaves_no_process(command, channels, script):
    one = command(script(CHILD.format(apart=False)), "--plaintext", "--listen", "127.0.0.1:0")
    lease = Lease(channels(one))
    pids = [int(pid) for pid in next(lease.lines()).split()]
    one.process.kill()
    until(lambda: all(map(has_ended, pids)))
    lease.close()


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        serve.main(["--help"])
    assert caught.value.code == 0
    assert "--workers 8 --certificates certs" in capsys.readouterr().out


TLS = "--certificates is required, or --certificate, --key and --clients; `snakepit certificates DIR` makes the files."


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "the following arguments are required: worker"),
        (["w.py"], TLS + " On a loopback address --plaintext turns TLS off"),
        (["w.py", "--listen", "10.0.0.5:7000", "--key", "k"], TLS),
        (["w.py", "--plaintext", "--key", "k"], "--plaintext excludes --key"),
        (["w.py", "--certificates", "d", "--key", "k"], "--certificates excludes --key"),
        (
            ["w.py", "--plaintext", "--listen", "10.0.0.5:7000"],
            "--plaintext: others could listen in at 10.0.0.5; use TLS, or listen on 127.0.0.1",
        ),
        (["w.py", "--plaintext", "--listen", ":7000"], "--plaintext: others could listen in at 0.0.0.0"),
        (["w.py", "--plaintext", "--listen", "[::]:7000"], "--plaintext: others could listen in at ::"),
        (
            ["w.py", "--listen", "::1:7000"],
            "--listen ::1:7000: write HOST:PORT or :PORT, and an IPv6 address as [ADDRESS]:PORT",
        ),
        (["w.py", "--listen", "7000"], "--listen 7000: write HOST:PORT or :PORT"),
        (["w.py", "--listen", "127.0.0.1:65536"], "--listen 127.0.0.1:65536: a port is at most 65535"),
        (["w.py", "--listen", "127.0.0.1:999999"], "--listen 127.0.0.1:999999: a port is at most 65535"),
        (["w.py", "--listen", "no host:1"], "--listen no host:1: "),
        (["w.py", "--workers", "0"], "--workers 0: there must be one at least"),
        (["w.py", "--workers", "two"], "argument --workers: invalid int value: 'two'"),
        (["w.py", "--grace", "-1"], "--grace -1: it must not be negative"),
        (["w.py", "--worker-ports", "5-4"], "--worker-ports 5-4: write FIRST-LAST, such as 50051-50151"),
        (["w.py", "--worker-ports", "5000"], "--worker-ports 5000: write FIRST-LAST"),
        (
            ["w.py", "--worker-ports", "5000-5001", "--workers", "3"],
            "--worker-ports 5000-5001: 2 are too few for 3 workers; name more, or set --workers",
        ),
    ],
)
def test_wrong_arguments(capsys, args, message):
    with pytest.raises(SystemExit) as caught:
        serve.main(args)
    assert caught.value.code == 2
    assert f"{PROGRAM}: error: {message}" in capsys.readouterr().err


def test_a_wrong_argument_by_another_name(capsys, monkeypatch):
    monkeypatch.setenv("SNAKEPIT_COMMAND", "snakepit serve")
    with pytest.raises(SystemExit):
        serve.main([])
    assert "\nsnakepit serve: error: the following" in capsys.readouterr().err
    assert "SNAKEPIT_COMMAND" not in os.environ  # workers do not inherit it


def test_a_wrong_argument_of_the_process(command):
    code, printed = command("worker.py").end()
    assert code == 2
    assert TLS in printed


def test_no_such_worker(command, tmp_path):
    assert command("gone.py", "--plaintext", cwd=tmp_path).end() == (
        1,
        f"{PROGRAM}: gone.py: no such file (the working directory is {tmp_path})\n",
    )


def test_a_port_in_use(command, script):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert command(script(""), "--plaintext", "--listen", f"127.0.0.1:{port}").end() == (
            1,
            f"{PROGRAM}: it can't listen on 127.0.0.1 port {port}: Address already in use\n"
            "hint: choose another --listen\n",
        )


def failure(capsys, *args):
    assert serve.main([str(arg) for arg in args]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"{PROGRAM}: ")
    return printed[len(PROGRAM) + 2 :]


@pytest.mark.parametrize("option", ["--certificate", "--key", "--clients"])
def test_a_file_that_can_not_be_read(capsys, script, files, tmp_path, option):
    arguments = files[1]
    arguments[arguments.index(option) + 1] = str(tmp_path / "gone")
    assert failure(capsys, script(""), *arguments) == f"{option} {tmp_path}/gone: No such file or directory\n"


@pytest.mark.parametrize("option", ["--certificate", "--key", "--clients"])
@pytest.mark.parametrize("text", ["", "nothing", "\xff"])
def test_a_file_that_has_something_else(capsys, script, files, tmp_path, option, text):
    arguments = files[1]
    (tmp_path / "wrong").write_bytes(text.encode("latin-1"))
    arguments[arguments.index(option) + 1] = str(tmp_path / "wrong")
    thing = "private key in PEM without a password" if option == "--key" else "certificate in PEM"
    assert failure(capsys, script(""), *arguments).startswith(f"{option} {tmp_path}/wrong: it has no {thing} (")


def test_a_key_of_another_certificate(capsys, script, files, tmp_path):
    (tmp_path / "backend.key").write_text(make_certificate().key)
    expected = f"--key {tmp_path}/backend.key is not the key of --certificate {tmp_path}/backend.pem\n"
    assert failure(capsys, script(""), *files[1]) == expected


@pytest.mark.parametrize("package", ["grpc", "cryptography"])
def test_a_missing_package(script, files, tmp_path, package):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules[{package!r}] = None\n"
        "from snakepit_bridge import serve; sys.exit(serve.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(script("")), *files[1]],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environ(),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{PROGRAM}: ")
    assert package in done.stderr.splitlines()[0]
    assert "-m pip install" in done.stderr.splitlines()[1]


@pytest.mark.skipif(os.name != "posix", reason="the others can't serve at all")
def test_other_systems(capsys, monkeypatch):
    monkeypatch.setattr(serve.os, "name", "nt")
    assert failure(capsys, "w.py", "--plaintext") == "it needs Linux or another Unix\n"
