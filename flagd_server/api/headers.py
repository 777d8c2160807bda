"""Puts the headers of `flagd_server.http_headers` on every answer of the application.

Outermost, since some requests are answered before Flask. Two lists are made once; a request costs
one look through the few headers that it has.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flagd_server.http_headers import NO_STORE, PAGE, security_headers
from flagd_server.wsgi import ADD_HEADERS

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class SecurityHeaders:
    """WSGI middleware."""

    def __init__(self, wsgi_app: "WSGIApplication", *, is_behind_tls: bool) -> None:
        self._wsgi_app = wsgi_app
        self._common = security_headers(is_behind_tls=is_behind_tls)
        self._of_page = security_headers(is_behind_tls=is_behind_tls, csp=PAGE)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        add_headers = environ.get(ADD_HEADERS)

        def start(
            status: str,
            given: list[tuple[str, str]],
            exc_info: "OptExcInfo | None" = None,
            /,
        ) -> object:
            added = self._common
            says_what_to_keep = False
            for name, value in given:
                if name == "Cache-Control":
                    says_what_to_keep = True
                elif name == "Content-Type" and value.startswith("text/html"):
                    added = self._of_page
            # Who may see an answer is in a token, which a cache would not ask for.
            headers = given if says_what_to_keep else [*given, NO_STORE]
            if add_headers is None:
                return start_response(status, [*headers, *added], exc_info)
            write = start_response(status, headers, exc_info)
            add_headers(added)
            return write

        return self._wsgi_app(environ, start)  # type: ignore[arg-type]
