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
        started_s = time.perf_counter()
        method = environ["REQUEST_METHOD"]
        if method not in _METHODS:
            method = "OTHER"
        traceparent = environ.get("HTTP_TRACEPARENT")
        own_id = request_id.choose(environ.get("HTTP_X_REQUEST_ID"), traceparent)
        # Where the application raises, whoever called it answers so.
        answered = "500"
        if self._tracing.is_on:
            environ.pop(ANSWERS_LATER, None)  # a span belongs to one thread

        def start(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: "OptExcInfo | None" = None,
            /,
        ) -> object:
            nonlocal answered
            answered = status
            return start_response(status, [*headers, (HEADER, own_id)], exc_info)

        def observed(answer: Callable[[], Iterable[bytes]]) -> Iterable[bytes]:
            previous = request_id.CURRENT.set(own_id)
            self._metrics.thread_begins()
            response: Iterable[bytes] = ()
            try:
                response = answer()
                if isinstance(response, Later):
                    response.answer = partial(observed, response.answer)
                return response
            finally:
                if not isinstance(response, Later):
                    duration_s = time.perf_counter() - started_s
                    route = environ.get(ROUTE, _UNMATCHED)
                    self._metrics.request_ends(route, method, int(answered[:3]), duration_s)
                    if self._logs_requests:
                        _write(environ, method, route, answered, duration_s)
                self._metrics.thread_ends()
                request_id.CURRENT.reset(previous)

        def answer() -> Iterable[bytes]:
            if not self._tracing.is_on or environ["PATH_INFO"] in _PROBES:
                return self._wsgi_app(environ, start)  # type: ignore[arg-type]
            with self._tracing.span(method, "server", {}, traceparent=traceparent) as span:
                response = self._wsgi_app(environ, start)  # type: ignore[arg-type]
                _describe(span, method, environ.get(ROUTE), answered, own_id)
                return response

        return observed(answer)


def note_route(response: Response) -> Response:
    """Tell the middleware what Flask matched."""
    if request.url_rule is not None:
        request.environ[ROUTE] = request.url_rule.rule
    return response


def _describe(span: Span, method: str, route: str | None, answered: str, own_id: str) -> None:
    # Names as in OpenTelemetry's semantic conventions for HTTP.
    span.note("http.request.method", method)
    if route is not None:
        span.rename(f"{method} {route}")
        span.note("http.route", route)
    status = int(answered[:3])
    span.note("http.response.status_code", status)
    span.note("flagd.request_id", own_id)
    if status >= 500:
        span.fail()


def _write(
    environ: "WSGIEnvironment", method: str, route: str, answered: str, duration_s: float
) -> None:
    fields = {
        "method": method,
        "route": route,
        "status": int(answered[:3]),
        "duration_ms": round(duration_s * 1e3, 3),
    }
    if route != _UNMATCHED:
        fields["path"] = environ["PATH_INFO"]
    level = logging.DEBUG if route in _PROBES else logging.INFO
    _log.log(level, "request", extra=fields)
