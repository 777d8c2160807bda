"""Health, readiness and metrics."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flagd_server.api.wiring import Services
from flagd_server.errors import StorageUnavailableError
from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION


def _metric(api: Api, line: str) -> float:
    for row in api.get("/metrics").text.splitlines():
        if row.startswith(line + " "):
            return float(row.rpartition(" ")[2])
    raise AssertionError(f"no {line}")


def test_a_living_server_says_which_code_it_is(app: Flask) -> None:
    body = Api(app).get("/healthz").json
    assert body["git_sha"] == "0123abc"
    assert body["version"]


def test_a_ready_server_says_what_it_checked(app: Flask) -> None:
    answer = Api(app).get("/readyz")
    assert answer.json == {
        "status": "ready",
        "leading": True,
        "checks": {
            "writer": "ok",
            "hub": "ok",
            "conductor": "ok",
            "outbox": "ok",
            "database": "ok",
        },
    }


@pytest.mark.parametrize("part", ["ingestion", "hub"])
def test_a_server_without_one_of_its_threads_is_not_ready(app: Flask, part: str) -> None:
    services: Services = app.extensions["flagd_server"]
    getattr(services, part).close()
    answer = Api(app).get("/readyz")
    assert answer.status_code == 503
    name = {"ingestion": "writer", "hub": "hub"}[part]
    assert answer.json["checks"][name] == "failed"
    assert name in answer.json["detail"]
    assert Api(app).get("/healthz").status_code == 200


def test_requests_are_counted_by_route_not_by_path(app: Flask, admin: Api, checkout: str) -> None:
    for path in ("/no/such/path", f"{PRODUCTION}/history?limit=1", f"{PRODUCTION}/nothing"):
        admin.get(path)
    metrics = admin.get("/metrics").text
    assert "new-checkout" not in metrics
    assert "/no/such" not in metrics
    unmatched = 'flagd_http_requests_total{method="GET",route="unmatched",status="404"}'
    assert _metric(admin, unmatched) == 2
    rule = "/api/v1/flags/<flag>/environments/<environment>/history"
    counted = f'flagd_http_requests_total{{method="GET",route="{rule}",status="200"}}'
    assert _metric(admin, counted) == 1


def test_a_made_up_method_makes_no_label(app: Flask) -> None:
    response = app.test_client().open("/healthz", method="BREW")
    assert response.status_code == 405
    assert "BREW" not in Api(app).get("/metrics").text


def test_flags_kills_and_telemetry_are_counted(admin: Api, sdk: Api, checkout: str) -> None:
    assert _metric(admin, 'flagd_flags{environment="production"}') == 1
    assert _metric(admin, 'flagd_flags_enabled{environment="production"}') == 1
    assert _metric(admin, 'flagd_flags_killed{environment="production"}') == 0
    admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
    assert _metric(admin, 'flagd_flags_killed{environment="production"}') == 1
    summary: dict[str, Any] = {
        "instance": "i-1",
        "sequence": 1,
        "service": "",
        "service_version": "",
        "applied_sequence": 0,
        "started_at": "2026-11-23T19:14:36Z",
        "ended_at": "2026-11-23T19:14:37Z",
        "cells": [],
    }
    sdk.post("/sdk/v1/telemetry", summary)
    sdk.post("/sdk/v1/telemetry", summary)
    for outcome in ("stored", "duplicate"):
        labels = f'environment="production",outcome="{outcome}"'
        assert _metric(admin, f"flagd_telemetry_summaries_total{{{labels}}}") == 1


def test_the_build_is_a_label(admin: Api) -> None:
    version = admin.get("/healthz").json["version"]
    line = f'flagd_build_info{{git_sha="0123abc",version="{version}"}}'
    assert _metric(admin, line) == 1


def test_a_mistake_of_the_server_tells_nothing_and_is_logged_once(
    app: Flask, admin: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("flagd_server.services.flags.Flags.list", fail)
    answer = admin.request("GET", "/api/v1/flags", is_failure_expected=True)
    assert answer.status_code == 500
    assert "swordfish" not in answer.text
    assert "Runtime" not in answer.text
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert answer.json["request_id"] in errors[0].getMessage()
    assert answer.headers["X-Request-Id"] == answer.json["request_id"]


def test_a_database_that_is_away_is_no_mistake_of_the_server(
    admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailableError("disk full")

    monkeypatch.setattr("flagd_server.services.flags.Flags.list", fail)
    answer = admin.get("/api/v1/flags")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/flags", "GET, HEAD, POST"),
        ("OPTIONS", "/api/v1/flags", "GET, HEAD, POST"),
        ("PUT", f"{PRODUCTION}/kill", "GET, HEAD, POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    admin: Api, method: str, path: str, allowed: str
) -> None:
    answer = admin.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1/flags/", "/api/v1//flags", "/api/v1/flags/a%2Fb", "/%ff", "/%00", "/é"],
)
def test_a_path_is_what_the_contract_says_or_nothing(admin: Api, path: str) -> None:
    assert admin.get(path).status_code == 404


def test_head_answers_as_get_without_a_body(admin: Api, sdk: Api) -> None:
    for api, path in ((admin, "/api/v1/flags"), (sdk, "/sdk/v1/flags"), (admin, "/healthz")):
        head = api.request("HEAD", path)
        assert (head.status_code, head.data) == (200, b"")


def test_a_guard_that_cannot_see_says_so(admin: Api, sdk: Api, checkout: str) -> None:
    operations = {operation.name: operation for operation in contract().operations}
    sdk.post("/sdk/v1/telemetry", operations["report_telemetry"].body_example)
    of_production = '{environment="production"}'
    assert _metric(admin, f"flagd_guard_brake_engaged{of_production}") == 0
    assert _metric(admin, f"flagd_guard_flags{of_production}") == 1
    assert _metric(admin, f"flagd_guard_flags_held{of_production}") == 0
    too_few = '{environment="production",reason="too few events"}'
    assert _metric(admin, f"flagd_guard_flags_blind{too_few}") == 1


def test_metrics_name_flags_only_for_who_may_read(
    app: Flask, admin: Api, sdk: Api, checkout: str, with_scope: Callable[[str], Api]
) -> None:
    admin.post(f"/api/v1/flags/{checkout}/environments/production/kill", {"reason": "a test"})
    for api, is_told in (
        (admin, True),
        (with_scope("read"), True),
        (with_scope("kill"), False),
        (sdk, False),
        (Api(app), False),
    ):
        told = api.get("/metrics").text
        assert "flagd_http_requests_total{" in told
        assert (checkout in told, "flagd_kills_total{" in told) == (is_told, is_told)
        assert is_told or "production" not in told
    assert Api(app, "fr_read_unknown").get("/metrics").status_code == 401
