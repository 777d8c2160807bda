"""Bodies of responses whose every step runs in their request's scope, which ends with the last."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Final

from flagd_sdk.integrations.web import RequestScope

_END: Final = object()


class ScopedBody(Iterator[Any]):
    """A body that a WSGI server or Django iterates."""

    def __init__(self, scope: RequestScope, body: Iterable[Any]) -> None:
        self._scope = scope
        self._body = body
        self._chunks = iter(body)

    def __next__(self) -> Any:
        with self._scope.running():
            chunk = next(self._chunks, _END)
        if chunk is _END:
            self._scope.end()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """End it where it is; the server calls this, also where the client has gone."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with self._scope.running():
                close()
        self._scope.end()


class ScopedAsyncBody(AsyncIterator[Any]):
    """A body that Django iterates under ASGI."""

    def __init__(self, scope: RequestScope, body: AsyncIterable[Any]) -> None:
        self._scope = scope
        self._chunks = aiter(body)

    async def __anext__(self) -> Any:
        with self._scope.running():
            chunk = await anext(self._chunks, _END)
        if chunk is _END:
            self._scope.end()
            raise StopAsyncIteration
        return chunk

    def close(self) -> None:
        """End it where it is; Django calls this also where the client has gone."""
        self._scope.end()
