"""Credit of items and of input, with real processes, in each way of running handlers."""


def test_items_wait_for_credit(each_executor):
    host = each_executor(
        """
        @worker.command
        def count(n):
            for i in range(n): yield i
        @worker.command
        def big():
            yield "x" * 5000
            yield "y"
        """,
        hello={"window": {"items": 3, "bytes": 1000}},
    )
    id = host.open("count", 5)
    assert [host.wait_for("item", id)["body"] for _ in range(3)] == [0, 1, 2]
    host.send("ping", id=8)
    assert host.recv()["kind"] == "pong"  # and not an item
    host.send("credit", id=id, items=1, bytes=1)
    assert host.recv()["body"] == 3
    host.send("credit", id=id, items=9, bytes=9)
    assert host.recv()["body"] == 4
    assert host.answer(id)["kind"] == "end"
    id = host.open("big")
    assert len(host.recv()["body"]) == 5000
    host.send("credit", id=id, items=9, bytes=4000)  # still below zero
    host.send("ping", id=10)
    assert host.recv()["kind"] == "pong"
    host.send("credit", id=id, items=0, bytes=1100)
    assert host.recv()["body"] == "y"


def test_async_items_wait_for_credit(serve):
    host = serve(
        """
        @worker.command
        async def count(n):
            for i in range(n): yield i
        """,
        hello={"window": {"items": 2, "bytes": 1000}},
    )
    id = host.open("count", 4)
    assert [host.wait_for("item", id)["body"] for _ in range(2)] == [0, 1]
    host.send("ping", id=8)
    assert host.recv()["kind"] == "pong"
    host.send("credit", id=id, items=9, bytes=9)
    assert [host.recv()["body"] for _ in range(2)] == [2, 3]
    assert host.answer(id)["kind"] == "end"


def test_input_is_credited_as_it_is_consumed(each_executor):
    host = each_executor(
        """
        @worker.command
        def add(ctx):
            total = 0
            for x in ctx.input:
                if isinstance(x, ItemError): total += 1000000
                else: total += x
            return total
        """
    )
    id = host.open("add", flags=0)
    host.send_bytes(b"".join(host.encode("item", 1, id=id) for _ in range(1024)))
    granted = 0
    while granted < 1024:
        granted += host.wait_for("credit", id)["items"]
    host.send("item", {"type": "E", "message": "m"}, id=id, flags=2)
    host.send("end", id=id)
    assert host.answer(id)["body"] == 1001024


def test_async_input(serve):
    host = serve(
        """
        @worker.command
        async def add(ctx): return sum([x async for x in ctx.input])
        """
    )
    id = host.open("add", flags=0)
    for n in range(5):
        host.send("item", n, id=id)
    host.send("end", id=id)
    assert host.answer(id)["body"] == 10


def test_input_can_be_declined(serve):
    host = serve(
        """
        @worker.command
        def first(ctx):
            x = next(ctx.input)
            ctx.input.close()
            assert list(ctx.input) == []
            return x
        """
    )
    id = host.open("first", flags=0)
    host.send("item", 5, id=id)
    assert host.wait_for("cancel", id)["name"]
    host.send("item", 6, id=id)  # crossed the cancel
    host.send("end", id=id)
    assert host.answer(id)["body"] == 5
    assert host.call("snakepit.describe")


def test_input_is_credited_by_its_bytes(each_executor):
    host = each_executor("@worker.command\ndef total(ctx): return sum(map(len, ctx.input))\n")
    id = host.open("total", flags=0)
    granted = 0
    for sent in range(1, 33):
        host.send("item", "x" * 65534, id=id)  # 64 KiB with its quotes, so 16 of them are a window
        if sent % 8 == 0:
            credit = host.wait_for("credit", id)
            granted += credit["bytes"]
            assert granted >= (sent - 7) << 16
    host.send("end", id=id)
    assert host.answer(id)["body"] == 32 * 65534
