"""The series that Flagger's and Argo's Prometheus providers ask for, by flag and variant."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from flagd_sdk.core.latency import latency_bucket
from flagd_server.api.exposure_metrics import exposition
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.domain.targets import Allowed
from flagd_server.services.exposure_tally import ExposureTally, Key
from flagd_server.storage.base import Reader
from flagd_server.storage.telemetry_records import CountRow
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

SUMMARY: Mapping[str, Any] = {
    "instance": "i-1",
    "sequence": 1,
    "service": 'the "shop"\\',
    "service_version": "v1",
    "applied_sequence": 0,
    "started_at": "2026-11-23T19:14:36Z",
    "ended_at": "2026-11-23T19:14:37Z",
}


@pytest.fixture
def app(database: str) -> Iterator[Flask]:
    app = create_app(Settings(database=database, outgoing_allow=Allowed.parse(["127.0.0.1"])))
    yield app
    app.extensions["flagd_server"].close()


def samples(text: str, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """Return the samples of a name, as Prometheus reads them."""
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def scraped(api: Api, name: str) -> list[tuple[dict[str, str], float]]:
    found = samples(api.get("/metrics").text, name)
    return [(dict(labels), value) for labels, value in found.items()]


def report(api: Api, sequence: int = 1, **cell: Any) -> None:
    full = {
        "flag": "new-checkout",
        "split": "default",
        "variant": "on",
        "config_version": 2,
        "exposures": 40,
        "errors": 3,
        "latency": {str(latency_bucket(3_000)): 30, str(latency_bucket(700_000)): 10},
        "units": {},
        **cell,
    }
    answer = api.post("/sdk/v1/telemetry", {**SUMMARY, "sequence": sequence, "cells": [full]})
    assert answer.json["refused"] == [], answer.json


def test_what_is_reported_is_counted_by_flag_and_variant(
    admin: Api, sdk: Api, checkout: str
) -> None:
    report(sdk)
    report(sdk)  # a repetition
    report(sdk, 2, latency={})
    labels = {
        "environment": "production",
        "flag": "new-checkout",
        "variant": "on",
        "service": 'the "shop"\\',
        "version": "v1",
    }
    assert scraped(admin, "flagd_exposures_total") == [(labels, 80)]
    assert scraped(admin, "flagd_exposure_errors_total") == [(labels, 6)]
    buckets = {
        sample["le"]: value
        for sample, value in scraped(admin, "flagd_exposure_duration_seconds_bucket")
    }
    assert buckets["0.001024"] == 0
    assert buckets["0.004096"] == buckets["0.524288"] == 30
    assert buckets["1.048576"] == buckets["+Inf"] == 40
    assert scraped(admin, "flagd_exposure_duration_seconds_count") == [(labels, 40)]
    ((_, seconds),) = scraped(admin, "flagd_exposure_duration_seconds_sum")
    assert seconds == pytest.approx(30 * 0.003 + 10 * 0.7, rel=1 / 16)


def test_what_the_guard_does_not_hear_is_not_counted(admin: Api, app: Flask, checkout: str) -> None:
    body = {"scope": "sdk", "name": "phones", "environment": "production", "kind": "client"}
    report(Api(app, admin.post("/api/v1/tokens", body).json["text"]))
    assert scraped(admin, "flagd_exposures_total") == []


def test_a_kill_shows_by_flag(admin: Api, checkout: str) -> None:
    assert scraped(admin, "flagd_flag_killed") == []
    admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
    labels = {"environment": "production", "flag": "new-checkout", "source": "operator"}
    assert scraped(admin, "flagd_flag_killed") == [(labels, 1)]
    admin.patch("/api/v1/flags/new-checkout", {"archived": True})
    assert scraped(admin, "flagd_flag_killed") == []
    assert ({"environment": "production"}, 0) in scraped(admin, "flagd_flags")


def test_the_guard_of_each_flag_is_in_one_state(admin: Api, sdk: Api, checkout: str) -> None:
    report(sdk)
    ((labels, value),) = scraped(admin, "flagd_guard_flag_state")
    assert (labels, value) == (
        {"environment": "production", "flag": "new-checkout", "state": "blind"},
        1,
    )


def test_a_rollout_shows_until_it_ends(admin: Api, checkout: str) -> None:
    started = admin.post(
        f"{PRODUCTION}/rollouts",
        {
            "from_variant": "off",
            "to_variant": "on",
            "stages": [
                {"percent": 30, "bake_time_s": 600, "min_exposures": 100},
                {"percent": 100, "bake_time_s": 0},
            ],
        },
    )
    assert started.status_code == 201, started.json
    rollout = f"{PRODUCTION}/rollouts/{started.json['id']}"
    labels = {"environment": "production", "flag": "new-checkout"}
    admin.post(f"{rollout}/pause", {"reason": "lunch"})
    assert scraped(admin, "flagd_rollout_state") == [({**labels, "state": "paused"}, 1)]
    assert scraped(admin, "flagd_rollout_percent") == [(labels, 30)]
    admin.post(f"{rollout}/abort", {"reason": "done"})
    assert scraped(admin, "flagd_rollout_state") == []


def test_a_webhook_that_fails_shows(admin: Api) -> None:
    hook = "/api/v1/environments/production/webhooks/chat"
    put = admin.put(hook, {"url": "https://127.0.0.1:1025/", "format": "json"})
    assert put.status_code == 201, put.json
    labels = {"environment": "production", "webhook": "chat"}
    assert scraped(admin, "flagd_webhook_messages_waiting") == [(labels, 0)]
    admin.post(f"{hook}/test")
    assert scraped(admin, "flagd_webhook_messages_waiting") == [(labels, 1)]
    assert scraped(admin, "flagd_webhook_attempts")[0][1] in (0, 1)


def test_a_scrape_reads_only_what_has_changed(
    admin: Api, checkout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flagd_server.storage.postgres_reader import PostgresReader
    from flagd_server.storage.sqlite_reader import SqliteReader

    read: list[str] = []

    def noting(configurations: Callable[[Reader, str], Any]) -> Callable[[Reader, str], Any]:
        def note(reader: Reader, environment: str) -> Any:
            read.append(environment)
            return configurations(reader, environment)

        return note

    admin.get("/metrics")
    for readers in (SqliteReader, PostgresReader):
        monkeypatch.setattr(readers, "configurations", noting(readers.configurations))
    admin.get("/metrics")
    assert read == []
    admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
    read.clear()  # the guard has looked as well
    admin.get("/metrics")
    assert read == ["production"]


def test_labels_are_escaped() -> None:
    tally = ExposureTally()
    odd = Key("production", "f", 'a"b\\c\nd{},=', "\u2603", "")
    tally.add([CountRow(odd[0], odd[1], None, odd[2], 1, odd[3], odd[4], 0, 5, 0)], 0.0)
    (labels,) = samples(exposition(tally.snapshot()).decode(), "flagd_exposures_total")
    assert dict(labels) == odd._asdict()
