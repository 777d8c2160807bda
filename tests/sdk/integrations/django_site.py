"""The pages as Django serves them. Importing it configures Django for the whole process."""

import asyncio
import gc
from typing import Any

import django
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from flagd_sdk import FlagClient
from tests.sdk.integrations.callers import Answer, call_asgi, call_wsgi
from tests.sdk.integrations.pages import Context, Pages, ann, in_steps
from tests.sdk.integrations.web_contract import Site

MIDDLEWARE = "flagd_sdk.integrations.django.FlagsMiddleware"

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="secret",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[MIDDLEWARE, "django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
)
django.setup()

named_flags: FlagClient
named_context = ann
pages: Pages  # of the site that serves; set by each


def sync_page(_: HttpRequest, name: str) -> HttpResponseBase:
    status, body = pages.serve(name)
    if isinstance(body, bytes):
        return HttpResponse(body, status=status)
    return StreamingHttpResponse(body, status=status)


async def async_page(_: HttpRequest, name: str) -> HttpResponseBase:
    await asyncio.sleep(0)
    status, body = pages.serve(name)
    if isinstance(body, bytes):
        return HttpResponse(body, status=status)
    return StreamingHttpResponse(in_steps(body), status=status)


urlpatterns: list[Any] = [
    path("sync/<name>", sync_page),
    path("async/<name>", async_page),
]


class DjangoSite(Site):
    """Keeps its client and context, whatever the next one's are."""

    prefix = "sync"
    handler: Any

    def __init__(self, its_pages: Pages, context: Context) -> None:
        global pages
        pages = its_pages
        with override_settings(FLAGD_CLIENT=its_pages.flags, FLAGD_CONTEXT=context):
            self._app = self.handler()


class DjangoWsgiSite(DjangoSite):
    handler = WSGIHandler

    def get(self, path: str, leave_after: int | None = None) -> Answer:
        return call_wsgi(self._app, f"/{self.prefix}{path}", leave_after)


class DjangoAsgiSite(DjangoSite):
    handler = ASGIHandler
    prefix = "async"

    def get(self, path: str, leave_after: int | None = None) -> Answer:
        answer = async_to_sync(call_asgi)(self._app, f"/{self.prefix}{path}", leave_after)
        if answer.escaped is not None:
            # Django leaves the request's temporary file open then. Whoever uses this ignores the
            # warning; it is to come while that test runs, not whenever the collector does.
            answer.escaped.with_traceback(None)
            gc.collect()
        return answer
