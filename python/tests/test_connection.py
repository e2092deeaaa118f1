"""What the runner does with frames that are not simply a call: breaches, late frames, pings and the end."""

import pytest
from host import Gone


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("end", {"id": 99}, "99"),
        ("credit", {"id": 2, "items": 1}, "call 2"),
        ("call", {"id": 2, "name": "echo"}, "id 2"),
        ("item", {"id": 0}, "call 0"),
        ("hello", {}, "hello"),
        ("log", {}, "log"),
    ],
)
def test_a_broken_protocol_ends_the_connection(each_executor, kind, fields, message):
    host = each_executor("@worker.command\ndef echo(x=None): return x\n")
    host.send(kind, **fields)
    with pytest.raises(Gone):
        host.recv()
    assert host.wait() == 1
    assert any("protocol error" in line and message in line for line in host.printed), host.printed


def test_items_beyond_credit_and_after_the_end_are_violations(serve):
    source = "@worker.command\ndef wait(ctx):\n    import time\n    while True: time.sleep(1)\n"
    for frames in ([("item", 0)] * 1025, [("end", None), ("item", 0)], [("end", None), ("end", None)]):
        host = serve(source)
        id = host.open("wait", flags=0)
        host.send_bytes(b"".join(host.encode(kind, body, id=id) for kind, body in frames))
        with pytest.raises(Gone):
            host.answer(id)
        assert host.wait() == 1
        host.close()


def test_frames_for_ended_calls_are_dropped(serve):
    host = serve("@worker.command\ndef echo(x=None): return x\n")
    id = host.open("echo", 1)
    host.answer(id)
    for kind in ("cancel", "credit", "item", "end"):
        host.send(kind, id=id)
    assert host.call("echo", 2) == 2


def test_frames_for_abandoned_calls_to_the_host_are_dropped(each_executor):
    host = each_executor(
        """
        @worker.command
        def echo(x): return x
        @worker.command
        def asks(ctx): return ctx.call("never")
        """
    )
    id = host.open("asks")
    request = host.wait_for("call")["id"]
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.wait_for("cancel")["id"] == request
    for kind in ("item", "credit", "cancel", "end", "end", "error"):
        host.send(kind, id=request)
    assert host.call("echo", 2) == 2


def test_ids_of_calls_increase(serve):
    for id in (1, 3, 5):
        host = serve("@worker.command\ndef echo(x): return x\n")
        for used in (1, 5):
            host.send("call", 1, id=used, flags=1, name="echo")
            host.answer(used)
        host.send("call", 1, id=id, flags=1, name="echo")
        with pytest.raises(Gone):
            host.recv()
        assert host.wait() == 1
        assert f"a call with id {id}, which is not the host's next" in host.printed[0]
        host.close()


def test_draining(serve):
    host = serve(
        """
        @worker.command
        def wait(ctx): return list(ctx.input)
        @worker.command
        def calls(ctx): return ctx.call("host")
        @worker.command
        def echo(): return 1
        """,
        "queue=1",
    )
    id = host.open("calls")
    callback = host.wait_for("call")["id"]
    host.send("bye")
    refused = host.answer(host.open("wait"))
    assert refused["flags"] == 4
    assert refused["body"]["type"] == "Draining"
    nested = host.open("echo", parent=callback)
    host.send("end", 5, id=callback)
    assert host.answer(id)["body"] == 5
    assert host.answer(nested)["body"] == 1
    host.hang_up()
    assert host.wait() == 0


def test_pings_are_answered_while_a_handler_runs(each_executor):
    host = each_executor(
        """
        @worker.command
        def spin(ctx):
            while not ctx.cancelled: pass
        """
    )
    id = host.open("spin")
    running = []
    while not running:  # the call may not have begun when the first ping comes
        host.send("ping", id=1)
        running = host.wait_for("pong", 1)["body"]["running"]
    (call,) = running
    assert 0 <= call.pop("ms") < 60_000
    assert call == {"id": id, "name": "spin"}
    host.cancel(id)
    host.answer(id)


def test_a_pong_counts_calls_whose_names_are_too_long(serve):
    host = serve(
        """
        @worker.command("n" * 1000)
        def wait(ctx):
            ctx.call("host.started")
            for _ in ctx.input: pass
        """,
        "concurrency=2",
        hello={"max_frame": 4096},
    )
    for n in (1, 2):
        host.open("n" * 1000, flags=0)
        host.wait_for("call")
        host.send("ping", id=n)
        assert host.wait_for("pong", n)["body"] == {"running": [], "more": n}
