"""Last healthy, rollback and release after a fix, over the API: the whole application at work."""

from copy import deepcopy
from typing import Any

import pytest

from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION
from tests.waiting import eventually

DEADLINE_S = 20.0


class Shop:
    """A process that reports as many exposures as the guard has to see."""

    def __init__(self, sdk: Api) -> None:
        operations = {operation.name: operation for operation in contract().operations}
        self._example: dict[str, Any] = deepcopy(operations["report_telemetry"].body_example)
        self._example["local_kills"] = []
        self._sdk = sdk
        self._sequence = int(self._example["sequence"])

    def report(self, version: int, share: float, failing: range | None = None) -> None:
        self._sequence += 1
        on = {**self._example["cells"][0], "config_version": version, "latency": {}}
        on |= {"exposures": 300, "errors": 0, "units": {}}
        off = {**on, "variant": "off", "exposures": int(300 * (1 - share) / share)}
        if failing is not None:
            on["units"] = {"error:KeyError": [f"{number:016x}" for number in failing]}
            on["errors"] = len(failing)
        # The example holds the flag off in its process, which no rollout goes on past.
        summary = {**self._example, "sequence": self._sequence, "cells": [on, off]}
        summary["local_kills"] = []
        answer = self._sdk.post("/sdk/v1/telemetry", summary)
        assert answer.json["accepted"] == 2, answer.json


@pytest.fixture
def shop(sdk: Api) -> Shop:
    return Shop(sdk)


def test_a_bad_stage_is_rolled_back_then_off_then_released_around_those_who_met_it(
    admin: Api, checkout: str, shop: Shop
) -> None:
    nobody = {"split": {"weights": {"on": 0, "off": 100_000}}}
    policy = {"default_serve": nobody, "guard": {"on_breach": "rollback"}}
    admin.patch(PRODUCTION, policy, if_match=2)
    stages = [{"percent": 5}, {"percent": 25, "bake_time_s": 600}]
    started = admin.post(f"{PRODUCTION}/rollouts", {"stages": stages}).json
    rollout = f"{PRODUCTION}/rollouts/{started['id']}"

    shop.report(4, 0.05)
    eventually(lambda: admin.get(rollout).json["stage"] == 1)
    healthy = admin.get(f"{PRODUCTION}/history/4").json
    assert healthy["healthy_at"] is not None
    assert admin.get(PRODUCTION).json["healthy_at"] is None

    shop.report(5, 0.25, range(1, 41))
    back = admin.get(PRODUCTION).json
    assert (back["action"], back["actor"], back["kill"]) == ("rollback", "guard", None)
    assert back["default_serve"] == healthy["default_serve"]
    (listed,) = admin.get(f"{PRODUCTION}/evidence").json["reports"]
    assert listed["action"] == "rollback"
    report = f"{PRODUCTION}/evidence/{listed['id']}"
    done = admin.get(report).json["rollback"]
    assert (done["from_percent"], done["to_percent"], done["to_version"]) == (25, 5, 4)
    assert "rolled back by the guard" in admin.get(f"{report}?format=text").text
    audit = admin.get("/api/v1/audit?flag=new-checkout").json["items"]
    (entry,) = (each for each in audit if each["action"] == "configuration.rollback")
    assert entry["detail"] == {"to_version": 4, "evidence": listed["id"]}
    eventually(lambda: admin.get(rollout).json["state"] == "rolled_back")

    shop.report(6, 0.05, range(100, 140))
    killed = admin.get(PRODUCTION).json
    assert killed["kill"]["source"] == "guard"

    fixed = {"service": "shop", "version": "v42"}
    body = {"kill": killed["kill"]["id"], "fixed_in": fixed, "leave_out_exposed": True}
    split = admin.post(f"{PRODUCTION}/restore", body).json["default_serve"]["split"]
    assert split["rested"] == [[0, 25_000]]
    assert split["allocation"] == [[25_000, "off"], [26_000, "on"], [100_000, "off"]]
    delivered = shop._sdk.get("/sdk/v1/flags").json["flags"][checkout]
    assert delivered["default_serve"]["split"]["allocation"] == split["allocation"]
