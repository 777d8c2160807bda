"""A request of any WSGI application (PEP 3333) as a unit of work."""

from collections.abc import Callable, Iterable
from functools import partial
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from flagd_sdk.client import FlagClient
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.integrations.bodies import ScopedBody
from flagd_sdk.integrations.web import RequestScope

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class FlagsMiddleware:
    """Opens a scope per request, from the call to the last byte of the body.

    Args:
        app: the application to wrap.
        flags: the process's client.
        context: environ → context of evaluations; called at a request's first evaluation.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        flags: FlagClient,
        context: Callable[["WSGIEnvironment"], ContextMapping],
    ) -> None:
        self._app = app
        self._flags = flags
        self._context = context

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Serve one request."""
        scope = RequestScope(self._flags, partial(self._context, environ))

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            scope.answer(_code(status))
            write = start_response(status, headers, *exc_info)

            def send(data: bytes) -> object:
                try:
                    return write(data)
                except OSError:
                    scope.lose_client()
                    raise

            return send

        with scope.running():
            body = self._app(environ, start)
            if not (scope.is_complete or _is_complete(body, environ)):
                return ScopedBody(scope, body)
        scope.end()
        return body


def _is_complete(body: object, environ: "WSGIEnvironment") -> bool:
    """Whether no code of the application is left to run, so that the server gets the body itself.

    It takes a Content-Length from a list of one, and sends a file without Python where it meets
    its own `wsgi.file_wrapper`, or, as uWSGI's is a function, the file itself.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, list | tuple | BufferedReader) or (
        isinstance(wrapper, type) and isinstance(body, wrapper)
    )


def _code(status: str) -> int:
    try:
        return int(status[:3])
    except (TypeError, ValueError):  # the server will say so
        return 0
