"""Rollouts and gates in one server: what hangs holds up its own rollout only."""

import time
from collections.abc import Callable
from typing import Any

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.end_to_end.telemetry import cell, summary
from tests.server.strange_servers import hanging, serving

GATE = "/api/v1/environments/production/gates/before-more"
FLAGS = ("gated", "free")


class Traffic:
    """Serves both variants of both flags, without a fault."""

    def __init__(self, server: FlagServer) -> None:
        self._server = server
        self._sequence = 0

    def serve(self) -> None:
        self._sequence += 1
        cells = []
        for flag in FLAGS:
            version = rollout(self._server, flag)["config_version"]
            cells += [cell(flag, name, version, exposures=300) for name in ("on", "off")]
        token = self._server.sdk_tokens["production"]
        answer = self._server.call(
            "POST", "/sdk/v1/telemetry", summary(self._sequence, cells), token=token
        )
        assert answer.status_code == 200, answer.text


def rollout(server: FlagServer, flag: str) -> Any:
    path = f"/api/v1/flags/{flag}/environments/production/rollouts"
    (document,) = server.call("GET", path).json()["items"]
    return document


def until(traffic: Traffic, condition: Callable[[], Any]) -> Any:
    ends = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not come"
        traffic.serve()
        time.sleep(0.2)
    return found


def test_a_gate_that_hangs_holds_up_its_own_rollout_until_it_is_mended(
    start_server: Callable[..., FlagServer],
) -> None:
    server = start_server(FLAGD_OUTGOING_ALLOW="127.0.0.1")
    weights = {"on": 1_000, "off": 99_000}
    for flag in FLAGS:
        server.create_flag(flag, default_serve={"split": {"weights": weights}})
    with serving(hanging) as stuck:
        gate = {"health_checks": [f"{stuck.url}/healthz"]}
        assert server.call("PUT", GATE, gate).status_code == 201
        for flag, gates in (("gated", ["before-more"]), ("free", [])):
            stages = [{"percent": 10, "gates": gates}, {"percent": 20}]
            path = f"/api/v1/flags/{flag}/environments/production/rollouts"
            started = server.call("POST", path, {"stages": stages})
            assert started.status_code == 201, started.text
        traffic = Traffic(server)
        until(traffic, lambda: rollout(server, "free")["state"] == "completed")

        verdict = server.call("GET", f"{GATE}/verdict").json()
        assert verdict["verdict"] == "inconclusive"
        assert "gave no answer within 5 s" in verdict["reasons"][0]["detail"]
        traffic.serve()
        held = rollout(server, "gated")
        assert (held["state"], held["stage"]) == ("waiting", 0)
        assert [wait["what"] for wait in held["waiting_for"]] == ["gate:before-more"]

    # Whoever mends it need not touch the rollout.
    assert server.call("PUT", GATE, {"approval": True}).status_code == 200
    reasons = server.call("GET", f"{GATE}/verdict").json()["reasons"]
    assert [reason["detail"] for reason in reasons] == ["waits for a person's approval"]
    server.call("POST", f"{GATE}/approve", {"reason": "the health check was wrong"})
    until(traffic, lambda: rollout(server, "gated")["state"] == "completed")
    moves = [move["move"] for move in rollout(server, "gated")["moves"]]
    assert moves.count("advance") == 1, moves
