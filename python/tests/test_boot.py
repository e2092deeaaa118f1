"""Starting, failing to start, and ending."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import transports
from host import PATIENCE, ROOT, Gone, Host

from snakepit_bridge import __version__


def test_a_worker_starts_and_ends(serve):
    host = serve("@worker.command\ndef stream(): yield 1\n", "concurrency=2, queue=3")
    assert host.report == {}
    hello = dict(host.hello)
    assert hello.pop("runtime").startswith("cpython 3.")
    assert hello.pop("pid") == host.process.pid
    assert [command["name"] for command in hello.pop("commands")] == ["stream", "snakepit.describe", "snakepit.forget"]
    assert hello == {
        "versions": [1],
        "features": ["exact-numbers", "pieces", "stacks"],
        "codecs": ["json"],
        "max_frame": 64 << 20,
        "window": {"items": 1024, "bytes": 1 << 20},
        "concurrency": 5,
        "library": f"snakepit_bridge {__version__}",
    }
    assert host.bye() == 0
    assert host.printed == []


@pytest.mark.parametrize("cache", [True, False])
def test_the_host_s_copy_of_the_bridge_is_compiled_and_nothing_else(script, tmp_path, cache):
    bridge = tmp_path / "bridge"
    shutil.copytree(ROOT / "snakepit_bridge", bridge / "snakepit_bridge", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__main__.py", bridge)
    (tmp_path / "helper.py").write_text("")
    env = {"PYTHONDONTWRITEBYTECODE": "1", **({"SNAKEPIT_CACHE": str(tmp_path / "cache")} if cache else {})}
    for _ in range(2):
        host = Host(bridge / "__main__.py", script("import helper\n@worker.command\ndef f(): return 5\n"), env=env)
        try:
            host.greet()
            assert host.call("f") == 5
            assert host.bye() == 0
        finally:
            host.close()
    compiled = {path.parent.parent.relative_to(tmp_path).parts for path in tmp_path.rglob("*.pyc")}
    folders = {("bridge", "snakepit_bridge", *folder) for folder in ((), ("grpc",), ("launch",))}
    assert compiled == (folders if cache else set())


@pytest.mark.parametrize("protocol", ["jsonstdio", "msgpack"])
def test_the_frame_limit_is_the_host_s(serve, protocol):
    limit = 70 << 20
    host = serve(
        "@worker.command\ndef size(text): return len(text)\n",
        hello={"max_frame": limit},
        protocol=protocol,
        env={"SNAKEPIT_MAX_FRAME": str(limit)},
    )
    assert host.hello["max_frame"] == limit
    text = "x" * (limit - 1000)
    assert host.call("size", {"text": text}) == len(text)


def refusal(host):
    """Returns the error that a worker sent instead of hello, once it has ended."""
    frame = host.recv()
    assert (frame["kind"], frame["id"]) == ("error", 0)
    assert host.wait() == 1
    return frame["body"]


@pytest.mark.parametrize(
    ("source", "type_", "message"),
    [
        ("import missing_module", "ModuleNotFoundError", "missing_module"),
        ("1 / 0", "ZeroDivisionError", "division"),
        ("x = {}['k']", "KeyError", "k"),
        ("raise SystemExit(3)", "SystemExit", "exit code 3"),
        ("def f(:", "SyntaxError", "worker.py, line 3"),
        ("del worker", "NoWorker", "defines no worker"),
        ("second = Worker()", "NoWorker", "2 workers (worker, second)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        (
            "@worker.service\nclass S:\n  def setup(self): raise OSError('no model')\n  @command\n  def f(self): pass",
            "OSError",
            "no model",
        ),
    ],
)
def test_a_worker_that_can_not_serve_says_why(script, launch, source, type_, message):
    host = launch(script(source))
    assert host.report == {}
    error = refusal(host)
    assert error["type"] == type_
    assert message in error["message"]
    assert all("snakepit_bridge" not in frame["file"] for frame in error.get("frames", []))
    if type_ in ("ZeroDivisionError", "SyntaxError"):
        assert (error["frames"][-1]["line"], error["frames"][-1]["source"]) == (3, source)


def test_a_binary_file(launch, tmp_path):
    path = tmp_path / "worker.py"
    path.write_bytes(b"\x7fELF\0\0")
    error = refusal(launch(path))
    assert error == {
        "type": "NoWorker",
        "message": f"{path} is not Python source but a binary file: name the worker's .py file",
    }


def test_a_missing_script(launch, tmp_path):
    error = refusal(launch(tmp_path / "nowhere.py"))
    assert error["type"] == "FileNotFoundError"
    assert "nowhere.py" in error["message"]
    assert "no worker script" in refusal(launch(""))["message"]


def test_a_worker_that_runs_itself(script, launch):
    host = launch(
        script(
            "import sys\nif __name__ == '__main__':\n"
            "    worker.run()\n    print('after', sys.argv[1:])\n    sys.exit(7)"
        ),
        "a",
        "b",
    )
    host.greet()
    assert host.bye() == 7
    assert host.printed == ["after ['a', 'b']"]


@pytest.mark.parametrize(
    "hello",
    [
        {"version": 2},
        {"codec": "pickle"},
        {"window": 5},
        {"window": {"items": 0, "bytes": 1}},
        {"max_frame": 4095},
        {"max_frame": float("inf")},
        {"concurrency": -1},
        {"calls": -1},
    ],
)
def test_a_hello_that_does_not_fit(script, launch, hello):
    host = launch(script("@worker.command\ndef f(): pass\n"))
    host.greet(**hello)
    with pytest.raises(Gone):
        host.recv()
    assert host.wait() == 1
    assert "protocol error" in host.printed[0]


def test_a_protocol_that_is_not_to_be_had(script, launch, tmp_path):
    path = script("print('imported')")
    host = launch(path, protocol="carrier-pigeon")
    assert "jsonstdio, msgpack, grpc" in host.report["unavailable"]
    assert host.wait() == 1
    (tmp_path / "msgpack.py").write_text("raise ImportError('stray')")
    blocked = "import sys; sys.modules['msgpack'] = sys.modules['grpc'] = None"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(blocked)
    for protocol, package in (("msgpack", "'msgpack>=1.0.3'"), ("grpc", "'grpcio>=1.50' 'protobuf>=3.20.3'")):
        host = launch(path, protocol=protocol, env={"PYTHONPATH": str(tmp_path / "site")})
        assert host.report["unavailable"]
        assert f"{sys.executable} -m pip install" in host.report["remedy"]
        assert package in host.report["remedy"]
        assert host.wait() == 1
        assert host.printed == []


def test_without_a_host_that_reads_reports_a_missing_package_is_told_in_words(script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['msgpack'] = None")
    environ = {**os.environ, "SNAKEPIT_PROTOCOL": "msgpack", "PYTHONPATH": str(tmp_path)}
    program = [sys.executable, str(ROOT / "__main__.py"), str(script(""))]
    done = subprocess.run(program, env=environ, stderr=subprocess.PIPE, timeout=PATIENCE)
    text = done.stderr.decode()
    assert done.returncode == 1
    assert text.startswith("snakepit: protocol unavailable: ")
    assert f"\nhint: {sys.executable} -m pip install 'msgpack" in text


TRANSPORT = """
from snakepit_bridge._transport_jsonstdio import JsonStdio
class Mine(JsonStdio):
    def __init__(self, launch):
        {body}
        super().__init__(launch)
    def fileno(self):
        return -1
"""


def test_a_transport_of_ones_own(script, launch, tmp_path):
    (tmp_path / "my_transport.py").write_text(TRANSPORT.format(body="pass"))
    host = launch(script("@worker.command\ndef echo(x): return x\n"), protocol="my_transport:Mine")
    host.greet()
    assert host.call("echo", 1) == 1
    (tmp_path / "my_transport.py").write_text(TRANSPORT.format(body="raise KeyError('broken')"))
    host = launch(script("print('imported')"), protocol="my_transport:Mine")
    assert host.report["failed"]["type"] == "KeyError"
    assert host.wait() == 1


@pytest.mark.parametrize("protocol, package", [("msgpack", "msgpack"), ("grpc", "grpc"), ("grpc", "google.protobuf")])
@pytest.mark.parametrize(
    "error", ["OSError", "AttributeError", "TypeError", "SystemError", "RuntimeError", "SystemExit", "ImportError"]
)
def test_a_package_that_is_broken_makes_a_protocol_unavailable(script, launch, tmp_path, protocol, package, error):
    pytest.importorskip(package)
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import sys
class Broken:
    def find_spec(self, name, path, target=None):
        if name == {package!r}: raise {error}("undefined symbol: _Z")
sys.meta_path.insert(0, Broken())
"""
    )
    host = launch(script("print('imported')"), protocol=protocol, env={"PYTHONPATH": str(tmp_path)})
    assert "undefined symbol: _Z" in host.report["unavailable"]
    assert "pip install" in host.report["remedy"]
    assert host.wait() == 1
    assert host.printed == []


def test_a_broken_codec_makes_no_protocol_unavailable(script, launch, tmp_path):
    pytest.importorskip("grpc")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\nsys.modules['msgpack'] = types.SimpleNamespace(version='new', unpackb=1)\n"
    )
    host = launch(
        script("@worker.command\ndef echo(x): return x\n"), protocol="grpc", env={"PYTHONPATH": str(tmp_path)}
    )
    assert host.greet()["codecs"] == ["json"]
    assert host.call("echo", 1) == 1


@pytest.mark.parametrize("protocol, enough", [("jsonstdio", 10), ("jsonstdio", 64), ("msgpack", 10), ("grpc", 24)])
def test_few_descriptors(script, launch, protocol, enough):
    resource = pytest.importorskip("resource")
    if protocol not in transports():
        pytest.skip(f"{protocol} is not installed here")

    def start(limit):
        path = script("@worker.command\ndef echo(x): return x\n")
        return launch(
            path, protocol=protocol, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        )

    host = start(enough)
    host.greet()
    assert host.call("echo", 1) == 1
    assert host.bye() == 0
    if protocol != "msgpack":  # which takes none
        host = start(5 if protocol == "jsonstdio" else 8)
        assert host.report["unavailable"].startswith("too few file descriptors: ")
        assert host.wait() == 1


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_standard_input_or_output_makes_jsonstdio_unavailable(script, launch, closed):
    host = launch(script("print('imported')"), preexec_fn=lambda: os.close(closed))
    assert "standard input or output is closed" in host.report["unavailable"]
    assert host.wait() == 1


def test_a_socket_that_can_not_be_bound_makes_grpc_unavailable(script, launch, tmp_path):
    pytest.importorskip("grpc")
    host = launch(script("print('imported')"), protocol="grpc", env={"SNAKEPIT_DIR": str(tmp_path / ("long" * 30))})
    assert "could not be bound" in host.report["unavailable"]
    assert host.wait() == 1


STDLIB_NAMES = [
    "json",
    "inspect",
    "linecache",
    "logging",
    "asyncio",
    "ctypes",
    "difflib",
    "queue",
    "platform",
    "select",
    "signal",
    "re",
]


@pytest.mark.parametrize("safe", ["", "1"])
def test_stray_files_shadow_nothing_of_the_bridge(script, launch, tmp_path, safe):
    """Files named like standard modules are beside the script, in the working directory and in PYTHONPATH."""
    for name in [*STDLIB_NAMES, "grpc", "msgpack", "contextvars"]:
        (tmp_path / f"{name}.py").write_text(f"print('stray {name}')\nraise ImportError('stray {name}')\n")
    host = launch(
        script(
            """
            @worker.command
            def fails(): raise ValueError
            @worker.command
            async def waits(ctx):
                print("started")
                await ctx.call("never")
            """
        ),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": safe},
        # With an editable install, site imports modules, and so these files, before the bridge runs.
        flags=["-S"],
    )
    host.greet()
    assert host.fail("fails")["frames"][-1]["source"] == "def fails(): raise ValueError"
    assert "'fails'" in host.fail("fial")["message"]
    assert host.call("snakepit.describe")
    id = host.open("waits")
    host.wait_line("started")
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.bye() == 0
    assert host.printed == ["started"]


def test_the_script_finds_its_own_modules(serve, tmp_path):
    (tmp_path / "statistics.py").write_text("mine = True\n")
    host = serve(
        "import statistics, sys\n"
        "@worker.command\ndef mine(): return [statistics.mine, sys.path[0], __name__, __file__]\n"
    )
    assert host.call("mine") == [True, str(tmp_path), "__main__", str(tmp_path / "worker.py")]


def test_another_copy_is_named(script, launch, tmp_path):
    other = tmp_path / "site" / "snakepit_bridge"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("__version__ = '0.0.7'\n")
    path = script("import snakepit_bridge\n@worker.command\ndef where(): return snakepit_bridge.__version__\n")
    for hook in ("", "import snakepit_bridge"):
        (tmp_path / "site" / "sitecustomize.py").write_text(hook)
        host = launch(path, env={"PYTHONPATH": str(tmp_path / "site")})
        host.greet()
        log = host.wait_for("log")["body"]
        assert log["level"] == "warn"
        assert str(other) in log["message"]
        assert str(ROOT / "snakepit_bridge") in log["message"]
        assert "0.0.7" in log["message"]
        assert host.call("where") == __version__


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there a process names itself so")
def test_the_process_has_its_pools_name(serve):
    source = "@worker.command\ndef name(): return open('/proc/self/comm').read()\n"
    for run_id, index, name in [
        ("models-abc", "12", "models/12"),
        ("a-very-long-name-xyz", "3", "a-very-long-n/3"),
        ("", "0", "/0"),
    ]:
        host = serve(source, env={"SNAKEPIT_RUN_ID": run_id, "SNAKEPIT_WORKER_INDEX": index})
        assert host.call("name") == name + "\n"


def test_tokens_and_descriptors_are_hidden(serve):
    host = serve(
        """
        import os, subprocess, sys
        @worker.command
        def look():
            code = "import os; print(len(os.listdir('/proc/self/fd')))"
            return [
                sorted(k for k in os.environ if k.startswith("SNAKEPIT_")),
                int(subprocess.check_output([sys.executable, "-c", code], close_fds=False)),
                int(subprocess.check_output([sys.executable, "-c", code], close_fds=True)),
            ]
        """,
        env={"SNAKEPIT_HOST_TOKEN": "secret", "SNAKEPIT_WORKER_TOKEN": "other", "SNAKEPIT_RUN_ID": "run"},
    )
    assert host.hello["token"] == "other"
    visible, inherited, usual = host.call("look")
    assert visible == ["SNAKEPIT_RUN_ID"]
    assert inherited == usual
    assert host.bye() == 0


# --- by hand


def by_hand(*command, **options):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEPIT_")}
    environ.update(options.pop("env", {}))
    return subprocess.run(
        [sys.executable, *map(str, command)],
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        env=environ,
        **options,
    )


def test_by_hand_it_shows_its_commands(script):
    source = '''
        @worker.command
        def compute(ctx, operation: str, a: float = 0.5) -> float:
            """Computes.

            More.
            """
        @worker.service
        class Model:
            def __init__(self): raise OSError("must not be made")
            @command
            def predict(self, x): pass
        if __name__ == "__main__":
            worker.run()
    '''
    path = script(source)
    outputs = [
        by_hand(ROOT, path),
        by_hand(path, env={"PYTHONPATH": str(ROOT)}),
        by_hand("-m", "snakepit_bridge", path, cwd=ROOT),
        by_hand(ROOT, script(source.replace("worker.run()", "pass"))),
    ]
    for done in outputs:
        assert (done.returncode, done.stderr) == (0, "")
        assert "compute(operation: str, a: float = 0.5) -> float\n      Computes.\n" in done.stdout
        assert "predict(x)" in done.stdout


def test_by_hand_it_says_what_is_wrong(script, tmp_path):
    assert by_hand(ROOT).stdout.startswith(f"usage: python {ROOT} worker.py\n")
    assert by_hand("-m", "snakepit_bridge", cwd=ROOT).stdout.startswith("usage: python -m snakepit_bridge worker.py\n")
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\x7fELF\0\0")
    for path, says in (
        (script("del worker"), "defines no worker"),
        (binary, f"{binary} is not Python source but a binary file"),
        ("nofile.py", f"nofile.py: no such file (the working directory is {tmp_path})\n"),
        (tmp_path, f"{tmp_path}: no such file"),
    ):
        done = by_hand(ROOT, path, cwd=tmp_path)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_a_host_may_start_the_script_directly(script):
    path = script(
        "@worker.command\ndef echo(x): return x\nif __name__ == '__main__':\n    worker.run()\n    print('unreached')\n"
    )
    host = Host(path, env={"PYTHONPATH": str(ROOT)})
    try:
        assert host.report == {}
        host.greet()
        assert host.call("echo", 1) == 1
        assert host.bye() == 0
        assert host.printed == []
    finally:
        host.close()


# --- the end


def test_the_end_of_the_connection_cancels_what_runs(each_executor):
    host = each_executor(
        """
        import time
        @worker.command
        def wait():
            try:
                print("started")
                while True: time.sleep(0.01)
            finally:
                print("cleaned up")
        @worker.service
        class Service:
            @command
            def f(self): pass
            def close(self): print("torn down")
        """
    )
    host.open("wait")
    host.wait_line("started")
    host.hang_up()
    assert host.wait() == 1
    assert host.printed == ["started", "cleaned up", "torn down"]


def test_async_handlers_end_with_the_connection(serve):
    host = serve(
        """
        import asyncio
        @worker.command
        async def wait(n):
            try:
                print("started")
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0)
                print("cleaned up")
        """,
        "concurrency=2",
    )
    host.open("wait", 1)
    host.open("wait", 2)
    host.wait_line("started")
    host.wait_line("started")
    host.hang_up()
    assert host.wait() == 1
    assert host.printed == ["started"] * 2 + ["cleaned up"] * 2


def test_a_handler_that_ignores_the_end_is_ended(serve):
    host = serve(
        """
        import signal, time
        @worker.command
        def stubborn():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
            print("started")
            time.sleep(1000)
        """
    )
    host.open("stubborn")
    host.wait_line("started")
    host.hang_up()
    assert host.wait() == 1
    assert "the host is gone and stubborn did not end" in host.printed[1]


@pytest.mark.parametrize("when", ["before hello", "idle", "busy"])
def test_the_lifeline_ends_the_worker(script, launch, when):
    """The connection stays open, as another process may hold it."""
    host = launch(script("import time\n@worker.command\ndef wait():\n    print('started')\n    time.sleep(1000)\n"))
    if when != "before hello":
        host.greet()
    if when == "busy":
        host.open("wait")
        host.wait_line("started")
    host.cut_lifeline()
    assert host.wait() == 1


def test_a_bye_waits_for_what_runs(serve):
    host = serve("@worker.command\ndef wait(ctx): return list(ctx.input)\n")
    id = host.open("wait", flags=0)
    host.send("bye")
    host.send("end", id=id)
    assert host.answer(id)["body"] == []
    host.hang_up()
    assert host.wait() == 0


def test_an_interrupt_from_the_terminal_is_the_hosts_business(serve):
    host = serve(
        """
        import os, signal, subprocess, sys
        @worker.command
        def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
            return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode
        """
    )
    assert host.call("interrupt") == -2
    assert host.bye() == 0


# --- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_leave_the_connection_alone(each_executor):
    host = each_executor(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        def status(pid): return os.waitpid(pid, 0)[1] >> 8
        @worker.command
        def returns(ctx):
            pid = os.fork()
            if not pid: return "from the child"
            return status(pid)
        @worker.command
        def raises():
            pid = os.fork()
            if not pid: raise ValueError("in the child")
            return status(pid)
        @worker.command
        def exits():
            pid = os.fork()
            if not pid: sys.exit(5)
            return status(pid)
        @worker.command
        def calls(ctx):
            pid = os.fork()
            if not pid:
                try: ctx.call("host")
                except Disconnected: os._exit(6)
                os._exit(0)
            return status(pid)
        @worker.command
        def streams():
            pid = os.fork()
            yield pid and status(pid)
        @worker.command
        def logs():
            import logging
            pid = os.fork()
            if not pid: return logging.getLogger("child").error("from the child")
            return status(pid)
        """
    )
    assert host.call("returns") == 0
    assert host.call("raises") == 1
    assert host.call("exits") == 5
    assert host.call("calls") == 6
    id = host.open("streams")
    assert host.wait_for("item", id)["body"] == 0
    assert host.answer(id)["kind"] == "end"
    assert host.call("logs") == 0
    assert host.bye() == 0
    assert "ValueError: in the child" in host.printed
    assert "ERROR:child:from the child" in host.printed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_an_async_generator_ends_at_its_first_item(serve):
    host = serve(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        @worker.command
        async def streams():
            pid = os.fork()
            yield pid and os.waitpid(pid, 0)[1] >> 8
            if not pid: os._exit(9)
        """
    )
    id = host.open("streams")
    assert host.wait_for("item", id)["body"] == 0
    assert host.answer(id)["kind"] == "end"
    assert host.bye() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_grandchild_holds_no_descriptor_of_the_protocol(serve):
    host = serve(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        @worker.command
        def fork():
            pid = os.fork()
            if not pid:
                os.closerange(0, 3)
                while True: os.read(held, 1)
            return pid
        held, kept = os.pipe()
        """
    )
    pid = host.call("fork")
    try:
        host.send("bye")
        host.hang_up()
        with pytest.raises(Gone):  # end of file, though the grandchild lives
            host.recv()
        assert host.process.wait(PATIENCE) == 0
        os.kill(pid, 0)
    finally:
        os.kill(pid, 9)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(serve, method):
    host = serve(
        f"""
        import multiprocessing, warnings
        warnings.simplefilter("ignore")
        def double(n): return 2 * n
        @worker.command
        def spread(n):
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                return pool.map(double, range(n))
        if __name__ == "__main__":
            worker.run()
        """
    )
    assert host.call("spread", 4) == [0, 2, 4, 6]
    assert host.bye() == 0


def test_pickle_finds_what_the_script_defines(serve):
    host = serve(
        """
        import pickle
        class Thing: pass
        @worker.command
        def copy(): return type(pickle.loads(pickle.dumps(Thing()))).__module__
        """
    )
    assert host.call("copy") == "__main__"


def test_start_up_imports_little(script):
    """What takes long is imported when it is needed."""
    path = script("@worker.command\ndef loaded():\n    import sys\n    return sorted(sys.modules)\n")
    host = Host(ROOT / "__main__.py", path)
    try:
        host.greet()
        loaded = set(host.call("loaded"))
    finally:
        host.close()
    assert loaded.isdisjoint(
        {"asyncio", "inspect", "logging", "ctypes", "msgpack", "grpc", "importlib.metadata", "subprocess", "linecache"}
    )
