"""The worker of the example: a quote that asks Go for the rate, which in turn asks Python.

With opentelemetry-sdk and an exporter, its spans go where those of the Go program go: the environment has
OTEL_EXPORTER_OTLP_ENDPOINT.
"""

import logging
import os
import time

from snakepit_bridge import Worker

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
except ModuleNotFoundError:  # the trace then has the spans of the Go program alone
    pass
else:
    provider = TracerProvider(resource=Resource({"service.name": "worker.py"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(insecure=True)))
    trace.set_tracer_provider(provider)

worker = Worker()
log = logging.getLogger("quotes")


@worker.command
def quote(ctx, item: str, currency: str) -> float:
    """Returns the price of an item. The Go function "rate" tells what the currency costs."""
    price = len(item) * 1.25
    rate = ctx.call("rate", currency)
    log.info("quoted %s in %s", item, currency)
    return round(price * rate, 2)


@worker.command
def convert(currency: str) -> float:
    """Returns the rate of a currency. It fails for one that it does not know."""
    time.sleep(0.002)
    return {"EUR": 1.0, "CHF": 0.95, "USD": 1.08}[currency]


@worker.command
def prices(count: int):
    """Streams prices."""
    for n in range(count):
        time.sleep(0.001)
        yield n * 0.5


@worker.command
def crash() -> None:
    """Ends the process, so that there is something to find."""
    os._exit(3)


if __name__ == "__main__":
    worker.run()
