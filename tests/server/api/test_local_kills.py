"""Flags that processes took off by themselves: told, shown, lifted."""

from copy import deepcopy
from typing import Any

import pytest
from flask import Flask

from flagd_server.api.wiring import EXTENSION
from flagd_server.services import local_kills as module
from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

TELEMETRY = "/sdk/v1/telemetry"
KILLS = f"{PRODUCTION}/local-kills"


class Process:
    """One that reports, with nothing counted."""

    def __init__(self, sdk: Api, instance: str = "i-1") -> None:
        operations = {operation.name: operation for operation in contract().operations}
        self.example = deepcopy(operations["report_telemetry"].body_example)
        self.kill: dict[str, Any] = self.example["local_kills"][0]
        self._sdk = sdk
        self._instance = instance
        self._sequence = 0

    def tell(self, *kills: dict[str, Any]) -> Any:
        """Report that these stand; return the reply."""
        self._sequence += 1
        answer = self._sdk.post(
            TELEMETRY,
            {
                **self.example,
                "instance": self._instance,
                "sequence": self._sequence,
                "cells": [],
                "error_kinds": [],
                "local_kills": list(kills),
            },
        )
        assert answer.status_code == 200, answer.json
        return answer.json


@pytest.fixture
def process(sdk: Api, checkout: str) -> Process:
    return Process(sdk)


def listed(admin: Api) -> tuple[int, list[dict[str, Any]]]:
    answer = admin.get(KILLS).json
    return answer["processes"], answer["items"]


def test_what_a_process_tells_is_listed_audited_alarmed_and_measured(
    admin: Api, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    assert listed(admin) == (0, [])
    assert process.tell(process.kill)["refused"] == []
    process.tell(process.kill)
    processes, (item,) = listed(admin)
    assert processes == 1
    assert {name: item[name] for name in process.kill} == process.kill
    assert item["reason"].startswith("13 of 13 units with error:KeyError had 'on'")
    assert (item["instance"], item["standing"], item["ended_at"]) == ("i-1", True, None)
    audit = admin.get("/api/v1/audit?environment=production").json["items"]
    (entry,) = [each for each in audit if each["action"] == "local_kill"]
    assert (entry["flag"], entry["actor"]) == ("new-checkout", "local breaker")
    assert entry["detail"]["instance"] == "i-1"
    (alarm,) = admin.get("/api/v1/environments/production/alarms").json["items"]
    assert (alarm["kind"], alarm["subject"], alarm["count"]) == ("local_kill", "new-checkout", 1)
    assert "process i-1 took flag new-checkout in production off by itself" in caplog.text
    metrics = admin.get("/metrics").text.splitlines()
    assert 'flagd_local_kills_total{environment="production"} 1.0' in metrics
    assert 'flagd_local_kills_standing{environment="production"} 1.0' in metrics
    evidence = admin.get(f"{PRODUCTION}/evidence")
    assert evidence.json["watch"]["held_off_in"] == 1
    text = admin.get(f"{PRODUCTION}/evidence?format=text").text
    assert "In 1 process the flag is off by the evidence of that process alone" in text


def test_the_flag_is_off_nowhere_else(sdk: Api, admin: Api, process: Process) -> None:
    """The guard has the events of all processes; the word of one takes nothing off."""
    before = sdk.get("/sdk/v1/flags").json
    process.tell(process.kill)
    assert sdk.get("/sdk/v1/flags").json == before
    assert admin.get(PRODUCTION).json["kill"] is None


def test_what_a_process_names_no_longer_is_over_and_may_come_again(
    admin: Api, process: Process
) -> None:
    process.tell(process.kill)
    process.tell()
    processes, (item,) = listed(admin)
    assert (processes, item["standing"]) == (0, False)
    assert item["ended_at"] is not None
    process.tell(process.kill)
    processes, (item,) = listed(admin)
    assert (processes, item["ended_at"]) == (1, None)


def test_processes_that_share_a_disk_share_a_kill(sdk: Api, admin: Api, process: Process) -> None:
    other = Process(sdk, "i-2")
    process.tell(process.kill)
    other.tell(other.kill)
    processes, items = listed(admin)
    assert (processes, len(items)) == (2, 2)
    audit = admin.get("/api/v1/audit?environment=production").json["items"]
    assert sum(each["action"] == "local_kill" for each in audit) == 1
    process.tell()
    assert listed(admin)[0] == 1


def test_a_lift_reaches_each_process_with_its_next_summary(
    sdk: Api, admin: Api, process: Process
) -> None:
    other, later = Process(sdk, "i-2"), {**process.kill, "id": "local-later"}
    assert process.tell(process.kill)["lifted"] == []
    other.tell(other.kill)
    body = {"kills": [process.kill["id"]], "reason": "it was one machine"}
    for _ in range(2):
        answer = admin.post(f"{KILLS}/lift", body)
        assert (answer.status_code, answer.json) == (200, {"lifted": [process.kill["id"]]})
    assert process.tell(process.kill, later)["lifted"] == [process.kill["id"]]
    assert other.tell(other.kill)["lifted"] == [process.kill["id"]]
    assert other.tell()["lifted"] == []
    restarted = Process(sdk, "i-3")
    assert restarted.tell(restarted.kill)["lifted"] == [process.kill["id"]], "from its disk"
    audit = admin.get("/api/v1/audit?environment=production").json["items"]
    (entry,) = [each for each in audit if each["action"] == "local_kill.lift"]
    assert (entry["comment"], entry["detail"]["kills"]) == (body["reason"], body["kills"])
    assert {row["id"]: row["lifted_by"] is not None for row in listed(admin)[1]} == {
        process.kill["id"]: True,
        "local-later": False,
    }


def test_what_nobody_told_of_can_not_be_lifted(admin: Api, process: Process) -> None:
    process.tell(process.kill)
    answer = admin.post(f"{KILLS}/lift", {"kills": [process.kill["id"], "local-9"]})
    assert answer.status_code == 404
    assert process.tell(process.kill)["lifted"] == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [({"flag": "nothing"}, "no version 2 of a flag"), ({"config_version": 99}, "no version 99")],
    ids=["unknown flag", "unknown version"],
)
def test_a_kill_of_what_there_is_not_is_refused_by_itself(
    admin: Api, process: Process, fault: dict[str, Any], message: str
) -> None:
    bad = {**process.kill, "id": "local-bad", **fault}
    (refused,) = process.tell(process.kill, bad)["refused"]
    assert refused["field"] == "local_kills[1].flag"
    assert message in refused["message"]
    assert len(listed(admin)[1]) == 1


def test_how_many_are_kept_is_bounded(
    admin: Api, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    kills = [{**process.kill, "id": f"local-{number}"} for number in range(5)]
    assert len(process.tell(*kills)["refused"]) == 2
    assert len(listed(admin)[1]) == 3


def test_only_who_may_restore_may_lift(with_scope: Any, process: Process) -> None:
    process.tell(process.kill)
    body = {"kills": [process.kill["id"]]}
    for scope in ("read", "kill"):
        assert with_scope(scope).post(f"{KILLS}/lift", body).status_code == 403
    assert with_scope("read").get(KILLS).status_code == 200


def test_what_the_memory_lost_the_storage_knows(app: Flask, admin: Api, process: Process) -> None:
    process.tell(process.kill)
    app.extensions[EXTENSION].local_kills.forget()
    process.tell()
    assert listed(admin)[1][0]["ended_at"] is not None
