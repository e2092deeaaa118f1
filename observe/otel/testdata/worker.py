"""A worker for the tests of traces and metrics.

The argument is "none" to hide opentelemetry, or the endpoint to which spans go by OTLP.
"""

import logging
import os
import sys
import time

from snakepit_bridge import Worker

worker = Worker()

if sys.argv[1:] == ["none"]:
    sys.modules["opentelemetry"] = None
elif sys.argv[1:]:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "worker"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1], insecure=True)))
    trace.set_tracer_provider(provider)


@worker.command
def echo(x):
    return x


@worker.command
def outer(ctx, n):
    logging.info("outer runs")
    return ctx.call("twice", n)


@worker.command
def inner(n):
    return n + 1


@worker.command
def fail(message):
    raise ValueError(message)


@worker.command
def count(n):
    yield from range(n)


@worker.command
def nap(seconds):
    time.sleep(seconds)


@worker.command
def crash():
    os._exit(3)
