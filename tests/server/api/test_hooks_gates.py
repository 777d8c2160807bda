"""Flagger and Argo Rollouts, with requests as they send them: method, headers and every field."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flagd_server.domain.gate_verdicts import Verdict
from flagd_server.domain.health import Health, Reason
from flagd_server.domain.hooks import HOOKS
from flagd_server.errors import NotFoundError
from flagd_server.services.gate_answers import GateAnswers
from tests.server.api.client import Api

FLAGGER = "/hooks/flagger/production/canary"
ARGO = "/hooks/argo/production/canary"
MAY_GO_ON = (
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
)


class FixedVerdicts:
    """Gates that say what a test wants; only `canary` is there."""

    def __init__(self) -> None:
        self.word = Health.HEALTHY

    def get(self, environment: str, key: str) -> tuple[Verdict, datetime]:
        if key != "canary":
            raise NotFoundError("gate", key)
        reason = Reason("slo", self.word, f"the error budget is {self.word}")
        return Verdict(self.word, (reason,)), datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def gate(app: Flask) -> FixedVerdicts:
    services = app.extensions["flagd_server"]
    verdicts = FixedVerdicts()
    answers: GateAnswers = services.gate_answers
    answers._verdicts = verdicts
    return verdicts


class Flagger:
    """Sends what `CallWebhook` and `CallEventWebhook` of Flagger 1.40 do, byte for byte."""

    def __init__(self, app: Flask, token: str | None) -> None:
        self._api = Api(app)
        self._token = token

    def call(
        self,
        hook: str | None,
        phase: str = "Progressing",
        path: str = FLAGGER,
        metadata: Mapping[str, str] | None = None,
    ) -> TestResponse:
        told = {
            **({} if hook is None else {"hook": hook}),
            **({} if self._token is None else {"token": self._token}),
            **(metadata or {}),
        }
        payload: dict[str, Any] = {
            "name": "shop",
            "namespace": "production",
            "phase": phase,
            "checksum": "85d557f47b",
        }
        if told:
            payload["metadata"] = told
        raw = json.dumps(payload, separators=(",", ":")).encode()
        headers = {"user-agent": "Go-http-client/1.1", "accept-encoding": "gzip"}
        return self._api.post(path, raw=raw, headers=headers)


@pytest.fixture
def flagger(app: Flask, admin: Api) -> Flagger:
    token = admin.post("/api/v1/tokens", {"scope": "deploy", "name": "flagger"}).json
    return Flagger(app, token["text"])


class TestFlagger:
    @pytest.mark.parametrize("hook", MAY_GO_ON)
    def test_only_a_healthy_gate_lets_a_canary_go_on(
        self, flagger: Flagger, gate: FixedVerdicts, hook: str
    ) -> None:
        for word, status in (
            (Health.HEALTHY, 200),
            (Health.UNHEALTHY, 403),
            (Health.INCONCLUSIVE, 403),
        ):
            gate.word = word
            answer = flagger.call(hook)
            assert answer.status_code == status
            assert answer.json == {
                "answer": "yes" if status == 200 else "no",
                "verdict": word,
                "reasons": f"the error budget is {word}",
            }

    def test_only_an_unhealthy_gate_rolls_back(
        self, flagger: Flagger, gate: FixedVerdicts, admin: Api
    ) -> None:
        for word, status in (
            (Health.HEALTHY, 403),
            (Health.INCONCLUSIVE, 403),
            (Health.UNHEALTHY, 200),
        ):
            gate.word = word
            assert flagger.call("rollback", "Waiting").status_code == status
        (entry, *_) = admin.get("/api/v1/audit").json["items"]
        assert entry["action"] == "gate.rollback"
        assert entry["actor"] == "Flagger (flagger)"
        assert entry["detail"].pop("request_id")
        assert entry["detail"] == {"tool": "flagger", "canary": "production/shop"}
        assert entry["comment"] == "the error budget is unhealthy"

    @pytest.mark.parametrize("hook", ["post-rollout", "event"])
    def test_what_is_only_told_is_taken(
        self, flagger: Flagger, gate: FixedVerdicts, hook: str
    ) -> None:
        gate.word = Health.UNHEALTHY
        told = {
            "eventMessage": "Halt shop.production advancement",
            "eventType": "Warning",
            "timestamp": "1795760000000",
        }
        assert flagger.call(hook, "Failed", metadata=told).status_code == 200

    def test_every_type_of_webhook_has_an_answer(
        self, flagger: Flagger, gate: FixedVerdicts
    ) -> None:
        gate.word = Health.INCONCLUSIVE
        statuses = {hook: flagger.call(hook).status_code for hook in HOOKS}
        assert statuses == {
            **dict.fromkeys((*MAY_GO_ON, "rollback"), 403),
            "post-rollout": 200,
            "event": 200,
        }

    @pytest.mark.parametrize(
        ("phase", "status"),
        [
            ("Progressing", 403),
            ("Waiting", 403),
            ("WaitingPromotion", 403),
            ("confirm-promotion", 403),
            ("rollback", 200),
            ("Succeeded", 200),
            ("Failed", 200),
            ("Terminated", 200),
            ("a phase of the future", 200),
            ("", 200),
        ],
    )
    def test_without_a_hook_the_phase_counts(
        self, flagger: Flagger, gate: FixedVerdicts, phase: str, status: int
    ) -> None:
        gate.word = Health.UNHEALTHY
        assert flagger.call(None, phase).status_code == status

    def test_a_mistyped_hook_is_not_taken_for_another(
        self, flagger: Flagger, gate: FixedVerdicts
    ) -> None:
        answer = flagger.call("rolback")
        assert answer.status_code == 422
        assert "confirm-promotion, rollback" in answer.json["errors"][0]["message"]

    def test_a_gate_that_is_not_there_lets_nothing_go_on(self, flagger: Flagger) -> None:
        for hook in (*MAY_GO_ON, "rollback"):
            assert flagger.call(hook, path="/hooks/flagger/production/nope").status_code == 404
        assert flagger.call("rollout", path="/hooks/flagger/nope/canary").status_code == 404

    @pytest.mark.parametrize("token", [None, "", "fr_deploy_" + "x" * 43, "x" * 4_000])
    def test_without_a_token_no_canary_goes_on(
        self, app: Flask, gate: FixedVerdicts, token: str | None
    ) -> None:
        answer = Flagger(app, token).call("rollout")
        assert answer.status_code == 401

    def test_a_token_that_may_not_read_is_refused(
        self, app: Flask, gate: FixedVerdicts, admin: Api
    ) -> None:
        token = admin.post("/api/v1/tokens", {"scope": "kill", "name": "k"}).json["text"]
        answer = Flagger(app, token).call("rollout")
        assert answer.status_code == 403
        assert answer.json["type"].endswith(":forbidden")

    def test_the_token_may_stand_in_the_header(self, gate: FixedVerdicts, admin: Api) -> None:
        body = {"name": "shop", "namespace": "production", "phase": "Progressing", "metadata": None}
        assert admin.post(FLAGGER, body).status_code == 200

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"", 415),
            (b"{", 400),
            (b"[]", 401),
            (b'{"metadata": 7}', 401),
            (b'{"metadata": {"token": {}}}', 401),
            (b'{"metadata": {"token": ["a"]}}', 401),
            (b"[" * 100_000, 413),
            (b"[" * 10_000, 400),
            (b'{"name": "' + b"x" * 100_000 + b'"}', 413),
            (b"\xff\xfe", 400),
        ],
        ids=range(10),
    )
    def test_garbage(self, app: Flask, raw: bytes, status: int) -> None:
        assert Api(app).post(FLAGGER, raw=raw).status_code == status

    def test_fields_that_are_not_known_are_let_be_and_others_are_checked(
        self, admin: Api, gate: FixedVerdicts
    ) -> None:
        known = {"name": "shop", "namespace": "production", "phase": "Progressing"}
        grown = {**known, "checksum": "1", "buildId": "7", "metadata": {"x": "y"}}
        assert admin.post(FLAGGER, grown).status_code == 200
        for name in known:
            missing = {key: value for key, value in known.items() if key != name}
            assert admin.post(FLAGGER, missing).status_code == 422
            assert admin.post(FLAGGER, {**known, name: 7}).status_code == 422
        assert admin.post(FLAGGER, {**known, "metadata": {"x": 1}}).status_code == 422
        assert admin.post(f"{FLAGGER}?x=1", known).status_code == 422


class TestArgo:
    """What `metricproviders/webmetric/webmetric.go` of Argo Rollouts 1.7 sends and reads."""

    @pytest.fixture
    def argo(self, with_scope: Callable[[str], Api]) -> Callable[[str], TestResponse]:
        api = with_scope("read")
        headers = {"user-agent": "Go-http-client/1.1", "accept-encoding": "gzip"}
        return lambda path: api.get(path, headers=headers)

    @pytest.mark.parametrize("word", list(Health))
    def test_always_the_same_flat_document(
        self, argo: Callable[[str], TestResponse], gate: FixedVerdicts, word: Health
    ) -> None:
        gate.word = word
        answer = argo(ARGO)
        assert answer.status_code == 200
        assert answer.json == {
            "data": {
                "ok": word is Health.HEALTHY,
                "verdict": word,
                "reasons": f"the error budget is {word}",
                "environment": "production",
                "gate": "canary",
                "at": "2026-11-27T00:00:00.000Z",
            }
        }
        assert not any(isinstance(value, dict | list) for value in answer.json["data"].values())

    @pytest.mark.parametrize("path", ["/hooks/argo/production/nope", "/hooks/argo/nope/canary"])
    def test_a_gate_that_is_not_there_is_inconclusive(
        self, argo: Callable[[str], TestResponse], path: str
    ) -> None:
        data = argo(path).json["data"]
        assert (data["ok"], data["verdict"]) == (False, "inconclusive")
        assert "there is no" in data["reasons"]

    def test_needs_a_token(self, app: Flask) -> None:
        assert Api(app).get(ARGO).status_code == 401
