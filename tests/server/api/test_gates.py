"""Gates over HTTP, against little servers that hang, redirect, answer garbage, or are not there."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.domain.targets import Allowed
from tests.server.api.client import Api
from tests.server.strange_servers import (
    Behave,
    answering,
    hanging,
    nobody_listening,
    sending,
    serving,
)

GATES = "/api/v1/environments/production/gates"
CANARY = f"{GATES}/canary"


def vector(value: str) -> bytes:
    row = {"metric": {"job": "shop"}, "value": [1.5, value]}
    data = {"resultType": "vector", "result": [row]}
    return json.dumps({"status": "success", "data": data}).encode()


def alerts(*states: str) -> bytes:
    rows = [{"labels": {"alertname": "Slow"}, "status": {"state": state}} for state in states]
    return json.dumps(rows).encode()


@pytest.fixture
def app(database: str) -> Iterator[Flask]:
    app = create_app(Settings(database=database, outgoing_allow=Allowed.parse(["127.0.0.1"])))
    yield app
    app.extensions["flagd_server"].close()


def verdict(api: Api, gate: dict[str, Any]) -> tuple[str, str]:
    """Write the gate and return its word, with the details of what it says."""
    written = api.put(CANARY, gate)
    assert written.status_code in (200, 201), written.json
    answer = api.get(f"{CANARY}/verdict").json
    assert (answer["gate"], answer["environment"]) == ("canary", "production")
    return answer["verdict"], "; ".join(reason["detail"] for reason in answer["reasons"])


def health(url: str) -> dict[str, Any]:
    return {"health_checks": [f"{url}/healthz"]}


def prometheus(url: str) -> dict[str, Any]:
    return {"prometheus": [{"url": url, "query": "up", "op": "lt", "threshold": 0.5}]}


def alertmanager(url: str) -> dict[str, Any]:
    return {"alertmanager": {"url": url, "matchers": ['severity="page"']}}


class TestVerdicts:
    @pytest.mark.parametrize(
        ("gate", "behave", "word", "detail"),
        [
            (health, answering("200 OK"), "healthy", "answered 200"),
            (health, answering("503 No"), "unhealthy", "answered 503"),
            (health, answering("302 Found", b"", "Location: /"), "inconclusive", "answered 302"),
            (health, sending(b"garbage\r\n"), "inconclusive", "gave no answer"),
            (health, sending(b""), "inconclusive", "gave no answer"),
            (prometheus, answering("200 OK", vector("0.2")), "healthy", "up is 0.2"),
            (prometheus, answering("200 OK", vector("0.7")), "unhealthy", "is 0.7; expected < 0.5"),
            (prometheus, answering("200 OK", vector("NaN")), "inconclusive", "is there traffic?"),
            (prometheus, answering("200 OK", b"<html>"), "inconclusive", "no JSON"),
            (prometheus, answering("200 OK", b"x" * (1 << 21)), "inconclusive", "more than 1 MiB"),
            (prometheus, answering("502 Bad Gateway"), "inconclusive", "status 502"),
            (alertmanager, answering("200 OK", alerts()), "healthy", "no alert fires"),
            (alertmanager, answering("200 OK", alerts("active")), "unhealthy", "1 firing"),
            (alertmanager, answering("200 OK", alerts("suppressed")), "healthy", "no alert"),
            (alertmanager, answering("200 OK", b"{}"), "inconclusive", "not of the form"),
        ],
    )
    def test_what_others_answer(
        self, admin: Api, gate: Any, behave: Behave, word: str, detail: str
    ) -> None:
        with serving(behave) as server:
            said, details = verdict(admin, gate(server.url))
        assert said == word
        assert detail in details

    def test_nobody_listens(self, admin: Api) -> None:
        with nobody_listening() as url:
            said, details = verdict(admin, health(url))
        assert said == "inconclusive"
        assert "refused" in details

    def test_one_that_hangs_costs_its_timeout_and_spoils_no_other_gate(self, admin: Api) -> None:
        with serving(hanging) as stuck, serving(answering("200 OK")) as well:
            gate = health(stuck.url)["health_checks"] + health(well.url)["health_checks"]
            began = time.monotonic()
            said, details = verdict(admin, {"health_checks": gate})
            assert 4 < time.monotonic() - began < 30
            assert said == "inconclusive"
            assert "gave no answer within 5 s" in details
            assert "answered 200" in details
            took_s = []
            for number in range(3):  # each asked for the first time, so that it is waited for
                began = time.monotonic()
                assert verdict(admin, health(f"{well.url}/{number}"))[0] == "healthy"
                took_s.append(time.monotonic() - began)
            assert min(took_s) < 2

    def test_a_redirect_to_an_inner_server_reveals_nothing(self, admin: Api) -> None:
        with serving(answering("200 OK", vector("0.1"))) as inner:
            moved = answering("307 Temporary Redirect", b"", f"Location: {inner.url}/api")
            with serving(moved) as server:
                assert verdict(admin, prometheus(server.url))[0] == "inconclusive"
            assert inner.requests == []

    def test_the_worst_of_all_checks_is_said_with_every_reason(self, admin: Api) -> None:
        with serving(answering("200 OK")) as well, serving(answering("500 No")) as ill:
            gate = {"health_checks": [well.url, ill.url], "approval": True}
            assert admin.put(CANARY, gate).status_code == 201
            answer = admin.get(f"{CANARY}/verdict").json
        assert answer["verdict"] == "unhealthy"
        assert [(row["check"], row["verdict"]) for row in answer["reasons"]] == [
            ("health_checks[0]", "healthy"),
            ("health_checks[1]", "unhealthy"),
            ("approval", "inconclusive"),
        ]


class TestApproval:
    def test_a_person_approves_and_takes_it_back(self, admin: Api) -> None:
        assert verdict(admin, {"approval": True}) == (
            "inconclusive",
            "waits for a person's approval",
        )
        approved = admin.post(f"{CANARY}/approve", {"reason": "looked at it", "valid_for_s": 60})
        assert approved.json["approved"]["by"] == "first admin"
        assert admin.get(f"{CANARY}/verdict").json["verdict"] == "healthy"
        assert admin.get(CANARY).json == approved.json
        taken = admin.post(f"{CANARY}/withdraw", {"reason": "the wrong gate"})
        assert taken.json["approved"] is None
        assert admin.get(f"{CANARY}/verdict").json["verdict"] == "inconclusive"
        audit = admin.get("/api/v1/audit?environment=production&limit=3").json["items"]
        assert [entry["action"] for entry in audit] == [
            "gate.withdraw",
            "gate.approve",
            "gate.create",
        ]

    def test_a_gate_that_asks_for_none_takes_none(self, admin: Api, checkout: str) -> None:
        written = admin.put(CANARY, {"min_exposures": {"flag": checkout, "count": 1}})
        assert written.status_code == 201, written.json
        assert admin.post(f"{CANARY}/approve", {"reason": "x"}).status_code == 409
        assert admin.post(f"{CANARY}/withdraw", {"reason": "x"}).status_code == 409


def test_a_gate_is_created_replaced_listed_and_deleted(admin: Api, with_scope: Any) -> None:
    created = admin.put(CANARY, {"approval": True})
    assert (created.status_code, created.json["version"]) == (201, 1)
    replaced = admin.put(CANARY, {"approval": True, "description": "of the shop"})
    assert (replaced.status_code, replaced.json["version"]) == (200, 2)
    reader = with_scope("read")
    assert reader.get(CANARY).json == replaced.json
    assert reader.get(GATES).json["items"] == [replaced.json]
    assert reader.put(CANARY, {"approval": True}).status_code == 403
    assert reader.post(f"{CANARY}/approve", {"reason": "x"}).status_code == 403
    assert reader.get(f"{CANARY}/verdict").json["verdict"] == "inconclusive"
    assert admin.delete(CANARY).status_code == 204
    for path in (CANARY, f"{CANARY}/verdict"):
        assert admin.get(path).status_code == 404
    assert admin.delete(CANARY).status_code == 404


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["body"]),
        ({"description": "nothing else"}, ["body"]),
        (
            {
                "health_checks": ["ftp://a/", "http://10.0.0.1/", "http://nowhere.invalid/"],
                "approval": True,
            },
            ["health_checks[0]"],
        ),
        (
            {"health_checks": ["http://10.0.0.1/", "http://nowhere.invalid/", "http://u:p@a/"]},
            ["health_checks[2]"],
        ),
        (
            {"health_checks": ["http://10.0.0.1/", "http://nowhere.invalid/"]},
            ["health_checks[0]", "health_checks[1]"],
        ),
        ({"slo": {"service": "shop"}}, ["slo"]),
        ({"slo": {"service": "shop", "burn_rate_below": 6}}, ["slo.service"]),
        ({"guard": {}}, ["guard"]),
        (
            {"guard": {"flags": ["a"], "deployment": {"service": "a", "version": "b"}}},
            ["guard"],
        ),
        ({"guard": {"flags": ["none"]}}, ["guard.flags[0]"]),
        ({"min_exposures": {"flag": "none", "count": 0}}, ["min_exposures.count"]),
        ({"alertmanager": {"url": "http://127.0.0.1", "matchers": []}}, ["alertmanager.matchers"]),
        (
            {"alertmanager": {"url": "http://127.0.0.1", "matchers": ["severity"]}},
            ["alertmanager.matchers[0]"],
        ),
        (
            {
                "prometheus": [
                    {"url": "http://127.0.0.1/?a=b", "query": "", "op": "eq", "threshold": 1}
                ]
            },
            ["prometheus[0].op", "prometheus[0].query", "prometheus[0].url"],
        ),
    ],
)
def test_what_can_not_be_is_refused_when_written(
    admin: Api, body: dict[str, Any], fields: list[str]
) -> None:
    refused = admin.put(CANARY, body)
    assert refused.status_code == 422
    assert sorted(fault["field"] for fault in refused.json["errors"]) == fields
    assert admin.get(CANARY).status_code == 404
