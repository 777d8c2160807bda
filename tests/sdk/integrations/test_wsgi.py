import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from flagd_sdk import ResolutionDetails
from flagd_sdk.integrations.wsgi import FlagsMiddleware
from flagd_sdk.scope import current_scope
from tests.sdk.integrations.callers import Answer, call_wsgi
from tests.sdk.integrations.pages import Context, Counted, Pages, PaymentError, ann
from tests.sdk.integrations.web_contract import Site, WebContract


class WsgiSite(Site):
    def __init__(self, pages: Pages, context: Context) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            status, body = pages.serve(environ["PATH_INFO"][1:])
            headers = [] if status == 304 else [("Content-Type", "text/plain")]
            start_response(f"{status} So", headers)
            return [body] if isinstance(body, bytes) else body

        # Both of what the integration calls and what calls it, the standard library's judge.
        self._app = validator(FlagsMiddleware(validator(app), pages.flags, context))

    def get(self, path: str, leave_after: int | None = None) -> Answer:
        return call_wsgi(self._app, path, leave_after)


class TestWsgi(WebContract):
    site = WsgiSite


def wrapped(counted: Counted, app: Any, context: Context = ann) -> FlagsMiddleware:
    return FlagsMiddleware(app, counted.flags, context)


def by_query(environ: Any) -> dict[str, object]:
    return {"targetingKey": environ["QUERY_STRING"]}


def test_a_list_reaches_the_server_as_it_is(counted: Counted) -> None:
    body = [b"whole"]

    def app(environ: Any, start_response: Any) -> Any:
        counted.flags.is_enabled("on")
        start_response("200 OK", [])
        return body

    assert wrapped(counted, app)({}, lambda *_: None) is body, "its length is the Content-Length"
    assert counted.cells == {"on": (1, 0)}


@pytest.mark.parametrize("wrap", [FileWrapper, lambda file: file], ids=["class", "uWSGI"])
def test_a_file_is_left_to_the_servers_own_way_of_sending_it(
    counted: Counted, wrap: Callable[[Any], Any]
) -> None:
    with open(__file__, "rb") as file:
        wrapper = wrap(file)

        def app(environ: Any, start_response: Any) -> Any:
            counted.flags.is_enabled("on")
            start_response("200 OK", [])
            return wrapper

        body = wrapped(counted, app)({"wsgi.file_wrapper": wrap}, lambda *_: None)
        assert body is wrapper
    assert counted.cells == {"on": (1, 0)}


def test_what_is_handled_while_a_response_becomes_an_error_is_its_cause(counted: Counted) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        counted.flags.is_enabled("on")
        start_response("200 OK", [])
        try:
            raise PaymentError("declined")
        except PaymentError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"oops"]

    call_wsgi(wrapped(counted, app), "/")
    assert counted.kinds == {("on", "error:PaymentError"): 1}


@pytest.mark.parametrize("broken", ["client", "backend"])
def test_a_broken_connection_is_a_failure_unless_it_is_the_clients(
    counted: Counted, broken: str
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        counted.flags.is_enabled("on")
        write = start_response("200 OK", [])
        if broken == "backend":
            raise ConnectionResetError("redis")
        write(b"first")
        return []

    def write(data: bytes) -> None:
        raise BrokenPipeError("client")

    with pytest.raises(ConnectionError, match=r"client|redis"):
        wrapped(counted, app)({}, lambda *_: write)
    assert counted.cells == {"on": (1, int(broken == "backend"))}


def test_a_body_may_be_sent_by_other_threads(counted: Counted) -> None:
    site = wrapped(counted, streaming(counted))
    body = iter(site({"QUERY_STRING": "ann"}, lambda *_: None))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        chunks = [one.submit(next, body, None).result(), other.submit(next, body, None).result()]
        one.submit(next, body, None).result()
    assert chunks == [b"first", b"last"]
    assert counted.cells == {"on": (1, 0), "late": (1, 0)}
    assert counted.unscoped == {}


def streaming(counted: Counted) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        counted.flags.is_enabled("on")
        yield b"first"
        counted.flags.is_enabled("late")
        yield b"last"

    return app


def test_between_the_steps_of_a_body_nothing_is_current(counted: Counted) -> None:
    body = iter(wrapped(counted, streaming(counted), by_query)({"QUERY_STRING": "a"}, lambda *_: 0))
    next(body)
    assert current_scope.get() is None
    with counted.flags.scope({"targetingKey": "bob"}) as scope:
        next(body)
        assert current_scope.get() is scope


def test_what_runs_after_the_last_byte_belongs_to_no_unit_but_has_the_context(
    counted: Counted,
) -> None:
    answers: list[ResolutionDetails[bool]] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"all"

        def close(self) -> None:
            answers.append(counted.flags.details("split", False))
            raise PaymentError("too late")

    def app(environ: Any, start_response: Any) -> Any:
        counted.flags.is_enabled("on")
        start_response("200 OK", [])
        return Body()

    with pytest.raises(PaymentError):
        call_wsgi(wrapped(counted, app), "/")
    assert counted.cells == {"on": (1, 0)}
    assert counted.unscoped == {"split": 1}
    assert answers[0].reason == "SPLIT", "the user can be placed"


def test_a_body_that_nobody_reads_ends_with_its_close(counted: Counted) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        counted.flags.is_enabled("on")
        start_response("200 OK", [])
        return (chunk for chunk in [b"none of it for HEAD"])

    body: Any = wrapped(counted, app)({"REQUEST_METHOD": "HEAD"}, lambda *_: None)
    assert counted.cells == {}
    body.close()
    assert counted.cells == {"on": (1, 0)}


def test_requests_in_threads_keep_their_contexts(counted: Counted) -> None:
    meet = threading.Barrier(8, timeout=20)
    app = wrapped(counted, variants(counted, meet.wait), by_query)
    users = [f"u{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: call_wsgi(app, "/", QUERY_STRING=user).text, users))
    assert answers == [expected(counted, user) for user in users]
    assert counted.cells["split"] == (8, 0)


def test_requests_in_greenlets_keep_their_contexts(counted: Counted) -> None:
    gevent = pytest.importorskip("gevent")
    app = wrapped(counted, variants(counted, lambda: gevent.sleep(0)), by_query)
    users = [f"u{number}" for number in range(8)]
    jobs = [gevent.spawn(call_wsgi, app, "/", QUERY_STRING=user) for user in users]
    gevent.joinall(jobs, raise_error=True)
    assert [job.value.text for job in jobs] == [expected(counted, user) for user in users]
    assert counted.cells["split"] == (8, 0)


def variants(counted: Counted, wait: Callable[[], object]) -> Any:
    """Return an application that says which variant its visitor has, before and after a wait."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        wait()
        yield str(counted.flags.details("split", False).variant).encode()
        wait()
        yield str(counted.flags.details("split", False).variant).encode()

    return app


def expected(counted: Counted, user: str) -> str:
    variant = counted.flags.details("split", False, {"targetingKey": user}).variant
    return f"{variant}{variant}"


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
def test_a_request_that_has_ended_is_freed_at_once(counted: Counted, status: str) -> None:
    class Environ(dict[str, Any]):
        pass

    def app(environ: Any, start_response: Any) -> Any:
        if status[0] == "5":
            counted.flags.is_enabled("on")
        try:
            raise PaymentError("declined")
        except PaymentError:
            start_response(status, [])
        return [b"no flag was asked for"]

    environ = Environ()
    left = weakref.ref(environ)
    gc.disable()
    try:
        wrapped(counted, app)(environ, lambda *_: None)
        del environ
        assert left() is None, "no reference in a circle keeps it"
    finally:
        gc.enable()
