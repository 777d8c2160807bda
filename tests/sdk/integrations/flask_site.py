"""The pages as Flask serves them."""

from flask import Flask, Response

from flagd_sdk.integrations.flask import FlaskFlags
from tests.sdk.integrations.callers import Answer, call_wsgi
from tests.sdk.integrations.pages import Context, Pages
from tests.sdk.integrations.web_contract import Site


def site_app(pages: Pages) -> Flask:
    app = Flask(__name__)

    @app.get("/<name>")
    def page(name: str) -> Response:
        status, body = pages.serve(name)
        return Response(body, status)

    return app


class FlaskSite(Site):
    def __init__(self, pages: Pages, context: Context) -> None:
        self._app = site_app(pages)
        FlaskFlags(pages.flags, context).init_app(self._app)

    def get(self, path: str, leave_after: int | None = None) -> Answer:
        return call_wsgi(self._app, path, leave_after)


class PropagatingFlaskSite(FlaskSite):
    def __init__(self, pages: Pages, context: Context) -> None:
        super().__init__(pages, context)
        self._app.testing = True  # an exception is signalled, and then escapes too
