import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    StreamingHttpResponse,
    UnreadablePostError,
)
from django.test import AsyncClient, Client, RequestFactory, override_settings

from flagd_sdk.integrations.django import FlagsMiddleware
from tests.sdk.integrations import django_site
from tests.sdk.integrations.callers import call_wsgi
from tests.sdk.integrations.django_site import DjangoAsgiSite, DjangoWsgiSite
from tests.sdk.integrations.pages import Counted, Pages, PaymentError, ann, in_steps
from tests.sdk.integrations.web_contract import WebContract


class TestDjangoUnderWsgi(WebContract):
    site = DjangoWsgiSite


# Django leaves the file of the request's body to the collector when a streamed body raises.
@pytest.mark.filterwarnings(
    "ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed file:ResourceWarning",
)
class TestDjangoUnderAsgi(WebContract):
    site = DjangoAsgiSite


def answered(counted: Counted, view: Any, context: Any = ann, **request: Any) -> HttpResponseBase:
    """Serve one request by the middleware around a view."""
    with override_settings(FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=context):
        middleware = FlagsMiddleware(view)
    found = middleware(RequestFactory().get("/", **request))
    return asyncio.run(in_coroutine(found)) if iscoroutinefunction(middleware) else found


async def in_coroutine(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.parametrize("missing", ["FLAGD_CLIENT", "FLAGD_CONTEXT"])
def test_a_missing_setting_is_told_at_the_start(counted: Counted, missing: str) -> None:
    given = {"FLAGD_CLIENT": counted.flags, "FLAGD_CONTEXT": ann, missing: None}
    with override_settings(**given), pytest.raises(ImproperlyConfigured, match=missing):
        WSGIHandler()


def test_settings_may_be_dotted_paths(counted: Counted) -> None:
    named = "tests.sdk.integrations.django_site"
    django_site.named_flags = counted.flags
    with override_settings(
        FLAGD_CLIENT=f"{named}.named_flags", FLAGD_CONTEXT=f"{named}.named_context"
    ):
        handler = WSGIHandler()
    django_site.pages = Pages(counted)
    assert call_wsgi(handler, "/sync/plain").text == "on"
    assert counted.cells == {"on": (1, 0)}


def test_the_test_client_sees_what_the_site_does(counted: Counted) -> None:
    django_site.pages = Pages(counted)
    with override_settings(FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=ann):
        assert Client().get("/sync/plain").content == b"on"
        with pytest.raises(PaymentError):
            Client().get("/sync/raises")
        assert asyncio.run(in_coroutine(AsyncClient().get("/async/plain"))).content == b"on"
    assert counted.cells == {"on": (3, 1)}
    assert counted.kinds == {("on", "error:PaymentError"): 1}


def test_a_sync_view_under_asgi_is_in_the_scope(counted: Counted) -> None:
    site = DjangoAsgiSite(Pages(counted), ann)
    site.prefix = "sync"
    assert site.get("/plain").text == "on"
    assert site.get("/raises").status == 500
    assert counted.cells == {"on": (2, 1)}
    assert counted.kinds == {("on", "error:PaymentError"): 1}


def test_what_django_answers_with_a_4xx_is_no_failure(counted: Counted) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        counted.flags.is_enabled("on")
        raise Http404

    with override_settings(FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=ann):
        response = convert_exception_to_response(
            FlagsMiddleware(convert_exception_to_response(view))
        )(RequestFactory().get("/"))
    assert response.status_code == 404
    assert counted.cells == {"on": (1, 0)}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_coroutine_function_is_awaited_for_the_context(counted: Counted, is_async: bool) -> None:
    async def context(request: HttpRequest) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"targetingKey": request.GET["user"]}

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(counted.flags.details("split", False).reason)

    async def async_view(request: HttpRequest) -> HttpResponse:
        return view(request)

    response = answered(
        counted, async_view if is_async else view, context, query_params={"user": "ann"}
    )
    assert response.content == b"SPLIT"


def test_a_request_without_a_flag_does_not_touch_the_session(counted: Counted) -> None:
    def context(request: HttpRequest) -> dict[str, object]:
        return {"targetingKey": request.session["user"]}

    def view(request: HttpRequest) -> HttpResponse:
        if "flag" in request.GET:
            counted.flags.is_enabled("on")
        return HttpResponse("public")

    middleware = SessionMiddleware(lambda request: answered_with(request))
    with override_settings(FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=context):
        answered_with = FlagsMiddleware(view)
    plain = middleware(RequestFactory().get("/"))
    asking = middleware(RequestFactory().get("/?flag=1"))
    assert not plain.has_header("Vary"), "it may stay in a shared cache"
    assert asking["Vary"] == "Cookie"


def test_a_client_that_goes_in_the_middle_of_its_upload_is_no_failure(counted: Counted) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        counted.flags.is_enabled("on")
        raise UnreadablePostError

    with override_settings(FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=ann):
        middleware = FlagsMiddleware(convert_exception_to_response(view))
    assert middleware(RequestFactory().get("/")).status_code == 500, "what Django makes of it"
    assert counted.cells == {"on": (1, 0)}


def test_a_file_is_left_to_the_servers_own_way_of_sending_it(counted: Counted) -> None:
    def view(request: HttpRequest) -> FileResponse:
        counted.flags.is_enabled("on")
        return FileResponse(io.BytesIO(b"film"))

    response = answered(counted, view)
    assert response.file_to_stream is not None
    assert counted.cells == {"on": (1, 0)}
    response.close()


def test_requests_at_once_keep_their_contexts(counted: Counted) -> None:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        async def body() -> AsyncIterator[str]:
            for _ in range(2):
                await asyncio.sleep(0.001)
                yield str(counted.flags.details("split", False).variant)

        return StreamingHttpResponse(body())

    users = [f"u{number}" for number in range(8)]
    with override_settings(
        FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=lambda request: {"targetingKey": request.user}
    ):
        middleware = FlagsMiddleware(view)

    async def request(user: str) -> str:
        made = RequestFactory().get("/")
        made.user = user
        response: Any = await middleware(made)
        return b"".join([chunk async for chunk in response.streaming_content]).decode()

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*map(request, users))

    variants = [
        counted.flags.details("split", False, {"targetingKey": user}).variant for user in users
    ]
    assert asyncio.run(all_at_once()) == [f"{variant}{variant}" for variant in variants]
    assert counted.cells["split"] == (8, 0)


def test_a_client_that_goes_between_two_chunks_is_noticed_when_django_closes(
    counted: Counted,
) -> None:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        counted.flags.is_enabled("on")
        return StreamingHttpResponse(in_steps(iter([b"first", b"last"])))

    with override_settings(FLAGD_CLIENT=counted.flags, FLAGD_CONTEXT=ann):
        middleware = FlagsMiddleware(view)

    async def leave() -> None:
        response: Any = await middleware(RequestFactory().get("/"))
        async with aclosing(aiter(response.streaming_content)) as body:
            assert await anext(body) == b"first"
        assert counted.cells == {}
        response.close()

    asyncio.run(leave())
    assert counted.cells == {"on": (1, 0)}
