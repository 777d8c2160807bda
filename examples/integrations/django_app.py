"""Django in one file, under ASGI; `get_wsgi_application` works with the same settings.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.django_app [PORT]
"""

import os
import sys

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from flagd_sdk import FlagClient

flags = FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
)


def context(request: HttpRequest) -> dict[str, object]:
    # Called where the request asks for its first flag: `request.user` is there, and a page
    # without flags does not load it.
    return {"targetingKey": request.headers.get("X-Visitor", "")}


async def checkout(request: HttpRequest) -> HttpResponse:
    is_new = flags.is_enabled("new-checkout")
    return HttpResponse("the new checkout" if is_new else "the old checkout")


urlpatterns = [path("", checkout)]

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.urandom(32).hex(),
    MIDDLEWARE=["flagd_sdk.integrations.django.FlagsMiddleware"],  # at the top
    FLAGD_CLIENT=flags,  # or their dotted paths: "shop.flags.flags"
    FLAGD_CONTEXT=context,
)
application = get_asgi_application()

if __name__ == "__main__":
    uvicorn.run(application, port=int(sys.argv[1]) if sys.argv[1:] else 5001, lifespan="off")
