"""A request of a Django application as a unit of work, under WSGI and ASGI.

Settings: `FLAGD_CLIENT`, the process's client, and `FLAGD_CONTEXT`, a function request → context;
each as itself or as a dotted path.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from sys import exc_info
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, RequestAborted
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponseBase, UnreadablePostError
from django.utils.module_loading import import_string

from flagd_sdk.integrations.bodies import ScopedAsyncBody, ScopedBody
from flagd_sdk.integrations.web import RequestScope, awaited, running_request


class FlagsMiddleware:
    """Opens a scope per request. Belongs at the top of `MIDDLEWARE`, so that all is inside.

    A context function is called at a request's first evaluation, so `request.user` is there. A
    coroutine function is awaited before the view, so it belongs behind the authentication.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Read the settings.

        Raises:
            ImproperlyConfigured: one is missing.
        """
        self._get_response = get_response
        self._flags = _setting("FLAGD_CLIENT")
        self._context = _setting("FLAGD_CONTEXT")
        self._is_awaited = iscoroutinefunction(self._context)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        # Django makes a 500 of an exception before it gets here.
        got_request_exception.connect(_note_exception, dispatch_uid=__name__)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if self._is_async:
            return self._serve_async(request)
        if self._is_awaited:
            ask = async_to_sync(awaited)(self._context, request)
        else:
            ask = partial(self._context, request)
        scope = RequestScope(self._flags, ask)
        with scope.running():
            response = self._get_response(request)
        return _finish(scope, response)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        if self._is_awaited:
            ask = await awaited(self._context, request)
        else:
            ask = partial(self._context, request)
        scope = RequestScope(self._flags, ask)
        with scope.running():
            response = await self._get_response(request)
        return _finish(scope, response)


def _finish(scope: RequestScope, response: HttpResponseBase) -> HttpResponseBase:
    """Take the outcome from a response; a streamed one ends the scope with its last byte."""
    scope.answer(response.status_code)
    # A file that the server may send by itself is left to it.
    if not response.streaming or getattr(response, "file_to_stream", None) is not None:
        scope.end()
    elif response.is_async:
        response.streaming_content = ScopedAsyncBody(scope, response.streaming_content)
    else:
        response.streaming_content = ScopedBody(scope, response.streaming_content)
    return response


def _note_exception(sender: object, **_: object) -> None:
    """Take note of the exception that Django is about to answer."""
    scope = running_request()
    if scope is None:
        return
    error = exc_info()[1]
    if isinstance(error, UnreadablePostError | RequestAborted):
        scope.lose_client()  # in the middle of its upload
    else:
        scope.fail_later(error)


def _setting(name: str) -> Any:
    value = getattr(settings, name, None)
    if value is None:
        raise ImproperlyConfigured(f"{name} is missing: flagd_sdk.integrations.django needs it")
    return import_string(value) if isinstance(value, str) else value
