"""Overrides, paths and records where applications meet them: in requests of real frameworks."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask, Response, request

from flagd_sdk.integrations.asgi import FlagsMiddleware
from flagd_sdk.integrations.flask import FlaskFlags
from flagd_sdk.testing import InMemoryClient, Overridden, override

with warnings.catch_warnings():
    # It would rather have httpx2, which the lock does not hold.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    from fastapi.testclient import TestClient

USER = {"X-User": "ann"}


@pytest.fixture
def flags() -> InMemoryClient:
    return InMemoryClient({"bystander": True})


class BrokenError(Exception):
    """What new paths raise here."""


def flask_app(flags: InMemoryClient) -> Flask:
    app = Flask(__name__)
    FlaskFlags(flags, lambda request: {"targetingKey": request.headers["X-User"]}, app)

    def old_rows() -> Iterator[str]:
        yield "old"

    @app.get("/page")
    @flags.when("new", otherwise=lambda: "old")
    def page() -> str:
        if request.args:
            raise BrokenError
        return "new"

    @app.get("/raising")
    @flags.when("new", otherwise=lambda: "old", fallback=False)
    def raising() -> str:
        assert flags.is_enabled("bystander")
        raise BrokenError

    @flags.when("new", otherwise=old_rows)
    def rows() -> Iterator[str]:
        yield f"new for {flags.is_enabled('bystander')}"

    @app.get("/streaming")
    def streaming() -> Response:
        return Response(rows())

    return app


def fastapi_app(flags: InMemoryClient) -> FastAPI:
    app = FastAPI()
    app.add_middleware(
        FlagsMiddleware,
        flags=flags,
        context=lambda scope: {"targetingKey": dict(scope["headers"])[b"x-user"].decode()},
    )

    async def old(fail: bool = False) -> str:
        return "old"

    async def old_rows() -> AsyncIterator[str]:
        yield "old"

    @app.get("/page")
    @flags.when("new", otherwise=old)
    async def page(fail: bool = False) -> str:
        await asyncio.sleep(0)
        if fail:
            raise BrokenError
        return "new"

    @app.get("/raising")
    @flags.when("new", otherwise=old, fallback=False)
    async def raising(fail: bool = False) -> str:
        assert flags.is_enabled("bystander")
        raise BrokenError

    @flags.when("new", otherwise=old_rows)
    async def rows() -> AsyncIterator[str]:
        yield f"new for {flags.is_enabled('bystander')}"

    @app.get("/streaming")
    async def streaming() -> StreamingResponse:
        return StreamingResponse(rows())

    return app


@pytest.fixture(params=["flask", "fastapi"])
def site(request: pytest.FixtureRequest, flags: InMemoryClient) -> Any:
    """A caller of the application; FastAPI's runs it in a thread of its own."""
    if request.param == "flask":
        return flask_app(flags).test_client()
    return TestClient(fastapi_app(flags), raise_server_exceptions=False)


def get(site: Any, path: str) -> tuple[int, str]:
    answer = site.get(path, headers=USER)
    return answer.status_code, answer.text.strip('"')


def served(flags: InMemoryClient | Overridden) -> list[tuple[str, str | None, str | None, Any]]:
    return [(e.flag, e.variant, e.targeting_key, e.failures) for e in flags.exposures]


def test_an_override_reaches_the_request_and_its_exposure_comes_back(
    flags: InMemoryClient, site: Any
) -> None:
    assert get(site, "/page") == (200, "old")
    with override(flags, {"new": True}) as overridden:
        assert get(site, "/page") == (200, "new")
    assert get(site, "/page") == (200, "old")
    assert served(overridden) == [("new", "on", "ann", ())]


def test_a_page_that_breaks_is_answered_by_the_old_one(flags: InMemoryClient, site: Any) -> None:
    flags.set_flags({"new": True})
    assert get(site, "/page?fail=1") == (200, "old")
    assert served(flags) == [("new", "on", "ann", ("error:BrokenError",))]


def test_an_error_that_becomes_a_500_is_held_against_its_flag_alone(
    flags: InMemoryClient, site: Any
) -> None:
    flags.set_flags({"new": True})
    status, _ = get(site, "/raising")
    assert status == 500
    assert served(flags) == [
        ("new", "on", "ann", ("error:BrokenError",)),
        ("bystander", "on", "ann", ()),
    ]


def test_a_streamed_body_is_a_path_too(flags: InMemoryClient, site: Any) -> None:
    assert get(site, "/streaming") == (200, "old")
    flags.set_flags({"new": True})
    assert get(site, "/streaming") == (200, "new for True")
    assert [flag for flag, *_ in served(flags)] == ["new", "bystander"]
