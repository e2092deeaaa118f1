"""The trace headers of calls: what handlers pass on, the span of a handler, and the ids in log records."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from snakepit_bridge._tracing import headers_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
HEADERS = {"traceparent": PARENT, "tracestate": "a=b", "baggage": "who=ada"}

MALFORMED = [
    "",
    "mine",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01-more",
    f"01-{TRACE}-{SPAN}-01-\u00e9",
    f"00-{TRACE}-{SPAN}-0",
    f"{PARENT}\n",
]

WITHOUT = "import sys; sys.modules['opentelemetry'] = None\n"

ASKING = """
import logging
@worker.command
def ask(ctx): return ctx.call("seen")
@worker.command
def ask_stream(ctx): return list(ctx.stream("seen"))
@worker.command
def log(): logging.info("hello", extra={"a": 1})
@worker.command
def log_own(): logging.info("own", extra={"trace_id": "mine"})
@worker.command
def loaded():
    import sys
    return [name for name in sys.modules if name.startswith("opentelemetry")]
"""


@pytest.mark.parametrize("bad", MALFORMED)
def test_a_malformed_traceparent_is_no_header(bad):
    assert headers_of({"traceparent": bad, "tracestate": "a=b", "baggage": "k=v"}) == {"baggage": "k=v"}


def test_headers():
    assert headers_of({}) == {}
    assert headers_of({**HEADERS, "secret": "x"}) == HEADERS
    later = f"01-{TRACE}-{SPAN}-01-more"
    assert headers_of({"traceparent": later, "tracestate": "\u00e9=\ud800"}) == {"traceparent": later}


def asked(host, command, **fields):
    """Calls a command that calls the host's function. Returns the frame of that call and the command's result."""
    id = host.open(command, **fields)
    frame = host.wait_for("call")
    host.send("end", id=frame["id"])
    answer = host.answer(id)
    assert answer["kind"] == "end", answer
    return frame, answer["body"]


@pytest.mark.parametrize("command", ["ask", "ask_stream"])
def test_headers_go_on_to_the_host(each_transport, command):
    host = each_transport(WITHOUT + ASKING)
    frame, _ = asked(host, command, meta={**HEADERS, "secret": "x"})
    assert frame["meta"] == HEADERS
    for meta in ({"secret": "x"}, {}):
        frame, _ = asked(host, command, meta=meta)
        assert not frame.get("meta")
    frame, _ = asked(host, command, meta={"baggage": "k=v", "traceparent": "bad"})
    assert frame["meta"] == {"baggage": "k=v"}


def test_log_records_name_the_span(each_transport):
    host = each_transport(WITHOUT + ASKING)
    host.call("log", meta=HEADERS)
    assert host.logs("hello")["fields"] == {"a": 1, "trace_id": TRACE, "span_id": SPAN}
    for meta in ({}, {"traceparent": "bad"}):
        host.call("log", meta=meta)
        assert host.logs("hello")["fields"] == {"a": 1}
    host.call("log_own", meta=HEADERS)
    assert host.logs("own")["fields"] == {"trace_id": "mine", "span_id": SPAN}


def test_calls_without_headers_import_nothing(serve):
    host = serve(ASKING)
    assert host.call("loaded") == []
    asked(host, "ask")
    assert host.call("loaded", meta={"other": "x"}) == []


BROKEN = {
    "raises": "raise RuntimeError('broken')",
    "exits": "raise SystemExit(3)",
    "empty": "",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_installation_fails_no_call(serve, tmp_path, broken):
    (tmp_path / "opentelemetry.py").write_text(BROKEN[broken])
    host = serve(ASKING)
    for _ in range(2):
        frame, _ = asked(host, "ask", meta=HEADERS)
        assert frame["meta"] == HEADERS
    host.call("log", meta=HEADERS)
    assert host.logs("hello")["fields"]["span_id"] == SPAN


@pytest.mark.parametrize("part", ["extract", "inject"])
def test_an_api_that_raises_fails_no_call(serve, part):
    host = serve(f"""
        import snakepit_bridge._tracing as t
        class Api:
            def __getattr__(self, name):
                if name == {part!r}: raise RuntimeError("broken")
                return super().__getattribute__(name)
            def extract(self, headers): return None
            def inject(self, headers, context): pass
        t._Api = Api
        @worker.command
        def ask(ctx): return ctx.call("seen")
    """)
    frame, _ = asked(host, "ask", meta=HEADERS)
    assert frame["meta"] == HEADERS


sdk = pytest.mark.skipif(find_spec("opentelemetry") is None, reason="there is no opentelemetry-sdk")

TRACED = """
import asyncio, logging, threading, time
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("program")

def current():
    span = trace.get_current_span().get_span_context()
    return [format(span.trace_id, "032x"), format(span.span_id, "016x"), baggage.get_baggage("who")]

@worker.command
def finished():
    spans = [
        {
            "name": s.name, "kind": s.kind.name, "status": s.status.status_code.name,
            "description": s.status.description, "span": format(s.context.span_id, "016x"),
            "trace": format(s.context.trace_id, "032x"),
            "parent": s.parent and format(s.parent.span_id, "016x"), "attributes": dict(s.attributes),
            "events": [[e.name, dict(e.attributes)] for e in s.events],
        }
        for s in exporter.get_finished_spans()
    ]
    exporter.clear()
    return spans

@worker.command
def plain(): return [current()]
@worker.command
def generator():
    yield current()
    yield current()
    return current()
@worker.command
async def coroutine():
    before = current()
    await asyncio.sleep(0.01)
    async def inner(): return current()
    return [before, current(), await asyncio.create_task(inner())]
@worker.command
async def generator_async():
    yield current()
    await asyncio.sleep(0.01)
    yield current()
@worker.command
def meet(ctx):
    before = current()
    ctx.call("seen")
    return [before, current()]
@worker.command
async def meet_async(ctx):
    before = current()
    await ctx.call("seen")
    return [before, current()]
@worker.command
def ask_inside(ctx):
    with tracer.start_as_current_span("inside") as span:
        logging.info("inside")
        ctx.call("seen")
        return format(span.get_span_context().span_id, "016x")
@worker.command
def ask_in_thread(ctx):
    thread = threading.Thread(target=ctx.call, args=("seen",))
    thread.start()
    thread.join()
@worker.command
def fails(message): raise ValueError(message)
class Odd(Exception):
    def __str__(self): raise RuntimeError("odd")
@worker.command
def fails_oddly(): raise Odd
@worker.command
def wrong(): return object()
@worker.command
def wait():
    logging.info("waits")
    for _ in range(3000): time.sleep(0.01)
"""

EACH_KIND = ["plain", "generator", "coroutine", "generator_async"]


def spans_of(host):
    """Returns the spans that have ended, by name."""
    return {span["name"]: span for span in host.call("finished")}


def values(host, command, **fields):
    """Returns the items of a command, or the list that it returns."""
    id = host.open(command, **fields)
    result = host.answer(id)["body"] or []
    items = [frame["body"] for frame in host.others if frame["kind"] == "item" and frame["id"] == id]
    host.others = [frame for frame in host.others if frame["kind"] != "item"]
    return [*items, result] if command == "generator" else items or result


@sdk
@pytest.mark.parametrize("command", EACH_KIND)
def test_a_handler_runs_in_a_span(each_executor, command):
    host = each_executor(TRACED)
    seen = values(host, command, meta=HEADERS, session="s 1")
    span = spans_of(host)[command]
    assert seen
    assert all(place == [TRACE, span["span"], "ada"] for place in seen)
    assert (span["trace"], span["parent"], span["kind"], span["status"]) == (TRACE, SPAN, "SERVER", "UNSET")
    assert span["attributes"] == {
        "rpc.system.name": "snakepit",
        "rpc.method": command,
        "snakepit.worker": 0,
        "snakepit.session": "s 1",
    }
    # The next call is in no span, and has no baggage.
    assert all(place == ["0" * 32, "0" * 16, None] for place in values(host, command))
    assert spans_of(host) == {}


@sdk
@pytest.mark.parametrize("command", ["meet", "meet_async"])
def test_calls_at_once_have_spans_of_their_own(serve, command):
    host = serve(TRACED, "concurrency=2")
    ids = [host.open(command, meta={"traceparent": f"00-{TRACE}-{n:016x}-01"}) for n in (1, 2)]
    asks = [host.wait_for("call") for _ in ids]
    for ask in asks:
        host.send("end", id=ask["id"])
    seen = [host.answer(id)["body"] for id in ids]
    spans = {span["parent"]: span["span"] for span in host.call("finished")}
    for n, (before, after) in enumerate(seen, 1):
        assert before == after == [TRACE, spans[f"{n:016x}"], None]
    carried = {ask["meta"]["traceparent"] for ask in asks}
    assert carried == {f"00-{TRACE}-{span}-01" for span in spans.values()}


@sdk
def test_a_call_to_the_host_carries_the_current_span(each_transport):
    host = each_transport(TRACED)
    frame, inside = asked(host, "ask_inside", meta=HEADERS)
    assert frame["meta"] == {"traceparent": f"00-{TRACE}-{inside}-01", "tracestate": "a=b", "baggage": "who=ada"}
    assert host.logs("inside")["fields"] == {"trace_id": TRACE, "span_id": inside}
    frame, _ = asked(host, "ask_in_thread", meta=HEADERS)
    span = spans_of(host)["ask_in_thread"]["span"]
    assert frame["meta"] == {"traceparent": f"00-{TRACE}-{span}-01", "tracestate": "a=b", "baggage": "who=ada"}
    # The span of a program whose caller has none.
    frame, inside = asked(host, "ask_inside")
    assert frame["meta"]["traceparent"].split("-")[2] == inside


@sdk
def test_an_exception_is_noted_in_the_span(each_executor):
    host = each_executor(TRACED)
    host.fail("fails", {"message": "no such thing"}, meta=HEADERS)
    host.fail("fails_oddly", meta=HEADERS)
    host.fail("wrong", meta=HEADERS)
    spans = spans_of(host)
    span = spans["fails"]
    assert (span["status"], span["description"]) == ("ERROR", "ValueError: no such thing")
    assert span["attributes"]["error.type"] == "ValueError"
    [[name, attributes]] = span["events"]
    assert name == "exception"
    assert attributes["exception.type"] == "ValueError"
    assert attributes["exception.message"] == "no such thing"
    assert attributes["exception.stacktrace"].startswith("Traceback (most recent call last):\n")
    assert "in fails" in attributes["exception.stacktrace"]
    assert spans["fails_oddly"]["status"] == spans["wrong"]["status"] == "ERROR"


@sdk
def test_a_cancelled_handler_ends_its_span(each_executor):
    host = each_executor(TRACED)
    id = host.open("wait", meta=HEADERS)
    host.logs("waits")
    host.cancel(id)
    assert host.answer(id)["kind"] == "error"
    assert spans_of(host)["wait"]["status"] == "ERROR"


@sdk
def test_a_malformed_header_starts_no_span(serve):
    host = serve(TRACED)
    assert values(host, "plain", meta={"traceparent": "bad", "baggage": "who=ada"}) == [["0" * 32, "0" * 16, None]]
    assert spans_of(host) == {}


@sdk
def test_without_an_sdk_the_span_is_the_callers(serve):
    host = serve(
        ASKING
        + """
@worker.command
def current():
    from opentelemetry import trace
    return format(trace.get_current_span().get_span_context().span_id, "016x")
"""
    )
    frame, _ = asked(host, "ask", meta=HEADERS)
    assert frame["meta"] == HEADERS
    assert host.call("current", meta=HEADERS) == SPAN
    host.call("log", meta=HEADERS)
    assert host.logs("hello")["fields"]["span_id"] == SPAN
