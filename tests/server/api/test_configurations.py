"""A flag in an environment: versions and their conflicts, kill and restore, rollback, history."""

import threading
import time
from collections.abc import Callable

import pytest
from flask import Flask

from tests.server.api.client import Api
from tests.server.api.conftest import CHECKOUT, PRODUCTION

SUMMARY = {
    "instance": "i-1",
    "sequence": 1,
    "service": "shop",
    "service_version": "1",
    "applied_sequence": 1,
    "started_at": "2026-11-23T19:14:36Z",
    "ended_at": "2026-11-23T19:14:37Z",
    "cells": [],
}


class TestChanging:
    def test_a_given_field_is_replaced_and_the_others_stay(self, admin: Api, checkout: str) -> None:
        before = admin.get(PRODUCTION).json
        after = admin.patch(PRODUCTION, {"off_variant": "on"}, if_match=2).json
        assert after["version"] == 3
        assert after["off_variant"] == "on"
        assert after["default_serve"] == before["default_serve"]
        assert after["enabled"] is True

    def test_a_split_gets_what_the_server_knows(self, admin: Api, checkout: str) -> None:
        split = admin.get(PRODUCTION).json["default_serve"]["split"]
        assert split["bucket_by"] == "targetingKey"
        assert split["salt"] == checkout
        assert split["allocation"][-1][0] == 100_000

    def test_what_was_read_can_be_sent_back(self, admin: Api, checkout: str) -> None:
        read = admin.get(PRODUCTION).json
        body = {name: read[name] for name in ("rules", "default_serve", "guard", "enabled")}
        answer = admin.patch(PRODUCTION, body, if_match=2)
        assert (answer.status_code, answer.json["version"]) == (200, 2)

    def test_the_guard_is_on_unless_told_otherwise(self, admin: Api, checkout: str) -> None:
        guard = admin.get(PRODUCTION).json["guard"]
        assert guard == {
            "mode": "enforce",
            "control": None,
            "alpha": 0.001,
            "margin": 1.05,
            "guards": ["error_rate", "latency", "availability"],
            "slow": ["p99"],
            "on_breach": "kill",
            "on_burn": "hold",
            "harm_budget": None,
        }
        changed = admin.patch(PRODUCTION, {"guard": {"mode": "observe"}}, if_match=2).json
        assert changed["guard"]["mode"] == "observe"
        reset = admin.patch(PRODUCTION, {"guard": {}}, if_match=3).json
        assert reset["guard"]["mode"] == "enforce"

    @pytest.mark.parametrize("text", ['"2"', "2", ' "2" '])
    def test_the_version_may_be_quoted_or_not(self, admin: Api, checkout: str, text: str) -> None:
        assert admin.patch(PRODUCTION, {"enabled": False}, if_match=text).status_code == 200

    @pytest.mark.parametrize(
        "text", ["", "*", 'W/"2"', '"2", "3"', '"2', "two", "-2", "0", "2.0", "9" * 30, "٢"]
    )
    def test_a_version_that_is_none_is_named(self, admin: Api, checkout: str, text: str) -> None:
        encoded = text.encode().decode("latin-1")
        refused = admin.patch(PRODUCTION, {"enabled": False}, if_match=encoded)
        assert refused.status_code == 400
        assert [fault["field"] for fault in refused.json["errors"]] == ["header.If-Match"]

    def test_no_version_is_asked_for(self, admin: Api, checkout: str) -> None:
        assert admin.patch(PRODUCTION, {"enabled": False}).status_code == 428
        assert admin.post(f"{PRODUCTION}/rollback", {"version": 1}).status_code == 428

    def test_a_stale_version_is_told_the_newest(self, admin: Api, checkout: str) -> None:
        stale = admin.patch(PRODUCTION, {"enabled": False}, if_match=1)
        assert stale.status_code == 412
        assert stale.json["current_version"] == 2
        assert admin.get(PRODUCTION).headers["ETag"] == '"2"'

    def test_of_many_who_saw_the_same_version_one_wins(
        self, app: Flask, admin: Api, checkout: str
    ) -> None:
        statuses: list[int] = []

        def write(number: int) -> None:
            weights = {"on": number, "off": 100_000 - number}
            body = {"default_serve": {"split": {"weights": weights}}}
            statuses.append(admin.patch(PRODUCTION, body, if_match=2).status_code)

        threads = [threading.Thread(target=write, args=(1_000 + n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200] + [412] * 7
        assert admin.get(PRODUCTION).json["version"] == 3

    def test_every_fault_is_named_at_once(self, admin: Api, checkout: str) -> None:
        body = {
            "enabled": "yes",
            "rules": [
                {
                    "id": "a b",
                    "condition": {"all": [{"attribute": "x", "op": "near", "values": ["y"]}]},
                    "serve": {"split": {"weights": {"on": -1, "off": "all"}}},
                },
                {"condition": {}, "serve": {}},
            ],
            "gaurd": {},
        }
        refused = admin.patch(PRODUCTION, body, if_match=2)
        assert refused.status_code == 422
        assert {fault["field"] for fault in refused.json["errors"]} == {
            "enabled",
            "rules[0].id",
            "rules[0].condition.all[0].op",
            "rules[0].serve.split.weights.on",
            "rules[0].serve.split.weights.off",
            "rules[1].condition",
            "rules[1].serve",
            "gaurd",
        }
        assert admin.get(PRODUCTION).json["version"] == 2

    def test_a_flag_or_environment_that_is_not_there_is_not_found(
        self, admin: Api, checkout: str
    ) -> None:
        for path in (
            "/api/v1/flags/nothing/environments/production",
            f"{CHECKOUT}/environments/nowhere",
        ):
            assert admin.get(path).status_code == 404
            assert admin.patch(path, {"enabled": True}, if_match=1).status_code == 404
            assert admin.post(f"{path}/kill", {"reason": "smoke"}).status_code == 404
            assert admin.get(f"{path}/history").status_code == 404
            assert admin.get(f"{path}/evidence").status_code == 404


class TestKilling:
    def test_takes_the_flag_off_and_keeps_its_configuration(
        self, admin: Api, sdk: Api, checkout: str
    ) -> None:
        before = admin.get(PRODUCTION).json
        killed = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke", "source": "alert"}).json
        assert killed["already"] is False
        assert killed["kill"]["reason"] == "smoke"
        assert killed["kill"]["source"] == "alert"
        assert killed["version"] == 3
        assert "receipt" not in killed
        after = admin.get(PRODUCTION).json
        assert after["kill"] == killed["kill"]
        assert after["default_serve"] == before["default_serve"]
        delivered = sdk.get("/sdk/v1/flags").json
        assert delivered["sequence"] == killed["sequence"]
        assert delivered["flags"][checkout]["kill"]["id"] == killed["kill"]["id"]

    def test_again_answers_with_the_kill_that_stands(
        self, admin: Api, checkout: str, with_scope: Callable[[str], Api]
    ) -> None:
        first = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json
        second = with_scope("kill").post(f"{PRODUCTION}/kill", {"reason": "fire"}).json
        assert second["already"] is True
        assert second["kill"] == first["kill"]
        assert second["version"] == first["version"]

    def test_stays_off_whatever_is_changed(self, admin: Api, sdk: Api, checkout: str) -> None:
        admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
        body = {"enabled": True, "default_serve": {"variant": "on"}}
        assert admin.patch(PRODUCTION, body, if_match=3).json["kill"] is not None
        assert admin.post(f"{PRODUCTION}/rollback", {"version": 2}, if_match=4).json["kill"]
        assert sdk.get("/sdk/v1/flags").json["flags"][checkout]["kill"] is not None

    def test_restoring_has_to_name_the_kill(self, admin: Api, checkout: str) -> None:
        unknown = {"kill": "kill-0", "reason": "fixed"}
        assert admin.post(f"{PRODUCTION}/restore", unknown).status_code == 409
        killed = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json
        assert admin.post(f"{PRODUCTION}/restore", unknown).status_code == 409
        assert admin.get(PRODUCTION).json["kill"] is not None
        body = unknown | {"kill": killed["kill"]["id"]}
        restored = admin.post(f"{PRODUCTION}/restore", body)
        assert restored.json["kill"] is None
        assert restored.json["action"] == "restore"
        assert restored.headers["ETag"] == f'"{restored.json["version"]}"'

    def test_restoring_has_to_say_why(self, admin: Api, checkout: str) -> None:
        killed = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json
        name = {"kill": killed["kill"]["id"]}
        for why in ({}, {"reason": ""}, {"reason": " "}, {"reason": None}, {"fixed_in": None}):
            refused = admin.post(f"{PRODUCTION}/restore", name | why)
            assert refused.status_code == 422
            assert [each["field"] for each in refused.json["errors"]] == ["reason"]
        body = name | {"reason": "fixed", "start_percent": 5, "keep": True}
        assert admin.post(f"{PRODUCTION}/restore", body).status_code == 422
        body = name | {"fixed_in": {"service": "shop", "version": "v42"}}
        restored = admin.post(f"{PRODUCTION}/restore", body)
        assert (restored.status_code, restored.json["kill"]) == (200, None)
        assert restored.json["comment"] == "fixed in version v42 of shop"

    def test_what_was_left_out_is_shown_and_can_be_sent_back(
        self, admin: Api, checkout: str
    ) -> None:
        serve = {"split": {"weights": {"on": 25_000, "off": 75_000}}}
        admin.patch(PRODUCTION, {"default_serve": serve}, if_match=2)
        killed = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json
        body = {"kill": killed["kill"]["id"], "reason": "fixed", "leave_out_exposed": True}
        restored = admin.post(f"{PRODUCTION}/restore", body).json
        split = restored["default_serve"]["split"]
        assert (split["weights"]["on"], split["rested"]) == (1_000, [[0, 25_000]])
        split["weights"] = {"on": 2_000, "off": 98_000}
        sent_back = {"default_serve": restored["default_serve"]}
        changed = admin.patch(PRODUCTION, sent_back, if_match=restored["version"]).json
        grown = changed["default_serve"]["split"]
        assert grown["rested"] == [[0, 25_000]]
        assert grown["allocation"] == [[25_000, "off"], [27_000, "on"], [100_000, "off"]]

    def test_a_rollout_can_start_with_it(self, admin: Api, checkout: str) -> None:
        killed = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"}).json
        body = {"kill": killed["kill"]["id"], "reason": "fixed"}
        wrong = body | {"rollout": {"stages": [{"percent": 5}, {"percent": 1}]}}
        refused = admin.post(f"{PRODUCTION}/restore", wrong)
        assert [each["field"] for each in refused.json["errors"]] == ["rollout.stages[1].percent"]
        assert admin.get(PRODUCTION).json["kill"] is not None
        restored = admin.post(
            f"{PRODUCTION}/restore", body | {"rollout": {"template": "careful"}}
        ).json
        assert (restored["kill"], restored["action"]) == (None, "rollout")
        assert restored["default_serve"]["split"]["weights"]["on"] == 1_000
        (rollout,) = admin.get(f"{PRODUCTION}/rollouts").json["items"]
        assert (rollout["state"], rollout["config_version"]) == ("running", restored["version"])

    def test_the_receipt_names_who_has_not_confirmed(
        self, admin: Api, sdk: Api, checkout: str
    ) -> None:
        sdk.post("/sdk/v1/telemetry", SUMMARY)
        killed = admin.post(f"{PRODUCTION}/kill?wait_s=0", {"reason": "smoke"}).json
        assert killed["receipt"]["processes"] == 1
        assert killed["receipt"]["unconfirmed"] == ["i-1"]
        confirmed = SUMMARY | {"sequence": 2, "applied_sequence": killed["sequence"]}
        sdk.post("/sdk/v1/telemetry", confirmed)
        again = admin.post(f"{PRODUCTION}/kill?wait_s=0.5", {"reason": "smoke"}).json
        assert again["receipt"]["confirmed"] == 1
        assert again["receipt"]["unconfirmed"] == []

    def test_waiting_never_takes_all_threads(
        self, app: Flask, admin: Api, sdk: Api, checkout: str
    ) -> None:
        turns = app.extensions["flagd_server"].receipt_turns
        taken = 0
        while turns.acquire(blocking=False):
            taken += 1
        assert taken == 5, "of sixteen threads"
        sdk.post("/sdk/v1/telemetry", SUMMARY)
        started_s = time.monotonic()
        killed = admin.post(f"{PRODUCTION}/kill?wait_s=30", {"reason": "smoke"}).json
        assert time.monotonic() - started_s < 10
        assert killed["receipt"]["unconfirmed"] == ["i-1"]

    @pytest.mark.parametrize("wait", ["-1", "31", "nan", "1e1", "five", "", "1_0", "٣"])
    def test_a_wait_that_is_none_is_named(self, admin: Api, checkout: str, wait: str) -> None:
        refused = admin.post(f"{PRODUCTION}/kill?wait_s={wait}", {"reason": "smoke"})
        assert refused.status_code == 422
        assert [fault["field"] for fault in refused.json["errors"]] == ["query.wait_s"]
        assert admin.get(PRODUCTION).json["kill"] is None

    def test_an_operator_can_not_pass_for_the_guard(self, admin: Api, checkout: str) -> None:
        refused = admin.post(f"{PRODUCTION}/kill", {"reason": "smoke", "source": "guard"})
        assert refused.status_code == 422


class TestHistory:
    def test_every_version_is_kept_page_by_page(self, admin: Api, checkout: str) -> None:
        for number in range(1, 6):
            weights = {"on": number, "off": 100_000 - number}
            body = {"default_serve": {"split": {"weights": weights}}, "comment": f"step {number}"}
            admin.patch(PRODUCTION, body, if_match=number + 1)
        first = admin.get(f"{PRODUCTION}/history?limit=3").json
        assert [item["version"] for item in first["items"]] == [7, 6, 5]
        assert first["items"][0]["comment"] == "step 5"
        rest = admin.get(f"{PRODUCTION}/history?limit=50&before={first['next']}").json
        assert [item["version"] for item in rest["items"]] == [4, 3, 2, 1]
        assert rest["next"] is None

    def test_a_version_is_read_as_it_was(self, admin: Api, checkout: str) -> None:
        then = admin.get(PRODUCTION).json
        admin.patch(PRODUCTION, {"enabled": False}, if_match=2)
        assert admin.get(f"{PRODUCTION}/history/2").json == then
        assert admin.get(f"{PRODUCTION}/history/9").status_code == 404

    @pytest.mark.parametrize("version", ["0", "-1", "x", "9" * 5_000, "1.0", "%D9%A1"])
    def test_a_version_that_can_be_none_is_no_path(
        self, admin: Api, checkout: str, version: str
    ) -> None:
        assert admin.get(f"{PRODUCTION}/history/{version}").status_code == 404

    def test_rolling_back_makes_a_new_version_with_the_old_content(
        self, admin: Api, checkout: str
    ) -> None:
        before = admin.get(PRODUCTION).json
        admin.patch(PRODUCTION, {"default_serve": {"variant": "on"}}, if_match=2)
        back = admin.post(f"{PRODUCTION}/rollback", {"version": 2}, if_match=3).json
        assert back["version"] == 4
        assert back["action"] == "rollback"
        assert back["default_serve"] == before["default_serve"]

    def test_rolling_back_to_nothing_is_refused(self, admin: Api, checkout: str) -> None:
        refused = admin.post(f"{PRODUCTION}/rollback", {"version": 9}, if_match=2)
        assert refused.status_code == 404
        assert admin.get(PRODUCTION).json["version"] == 2

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=-5", "limit"),
            ("limit=ten", "limit"),
            ("limit=" + "9" * 5_000, "limit"),
            ("limit=", "limit"),
            ("limit=5&limit=6", "limit"),
            ("before=0", "before"),
            ("before=9007199254740992", "before"),
            ("before=%00", "before"),
            ("befor=5", "befor"),
        ],
    )
    def test_a_page_that_can_not_be_is_named(
        self, admin: Api, checkout: str, query: str, field: str
    ) -> None:
        refused = admin.get(f"{PRODUCTION}/history?{query}")
        assert refused.status_code == 422
        assert f"query.{field}" in {fault["field"] for fault in refused.json["errors"]}
