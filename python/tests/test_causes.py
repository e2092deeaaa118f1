"""The chain of causes of an exception, which arrives as a whole."""

WORKER = """
class Step(Exception):
    pass


def chain(n):
    if n == 0:
        raise ValueError("cause 0")
    try:
        chain(n - 1)
    except Exception as exc:
        if n % 2:
            raise Step(f"cause {n}") from exc
        raise KeyError(f"cause {n}")  # while handling


@worker.command
def fail(n): chain(n)
"""


def test_every_cause_arrives(serve):
    host = serve(WORKER)
    error = host.answer(host.open("fail", {"n": 6}))["body"]
    for n in range(6, -1, -1):
        assert f"cause {n}" in error["message"]
        assert error["type"] == ("ValueError" if n == 0 else "Step" if n % 2 else "KeyError")
        assert error["frames"]
        link = "cause" if n % 2 else "context"
        assert {"cause", "context"} & set(error) == ({link} if n else set())
        error = error.get(link)
