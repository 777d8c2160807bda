"""Traces through OpenTelemetry: the one place that imports it, and only where it is asked for.

Its standard variables say where spans go and which: OTEL_EXPORTER_OTLP_ENDPOINT switches it on,
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and the rest are read by the
library. Its instrumentation of Flask is not used: it records query strings, in which targeting keys
may stand, and does not see the two requests that are answered before Flask.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from flagd_server.build import Build
from flagd_server.errors import ServiceError, SettingsError
from flagd_server.tracing import Kind, NoTracing, Span, Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
# A collector that is away must not hold up a stop.
_CLOSES_WITHIN_S = 2.0


def tracing_of(environ: Mapping[str, str], build: Build) -> Tracing:
    """Return what the variables ask for. It starts a thread: call it in the process that serves.

    Raises:
        SettingsError: traces are wanted and can't be had.
    """
    wanted = next((name for name in _ENDPOINTS if environ.get(name)), None)
    if (
        wanted is None
        or environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    ):
        return NoTracing()
    for name in _PROTOCOLS:
        if environ.get(name, _PROTOCOL) != _PROTOCOL:
            raise SettingsError([f"{name}: expected {_PROTOCOL}, got {environ[name]!r}"])
    try:
        provider = _provider(environ, build)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("opentelemetry"):
            raise
        raise SettingsError(
            [f"{wanted}: traces need what the extra brings: pip install 'flagd-release[otel]'"]
        ) from error
    return _OtelTracing(provider)


def _provider(environ: Mapping[str, str], build: Build) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes = {"service.version": build.version, "vcs.ref.head.revision": build.git_sha}
    if "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.name"] = environ.get("OTEL_SERVICE_NAME") or "flagd-server"
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _OtelTracing:
    is_on = True

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("flagd_server")
        self._propagator = TraceContextTextMapPropagator()
        self._kinds = {
            "server": trace.SpanKind.SERVER,
            "internal": trace.SpanKind.INTERNAL,
            "client": trace.SpanKind.CLIENT,
        }

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, str | int],
        *,
        traceparent: str | None = None,
    ) -> AbstractContextManager[Span]:
        return self._span(name, kind, attributes, traceparent)

    @contextmanager
    def _span(
        self, name: str, kind: Kind, attributes: Mapping[str, str | int], traceparent: str | None
    ) -> Iterator[Span]:
        context = None
        if traceparent is not None:
            context = self._propagator.extract({"traceparent": traceparent})
        with self._tracer.start_as_current_span(
            name,
            context,
            self._kinds[kind],
            attributes,
            # Its message and traceback may hold what the log takes out.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            block = _OtelSpan(span)
            try:
                yield block
            except Exception as error:
                block.note("error.type", type(error).__name__)
                if not isinstance(error, ServiceError):  # refusing something is no failure
                    block.fail()
                raise

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        thread = threading.Thread(target=self._provider.shutdown, name="flagd-traces", daemon=True)
        thread.start()
        thread.join(_CLOSES_WITHIN_S)


class _OtelSpan:
    def __init__(self, span: "OtelSpan") -> None:
        self._span = span

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def fail(self) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)
