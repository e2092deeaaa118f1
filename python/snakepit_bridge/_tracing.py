"""The trace that a call belongs to: its headers, and the span of its handler if the program has OpenTelemetry.

The headers are entries of a call's metadata, in the form of W3C Trace Context and Baggage. Without the package
opentelemetry-api, the calls that a handler makes carry the headers of its own call. With it, the handler runs in a span
of its own, and the calls carry that span's headers.

OpenTelemetry is the program's code and may be broken. None of its exceptions reaches a call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Tuple

from ._description import describe
from ._errors import attempt, last_line, render, type_name
from ._version import __version__

if TYPE_CHECKING:
    from ._calls import Call

TRACEPARENT = "traceparent"
_WITH_TRACEPARENT = "tracestate"
_BAGGAGE = "baggage"

_HEX = "0123456789abcdef"
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Trace:
    """The trace of one call, for OpenTelemetry.

    Attributes:
        context: OpenTelemetry's context of the handler.
        span: The handler's span; None if the program has no SDK, or the span has ended.
    """

    __slots__ = ("_api", "context", "span")

    def __init__(self, api: _Api, call: Call, worker: int) -> None:
        """Starts the handler's span. It becomes the current one in the calling thread or task."""
        self._api = api
        self.span: Any = None
        context = api.extract(headers_of(call.frame["meta"]))
        attributes: Dict[str, Any] = {
            "rpc.system.name": "snakepit",
            "rpc.method": call.name,
            "snakepit.worker": worker,
        }
        if call.frame.get("session"):
            attributes["snakepit.session"] = call.frame["session"]
        span = api.tracer.start_span(call.name, context=context, kind=api.server, attributes=attributes)
        if span.get_span_context().is_valid:  # without an SDK, the caller's span remains the current one
            context = api.trace.set_span_in_context(span, context)
            self.span = span
        api.context.attach(context)  # the call has a copy of the context variables, which ends with it
        self.context: Any = context

    def ids(self) -> Optional[Tuple[str, str]]:
        """Returns the ids of the trace and of the current span, or None if there is none."""
        current = self._api.trace.get_current_span().get_span_context()
        if not current.is_valid:
            return None
        return format(current.trace_id, "032x"), format(current.span_id, "016x")

    def fail(self, exc: BaseException) -> None:
        """Notes that the call fails with this exception."""
        if self.span is not None:
            attempt(None, self._fail, exc)

    def _fail(self, exc: BaseException) -> None:
        if not self.span.is_recording():
            return
        error = describe(exc)  # unlike OpenTelemetry's own function, it is safe for odd exceptions
        name = type_name(type(exc))
        self.span.set_attribute("error.type", name)
        self.span.add_event(
            "exception",
            {"exception.type": name, "exception.message": error["message"], "exception.stacktrace": render(error)},
        )
        self.span.set_status(self._api.error, last_line(error))

    def end(self) -> None:
        """Ends the span."""
        if self.span is not None:
            attempt(None, self.span.end)
            self.span = None


class _Api:
    """The parts of the package opentelemetry-api that this module uses."""

    def __init__(self) -> None:
        from opentelemetry import context, trace
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.context: Any = context
        self.trace: Any = trace
        self.tracer: Any = trace.get_tracer("snakepit_bridge", __version__)
        self.server: Any = trace.SpanKind.SERVER
        self.error: Any = trace.StatusCode.ERROR
        self._propagators: Any = (TraceContextTextMapPropagator(), W3CBaggagePropagator())
        context.get_current()  # the first time it takes a lock

    def extract(self, headers: Mapping[str, str]) -> Any:
        """Returns the current context with what the headers say."""
        context = self.context.get_current()
        for propagator in self._propagators:
            context = propagator.extract(headers, context=context)
        return context

    def inject(self, headers: Dict[str, str], context: Any) -> None:
        """Adds the headers of a context; None is the current one."""
        for propagator in self._propagators:
            propagator.inject(headers, context=context)


_api: Optional[_Api] = None
_tried = False


def _load() -> Optional[_Api]:
    """Returns the API, or None if it is missing or broken."""
    global _api, _tried  # two threads may load it at once, and either result serves
    if not _tried:
        api: Optional[_Api] = attempt(None, _Api)
        _api = api
        _tried = True
    return _api


def begin(call: Call, worker: int) -> None:
    """Starts the span of the handler of a call that has a traceparent, if there is OpenTelemetry.

    Called in the context of the handler. The first such call imports OpenTelemetry.
    """
    api = _load()
    if api is not None and _ids_of(call.frame["meta"][TRACEPARENT]) is not None:
        call.trace = attempt(None, Trace, api, call, worker)


def ids_of(call: Call) -> Optional[Tuple[str, str]]:
    """Returns the ids of the trace and the span that a call's log record belongs to, or None."""
    current = None if call.trace is None else attempt(None, call.trace.ids)
    return current or _ids_of((call.frame.get("meta") or {}).get(TRACEPARENT, ""))


def _ids_of(header: str) -> Optional[Tuple[str, str]]:
    """Returns the ids of the trace and the span in a traceparent, or None if it is malformed."""
    version, trace_id, span_id, flags = header[:2], header[3:35], header[36:52], header[53:55]
    if (
        len(header) < 55
        or not header[2] == header[35] == header[52] == "-"
        or (version + trace_id + span_id + flags).strip(_HEX)
        or trace_id == _NO_TRACE
        or span_id == _NO_SPAN
        or version == "ff"
    ):
        return None
    more = header[55:]
    if more and (version == "00" or more[0] != "-" or not (more.isascii() and more.isprintable())):
        return None
    return trace_id, span_id


def headers_of(metadata: Mapping[str, str]) -> Dict[str, str]:
    """Returns the trace headers of a call's metadata. A malformed traceparent is not among them."""
    headers: Dict[str, str] = {}
    if _ids_of(metadata.get(TRACEPARENT, "")) is not None:
        headers[TRACEPARENT] = metadata[TRACEPARENT]
        _copy(_WITH_TRACEPARENT, metadata, headers)
    _copy(_BAGGAGE, metadata, headers)
    return headers


def _copy(key: str, metadata: Mapping[str, str], headers: Dict[str, str]) -> None:
    value = metadata.get(key, "")
    if value and value.isascii():
        headers[key] = value


def outgoing(call: Call) -> Dict[str, str]:
    """Returns the metadata of a call that the handler of this call makes.

    The headers are those of the current span, else of the handler's span, else of the call itself.
    """
    headers: Dict[str, str] = {}
    api = _load() if call.trace is not None or "opentelemetry.trace" in sys.modules else None
    if api is not None:
        attempt(None, api.inject, headers, None)
        if TRACEPARENT not in headers and call.trace is not None:
            attempt(None, api.inject, headers, call.trace.context)
    if TRACEPARENT not in headers:
        headers = {**headers_of(call.frame.get("meta") or {}), **headers}
    return headers
