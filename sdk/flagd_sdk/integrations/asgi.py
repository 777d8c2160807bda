"""A request of any ASGI application (FastAPI, Starlette, …) as a unit of work."""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from flagd_sdk.client import FlagClient
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.integrations.web import RequestScope, awaited

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class FlagsMiddleware:
    """Opens a scope per HTTP request, from the call to the last byte of the body.

    A websocket gets none: open for hours, it would hold on to one flag set, a killed flag
    included, and tell of its failures at its end. Its messages are the units of work.

    Args:
        app: the application to wrap.
        flags: the process's client.
        context: the ASGI scope → context of evaluations. A function is called at a request's first
            evaluation; a coroutine function is awaited before the application is called.
    """

    def __init__(
        self,
        app: Application,
        flags: FlagClient,
        context: Callable[[Message], ContextMapping | Awaitable[ContextMapping]],
    ) -> None:
        self._app = app
        self._flags = flags
        self._context: Callable[[Message], Any] = context
        self._is_awaited = iscoroutinefunction(context)

    async def __call__(self, request: Message, receive: Receive, send: Send) -> None:
        """Serve one request; pass on whatever is none."""
        if request["type"] != "http":
            await self._app(request, receive, send)
            return
        if self._is_awaited:
            ask = await awaited(self._context, request)
        else:
            ask = partial(self._context, request)
        scope = RequestScope(self._flags, ask)

        async def hear() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                scope.lose_client()
            return message

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope.answer(message.get("status", 0))
            try:
                await send(message)
            except OSError:
                scope.lose_client()
                raise
            if message["type"] == "http.response.body" and not message.get("more_body"):
                # What runs from now on, such as background tasks, answers no request.
                scope.end()

        with scope.running():
            await self._app(request, hear, say)
        scope.end()
