"""Runs the releases, with a line an event; 0 says that all went as it should."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests

from examples.demo.processes import Cluster, ProcessFailedError
from examples.demo.timeline import Timeline, complain
from examples.releases.api import ENVIRONMENT, Api, place, wait_for
from examples.releases.fleet import SERVICE, Fleet
from examples.releases.tools import Tools

STAGES = [{"percent": p, "bake_time_s": 4, "min_exposures": 300} for p in (1, 5, 25, 50, 100)]
_ENDED = ("completed", "aborted", "killed", "rolled_back")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.releases", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("all", "flags", "versions"), default="all")
    part = parser.parse_args().part
    try:
        with (
            TemporaryDirectory(prefix="flagd-releases-") as folder,
            Cluster(Path(folder)) as cluster,
        ):
            cluster.start_server()
            api = Api(cluster.url, cluster.admin_token)
            with Fleet(cluster.url, cluster.sdk_token) as fleet:
                _Story(api, fleet).run(part)
    except (TimeoutError, AssertionError, ProcessFailedError, requests.RequestException) as error:
        complain(str(error))
        return 1
    return 0


class _Story:
    def __init__(self, api: Api, fleet: Fleet) -> None:
        self.api = api
        self.fleet = fleet
        self.line = Timeline()
        self.tools = Tools(api)

    def run(self, part: str) -> None:
        self.api.create("good")
        self.api.create("bad", on_breach="rollback")
        self.api.create("steady")
        self.fleet.start("v1", 3)
        self.line.event("three processes of version v1, one request in 500 fails")
        if part != "versions":
            self._two_releases()
        if part != "flags":
            self._a_bad_version()
            self._a_bad_flag()
        self.line.event(f"{self.fleet.requests} requests in all")

    def _two_releases(self) -> None:
        """A good release goes through by itself; a bad one goes back to where it was healthy."""
        for flag in ("good", "bad"):
            self.api.ask("POST", f"{place(flag)}/rollouts", {"stages": STAGES})
        shown: dict[str, int] = {"good": 0, "bad": 0}

        def both_ended() -> bool | None:
            rollouts = {flag: self.api.rollout(flag) for flag in shown}
            for flag, rollout in rollouts.items():
                for move in rollout["moves"][shown[flag] :]:
                    self._tell(flag, move)
                shown[flag] = len(rollout["moves"])
            # The fault is in code that the first visitors do not reach.
            self.fleet.fault.by_flag["bad"] = 0.08 if self.api.percent("bad") >= 25 else 0.0
            return all(each["state"] in _ENDED for each in rollouts.values()) or None

        wait_for(both_ended, 240.0, "the end of both rollouts")
        good, bad = self.api.rollout("good"), self.api.rollout("bad")
        assert (good["state"], self.api.percent("good")) == ("completed", 100.0), good["state"]
        assert (bad["state"], self.api.percent("bad")) == ("rolled_back", 5.0), bad["state"]
        (report, *_) = self.api.ask("GET", f"{place('bad')}/evidence")["reports"]
        self.line.detail("because", str(report["decision"]["reason"]))
        self.line.event("bad is back at 5 %; now those visitors run into the fault as well")
        self.fleet.fault.by_flag["bad"] = 0.3
        kill = wait_for(lambda: self.api.ask("GET", place("bad"))["kill"], 60.0, "the kill")
        self.line.event(f"bad is off, by {kill['by']}: {kill['reason']}")

    def _a_bad_version(self) -> None:
        """A bad version with a healthy flag: the verdict is `version`, and no flag is killed."""
        self.fleet.fault.by_flag.clear()
        self._serve("steady", 50_000)
        self.fleet.fault.by_version["v2"] = 0.05
        self.fleet.start("v2", 1)
        self.line.event("version v2 beside v1: one of its requests in 20 fails, whatever the flag")
        state = self._verdict("v2", "version")
        self._tell_verdict(state)
        killed = [f for f in ("good", "steady") if self.api.ask("GET", place(f))["kill"]]
        assert killed == [], f"killed: {killed}"
        self.line.detail("flags", "none was killed")
        self.fleet.stop("v2")

    def _a_bad_flag(self) -> None:
        """The other way round: a good version with a flag that hurts; and what the tools hear."""
        self.fleet.start("v3", 1)
        self.tools.make_gate("steady")
        wait_for(lambda: self.tools.argo()["ok"] or None, 60.0, "a healthy gate")
        self._tell_tools({"confirm-traffic-increase": 200, "rollback": 403}, "healthy")
        self.fleet.fault.by_flag["steady"] = 0.05
        self.line.event("version v3 is well; now one request in 20 fails where 'steady' is on")
        kill = wait_for(lambda: self.api.ask("GET", place("steady"))["kill"], 120.0, "the kill")
        self.line.event(f"'steady' was killed by {kill['by']}: {kill['reason']}")
        wait_for(lambda: not self.tools.argo()["ok"] or None, 30.0, "a gate that says no")
        self._tell_tools({"confirm-traffic-increase": 403, "rollback": 200}, "unhealthy")
        self._tell_verdict(self._verdict("v3", "flag"))

    def _tell_tools(self, flagger: dict[str, int], argo: str) -> None:
        answers = {hook: self.tools.flagger(hook) for hook in flagger}
        verdict = self.tools.argo()["verdict"]
        assert (answers, verdict) == (flagger, argo), f"{answers}, {verdict}"
        for hook, status in answers.items():
            self.line.detail("Flagger", f"{hook} is answered {status}")
        self.line.detail("Argo", f"reads {verdict}")

    def _verdict(self, version: str, expected: str) -> dict[str, Any]:
        def judged() -> dict[str, Any] | None:
            listed = self.api.ask(
                "GET", f"/api/v1/deployments?environment={ENVIRONMENT}&service={SERVICE}"
            )["items"]
            for deployment in listed:
                if deployment["version"] == version:
                    state = self.api.ask("GET", f"/api/v1/deployments/{deployment['id']}")
                    return state if state["verdict"]["verdict"] == expected else None
            return None

        return wait_for(judged, 300.0, f"the verdict {expected!r} on {version}")

    def _tell_verdict(self, state: dict[str, Any]) -> None:
        self.line.event(f"verdict on {state['version']}: {state['verdict']['verdict']}")
        self.line.detail("because", "; ".join(state["verdict"]["reasons"]))

    def _serve(self, flag: str, weight: int) -> None:
        version = self.api.ask("GET", place(flag))["version"]
        split = {"weights": {"on": weight, "off": 100_000 - weight}}
        self.api.ask(
            "PATCH",
            place(flag),
            {"enabled": True, "default_serve": {"split": split}},
            **{"If-Match": f'"{version}"'},
        )

    def _tell(self, flag: str, move: dict[str, Any]) -> None:
        if move["move"] in ("start", "advance", "complete", "roll_back", "kill"):
            share = "" if move["percent"] is None else f"{move['percent']:g} %"
            self.line.event(f"{flag:5} {move['move']:9} {share:6} {move['reason']}")


if __name__ == "__main__":
    sys.exit(main())
