"""A server whose database is away serves what it has, and says what it can't do."""

import json

from tests.server.replicas.replicas import ENVIRONMENT, FLAG, FLAG_PATH, Replicas, cell
from tests.waiting import eventually


def test_flags_evaluations_and_streams_go_on_from_memory(replicas: Replicas) -> None:
    version = replicas.release()
    made = replicas.leader.admin.post(
        "/api/v1/tokens", {"scope": "ofrep", "name": "page", "environment": ENVIRONMENT}
    )
    replica = replicas.follower
    page = replica.admin.by(made.json["text"])
    evaluate = f"/ofrep/v1/evaluate/flags/{FLAG}", {"context": {"targetingKey": "u"}}
    before = page.post(*evaluate).json
    stream = replica.stream()
    stream.next()
    tag, body = replica.flags()
    replica.storage.is_away = True
    assert replica.flags() == (tag, body)
    held = replica.sdk.get("/sdk/v1/flags", headers={"If-None-Match": tag})
    assert held.status_code == 304
    assert page.post(*evaluate).json == before
    assert replica.services.snapshots.current("staging").sequence, "nobody has asked for that yet"
    replicas.leader.admin.patch(FLAG_PATH, {"enabled": False}, if_match=version)
    replica.storage.come_back()
    name, data, _ = stream.next()
    assert (name, json.loads(data)["flags"][FLAG]["enabled"]) == ("flags", False)


def test_what_writes_is_refused_for_now_and_the_server_stays_in(replicas: Replicas) -> None:
    version = replicas.release()
    replica = replicas.follower
    replica.storage.is_away = True
    refused = (
        replica.admin.post(f"{FLAG_PATH}/kill", {"reason": "x"}),
        replica.admin.patch(FLAG_PATH, {"enabled": False}, if_match=version),
        replica.sdk.post("/sdk/v1/telemetry", _summary(version)),
        replica.admin.get(FLAG_PATH),
    )
    assert [answer.status_code for answer in refused] == [503] * 4
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    ready = replica.admin.get("/readyz")
    assert (ready.status_code, ready.json["status"]) == (200, "degraded")
    assert ready.json["checks"]["database"] == "failed"
    replica.storage.come_back()
    assert replica.sdk.post("/sdk/v1/telemetry", _summary(version)).status_code == 200
    eventually(lambda: replica.admin.get("/readyz").json["status"] == "ready", every_s=0.1)


def _summary(version: int) -> dict[str, object]:
    return {
        "instance": "i-1",
        "sequence": 1,
        "service": "shop",
        "service_version": "v1",
        "applied_sequence": 0,
        "started_at": "2026-11-23T12:00:00.000Z",
        "ended_at": "2026-11-23T12:00:01.000Z",
        "cells": [cell("on", version)],
    }


def test_what_needs_no_database_is_still_measured(replicas: Replicas) -> None:
    replica = replicas.follower
    replicas.release()
    before = replica.admin.get("/metrics").text
    assert "flagd_metrics_unread 0.0" in before
    replica.storage.is_away = True
    during = replica.admin.get("/metrics")
    assert during.status_code == 200
    assert "flagd_metrics_unread 0.0" not in during.text
    assert 'flagd_http_requests_total{method="GET",route="/metrics",status="200"}' in during.text
    assert "flagd_streams_open" in during.text
    assert "flagd_flags{" in before
    assert "flagd_flags{" not in during.text
    replica.storage.is_away = False
    assert "flagd_metrics_unread 0.0" in replica.admin.get("/metrics").text
