"""What one caller may ask, and who is not held up by it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flagd_server.api.headers import SecurityHeaders
from flagd_server.api.limits import RateLimits
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.errors import TooManyRequestsError
from flagd_server.http_headers import PAGE
from flagd_server.services.first_start import InitialTokens
from flagd_server.services.recently import Recently
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

NO_TOKEN = "fr_admin_" + "x" * 43


@pytest.fixture
def limited(database: Path) -> Iterator[Callable[..., Flask]]:
    apps: list[Flask] = []

    def start(**settings: int) -> Flask:
        apps.append(create_app(Settings(database=str(database), **settings)))  # type: ignore[arg-type]
        return apps[-1]

    yield start
    for app in apps:
        app.extensions["flagd_server"].close()


def waits(answers: list[Any]) -> list[int]:
    return [int(answer.headers["Retry-After"]) for answer in answers]


def test_a_token_that_asks_too_much_waits_and_nobody_else(
    limited: Callable[..., Flask], initial_tokens: InitialTokens
) -> None:
    app = limited(api_per_minute=5)
    admin = Api(app, initial_tokens.admin)
    other = admin.by(admin.post("/api/v1/tokens", {"scope": "read", "name": "other"}).json["text"])
    body = {"key": "new-checkout", "type": "boolean", "variants": {"on": True, "off": False}}
    assert admin.post("/api/v1/flags", body).status_code == 201
    assert [admin.get("/api/v1/flags").status_code for _ in range(3)] == [200] * 3
    refused = [admin.get("/api/v1/flags") for _ in range(20)]
    assert {answer.status_code for answer in refused} == {429}
    assert all(50 <= wait_s <= 65 for wait_s in waits(refused))
    assert len(set(waits(refused))) > 2  # not all of a fleet at once
    assert other.get("/api/v1/flags").status_code == 200
    # Off is easy, also for whoever has asked too much.
    for _ in range(10):
        assert admin.post(f"{PRODUCTION}/kill", {"reason": "a test"}).status_code == 200
    sdk = Api(app, initial_tokens.sdk["production"])
    for _ in range(10):
        assert sdk.get("/sdk/v1/flags").status_code == 200
        assert sdk.post("/ofrep/v1/evaluate/flags", {}).status_code == 200


def test_an_address_that_guesses_hears_so_and_keeps_no_good_token_out(
    limited: Callable[..., Flask], initial_tokens: InitialTokens
) -> None:
    app = limited(refused_per_minute=3)
    guessing = Api(app, NO_TOKEN)
    assert [guessing.get("/api/v1/flags").status_code for _ in range(5)] == [401] * 3 + [429] * 2
    assert guessing.by(None).get("/sdk/v1/flags").status_code == 429
    assert guessing.post("/ofrep/v1/evaluate/flags", {}).status_code == 429
    assert guessing.by(initial_tokens.admin).get("/api/v1/flags").status_code == 200
    assert guessing.by(initial_tokens.sdk["production"]).get("/sdk/v1/flags").status_code == 200


def test_addresses_are_told_apart_by_what_trusted_proxies_say_and_nobody_else(
    limited: Callable[..., Flask], initial_tokens: InitialTokens
) -> None:
    def guess(app: Flask, forwarded: str) -> int:
        return (
            Api(app, NO_TOKEN)
            .get("/api/v1/flags", headers={"X-Forwarded-For": forwarded})
            .status_code
        )

    direct = limited(refused_per_minute=1)
    assert guess(direct, "203.0.113.1") == 401
    assert guess(direct, "203.0.113.2") == 429  # says who asks, and may lie
    direct.extensions["flagd_server"].close()
    proxied = limited(refused_per_minute=1, proxies=1)
    assert guess(proxied, "198.51.100.9, 203.0.113.1") == 401
    assert guess(proxied, "198.51.100.8, 203.0.113.1") == 429  # only the last is the proxy's word
    assert guess(proxied, "203.0.113.2") == 401
    assert guess(proxied, "2001:db8:1:1::1") == 401
    assert guess(proxied, "2001:db8:1:1:ffff::2") == 429  # the same network
    assert guess(proxied, "2001:db8:1:2::1") == 401


def test_what_needs_no_token_is_limited_but_for_the_probes(
    limited: Callable[..., Flask],
) -> None:
    nobody = Api(limited(open_per_minute=2))
    assert [nobody.get("/metrics").status_code for _ in range(3)] == [200, 200, 429]
    for _ in range(5):
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/readyz").status_code == 200


def test_a_limit_of_0_is_none(limited: Callable[..., Flask], initial_tokens: InitialTokens) -> None:
    app = limited(api_per_minute=0, open_per_minute=0, refused_per_minute=0)
    for token, path, expected in (
        (initial_tokens.admin, "/api/v1/flags", 200),
        (None, "/metrics", 200),
        (NO_TOKEN, "/api/v1/flags", 401),
    ):
        assert {Api(app, token).get(path).status_code for _ in range(20)} == {expected}


def test_a_token_has_its_share_of_the_streams(
    limited: Callable[..., Flask], initial_tokens: InitialTokens
) -> None:
    app = limited(max_streams=3, max_streams_per_token=1)
    client = app.test_client()

    def open_stream(environment: str) -> Any:
        token = initial_tokens.sdk[environment]
        answer = client.get("/sdk/v1/stream", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == 200:
            next(iter(answer.response))  # the hub has taken it in
        return answer

    first = open_stream("production")
    assert first.status_code == 200
    refused = [open_stream("production") for _ in range(20)]
    assert {answer.status_code for answer in refused} == {429}
    assert all(5 <= wait_s <= 15 for wait_s in waits(refused))
    assert len(set(waits(refused))) > 2
    others = [open_stream("staging"), open_stream("development")]
    assert [answer.status_code for answer in others] == [200, 200]
    full = [open_stream("production") for _ in range(20)]
    assert {answer.status_code for answer in full} == {503}
    assert len(set(waits(full))) > 2
    for answer in (first, *others):
        answer.close()


def test_the_wait_reaches_to_when_one_more_is_let_in() -> None:
    limits = RateLimits(of_token=2, of_address=0, of_refused=0, random=lambda: 0.0)
    limits.require_turn("a")
    limits.require_turn("a")
    with pytest.raises(TooManyRequestsError) as caught:
        limits.require_turn("a")
    assert 55 <= caught.value.retry_after_s <= 61


def test_a_check_is_asked_once_in_a_while_whatever_comes_of_it() -> None:
    now_s, outcomes, asked = [0.0], [OSError("full"), None], []

    def check() -> None:
        asked.append(now_s[0])
        outcome = outcomes[len(asked) - 1]
        if outcome is not None:
            raise outcome

    recently = Recently(check, 0.2, lambda: now_s[0])
    for _ in range(3):
        with pytest.raises(OSError, match="full"):
            recently()
    assert asked == [0.0]
    now_s[0] = 0.2
    recently()
    recently()
    assert asked == [0.0, 0.2]


def test_a_page_may_use_files_of_this_server_and_nothing_within_itself() -> None:
    app = Flask("page")
    app.get("/")(lambda: "<p>hello")
    app.get("/data")(dict)
    secured = SecurityHeaders(app.wsgi_app, is_behind_tls=True)
    app.wsgi_app = secured  # type: ignore[method-assign]
    with closing(app.test_client().get("/")) as page:
        assert page.headers.getlist("Content-Security-Policy") == [PAGE]
        assert "unsafe" not in PAGE
        assert page.headers["Strict-Transport-Security"] == "max-age=63072000"
    with closing(app.test_client().get("/data")) as data:
        assert data.headers["Content-Security-Policy"] == (
            "default-src 'none'; frame-ancestors 'none'"
        )
