"""A server that is ended or stopped while its guard decides: one kill, one report, afterwards."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from flagd_server.clock import SystemClock
from flagd_server.domain.times import format_time
from flagd_server.storage import open_reader
from tests.end_to_end import dying_server
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.fleet import TAKEN_OVER_WITHIN_S, Fleet
from tests.waiting import eventually

FLAG = "new-checkout"
PATH = f"/api/v1/flags/{FLAG}/environments/production"
FAILING = 40


def summary(version: int) -> dict[str, Any]:
    """Forty visitors of a quarter failed, and nobody of the other three."""
    now = format_time(SystemClock().now())
    hashes = [f"{number:016x}" for number in range(1, FAILING + 1)]
    on = {
        "flag": FLAG,
        "split": "default",
        "variant": "on",
        "config_version": version,
        "exposures": 250,
        "errors": FAILING,
        "units": {"error:KeyError": hashes},
    }
    off = on | {"variant": "off", "exposures": 750, "errors": 0, "units": {}}
    return {
        "instance": "i-1",
        "sequence": 1,
        "service": "shop",
        "service_version": "1",
        "applied_sequence": 0,
        "started_at": now,
        "ended_at": now,
        "cells": [on, off],
    }


@pytest.mark.parametrize("moment", dying_server.MOMENTS)
def test_there_is_one_kill_and_one_report(tmp_path: Path, moment: str) -> None:
    marker = tmp_path / "died"
    program = [dying_server.__file__, moment, str(marker), "SIGKILL"]
    server = FlagServer(tmp_path, program=program)
    try:
        weights = {"on": 25_000, "off": 75_000}
        server.create_flag(FLAG, default_serve={"split": {"weights": weights}})
        version = server.call("GET", PATH).json()["version"]
        token = server.sdk_tokens["production"]
        decisive = summary(version)

        with pytest.raises(requests.RequestException):
            server.call("POST", "/sdk/v1/telemetry", decisive, token=token)
        assert marker.exists()
        server.wait_for(r"listening again on ")
        # The process was told nothing, so it sends the summary again, as it is.
        again = server.call("POST", "/sdk/v1/telemetry", decisive, token=token).json()
        assert again["duplicate"] is (moment == dying_server.BEFORE_ANSWER)

        kill = server.call("GET", PATH).json()["kill"]
        assert kill["source"] == "guard"
        history = server.call("GET", f"{PATH}/history").json()["items"]
        assert [row["action"] for row in history].count("kill") == 1
        evidence = server.call("GET", f"{PATH}/evidence").json()
        assert [report["id"] for report in evidence["reports"]] == [kill["evidence"]]
        assert evidence["running"] is None
        audit = server.call("GET", f"/api/v1/audit?flag={FLAG}").json()["items"]
        assert sum("kill" in row["action"] for row in audit) == 1
        served = server.call("GET", "/sdk/v1/flags", token=token).json()
        assert served["flags"][FLAG]["kill"]["id"] == kill["id"]
        report = server.call("GET", f"{PATH}/evidence/{kill['evidence']}").json()
        assert report["comparisons"][0]["treatment"]["failing_units"] == FAILING

        third = server.call("POST", "/sdk/v1/telemetry", decisive, token=token).json()
        assert third["duplicate"] is True
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("ending", "moment"),
    [
        ("SIGKILL", dying_server.BEFORE_COMMIT),
        ("SIGKILL", dying_server.BEFORE_ANSWER),
        ("SIGSTOP", dying_server.BEFORE_COMMIT),
    ],
)
def test_of_two_servers_the_other_decides_what_the_leader_did_not(
    start_fleet: Callable[..., Fleet], tmp_path: Path, ending: str, moment: str
) -> None:
    marker = tmp_path / "died"
    fleet = start_fleet(2, [dying_server.__file__, moment, str(marker), ending])
    follower = fleet.follower
    workers = {server.worker_pid: server for server in fleet.servers}
    weights = {"on": 25_000, "off": 75_000}
    follower.create_flag(FLAG, default_serve={"split": {"weights": weights}})
    version = follower.call("GET", PATH).json()["version"]
    # By the other one, which keeps it for the leader.
    token = follower.sdk_tokens["production"]
    sent = follower.ask("POST", "/sdk/v1/telemetry", summary(version), token=token)
    assert sent.status_code == 200, sent.text
    pid = int(eventually(lambda: marker.exists() and marker.read_text()))
    at = time.monotonic()
    # Who led then: a pause of the machine may have let another one take over.
    leader = workers[pid]
    follower = next(server for server in fleet.servers if server is not leader)
    if ending == "SIGKILL":
        leader.crash()
    try:
        eventually(lambda: _is_killed(follower), every_s=0.05)
        killed_s = time.monotonic() - at
        print(f"killed {killed_s:.2f} s after {ending} of the leader {moment}")
        assert killed_s < TAKEN_OVER_WITHIN_S
    finally:
        if ending == "SIGSTOP":
            os.kill(pid, signal.SIGCONT)
    if ending == "SIGSTOP":
        eventually(lambda: _is_killed(leader), every_s=0.05)
        leads = eventually(lambda: fleet.leader)
        again = leads.ask("POST", "/sdk/v1/telemetry", summary(version), token=token)
        assert again.json()["duplicate"] is True
    with open_reader(fleet.database) as reader:
        reports = reader.list_evidence("production", FLAG)
        history = reader.history("production", FLAG, 100)
        counted = sum(row.exposures for row in reader.counts("production", FLAG, 0))
        newest = reader.configuration("production", FLAG)
    assert [json.loads(row.document)["action"] for row in reports] == ["kill"]
    assert [row.action for row in history].count("kill") == 1
    assert newest is not None
    assert newest.configuration.kill is not None
    assert [row.id for row in reports] == [newest.configuration.kill.evidence]
    assert counted == 1_000


def _is_killed(server: FlagServer) -> bool:
    """Return whether its applications are told so: out of its memory."""
    token = server.sdk_tokens["production"]
    flags = server.call("GET", "/sdk/v1/flags", token=token).json()["flags"]
    return bool(flags[FLAG].get("kill"))
