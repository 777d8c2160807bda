"""Answers the poll of an SDK that holds the newest flags, without asking Flask.

When streams are down every process polls, and nearly every answer is 304; Flask's own part is
most of what such an answer costs. Whatever is not exactly that poll is left to the view, which
would answer the same: the tests hold the two to each other.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flagd_server.api.auth import SDK, token_before_flask
from flagd_server.api.wiring import Services
from flagd_server.errors import ServerError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FLAGS_PATH = "/sdk/v1/flags"
# May be kept, must be asked about each time; never by a cache that serves others.
CACHE_CONTROL = "private, no-cache"


class NotModified:
    """WSGI middleware."""

    def __init__(self, wsgi_app: "WSGIApplication", services: Services) -> None:
        self._wsgi_app = wsgi_app
        self._services = services

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if (
            environ["PATH_INFO"] == FLAGS_PATH
            and environ["REQUEST_METHOD"] == "GET"
            and "HTTP_IF_NONE_MATCH" in environ
            and not environ.get("QUERY_STRING")
        ):
            started_s = time.perf_counter()
            etag = self._held(environ)
            if etag is not None:
                start_response(
                    "304 NOT MODIFIED", [("ETag", etag), ("Cache-Control", CACHE_CONTROL)]
                )
                self._services.metrics.count(
                    FLAGS_PATH, "GET", 304, time.perf_counter() - started_s
                )
                return ()
        return self._wsgi_app(environ, start_response)

    def _held(self, environ: "WSGIEnvironment") -> str | None:
        """Return the newest flags' tag if the SDK sent that; None leaves the answer to Flask."""
        try:
            token = token_before_flask(environ, self._services.tokens, SDK)
            if token is None or token.environment is None:
                return None
            etag = self._services.snapshots.current(token.environment).etag
        except ServerError:
            return None
        return etag if environ["HTTP_IF_NONE_MATCH"] == etag else None
