"""The pages of `tests/sdk/integrations` as real servers load them. Run by test_web_frameworks.py.

Each site is made where its server asks for it, so that Django is not configured for the others.
"""

import os
from types import SimpleNamespace
from typing import Any

from flagd_sdk import FlagClient
from tests.sdk.integrations.pages import Pages

flags = FlagClient(
    os.environ["FLAGD_URL"],
    os.environ["FLAGD_TOKEN"],
    service="site",
    cache_dir=None,
    exit_timeout_s=20.0,
)
flags.wait_until_ready(60.0)
pages: Any = Pages(SimpleNamespace(flags=flags))  # type: ignore[arg-type]


def visitor(request: Any) -> dict[str, object]:
    """Return the context of a request of Flask, Django or ASGI, whose visitors are its paths."""
    path = request["path"] if isinstance(request, dict) else request.path
    return {"targetingKey": path}


def __getattr__(name: str) -> Any:
    if name == "flask_app":
        from flagd_sdk.integrations.flask import FlaskFlags
        from tests.sdk.integrations.flask_site import site_app

        app = site_app(pages)
        FlaskFlags(flags, visitor, app)
        return app
    if name == "fastapi_app":
        from flagd_sdk.integrations.asgi import FlagsMiddleware
        from tests.sdk.integrations.fastapi_site import fastapi_app

        return FlagsMiddleware(fastapi_app(pages), flags, visitor)
    if name in ("django_wsgi", "django_asgi"):
        from tests.sdk.integrations import django_site

        kind = django_site.DjangoWsgiSite if name == "django_wsgi" else django_site.DjangoAsgiSite
        return kind(pages, visitor)._app
    raise AttributeError(name)
