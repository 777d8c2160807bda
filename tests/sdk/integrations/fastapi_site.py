"""The pages as FastAPI serves them."""

import asyncio
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from flagd_sdk.integrations.asgi import FlagsMiddleware
from tests.sdk.integrations.callers import Answer, call_asgi
from tests.sdk.integrations.pages import Context, Pages, in_steps
from tests.sdk.integrations.web_contract import Site


def fastapi_app(pages: Pages) -> FastAPI:
    app = FastAPI()

    @app.get("/sync/{name}")
    def sync_page(name: str) -> Response:
        status, body = pages.serve(name)
        if isinstance(body, bytes):
            return Response(body, status)
        return StreamingResponse(body, status)

    @app.get("/async/{name}")
    async def async_page(name: str) -> Response:
        await asyncio.sleep(0)
        status, body = pages.serve(name)
        if isinstance(body, bytes):
            return Response(body, status)
        return StreamingResponse(in_steps(body), status)

    return app


class FastApiSite(Site):
    prefix = "async"

    def __init__(self, pages: Pages, context: Context) -> None:
        app = fastapi_app(pages)
        app.add_middleware(FlagsMiddleware, flags=pages.flags, context=context)
        self._app: Any = app

    def get(self, path: str, leave_after: int | None = None) -> Answer:
        return asyncio.run(call_asgi(self._app, f"/{self.prefix}{path}", leave_after))


class ThreadedFastApiSite(FastApiSite):
    prefix = "sync"


class WrappedFastApiSite(FastApiSite):
    """From outside of Starlette's own error handling."""

    def __init__(self, pages: Pages, context: Context) -> None:
        self._app = FlagsMiddleware(fastapi_app(pages), pages.flags, context)
