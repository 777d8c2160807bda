"""Signed calls: by the secret of the environment, of these minutes, and for nothing but a kill."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flagd_server.domain.notifications import headers_for
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

GENERIC = "/hooks/generic/production"
SECRET = "/api/v1/environments/production/hook-secret"


def kill_of(admin: Api) -> Any:
    return admin.get(PRODUCTION).json["kill"]


class TestGeneric:
    CALL: Mapping[str, Any] = {"action": "kill", "flag": "new-checkout", "reason": "orders fail"}

    @pytest.fixture
    def secret(self, admin: Api, checkout: str) -> str:
        made = admin.put(SECRET)
        assert made.status_code == 201
        return str(made.json["secret"])

    def send(
        self,
        app: Flask,
        secret: str,
        call: Any = None,
        *,
        at: float | None = None,
        path: str = GENERIC,
        **headers: str,
    ) -> TestResponse:
        body = json.dumps(self.CALL if call is None else call).encode()
        at_s = datetime.now(UTC).timestamp() if at is None else at
        signed = headers_for(secret, "msg-1", int(at_s), body)
        return Api(app).post(path, raw=body, headers={**signed, **headers})

    def test_a_signed_call_kills(self, app: Flask, admin: Api, secret: str) -> None:
        answer = self.send(app, secret)
        kill = kill_of(admin)
        assert answer.json == {
            "environment": "production",
            "flags": [{"flag": "new-checkout", "did": "killed", "kill": kill["id"]}],
            "note": None,
        }
        assert (kill["source"], kill["by"]) == ("alert", "signed hook")
        assert self.send(app, secret).json["flags"][0]["did"] == "already"

    def test_played_back_it_overrules_nobody(self, app: Flask, admin: Api, secret: str) -> None:
        at = datetime.now(UTC).timestamp()
        kill = self.send(app, secret, at=at).json["flags"][0]["kill"]
        admin.post(f"{PRODUCTION}/restore", {"kill": kill, "reason": "fixed"})
        assert self.send(app, secret, at=at).json["flags"][0]["did"] == "left"
        assert kill_of(admin) is None

    @pytest.mark.parametrize(
        ("age_s", "status"), [(290, 200), (310, 401), (-290, 200), (-310, 401)]
    )
    def test_counts_within_five_minutes(
        self, app: Flask, secret: str, age_s: float, status: int
    ) -> None:
        at = datetime.now(UTC).timestamp() - age_s
        assert self.send(app, secret, at=at).status_code == status

    @pytest.mark.parametrize(
        "headers",
        [
            {"webhook-signature": ""},
            {"webhook-signature": "v1,AAAA"},
            {"webhook-signature": "v1,\xff"},
            {"webhook-signature": "v1a,AAAA v2,BBBB"},
            {"webhook-id": "msg-2"},
            {"webhook-timestamp": ""},
            {"webhook-timestamp": "now"},
            {"webhook-timestamp": "1"},
            {"webhook-timestamp": "-1"},
            {"webhook-timestamp": "\u0661"},
            {"webhook-timestamp": "9" * 5_000},
        ],
    )
    def test_what_is_not_signed_is_refused(
        self, app: Flask, admin: Api, secret: str, headers: dict[str, str]
    ) -> None:
        encoded = {name: text.encode().decode("latin-1") for name, text in headers.items()}
        assert self.send(app, secret, **encoded).status_code == 401
        assert kill_of(admin) is None

    def test_the_body_is_signed(self, app: Flask, secret: str) -> None:
        signed = headers_for(secret, "m", int(datetime.now(UTC).timestamp()), b"{}")
        assert Api(app).post(GENERIC, self.CALL, headers=signed).status_code == 401

    def test_one_of_several_signatures_is_enough(self, app: Flask, secret: str) -> None:
        body = json.dumps(self.CALL).encode()
        signed = headers_for(secret, "m", int(datetime.now(UTC).timestamp()), body)
        signed["webhook-signature"] = f"v1a,xyz v1,AAAA {signed['webhook-signature']}"
        assert Api(app).post(GENERIC, raw=body, headers=signed).status_code == 200

    def test_a_secret_is_for_one_environment_and_ends_with_the_next(
        self, app: Flask, admin: Api, secret: str
    ) -> None:
        admin.put(SECRET.replace("production", "staging"))
        elsewhere = GENERIC.replace("production", "staging")
        assert self.send(app, secret, path=elsewhere).status_code == 401
        assert self.send(app, secret, path="/hooks/generic/nope").status_code == 401
        renewed = admin.put(SECRET)
        assert renewed.status_code == 200
        assert self.send(app, secret).status_code == 401
        assert self.send(app, renewed.json["secret"]).status_code == 200
        assert admin.delete(SECRET).status_code == 204
        assert self.send(app, renewed.json["secret"]).status_code == 401
        assert admin.delete(SECRET).status_code == 404

    def test_an_environment_without_a_secret_knows_no_signature(self, app: Flask) -> None:
        zeros = "whsec_" + "A" * 43 + "="
        assert self.send(app, zeros).status_code == 401

    def test_the_secret_is_shown_once(self, admin: Api, secret: str) -> None:
        shown = admin.get(SECRET)
        assert shown.json.keys() == {"environment", "created_at", "created_by"}
        audit = admin.get("/api/v1/audit")
        assert audit.json["items"][0]["action"] == "hook_secret.create"
        assert secret not in audit.text

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"action": "restore"}, "action"),
            ({"flag": None}, "flag"),
            ({"flag": "a b"}, "flag"),
            ({"tag": "payments"}, "body"),
            ({"service": "shop"}, "body"),
            ({"reason": ""}, "reason"),
            ({"extra": 1}, "extra"),
        ],
    )
    def test_a_call_that_is_wrong_is_refused(
        self, app: Flask, admin: Api, secret: str, change: dict[str, Any], field: str
    ) -> None:
        answer = self.send(app, secret, {**self.CALL, **change})
        assert answer.status_code == 422
        assert field in [fault["field"] for fault in answer.json["errors"]]
        assert kill_of(admin) is None

    def test_what_nobody_knows_is_noted(self, app: Flask, secret: str) -> None:
        call = {"action": "kill", "service": "shop", "version": "v0", "reason": "r"}
        assert "there is no flag that version" in self.send(app, secret, call).json["note"]
