"""Gives each request its id, counts and times it, and logs it where that is wanted.

The outermost of the application, so that what is answered before Flask is seen as well. Neither
counter nor log holds a query string, a header or a path that is no route.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from flask import Response, request

from flagd_server import request_id
from flagd_server.api.metrics import Metrics
from flagd_server.tracing import Span, Tracing
from flagd_server.wsgi import ANSWERS_LATER, Later

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("flagd_server.requests")

HEADER = "X-Request-Id"
ROUTE = "flagd_server.route"
"""Under which the WSGI environ has the route's template, once somebody has matched it."""
_UNMATCHED = "unmatched"
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Asked every few seconds, by machines.
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class Observed:
    """WSGI middleware."""

    def __init__(
        self,
        wsgi_app: "WSGIApplication",
        metrics: Metrics,
        tracing: Tracing,
        *,
        logs_requests: bool,
    ) -> None:
        self._wsgi_app = wsgi_app
        self._metrics = metrics
        self._tracing = tracing
        self._logs_requests = logs_requests

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if self._tracing.is_on:
            environ.pop(ANSWERS_LATER, None)  # a span belongs to one thread
        one = _Request(environ, start_response)
        return self._observe(one, partial(self._answer, one))

    def _observe(self, one: "_Request", answer: Callable[[], Iterable[bytes]]) -> Iterable[bytes]:
        previous = request_id.CURRENT.set(one.id)
        self._metrics.thread_begins()
        response: Iterable[bytes] = ()
        try:
            response = answer()
            if isinstance(response, Later):
                response.answer = partial(self._observe, one, response.answer)
            return response
        finally:
            if not isinstance(response, Later):
                self._note(one)
            self._metrics.thread_ends()
            request_id.CURRENT.reset(previous)

    def _answer(self, one: "_Request") -> Iterable[bytes]:
        environ = one.environ
        if not self._tracing.is_on or environ["PATH_INFO"] in _PROBES:
            return self._wsgi_app(environ, one.start)  # type: ignore[arg-type]
        traceparent = environ.get("HTTP_TRACEPARENT")
        with self._tracing.span(one.method, "server", {}, traceparent=traceparent) as span:
            response = self._wsgi_app(environ, one.start)  # type: ignore[arg-type]
            _describe(span, one)
            return response

    def _note(self, one: "_Request") -> None:
        duration_s = time.perf_counter() - one.started_s
        self._metrics.request_ends(one.route or _UNMATCHED, one.method, one.status, duration_s)
        if self._logs_requests:
            _write(one, duration_s)


class _Request:
    """One request, and how it was answered so far.

    An object and no closures: one that names itself is a cycle, which only the collector frees, and
    each of them would make its annotations anew.
    """

    __slots__ = ("_answered", "_start_response", "environ", "id", "method", "started_s")

    def __init__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> None:
        self.started_s = time.perf_counter()
        method = environ["REQUEST_METHOD"]
        self.method = method if method in _METHODS else "OTHER"
        self.id = request_id.choose(
            environ.get("HTTP_X_REQUEST_ID"), environ.get("HTTP_TRACEPARENT")
        )
        self.environ = environ
        self._start_response = start_response
        # Where the application raises, whoever called it answers so.
        self._answered = "500"

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: "OptExcInfo | None" = None,
        /,
    ) -> object:
        self._answered = status
        return self._start_response(status, [*headers, (HEADER, self.id)], exc_info)

    @property
    def route(self) -> str | None:
        return self.environ.get(ROUTE)

    @property
    def status(self) -> int:
        return int(self._answered[:3])


def note_route(response: Response) -> Response:
    """Tell the middleware what Flask matched."""
    if request.url_rule is not None:
        request.environ[ROUTE] = request.url_rule.rule
    return response


def _describe(span: Span, one: _Request) -> None:
    # Names as in OpenTelemetry's semantic conventions for HTTP.
    span.note("http.request.method", one.method)
    if one.route is not None:
        span.rename(f"{one.method} {one.route}")
        span.note("http.route", one.route)
    span.note("http.response.status_code", one.status)
    span.note("flagd.request_id", one.id)
    if one.status >= 500:
        span.fail()


def _write(one: _Request, duration_s: float) -> None:
    fields = {
        "method": one.method,
        "route": one.route or _UNMATCHED,
        "status": one.status,
        "duration_ms": round(duration_s * 1e3, 3),
    }
    if one.route is not None:
        fields["path"] = one.environ["PATH_INFO"]
    level = logging.DEBUG if one.route in _PROBES else logging.INFO
    _log.log(level, "request", extra=fields)
