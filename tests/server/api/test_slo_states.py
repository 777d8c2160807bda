"""Objectives and their state over HTTP, and what Prometheus reads of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.domain.targets import Allowed
from tests.server.api.client import Api
from tests.server.strange_servers import answering, hanging, serving

SLO = "/api/v1/environments/production/slos/shop"
SUMMARY: dict[str, Any] = {
    "instance": "i-1",
    "sequence": 1,
    "service": "shop",
    "service_version": "v1",
    "applied_sequence": 0,
    "started_at": "2026-11-23T12:00:00.000Z",
    "ended_at": "2026-11-23T12:00:01.000Z",
    "cells": [
        {
            "flag": "new-checkout",
            "split": "default",
            "variant": "on",
            "config_version": 2,
            "exposures": 1_000,
            "errors": 5,
            "latency": {"200": 1_000},
            "units": {},
        }
    ],
    "unscoped": {},
    "error_kinds": [],
    "local_kills": [],
    "dropped": {},
}
BAD_SHARE = (
    b'{"status": "success", "data": {"resultType": "vector",'
    b' "result": [{"metric": {}, "value": [1, "0.004"]}]}}'
)


@pytest.fixture
def app(database: str) -> Iterator[Flask]:
    app = create_app(Settings(database=database, outgoing_allow=Allowed.parse(["127.0.0.1"])))
    yield app
    app.extensions["flagd_server"].close()


def samples(api: Api) -> dict[str, float]:
    rows = api.get("/metrics").text.splitlines()
    pairs = (row.rsplit(" ", 1) for row in rows if row.startswith("flagd_slo_"))
    return {name: float(value) for name, value in pairs}


def test_the_state_is_what_is_reported(
    admin: Api, sdk: Api, checkout: str, with_scope: Any
) -> None:
    body = {"availability": 0.99, "latency": {"threshold_s": 0.3, "share": 0.9}}
    created = admin.put(SLO, body)
    assert (created.status_code, created.json["window_days"]) == (201, 30)
    assert sdk.post("/sdk/v1/telemetry", SUMMARY).status_code == 200
    state = with_scope("read").get(f"{SLO}/state").json
    availability, latency = state["objectives"]
    assert availability["error_budget_left"] == pytest.approx(0.5)
    assert availability["burn_rates"]["5m"] == pytest.approx(0.5)
    assert (latency["exposures"], latency["failing"]) == (1_000, 1_000)
    assert (latency["alert"], state["alert"]) == ("page", "page")
    assert state["requests_at_least"] == 1_000
    of = 'environment="production",objective='
    found = samples(admin)
    left = f'flagd_slo_error_budget_left_ratio{{{of}"availability",service="shop"}}'
    assert found[left] == pytest.approx(0.5)
    assert found[f'flagd_slo_burn_rate{{{of}"latency",service="shop",window="1h"}}'] == (
        pytest.approx(10)
    )
    assert found[f'flagd_slo_objective_ratio{{{of}"latency",service="shop"}}'] == 0.9
    assert found[f'flagd_slo_alert{{{of}"latency",service="shop",severity="page"}}'] == 1
    assert found[f'flagd_slo_alert{{{of}"availability",service="shop",severity="page"}}'] == 0


def test_what_is_not_known_is_null_and_has_no_series(admin: Api) -> None:
    admin.put(SLO, {"availability": 0.99})
    (objective,) = admin.get(f"{SLO}/state").json["objectives"]
    assert objective["error_budget_left"] is None
    assert set(objective["burn_rates"].values()) == {None}
    assert not [name for name in samples(admin) if "burn_rate" in name or "left" in name]


def test_a_prometheus_is_asked_and_its_first_answers_are_waited_for(admin: Api) -> None:
    with serving(answering("200 OK", BAD_SHARE)) as server:
        source = {"url": server.url, "failing": "failing[$window]"}
        assert admin.put(SLO, {"availability": 0.99, "source": source}).status_code == 201
        state = admin.get(f"{SLO}/state").json
        (objective,) = state["objectives"]
        assert objective["error_budget_left"] == pytest.approx(0.6)
        assert (objective["exposures"], state["source"], state["faults"]) == (
            None,
            "prometheus",
            [],
        )
        assert any("query=failing%5B3d%5D " in head for head in server.requests)


def test_a_prometheus_that_hangs_holds_nobody_up_for_long(admin: Api) -> None:
    with serving(hanging) as server:
        source = {"url": server.url, "failing": "failing[$window]"}
        admin.put(SLO, {"availability": 0.99, "source": source})
        assert samples(admin)  # asks, and does not wait
        state = admin.get(f"{SLO}/state").json
    assert state["objectives"][0]["error_budget_left"] is None
    assert "gave no answer within 5 s" in state["faults"][0]


def test_a_source_is_refused_with_every_fault_named(admin: Api) -> None:
    source = {"url": "http://10.0.0.1:9090", "failing": "failing[$window]"}
    refused = admin.put(SLO, {"availability": 0.99, "source": source})
    assert refused.status_code == 422
    (fault,) = refused.json["errors"]
    assert fault["field"] == "source.url"
    assert "FLAGD_OUTGOING_ALLOW" in fault["message"]
    body = {
        "availability": 0.3,
        "window_days": 3,
        "latency": {"threshold_s": 0, "share": 1},
        "source": {"url": "http://p/?a=b", "failing": "failing[5m]"},
    }
    named = [fault["field"] for fault in admin.put(SLO, body).json["errors"]]
    assert sorted(named) == [
        "availability",
        "latency.share",
        "latency.threshold_s",
        "source.failing",
        "source.url",
        "window_days",
    ]
    assert admin.get(SLO).status_code == 404
