"""Lets pages of the named origins ask OFREP from a browser (CORS; WHATWG Fetch, section 3.2).

Put in front of the application only where origins are set, so it costs others nothing. A token
always stands in a header that the page itself has to set, never in a cookie: an origin that is let
in can do no more than with the token at hand.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flagd_server.api.observed import ROUTE

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

OFREP_PREFIX = "/ofrep/v1/"
ALLOWED_ORIGIN = "flagd_server.allowed_origin"
"""Where the WSGI environ has this key, the answer is for that origin; `*` for any."""
ANY = "*"
_PREFLIGHT_ROUTE = f"{OFREP_PREFIX} (preflight)"

_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, If-None-Match, Last-Event-ID, X-API-Key",
    ),
    ("Access-Control-Max-Age", "7200"),
]
_EXPOSED = [("Access-Control-Expose-Headers", "ETag, Retry-After")]


class CrossOrigin:
    """WSGI middleware."""

    def __init__(self, wsgi_app: "WSGIApplication", origins: frozenset[str]) -> None:
        self._wsgi_app = wsgi_app
        self._origins = origins

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not environ["PATH_INFO"].startswith(OFREP_PREFIX):
            return self._wsgi_app(environ, start_response)
        allowed = ANY if ANY in self._origins else origin if origin in self._origins else None
        if allowed is None:
            # Without the headers the browser keeps the answer from the page.
            return self._wsgi_app(environ, start_response)
        headers = [("Access-Control-Allow-Origin", allowed), ("Vary", "Origin")]
        is_preflight = "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        if is_preflight and environ["REQUEST_METHOD"] == "OPTIONS":
            environ[ROUTE] = _PREFLIGHT_ROUTE
            start_response("204 NO CONTENT", headers + _PREFLIGHT)
            return ()

        def start(
            status: str,
            given: list[tuple[str, str]],
            exc_info: "OptExcInfo | None" = None,
            /,
        ) -> object:
            return start_response(status, given + headers + _EXPOSED, exc_info)

        environ[ALLOWED_ORIGIN] = allowed
        return self._wsgi_app(environ, start)  # type: ignore[arg-type]
