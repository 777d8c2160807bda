"""Answers the poll of an SDK, without asking Flask where nothing is odd about it.

When streams are down every process polls. Nearly every answer is 304, and after a server's start it
is the whole set; Flask's own part is most of what either costs. Whatever is not exactly such a poll
is left to the view, which would answer the same: the tests hold the two to each other.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flagd_server.api import access
from flagd_server.api.observed import ROUTE
from flagd_server.api.reporting import JSON
from flagd_server.api.wiring import Services
from flagd_server.errors import ServerError
from flagd_server.services.snapshots import Snapshot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FLAGS_PATH = "/sdk/v1/flags"
_ENDPOINT = "sdk.get_flags"
# May be kept, must be asked about each time; never by a cache that serves others.
CACHE_CONTROL = "private, no-cache"


class Polls:
    """WSGI middleware."""

    def __init__(self, wsgi_app: "WSGIApplication", services: Services) -> None:
        self._wsgi_app = wsgi_app
        self._services = services

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if (
            environ["PATH_INFO"] != FLAGS_PATH
            or environ["REQUEST_METHOD"] != "GET"
            or environ.get("QUERY_STRING")
        ):
            return self._wsgi_app(environ, start_response)
        snapshot = self._newest(environ)
        held = environ.get("HTTP_IF_NONE_MATCH")
        # What is neither may be a list of tags, or a weak one.
        if snapshot is None or held not in (None, snapshot.etag):
            return self._wsgi_app(environ, start_response)
        environ[ROUTE] = FLAGS_PATH
        headers = [("ETag", snapshot.etag), ("Cache-Control", CACHE_CONTROL)]
        if held is not None:
            start_response("304 NOT MODIFIED", headers)
            return ()
        headers += [("Content-Type", JSON), ("Content-Length", str(len(snapshot.body)))]
        start_response("200 OK", headers)
        return (snapshot.body,)

    def _newest(self, environ: "WSGIEnvironment") -> Snapshot | None:
        """Return the flags that the SDK may read; None leaves the answer to Flask."""
        try:
            token = access.opens(environ, self._services.tokens, _ENDPOINT)
            if token is None or token.environment is None:
                return None
            return self._services.snapshots.current(token.environment)
        except ServerError:
            return None
