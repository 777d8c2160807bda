"""What happens in the demo: released in steps, broken on the way, killed by nobody here."""

import time
from dataclasses import dataclass
from typing import Any

import requests

from examples.demo.admin import AdminApi
from examples.demo.figures import LEAST_NEW, LEAST_OLD, Kill, first_fault_at, unix_time
from examples.demo.processes import Cluster
from examples.demo.replay import Replay
from examples.demo.timeline import Timeline
from examples.shop.app import NEW_CHECKOUT

# (share in percent, seconds before the next step)
STAGES = ((1, 3.0), (5, 4.0), (25, 6.0))
FAULT_SHARE = 1 / 3
_KILL_WITHIN_S = 20.0
_HEALTHY_S = 10.0
_HEALTHY_AT_MOST_S = 90.0
_AFTERWARDS_S = 3.0
_LOOK_EVERY_S = 0.2
_ROW_EVERY_S = 2.0
_ROW_EVERY_S_AFTERWARDS = 10.0
_RECEIPT_WITHIN_S = 20.0
_SHOP_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Story:
    """One run. It only does what people do; what kills the flag is the server.

    Attributes:
        log_length: requests in the log; after as many it starts over.
        percent: the share of visitors that the flag is released to.
    """

    cluster: Cluster
    admin: AdminApi
    replay: Replay
    timeline: Timeline
    log_length: int
    percent: int = 0
    _row_every_s: float = _ROW_EVERY_S
    _row_at: float = 0.0
    _fault_is_told: bool = False
    _rounds_told: int = 0

    def run(self, *, is_healthy: bool) -> Kill | None:
        """Release the flag, break it unless told otherwise, and return its kill if one comes."""
        kill = self._release()
        if kill is None and is_healthy:
            kill = self._watch_healthy()
        elif kill is None:
            self.timeline.event(
                "FAULT   from now on the payment provider refuses a third of what the new "
                "checkout charges"
            )
            self.break_payments(FAULT_SHARE)
            kill = self._watch(_KILL_WITHIN_S)
        if kill is None:
            return None
        told = self._tell(kill)
        self._after(_AFTERWARDS_S)
        return told

    def look_around(self) -> None:
        """Keep the traffic flowing until someone stops the demo, and tell what changes."""
        self._row_every_s = _ROW_EVERY_S_AFTERWARDS
        known = self.admin.kill()
        while True:
            self._pass_time()
            kill = self.admin.kill()
            if kill is not None and (known is None or kill["id"] != known["id"]):
                self._tell(kill)
            elif kill is None and known is not None:
                self.timeline.event(f"RESTORED {NEW_CHECKOUT} is served again")
            known = kill
            if kill is None:
                self._row_when_due()

    def break_payments(self, share: float) -> None:
        """Have the new checkout's payment provider refuse this share of the charges."""
        for url in self.cluster.shops.values():
            requests.put(f"{url}/demo/fault", json={"share": share}, timeout=_SHOP_TIMEOUT_S)

    def _release(self) -> dict[str, Any] | None:
        self.admin.create_flag()
        self.timeline.event(f"CREATE  {NEW_CHECKOUT}, a boolean flag; it is off everywhere")
        for percent, seconds in STAGES:
            self.admin.release(percent)
            self.percent = percent
            self.timeline.event(f"RELEASE {NEW_CHECKOUT} to {percent} % of the visitors")
            if percent == STAGES[0][0]:
                self.timeline.head()
            if (kill := self._watch(seconds)) is not None:
                return kill
        return None

    def _watch(self, seconds: float) -> dict[str, Any] | None:
        """Look on, and return the kill should there be one."""
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            self._pass_time()
            self._tell_first_fault()
            if (kill := self.admin.kill()) is not None:
                return kill
            self._row_when_due()
        return None

    def _watch_healthy(self) -> dict[str, Any] | None:
        """Look on until enough visitors have come, which a busy machine takes longer for."""
        ends_at = time.monotonic() + _HEALTHY_AT_MOST_S
        kill = self._watch(_HEALTHY_S)
        while kill is None and time.monotonic() < ends_at:
            answered = self.replay.answered_by
            if answered["new"] >= LEAST_NEW and answered["old"] >= LEAST_OLD:
                break
            kill = self._watch(1.0)
        return kill

    def _pass_time(self) -> None:
        time.sleep(_LOOK_EVERY_S)
        self.cluster.check()
        rounds = self.replay.answered // self.log_length
        if rounds > self._rounds_told:
            self._rounds_told = rounds
            self.timeline.event("VISITS  the log is through and starts over, with other visitors")

    def _row_when_due(self) -> None:
        if time.monotonic() >= self._row_at:
            self._row_at = time.monotonic() + self._row_every_s
            self.timeline.row(self.percent, self.admin.running_evidence())

    def _tell_first_fault(self) -> None:
        if not self._fault_is_told:
            at = first_fault_at(self.replay.answers())
            if at is not None:
                self._fault_is_told = True
                self.timeline.event("        the first request fails because of the flag", at)

    def _tell(self, document: dict[str, Any]) -> Kill:
        kill = self._learn(document)
        say = self.timeline.detail
        self.timeline.event(f"KILL    {NEW_CHECKOUT} is off, by the {kill.source}", kill.at)
        say("why", kill.reason)
        for row in kill.evidence.get("error_kinds", ()):
            if row["variant"] == "on" and "Error" in row["kind"]:
                say("error", f"{row['sample']} (at {row['where']}, {row['count']} times so far)")
        for name, delay in kill.delays_ms.items():
            say(name, f"had it off {delay:.1f} ms after the decision")
        confirmed, processes = kill.receipt["confirmed"], kill.receipt["processes"]
        say("receipt", f"{confirmed} of {processes} processes have confirmed to the server")
        return kill

    def _learn(self, document: dict[str, Any]) -> Kill:
        """Collect what the server and the shops know of a kill."""
        receipt = self.admin.receipt(_RECEIPT_WITHIN_S)
        applied_at = {}
        for name, url in self.cluster.shops.items():
            answer = requests.get(f"{url}/demo/changes", timeout=_SHOP_TIMEOUT_S).json()
            times = [
                row["at"] for row in answer["changes"] if row["sequence"] >= receipt["sequence"]
            ]
            if times:
                applied_at[name] = min(times)
        evidence = document["evidence"]
        return Kill(
            id=document["id"],
            at=unix_time(document["at"]),
            source=document["source"],
            reason=document["reason"],
            evidence=self.admin.evidence(evidence) if evidence else {},
            applied_at=applied_at,
            receipt=receipt,
            page=self.admin.evidence_page(evidence) if evidence else "",
        )

    def _after(self, seconds: float) -> None:
        """Let the visitors go on for a while, to see whether the failures have ended."""
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            self._pass_time()
