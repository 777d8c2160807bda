"""FastAPI; a Starlette application is wired in the same way.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.fastapi_app [PORT]
"""

import os
import sys
from collections.abc import AsyncIterator, MutableMapping
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, Request, WebSocket
from fastapi.responses import StreamingResponse

from flagd_sdk import FlagClient
from flagd_sdk.integrations.asgi import FlagsMiddleware

flags = FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
)


def context(scope: MutableMapping[str, Any]) -> dict[str, object]:
    # Called where the request asks for its first flag, so behind `log_in`.
    return {"targetingKey": scope["state"]["visitor"]}


def log_in(request: Request, x_visitor: Annotated[str, Header()] = "") -> None:
    request.state.visitor = x_visitor


app = FastAPI()
app.add_middleware(FlagsMiddleware, flags=flags, context=context)


@app.get("/", dependencies=[Depends(log_in)])
async def checkout() -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        yield "the "
        yield "new" if flags.is_enabled("new-checkout") else "old"  # belongs to the request
        yield " checkout"

    return StreamingResponse(body())


@app.websocket("/orders")
async def orders(socket: WebSocket) -> None:
    await socket.accept()
    async for visitor in socket.iter_text():
        with flags.scope({"targetingKey": visitor}):  # a message is the unit of work
            await socket.send_text("new" if flags.is_enabled("new-checkout") else "old")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if sys.argv[1:] else 5001)
