"""OFREP: where to hear of changes, and who may; and pages of other origins."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flagd_sdk.core.sse import Decoder
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.services.first_start import InitialTokens
from flagd_server.services.tickets import PERIOD_S
from tests.contract import ofrep_protocol
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION
from tests.server.api.ofrep import BULK, STREAM, evaluate

SHOP = "https://shop.example"


class Clock:
    def __init__(self) -> None:
        self.s = 2_000_000_000 // PERIOD_S * PERIOD_S

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.s, UTC)

    def now_ms(self) -> int:
        return self.s * 1_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(database: str, clock: Clock) -> Iterator[Flask]:
    settings = Settings(database=database, ofrep_origins=frozenset({SHOP}))
    app = create_app(settings, clock=clock)
    yield app
    app.extensions["flagd_server"].close()


@pytest.fixture
def web(with_scope: Callable[[str], Api], checkout: str) -> Api:
    return with_scope("ofrep")


def address(answer: TestResponse) -> str:
    (stream,) = answer.json["eventStreams"]
    assert stream["type"] == "sse"
    assert stream["inactivityDelaySec"] == 120
    return str(stream["endpoint"]["requestUri"])


def first_event(app: Flask, url: str, **headers: str) -> Any:
    """Open a stream and return its first event, or None where it begins with a comment."""
    response = app.test_client().get(url, headers=headers, buffered=False)
    assert response.status_code == 200, response.data
    decoder = Decoder(1 << 20)
    try:
        for piece in response.iter_encoded():
            events = decoder.feed(piece)
            if events or b": hb" in piece:
                return events[0] if events else None
    finally:
        response.close()
    raise AssertionError("the stream ended")


class TestTickets:
    def test_stand_for_the_token_in_the_stream_s_address(self, app: Flask, web: Api) -> None:
        url = address(evaluate(web))
        assert web.token is not None
        assert web.token not in url
        event = first_event(app, url)
        assert event.event == "message"
        data = json.loads(event.data)
        ofrep_protocol.hold("sseEventData", data)
        sequence = app.extensions["flagd_server"].snapshots.current("production").sequence
        assert event.id == str(sequence)
        assert data == {
            "type": "refetchEvaluation",
            "etag": f'"production-{sequence}"',
            "lastModified": sequence // 1000,
        }

    def test_are_not_needed_by_who_can_send_a_header(self, app: Flask, web: Api) -> None:
        for headers in ({"Authorization": f"Bearer {web.token}"}, {"X-API-Key": web.token or ""}):
            assert first_event(app, STREAM, **headers).event == "message"

    def test_stay_the_same_for_a_while_then_change_with_the_tag(
        self, web: Api, clock: Clock
    ) -> None:
        first = evaluate(web)
        clock.s += PERIOD_S - 1
        held = {"If-None-Match": first.headers["ETag"]}
        assert evaluate(web, headers=held).status_code == 304
        clock.s += 1
        second = evaluate(web, headers=held)
        assert second.status_code == 200
        assert address(second) != address(first)
        assert second.json["flags"] == first.json["flags"]
        # The first still has a period to live.
        assert web.by(None).get(address(first)).status_code == 200
        clock.s += PERIOD_S
        expired = web.by(None).get(address(first))
        assert (expired.status_code, "expired" in expired.json["detail"]) == (401, True)
        assert web.by(None).get(address(second)).status_code == 200

    def test_can_be_neither_altered_nor_used_for_another_token(
        self, web: Api, sdk: Api, checkout: str
    ) -> None:
        (ticket,) = parse_qs(urlsplit(address(evaluate(web))).query)["ticket"]
        (other,) = parse_qs(urlsplit(address(evaluate(sdk))).query)["ticket"]
        token, expires, mac = ticket.split(".")
        nobody = web.by(None)
        for spoiled in (
            "",
            "x",
            f"{token}.{int(expires) + 1}.{mac}",
            f"{token}.{expires}.{mac[:-1]}{'0' if mac[-1] != '0' else '1'}",
            f"{other.split('.')[0]}.{expires}.{mac}",
            f"tok-000000000000.{expires}.{mac}",
            f"{ticket} ",
            f"{ticket}%0A",
            str(web.token),
        ):
            assert nobody.get(f"{STREAM}?ticket={spoiled}").status_code == 401, spoiled
        assert nobody.get(f"{STREAM}?ticket={ticket}").status_code == 200

    def test_open_nothing_but_the_stream(self, web: Api) -> None:
        (ticket,) = parse_qs(urlsplit(address(evaluate(web))).query)["ticket"]
        nobody = web.by(None)
        assert nobody.post(f"{BULK}?ticket={ticket}", {}).status_code == 401
        assert evaluate(nobody, headers={"X-API-Key": ticket}).status_code == 401
        assert nobody.get(f"/sdk/v1/stream?ticket={ticket}").status_code == 401

    def test_end_with_their_token(self, admin: Api, web: Api) -> None:
        url = address(evaluate(web))
        (token,) = (t for t in admin.get("/api/v1/tokens").json["items"] if t["scope"] == "ofrep")
        admin.delete(f"/api/v1/tokens/{token['id']}")
        assert web.by(None).get(url).status_code == 401

    def test_outlive_a_restart(self, database: str, clock: Clock, web: Api) -> None:
        url = address(evaluate(web))
        web._app.extensions["flagd_server"].close()
        again = create_app(Settings(database=database), clock=clock)
        assert Api(again).get(url).status_code == 200
        again.extensions["flagd_server"].close()


class TestStream:
    def test_has_nothing_to_tell_who_holds_the_newest(self, app: Flask, web: Api) -> None:
        url = address(evaluate(web))
        newest = first_event(app, url).id
        assert first_event(app, url, **{"Last-Event-ID": newest}) is None

    def test_tells_who_was_away_of_one_change_once(
        self, app: Flask, admin: Api, web: Api, clock: Clock
    ) -> None:
        url = address(evaluate(web))
        held = first_event(app, url).id
        clock.s += 5
        kill = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json["kill"]["id"]
        admin.post(f"{PRODUCTION}/restore", {"kill": kill})
        missed = first_event(app, url, **{"Last-Event-ID": held})
        assert int(missed.id) > int(held)
        assert missed.id == first_event(app, url).id
        assert json.loads(missed.data)["lastModified"] == clock.s

    def test_without_room_is_refused_as_everywhere(
        self, app: Flask, web: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app.extensions["flagd_server"].hub, "_max_streams", 0)
        full = web.get(STREAM)
        assert full.status_code == 503
        assert 5 <= int(full.headers["Retry-After"]) <= 15
        assert full.content_type == "application/problem+json"


class TestPagesOfOtherOrigins:
    def test_may_ask_where_they_are_named(self, app: Flask, web: Api, checkout: str) -> None:
        client = app.test_client()
        preflight = client.options(
            f"{BULK}/{checkout}",
            headers={
                "Origin": SHOP,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type,x-api-key",
            },
        )
        assert (preflight.status_code, preflight.data) == (204, b"")
        assert preflight.headers["Access-Control-Allow-Origin"] == SHOP
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
        for name in ("authorization", "content-type", "if-none-match", "x-api-key"):
            assert name in allowed
        for answer in (
            evaluate(web, headers={"Origin": SHOP}),
            evaluate(web, "nothing", headers={"Origin": SHOP}),
            evaluate(web.by(None), headers={"Origin": SHOP}),
            web.get(STREAM, headers={"Origin": SHOP}),
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == SHOP
            assert "Origin" in answer.headers["Vary"]
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "https://shop.example.evil"]
    )
    def test_may_not_where_they_are_not(self, app: Flask, web: Api, origin: str) -> None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        refused = app.test_client().options(BULK, headers=asked)
        assert refused.status_code == 405
        answer = evaluate(web, headers={"Origin": origin})
        for one in (refused, answer):
            assert "Access-Control-Allow-Origin" not in one.headers

    def test_ask_ofrep_and_nothing_else(self, app: Flask, admin: Api) -> None:
        asked = {"Origin": SHOP, "Access-Control-Request-Method": "GET"}
        assert app.test_client().options("/sdk/v1/flags", headers=asked).status_code == 405
        answer = admin.get("/api/v1/flags", headers={"Origin": SHOP})
        assert "Access-Control-Allow-Origin" not in answer.headers

    def test_may_be_any(self, database: str, initial_tokens: InitialTokens) -> None:
        settings = Settings(database=database, ofrep_origins=frozenset({"*"}))
        app = create_app(settings)
        api = Api(app, initial_tokens.sdk["production"])
        answer = evaluate(api, headers={"Origin": "null"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        app.extensions["flagd_server"].close()
