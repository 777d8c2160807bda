"""/api/v1/deployments, kills of several flags, and what is told of a kill that stands."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flagd_server.clock import SystemClock
from flagd_server.domain.times import format_time
from tests.server.api.client import Api
from tests.server.api.conftest import CHECKOUT, PRODUCTION

pytestmark = pytest.mark.both_databases

DEPLOYMENTS = "/api/v1/deployments"
KILL_SEVERAL = "/api/v1/environments/production/kill"
DIGEST = "sha256:" + "0a" * 32
SHOP = {
    "service": "shop",
    "version": "v2",
    "image": f"registry.example/shop@{DIGEST}",
    "environment": "production",
}


def summary(sequence: int = 1, version: str = "v1", **changes: Any) -> dict[str, Any]:
    now = format_time(SystemClock().now())
    cell = {
        "flag": "new-checkout",
        "split": "default",
        "variant": "on",
        "config_version": 2,
        "exposures": 5,
        "errors": 0,
        "units": {},
    }
    return {
        "instance": f"i-{version}",
        "sequence": sequence,
        "service": "shop",
        "service_version": version,
        "applied_sequence": 0,
        "started_at": now,
        "ended_at": now,
        "cells": [cell],
        **changes,
    }


@pytest.fixture
def pipeline(with_scope: Callable[[str], Api]) -> Api:
    return with_scope("deploy")


def test_a_pipeline_registers_once_and_reads_it_again(pipeline: Api) -> None:
    created = pipeline.post(DEPLOYMENTS, SHOP)
    assert created.status_code == 201
    assert created.json | SHOP == created.json
    assert created.json["registered_by"] == "test deploy"
    again = pipeline.post(DEPLOYMENTS, SHOP)
    assert (again.status_code, again.json) == (200, created.json)
    found = pipeline.get(f"{DEPLOYMENTS}?environment=production&service=shop&limit=1").json
    assert found == {"items": [created.json], "next": None}


@pytest.mark.parametrize(
    ("image", "why"),
    [(f"shop:latest@{DIGEST}", "latest"), ("shop:1.2", "no digest"), ("shop@sha256:1", "digest")],
)
def test_an_image_without_a_fixed_digest_is_refused(pipeline: Api, image: str, why: str) -> None:
    refused = pipeline.post(DEPLOYMENTS, SHOP | {"image": image})
    assert refused.status_code == 422
    (fault,) = refused.json["errors"]
    assert fault["field"] == "image"
    assert why in fault["message"]


def test_a_version_keeps_its_digest_in_every_environment(pipeline: Api) -> None:
    pipeline.post(DEPLOYMENTS, SHOP | {"environment": "staging"})
    other = SHOP | {"image": "registry.example/shop@sha256:" + "0b" * 32}
    refused = pipeline.post(DEPLOYMENTS, other)
    assert refused.status_code == 409
    assert DIGEST in refused.json["detail"]
    assert pipeline.post(DEPLOYMENTS, SHOP).status_code == 201


def test_a_deployment_that_misbehaves_loses_what_it_brought(
    pipeline: Api, sdk: Api, checkout: str
) -> None:
    sdk.post("/sdk/v1/telemetry", summary(version="v2"))
    (seen,) = pipeline.get(DEPLOYMENTS).json["items"]
    assert (seen["source"], seen["image"]) == ("telemetry", None)
    registered = pipeline.post(DEPLOYMENTS, SHOP)
    assert registered.status_code == 200
    assert registered.json["source"] == "registered"
    path = f"{DEPLOYMENTS}/{seen['id']}/kill"
    killed = pipeline.post(f"{path}?wait_s=0", {"reason": "orders fail"}).json
    (flag,) = killed["flags"]
    assert (flag["flag"], flag["killed"], flag["already"]) == (checkout, True, False)
    assert flag["kill"]["source"] == "deployment"
    assert killed["receipt"]["unconfirmed"] == ["i-v2"]
    again = pipeline.post(path, {"reason": "once more"}).json
    assert again["flags"][0] == flag | {"already": True}
    assert "receipt" not in again
    assert pipeline.post(f"{DEPLOYMENTS}/dp-0/kill", {"reason": "r"}).status_code == 404


def test_one_call_takes_all_flags_of_a_tag_or_a_version(
    with_scope: Callable[[str], Api], admin: Api, sdk: Api, checkout: str
) -> None:
    sdk.post("/sdk/v1/telemetry", summary())
    admin.patch(CHECKOUT, {"tags": ["checkout"]}, if_match=1)
    killer = with_scope("kill")
    for named in ({"tag": "checkout"}, {"service": "shop", "version": "v1"}):
        dry = killer.post(KILL_SEVERAL, {**named, "reason": "r", "dry_run": True}).json
        assert [(each["flag"], each["killed"]) for each in dry["flags"]] == [(checkout, False)]
    killed = killer.post(KILL_SEVERAL, {"tag": "checkout", "reason": "r"}).json
    assert killed["flags"][0]["kill"]["source"] == "operator"
    by_version = {"service": "shop", "version": "v1", "reason": "r"}
    assert killer.post(KILL_SEVERAL, by_version).json["flags"][0]["already"] is True
    unknown = killer.post(KILL_SEVERAL, by_version | {"version": "v9"})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"service": "shop"},
        {"version": "v1"},
        {"tag": "checkout", "service": "shop"},
        {"tag": "checkout", "service": "shop", "version": "v1"},
    ],
    ids=str,
)
def test_a_kill_of_several_names_one_thing(admin: Api, named: dict[str, str]) -> None:
    refused = admin.post(KILL_SEVERAL, {**named, "reason": "r"})
    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"] == "body"


class TestState:
    def test_a_deployment_that_nobody_runs_yet_has_a_state(self, pipeline: Api) -> None:
        created = pipeline.post(DEPLOYMENTS, SHOP).json
        state = pipeline.get(f"{DEPLOYMENTS}/{created['id']}").json
        assert state | created == state
        assert state["traffic"]["count"] == 0
        assert state["verdict"]["verdict"] == "cannot tell yet"
        assert state["health"]["verdict"] == "inconclusive"
        assert pipeline.get(f"{DEPLOYMENTS}/dp-0").status_code == 404

    def test_everything_is_told_of_one_whose_flag_was_killed(
        self, admin: Api, sdk: Api, checkout: str
    ) -> None:
        slo = {"availability": 0.99}
        admin.put("/api/v1/environments/production/slos/shop", slo)
        sdk.post("/sdk/v1/telemetry", summary(version="v1", cells=[]))
        bad = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(1, 41)]
        cells = [
            {
                "flag": checkout,
                "split": "default",
                "variant": variant,
                "config_version": 2,
                "exposures": exposures,
                "errors": len(units),
                "latency": {"80": exposures - len(units), "120": len(units)},
                "units": {"error:KeyError": units} if units else {},
            }
            for variant, exposures, units in (("on", 250, bad), ("off", 750, []))
        ]
        answer = sdk.post("/sdk/v1/telemetry", summary(version="v2", cells=cells)).json
        assert answer["refused"] == []
        (v2, v1) = admin.get(DEPLOYMENTS).json["items"]
        state = admin.get(f"{DEPLOYMENTS}/{v2['id']}").json
        assert state["verdict"]["verdict"] == "flag"
        assert state["verdict"]["flags"] == [checkout]
        (flag,) = state["flags"]
        assert flag["kill"]["source"] == "guard"
        assert [each["id"] for each in flag["decisions"]] == [flag["kill"]["evidence"]]
        (by_flag,) = state["verdict"]["by_flag"]
        assert by_flag["evidence"] == flag["kill"]["evidence"]
        assert by_flag["figures"]["newer"] == "v2"
        assert state["slo"]["state"] == "missed"
        assert state["slo"]["burn_rate"] == pytest.approx(4.0)
        assert state["processes"] == {"count": 1, "of_service": 2, "share": 0.5}
        assert (state["traffic"]["count"], state["traffic"]["share"]) == (1_000, 1.0)
        assert state["traffic"]["error_rate"] == pytest.approx(0.04)
        assert state["traffic"]["latency_ms"] == {"p50": 4.608, "p99": 147.456}
        assert state["health"]["verdict"] == "unhealthy"
        other = admin.get(f"{DEPLOYMENTS}/{v1['id']}").json
        assert other["flags"] == []
        assert other["health"]["verdict"] == "inconclusive"


class TestReceipts:
    def test_a_kill_that_stands_says_how_far_it_has_got(
        self, admin: Api, sdk: Api, checkout: str
    ) -> None:
        assert admin.get(f"{PRODUCTION}/kill").status_code == 404
        for version in ("v1", "v2"):
            sdk.post("/sdk/v1/telemetry", summary(version=version))
        killed = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json
        sequence = killed["sequence"]
        sdk.post("/sdk/v1/telemetry", summary(2, "v1", applied_sequence=sequence, cells=[]))
        standing = admin.get(f"{PRODUCTION}/kill").json
        assert standing["kill"] == killed["kill"]
        assert (standing["sequence"], standing["version"]) == (sequence, killed["version"])
        receipt = standing["receipt"]
        assert (receipt["processes"], receipt["confirmed"]) == (2, 1)
        assert receipt["unconfirmed"] == ["i-v2"]
        assert receipt["confirmed_after_ms"]["50"] >= 0
        assert receipt["confirmed_after_ms"]["100"] is None
        assert [each["instance"] for each in receipt["slowest"]] == ["i-v1"]
        (lagging,) = standing["unconfirmed"]
        assert (lagging["instance"], lagging["service_version"]) == ("i-v2", "v2")
        assert lagging["applied_sequence"] < sequence
        admin.post(f"{PRODUCTION}/restore", {"kill": killed["kill"]["id"], "reason": "fixed"})
        assert admin.get(f"{PRODUCTION}/kill").status_code == 404

    def test_who_waits_is_told_the_times_from_the_decision(
        self, admin: Api, sdk: Api, checkout: str
    ) -> None:
        sdk.post("/sdk/v1/telemetry", summary())
        answers = []

        def press() -> None:
            path = f"{PRODUCTION}/kill?wait_s=20"
            answers.append(admin.by(admin.token).post(path, {"reason": "r"}))

        thread = threading.Thread(target=press)
        thread.start()
        deadline = time.monotonic() + 20
        while admin.get(PRODUCTION).json["kill"] is None and time.monotonic() < deadline:
            time.sleep(0.01)
        sdk.post("/sdk/v1/telemetry", summary(2, applied_sequence=2**52, cells=[]))
        thread.join(20)
        receipt = answers[0].json["receipt"]
        assert (receipt["confirmed"], receipt["unconfirmed"]) == (1, [])
        after_ms = receipt["confirmed_after_ms"]
        assert after_ms["50"] == after_ms["100"] == receipt["slowest"][0]["after_ms"] > 0

    def test_every_kill_is_timed_for_prometheus(self, admin: Api, sdk: Api, checkout: str) -> None:
        for version in ("v1", "v2"):
            sdk.post("/sdk/v1/telemetry", summary(version=version))
        admin.post(f"{PRODUCTION}/kill", {"reason": "nobody waits"})
        lagging = 'flagd_kill_processes_unconfirmed{environment="production"}'
        assert metric(admin, lagging) == 2
        sdk.post("/sdk/v1/telemetry", summary(2, "v1", applied_sequence=2**52, cells=[]))
        counted = 'flagd_kill_confirmed_seconds_count{{environment="production",percent="{}"}}'
        assert metric(admin, counted.format(50)) == 1
        assert metric(admin, counted.format(100)) is None
        sdk.post("/sdk/v1/telemetry", summary(2, "v2", applied_sequence=2**52, cells=[]))
        assert metric(admin, counted.format(99)) == metric(admin, counted.format(100)) == 1
        assert metric(admin, lagging) is None
        kills = 'flagd_kills_total{environment="production",source="operator"}'
        assert metric(admin, kills) == 1
        admin.post(f"{PRODUCTION}/kill", {"reason": "again"})
        assert metric(admin, kills) == 1

    def test_after_a_restart_nobody_knows_the_times(
        self, app: Flask, admin: Api, sdk: Api, checkout: str
    ) -> None:
        admin.post(f"{PRODUCTION}/kill", {"reason": "r"})
        app.extensions["flagd_server"].receipts._followed._kills.clear()
        sdk.post("/sdk/v1/telemetry", summary(applied_sequence=2**52))
        receipt = admin.get(f"{PRODUCTION}/kill").json["receipt"]
        assert receipt["confirmed"] == 1
        assert receipt["confirmed_after_ms"] == {"50": None, "99": None, "100": None}
        assert receipt["slowest"] == []


def metric(api: Api, line: str) -> float | None:
    for row in api.get("/metrics").text.splitlines():
        if row.startswith(line + " "):
            return float(row.rpartition(" ")[2])
    return None
