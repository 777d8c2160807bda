import io
from collections.abc import Iterator
from wsgiref.util import FileWrapper

import pytest
from flask import Flask, Response, abort, g, send_file, session, stream_with_context
from werkzeug.test import EnvironBuilder

from flagd_sdk.integrations.flask import FlaskFlags
from flagd_sdk.integrations.web import running_request
from tests.sdk.integrations.flask_site import FlaskSite, PropagatingFlaskSite, site_app
from tests.sdk.integrations.pages import Counted, Pages, ann
from tests.sdk.integrations.web_contract import WebContract


class TestFlask(WebContract):
    site = FlaskSite


class TestFlaskThatPropagates(WebContract):
    site = PropagatingFlaskSite


def test_an_application_factory_hands_over_its_application(counted: Counted) -> None:
    extension = FlaskFlags(counted.flags, ann)
    for _ in range(2):
        app = site_app(Pages(counted))
        extension.init_app(app)
        assert app.extensions["flagd"] is extension
        assert app.test_client().get("/plain").text == "on"
    assert counted.cells == {"on": (2, 0)}


def test_the_context_sees_the_session_and_what_a_view_has_put_into_g(counted: Counted) -> None:
    app = Flask(__name__)
    app.secret_key = "secret"
    FlaskFlags(
        counted.flags,
        lambda request: {"targetingKey": session["user"], "path": request.path, "plan": g.plan},
        app,
    )
    seen: list[object] = []

    @app.before_request  # after the extension's own beginning
    def log_in() -> None:
        session["user"] = "ann"

    @app.get("/")
    def page() -> str:
        g.plan = "gold"
        counted.flags.is_enabled("on")
        seen.append(running_request().context)
        return "ok"

    with app.test_client() as client:
        assert client.get("/").text == "ok"
        assert g.plan == "gold", "the test client's own look into the request still works"
    assert seen == [{"targetingKey": "ann", "path": "/", "plan": "gold"}]


def test_an_error_page_does_not_hide_the_exception(counted: Counted) -> None:
    app = site_app(Pages(counted))
    FlaskFlags(counted.flags, ann, app)
    app.register_error_handler(500, lambda error: ("sorry", 500))
    assert app.test_client().get("/raises").text == "sorry"
    assert counted.kinds == {("on", "error:PaymentError"): 1}


def test_abort_fails_it_with_its_status(counted: Counted) -> None:
    app = Flask(__name__)
    FlaskFlags(counted.flags, ann, app)

    @app.get("/<int:status>")
    def page(status: int) -> str:
        counted.flags.is_enabled("on")
        abort(status)

    for status in (403, 503):
        assert app.test_client().get(f"/{status}").text, "a response that is read to its end"
    assert counted.cells == {"on": (2, 1)}
    assert counted.kinds == {("on", "error:503"): 1}


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_what_fails_in_another_application_is_not_this_ones_failure(
    counted: Counted, is_wrapped: bool
) -> None:
    inner = site_app(Pages(counted))
    if is_wrapped:
        FlaskFlags(counted.flags, ann, inner)
    outer = Flask(__name__)
    FlaskFlags(counted.flags, ann, outer)

    @outer.get("/")
    def page() -> str:
        counted.flags.is_enabled("late")
        return inner.test_client().get("/raises").text

    assert "Internal Server Error" in outer.test_client().get("/").text
    # Without a unit of its own, what the inner one serves is the outer one's.
    assert counted.cells == {"on": (1, int(is_wrapped)), "late": (1, 0)}


def test_a_response_that_is_no_stream_ends_before_it_is_sent(counted: Counted) -> None:
    app = site_app(Pages(counted))
    FlaskFlags(counted.flags, ann, app)
    app.test_client().get("/plain")  # and nobody reads it
    assert counted.cells == {"on": (1, 0)}, "a slow client is no slow request"


def test_a_stream_with_context_may_ask_its_first_flag_in_the_body(counted: Counted) -> None:
    app = Flask(__name__)
    FlaskFlags(counted.flags, lambda request: {"targetingKey": request.args["user"]}, app)

    @app.get("/")
    def page() -> Response:
        def body() -> Iterator[str]:
            yield str(counted.flags.details("split", False).reason)

        return Response(stream_with_context(body()))

    assert app.test_client().get("/?user=ann").text == "SPLIT"
    assert counted.cells == {"split": (1, 0)}


def test_an_async_view_is_in_the_scope(counted: Counted) -> None:
    app = Flask(__name__)
    FlaskFlags(counted.flags, ann, app)

    @app.get("/")
    async def page() -> str:
        return "on" if counted.flags.is_enabled("on") else "off"

    assert app.test_client().get("/").text == "on"
    assert counted.cells == {"on": (1, 0)}


def test_a_file_is_left_to_the_servers_own_way_of_sending_it(counted: Counted) -> None:
    app = Flask(__name__)
    FlaskFlags(counted.flags, ann, app)

    @app.get("/")
    def page() -> Response:
        counted.flags.is_enabled("on")
        return send_file(io.BytesIO(b"film"), "video/mp4")

    environ = EnvironBuilder().get_environ() | {"wsgi.file_wrapper": FileWrapper}
    body = app(environ, lambda *_: None)
    assert isinstance(body, FileWrapper)
    assert counted.cells == {"on": (1, 0)}
