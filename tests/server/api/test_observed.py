"""Every request has an id, is counted, and leaves a line where that is wanted."""

import gc
import gzip
import json
import logging
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from flagd_server.api import reporting
from flagd_server.api.observed import HEADER
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.services.first_start import InitialTokens
from flagd_server.wsgi import ANSWERS_LATER, Later
from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.waiting import eventually

REPORT = {each.name: each for each in contract().operations}["report_telemetry"].body_example


@pytest.fixture
def logging_app(database: Path) -> Iterator[Flask]:
    app = create_app(Settings(database=str(database), access_log=True))
    yield app
    app.extensions["flagd_server"].close()


def test_the_id_of_the_caller_comes_back_and_stands_in_a_problem(admin: Api) -> None:
    answer = admin.get("/api/v1/flags/none", headers={HEADER: "deploy-42"})
    assert answer.status_code == 404
    assert answer.headers[HEADER] == answer.json["request_id"] == "deploy-42"
    made = [admin.get("/healthz").headers[HEADER] for _ in range(2)]
    assert made[0] != made[1]
    assert admin.get("/healthz", headers={HEADER: "a b"}).headers[HEADER] != "a b"


def test_what_is_answered_before_flask_has_one_too(sdk: Api) -> None:
    etag = sdk.get("/sdk/v1/flags").headers["ETag"]
    polled = sdk.get("/sdk/v1/flags", headers={"If-None-Match": etag, HEADER: "poll"})
    assert (polled.status_code, polled.headers[HEADER]) == (304, "poll")
    reported = sdk.post("/sdk/v1/telemetry", REPORT, headers={HEADER: "report"})
    assert (reported.status_code, reported.headers[HEADER]) == (200, "report")


def test_an_audit_entry_names_the_request(admin: Api) -> None:
    admin.post("/api/v1/environments", {"key": "preview"}, headers={HEADER: "deploy-42"})
    newest = admin.get("/api/v1/audit?limit=1").json["items"][0]
    assert newest["detail"]["request_id"] == "deploy-42"


def test_a_line_for_each_request_says_no_more_than_is_needed(
    logging_app: Flask, initial_tokens: InitialTokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flagd_server.requests")
    admin, sdk = (
        Api(logging_app, initial_tokens.admin),
        Api(logging_app, initial_tokens.sdk["production"]),
    )
    admin.get("/api/v1/audit?limit=7")
    admin.get("/nothing/eva@shop.example")
    admin.get("/readyz")
    etag = sdk.get("/sdk/v1/flags").headers["ETag"]
    sdk.get("/sdk/v1/flags", headers={"If-None-Match": etag})
    sdk.post("/sdk/v1/telemetry", REPORT)
    sdk.post("/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "eva@shop.example"}})
    lines: list[Any] = [record for record in caplog.records if record.message == "request"]
    assert [(line.route, line.method, line.status, line.levelname) for line in lines] == [
        ("/api/v1/audit", "GET", 200, "INFO"),
        ("unmatched", "GET", 404, "INFO"),
        ("/readyz", "GET", 200, "DEBUG"),
        ("/sdk/v1/flags", "GET", 200, "INFO"),
        ("/sdk/v1/flags", "GET", 304, "INFO"),
        ("/sdk/v1/telemetry", "POST", 200, "INFO"),
        ("/ofrep/v1/evaluate/flags", "POST", 200, "INFO"),
    ]
    assert all(0 < line.duration_ms < 60_000 for line in lines)
    everything = json.dumps([vars(line) for line in lines], default=str)
    for secret in ("eva@", "limit=7", initial_tokens.admin):
        assert secret not in everything


def test_what_is_counted_has_few_labels(admin: Api) -> None:
    for name in range(20):
        admin.get(f"/nothing/{name}")
        admin.request(f"M{name}", "/healthz")
    scraped = admin.get("/metrics").text
    series = [line for line in scraped.splitlines() if line.startswith("flagd_http_requests_total")]
    assert len(series) == 2
    assert (
        'flagd_http_request_duration_seconds_count{method="OTHER",route="unmatched",'
        'status_class="4xx"} 20.0'
    ) in scraped


def test_the_metrics_come_compressed_to_who_takes_that(admin: Api) -> None:
    plain, packed, refused = (
        admin.get("/metrics", headers={"Accept-Encoding": accepted})
        for accepted in ("identity", "gzip;q=1.0, *;q=0.1", "gzip;q=0")
    )
    assert "Content-Encoding" not in plain.headers
    assert "Content-Encoding" not in refused.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert b"flagd_build_info" in gzip.decompress(packed.data)
    assert len(packed.data) < len(plain.data) / 3


@pytest.mark.parametrize(
    "series",
    [
        "flagd_http_threads 16.0",
        "flagd_http_requests_waiting 0.0",
        "flagd_telemetry_waiting 0.0",
        "flagd_leader 1.0",
        'flagd_storage_seconds_count{kind="read",outcome="ok"}',
        "process_open_fds",
        "process_resident_memory_bytes",
    ],
)
def test_what_can_run_out_is_measured(admin: Api, series: str) -> None:
    assert f"\n{series}" in admin.get("/metrics").text


def test_the_build_is_told(admin: Api) -> None:
    told = admin.get("/version").json
    assert told == {**told, "git_sha": "0123abc", "built_at": None}
    assert told["version"] == admin.get("/healthz").json["version"]


def test_a_report_is_answered_later_where_the_server_can(app: Flask, sdk: Api, admin: Api) -> None:
    in_flight = "flagd_http_requests_in_flight 1.0"  # the asking one
    later, answers = report_to(app, sdk.token, HTTP_X_REQUEST_ID="later")
    assert isinstance(later, Later)
    assert answers == []
    assert 'status="500"' not in counted(admin), "nothing is answered yet"
    assert in_flight in admin.get("/metrics").text, "and no thread waits for it"
    is_ready = threading.Event()
    later.when_ready(is_ready.set)
    assert is_ready.wait(10)
    body = json.loads(b"".join(later.answer()))
    assert body["duplicate"] is False
    ((status, headers),) = answers
    assert status == "200 OK"
    assert headers[HEADER] == "later"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert 'route="/sdk/v1/telemetry",status="200"} 1.0' in counted(admin)
    assert in_flight in admin.get("/metrics").text


def test_a_report_leaves_nothing_for_the_collector_of_cycles(app: Flask, sdk: Api) -> None:
    class Kept:
        pass

    report_to(app, sdk.token)[0].answer()  # what is imported or made with the first
    gc.disable()
    try:
        kept = Kept()
        later, answers = report_to(app, sdk.token, {**REPORT, "sequence": 2}, kept=kept)
        is_ready = threading.Event()
        later.when_ready(is_ready.set)
        assert is_ready.wait(60)
        assert b"".join(later.answer())
        left = [weakref.ref(later), weakref.ref(kept)]  # its environ has the other
        del later, kept, answers
        assert eventually(lambda: [each() for each in left] == [None, None]), "the writer has it"
    finally:
        gc.enable()


def test_a_long_report_keeps_its_thread(app: Flask, sdk: Api) -> None:
    long = {**REPORT, "unscoped": {f"flag-{number}": 1 for number in range(900)}}
    returned, answers = report_to(app, sdk.token, long)
    assert not isinstance(returned, Later)
    assert [status for status, _ in answers] == ["200 OK"]


def test_a_report_that_is_not_stored_in_time_may_come_again(
    app: Flask, sdk: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.extensions["flagd_server"].ingestion, "_take_in", lambda batch: None)
    later, answers = report_to(app, sdk.token)
    assert json.loads(b"".join(later.answer()))["status"] == 503
    ((status, headers),) = answers
    assert status == "503 SERVICE UNAVAILABLE"
    assert headers["Retry-After"] == "1"


def test_a_report_that_breaks_the_server_is_told_by_its_id(
    app: Flask, sdk: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporting, "reply_to", lambda *_: 1 / 0)
    later, answers = report_to(app, sdk.token, HTTP_X_REQUEST_ID="broken")
    is_ready = threading.Event()
    later.when_ready(is_ready.set)
    assert is_ready.wait(10)
    assert json.loads(b"".join(later.answer()))["request_id"] == "broken"
    assert answers[0][0] == "500 INTERNAL SERVER ERROR"
    assert "request broken failed" in caplog.text


def report_to(
    app: Flask, token: str | None, report: Any = REPORT, **environ: object
) -> tuple[Any, list[Any]]:
    """Report as a server that can answer later hands it over; answers: (status, headers)."""
    answers: list[Any] = []
    builder = EnvironBuilder(
        path="/sdk/v1/telemetry",
        method="POST",
        json=report,
        headers={"Authorization": f"Bearer {token}"},
        environ_overrides={ANSWERS_LATER: True, **environ},
    )
    returned = app.wsgi_app(
        builder.get_environ(),
        lambda status, headers, exc_info=None: answers.append((status, dict(headers))),
    )
    return returned, answers


def counted(admin: Api) -> str:
    lines = admin.get("/metrics").text.splitlines()
    return "\n".join(line for line in lines if line.startswith("flagd_http_requests_total"))


def test_nothing_is_in_flight_once_all_is_answered(app: Flask, admin: Api) -> None:
    admin.get("/healthz")
    # The request for the metrics itself is the one.
    assert "flagd_http_requests_in_flight 1.0" in admin.get("/metrics").text
