"""A request of a Flask application as a unit of work."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import (
    Flask,
    Request,
    Response,
    got_request_exception,
    request,
    request_finished,
)

from flagd_sdk.client import FlagClient
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.integrations.web import running_request
from flagd_sdk.integrations.wsgi import FlagsMiddleware

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


class FlaskFlags:
    """The extension: `FlaskFlags(flags, context, app)`, or `init_app` later.

    Args:
        flags: the process's client.
        context: request → context of evaluations; called at a request's first evaluation, so
            `g`, `session` and a logged-in user are there.
    """

    def __init__(
        self,
        flags: FlagClient,
        context: Callable[[Request], ContextMapping],
        app: Flask | None = None,
    ) -> None:
        self.flags = flags
        self._context = context
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Open a scope for each request of an application; may be called for several."""
        # Around all of Flask rather than in its hooks: those end before the body is sent.
        app.wsgi_app = FlagsMiddleware(  # type: ignore[method-assign] # as Flask's manual says
            app.wsgi_app, self.flags, self._context_here
        )
        # Flask makes a 500 of an exception before it gets here.
        got_request_exception.connect(_note_exception, app)
        request_finished.connect(_note_response, app)
        app.extensions["flagd"] = self

    def _context_here(self, environ: "WSGIEnvironment") -> ContextMapping:
        return self._context(request)


def _note_exception(app: Flask, exception: BaseException, **_: object) -> None:
    scope = running_request()
    if scope is not None:
        scope.fail_later(exception)


def _note_response(app: Flask, response: Response, **_: object) -> None:
    scope = running_request()
    if scope is not None:
        scope.is_complete = not response.is_streamed
