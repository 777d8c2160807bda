import asyncio
import logging
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from flagd_sdk.integrations.asgi import FlagsMiddleware
from flagd_sdk.scope import current_scope
from tests.sdk.integrations.callers import Answer, call_asgi
from tests.sdk.integrations.fastapi_site import (
    FastApiSite,
    ThreadedFastApiSite,
    WrappedFastApiSite,
    fastapi_app,
)
from tests.sdk.integrations.pages import Counted, Pages, PaymentError, ann
from tests.sdk.integrations.web_contract import WebContract

with warnings.catch_warnings():
    # It would rather have httpx2, which the lock does not hold.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    from fastapi.testclient import TestClient


class TestFastApi(WebContract):
    site = FastApiSite


class TestFastApiInThreads(WebContract):
    site = ThreadedFastApiSite


class TestFastApiWrapped(WebContract):
    site = WrappedFastApiSite


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Stands for one that the test does not call."""


def wrapped(counted: Counted, app: Any, context: Any = ann) -> FlagsMiddleware:
    return FlagsMiddleware(app, counted.flags, context)


def test_the_lifespan_passes_through(counted: Counted) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        events.append("up")
        yield
        events.append("down")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(FlagsMiddleware, flags=counted.flags, context=ann)
    with TestClient(app):
        assert events == ["up"]
    assert events == ["up", "down"]


def test_a_websocket_has_no_scope_but_each_message_may(counted: Counted) -> None:
    app = FastAPI()
    app.add_middleware(FlagsMiddleware, flags=counted.flags, context=ann)

    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        counted.flags.is_enabled("late")
        async for user in socket.iter_text():
            with counted.flags.scope({"targetingKey": user}):
                await socket.send_text("on" if counted.flags.is_enabled("on") else "off")

    with TestClient(app).websocket_connect("/") as socket:
        for user in ("ann", "bob"):
            socket.send_text(user)
            assert socket.receive_text() == "on"
    assert counted.cells == {"on": (2, 0)}
    assert counted.unscoped == {"late": 1}


def test_a_background_task_belongs_to_no_unit_but_has_the_context(counted: Counted) -> None:
    app = FastAPI()
    app.add_middleware(FlagsMiddleware, flags=counted.flags, context=ann)
    seen: list[object] = []

    def afterwards() -> None:
        seen.append(counted.cells)
        seen.append(counted.flags.details("split", False).reason)
        raise PaymentError("too late")

    @app.get("/")
    async def page(background: BackgroundTasks) -> str:
        background.add_task(afterwards)
        return "on" if counted.flags.is_enabled("on") else "off"

    answer = asyncio.run(call_asgi(app, "/"))
    assert answer.text == '"on"'
    assert isinstance(answer.escaped, PaymentError)
    assert seen == [{"on": (1, 0)}, "SPLIT"], "counted before, and the user can be placed"
    assert counted.cells == {"on": (1, 0)}
    assert counted.unscoped == {"split": 1}


def test_a_send_that_breaks_is_the_client_going(counted: Counted) -> None:
    app = fastapi_app(Pages(counted))
    app.add_middleware(FlagsMiddleware, flags=counted.flags, context=ann)
    answer = asyncio.run(
        call_asgi(app, "/async/endless", leave_after=1, send_breaks=True, spec_version="2.4")
    )
    assert isinstance(answer.escaped, ClientDisconnect)
    assert counted.cells == {"on": (1, 0), "late": (1, 0)}


def test_a_client_that_goes_in_the_middle_of_its_upload_is_no_failure(counted: Counted) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        counted.flags.is_enabled("on")
        await Request(scope, receive).body()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(wrapped(counted, app)({"type": "http"}, receive, application))
    assert counted.cells == {"on": (1, 0)}


def test_a_broken_connection_to_a_backend_is_a_failure(counted: Counted) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        counted.flags.is_enabled("on")
        raise ConnectionResetError("redis")

    asyncio.run(call_asgi(wrapped(counted, app), "/"))
    assert counted.kinds == {("on", "error:ConnectionResetError"): 1}


@pytest.mark.parametrize("is_threaded", [False, True])
def test_an_exception_handler_does_not_hide_the_exception(
    counted: Counted, is_threaded: bool
) -> None:
    app = fastapi_app(Pages(counted))
    app.add_middleware(FlagsMiddleware, flags=counted.flags, context=ann)

    def sorry(request: Request, error: Exception) -> Response:
        return Response("sorry", 503)

    async def sorry_async(request: Request, error: Exception) -> Response:
        return sorry(request, error)

    app.add_exception_handler(PaymentError, sorry if is_threaded else sorry_async)
    answer = asyncio.run(call_asgi(app, "/async/raises"))
    assert (answer.text, answer.escaped) == ("sorry", None)
    assert counted.kinds == {("on", "error:PaymentError"): 1}


def test_an_http_exception_fails_it_with_its_status(counted: Counted) -> None:
    app = FastAPI()
    app.add_middleware(FlagsMiddleware, flags=counted.flags, context=ann)

    @app.get("/{status}")
    async def page(status: int) -> None:
        counted.flags.is_enabled("on")
        raise HTTPException(status)

    for status in (404, 503):
        asyncio.run(call_asgi(app, f"/{status}"))
    assert counted.cells == {"on": (2, 1)}
    assert counted.kinds == {("on", "error:503"): 1}


def test_a_context_knows_the_user_that_a_dependency_has_found(counted: Counted) -> None:
    app = FastAPI()
    app.add_middleware(
        FlagsMiddleware,
        flags=counted.flags,
        context=lambda scope: {"targetingKey": scope["state"]["user"]},
    )

    async def log_in(request: Request) -> None:
        request.state.user = "ann"

    @app.get("/", dependencies=[Depends(log_in)])
    async def page() -> str:
        return str(counted.flags.details("split", False).reason)

    assert TestClient(app).get("/").json() == "SPLIT"
    assert counted.cells == {"split": (1, 0)}


def test_a_coroutine_function_is_awaited_for_the_context(counted: Counted) -> None:
    async def context(scope: Any) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"targetingKey": scope["path"]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = str(counted.flags.details("split", False).reason).encode()
        await send({"type": "http.response.body", "body": body})

    assert asyncio.run(call_asgi(wrapped(counted, app, context), "/ann")).text == "SPLIT"


def test_a_coroutine_function_that_raises_breaks_nothing(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    async def context(scope: Any) -> dict[str, object]:
        raise LookupError("no such user")

    app = wrapped(counted, fastapi_app(Pages(counted)), context)
    with caplog.at_level(logging.WARNING, "flagd_sdk"):
        assert asyncio.run(call_asgi(app, "/async/plain")).text == "on"
    assert "no such user" in caplog.text


def test_tasks_keep_their_contexts_and_middleware_of_starlettes_own_changes_nothing(
    counted: Counted,
) -> None:
    app = FastAPI()

    @app.middleware("http")  # runs what is inside in a task of its own
    async def stamped(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    app.add_middleware(
        FlagsMiddleware,
        flags=counted.flags,
        context=lambda scope: {"targetingKey": scope["path"][1:]},
    )

    @app.get("/{user}")
    async def page(user: str) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for _ in range(2):
                await asyncio.sleep(0.001)
                yield str(counted.flags.details("split", False).variant)

        return StreamingResponse(body())

    users = [f"u{number}" for number in range(8)]

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(call_asgi(app, f"/{user}") for user in users))

    answers = [answer.text for answer in asyncio.run(all_at_once())]
    variants = [
        counted.flags.details("split", False, {"targetingKey": user}).variant for user in users
    ]
    assert answers == [f"{variant}{variant}" for variant in variants]
    assert counted.cells["split"] == (8, 0)


def test_nothing_stays_current_behind_a_request(counted: Counted) -> None:
    async def one_task() -> object:
        await call_asgi(wrapped(counted, fastapi_app(Pages(counted))), "/async/plain")
        return current_scope.get()

    assert asyncio.run(one_task()) is None
