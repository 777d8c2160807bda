"""Verdicts: gathered from what is here, asked for in the background, and never waited for."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.gate_verdicts import Verdict
from flagd_server.domain.gates import (
    Deployment,
    GateDefinition,
    GuardCheck,
    MinExposures,
    SloCheck,
)
from flagd_server.domain.health import Health, Reason
from flagd_server.domain.objectives import PrometheusSource
from flagd_server.errors import NotFoundError, OutgoingTimeoutError
from flagd_server.services.asking import Asking
from flagd_server.services.gate_facts import GateFacts
from flagd_server.services.gate_verdicts import GateVerdicts
from flagd_server.services.gates import Gates
from flagd_server.services.notices import Topic
from flagd_server.services.publishing import Publisher
from flagd_server.services.slo_states import SloStates
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell
from tests.waiting import eventually

BAD = "error:PaymentError"
GOOD, RED, DUNNO = Health.HEALTHY, Health.UNHEALTHY, Health.INCONCLUSIVE
HEALTH = GateDefinition(health_checks=("http://a/healthz",))


class FakeHttp:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.body = b""
        self.is_hanging = False
        self.hangs_s = 0.5
        self.released = threading.Event()

    def get(self, url: str, timeout_s: float) -> tuple[int, bytes]:
        self.asked.append(url)
        if self.is_hanging:
            self.released.wait(self.hangs_s)
            raise OutgoingTimeoutError("it gave no answer")
        return self.status, self.body


class GateWorld(World):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.http = FakeHttp()
        # The timeout says when an answer is too old, and the machine may stand still for a while.
        self.asking = Asking(self.http, every_s=0.1, timeout_s=60.0, rest_s=0.1)
        self.states = SloStates(self.storage, self.asking, self.clock)
        self.blamed: list[Reason] = []
        facts = GateFacts(self.asking, self.states, self.guarding, self, self.clock)
        self.verdicts = GateVerdicts(self.storage, facts, self.asking, self.clock, every_s=0.05)
        publisher = Publisher(self.clock)
        self.notices.on(Topic.GATE, self.verdicts.note_change)
        self.gates = Gates(self.storage, publisher)
        self.on = self.release(share=50_000)
        self._sequence = 0

    def close(self) -> None:
        self.http.released.set()
        self.verdicts.close()
        self.asking.close()
        super().close()

    def deployment_health(
        self, environment: str, service: str, version: str
    ) -> tuple[Health, list[Reason]]:
        return Health.UNHEALTHY, [
            Reason("traffic", Health.INCONCLUSIVE, "too little traffic"),
            Reason("flag a", Health.UNHEALTHY, "told by its own guard"),
            *self.blamed,
        ]

    def put(self, definition: GateDefinition) -> None:
        self.gates.put(ENVIRONMENT, "canary", definition, actor="ann")

    def serve(self, exposures: int = 500, **more: Any) -> None:
        """Report exposures of both variants, without failures."""
        self._sequence += 1
        version = self.version()
        cells = [cell(variant, version, exposures=exposures) for variant in ("on", "off")]
        assert self.report(self._sequence, cells, **more).refused == ()

    def kill(self, flag: str = FLAG) -> None:
        self.kills.kill(
            ENVIRONMENT, flag, source=KillSource.OPERATOR, reason="it is slow", actor="ann"
        )

    def ask(self) -> Verdict:
        return self.verdicts.get(ENVIRONMENT, "canary")[0]

    def says(self, word: Health, detail: str) -> None:
        verdict = self.ask()
        assert verdict.word is word, verdict
        assert any(detail in reason.detail for reason in verdict.reasons), verdict


@pytest.fixture
def world(database: str) -> Iterator[GateWorld]:
    world = GateWorld(database)
    yield world
    world.close()


class TestFacts:
    def test_a_flag_without_traffic_is_not_seen(self, world: GateWorld) -> None:
        world.put(GateDefinition(guard=GuardCheck(flags=(FLAG,))))
        world.says(DUNNO, f"nobody watches flag {FLAG}")
        world.serve(10)
        world.says(DUNNO, "cannot see: 'on' was served 10 times")
        world.serve()
        world.says(GOOD, "nothing against it")
        world.clock.forward(120)
        world.says(DUNNO, "cannot see: nobody has reported an exposure of split 'default' for 60")

    def test_a_killed_flag_is_unhealthy(self, world: GateWorld) -> None:
        world.put(GateDefinition(guard=GuardCheck(flags=(FLAG,))))
        world.serve()
        world.kill()
        world.says(RED, "was killed by ann")

    def test_a_flag_that_the_guard_killed_is_unhealthy(self, world: GateWorld) -> None:
        world.put(GateDefinition(guard=GuardCheck(flags=(FLAG,))))
        version = world.version()
        failing = {BAD: list(range(60))}
        cells = [
            cell("on", version, exposures=500, failing=failing),
            cell("off", version, exposures=500),
        ]
        world.report(1, cells)
        assert world.is_killed()
        world.says(RED, "was killed by guard")

    def test_a_flag_that_is_gone_is_unknown(self, world: GateWorld) -> None:
        world.put(GateDefinition(guard=GuardCheck(flags=(FLAG,)), approval=True))
        world.flags.update(FLAG, {"archived": True}, expected_version=1, actor="ann")
        world.says(DUNNO, f"there is no flag {FLAG} here")

    def test_a_deployment_is_known_by_what_it_reports(self, world: GateWorld) -> None:
        deployment = Deployment("shop", "v2")
        world.put(GateDefinition(guard=GuardCheck(deployment=deployment)))
        world.serve(service_version="v1")
        world.says(DUNNO, "version v2 of shop: nothing reports it")
        world.serve(service_version="v2", instance="i-2")
        world.says(GOOD, f"the guard of flag {FLAG} sees")
        world.kill()
        world.says(RED, "was killed by ann")

    def test_a_deployment_whose_version_is_to_blame_is_unhealthy(self, world: GateWorld) -> None:
        world.blamed.append(
            Reason("verdict", Health.UNHEALTHY, "v2 fails ten times as often as v1")
        )
        world.put(GateDefinition(guard=GuardCheck(deployment=Deployment("shop", "v2"))))
        world.says(DUNNO, "nothing reports it")
        world.serve(service_version="v2", instance="i-2")
        world.says(RED, "v2 fails ten times as often as v1")

    def test_a_kill_of_before_a_deployment_is_not_its_doing(self, world: GateWorld) -> None:
        world.put(GateDefinition(guard=GuardCheck(deployment=Deployment("shop", "v2"))))
        world.serve(service_version="v1")
        world.kill()
        world.clock.forward(60)
        off = [cell("off", world.version(), exposures=500, split=None)]
        world.report(1, off, service_version="v2", instance="i-2")
        world.says(GOOD, "none of the 1 flags that version v2 of shop serves is split")

    def test_exposures_count_since_the_last_change(self, world: GateWorld) -> None:
        world.put(GateDefinition(min_exposures=MinExposures(FLAG, 1_000)))
        world.says(DUNNO, "0 exposures of new-checkout since version 2")
        world.serve(499)
        world.says(DUNNO, "998 exposures")
        world.serve(1)
        world.says(GOOD, "1000 exposures")
        world.release(share=60_000)
        world.says(DUNNO, "0 exposures of new-checkout since version 3")

    def test_an_error_budget_is_that_of_the_service(self, world: GateWorld) -> None:
        world.slos.put(ENVIRONMENT, "shop", 0.99, actor="ann")
        world.put(GateDefinition(slo=SloCheck("shop", 0.5)))
        world.says(DUNNO, "nothing is known of the error budget")
        world.serve()
        world.says(GOOD, "100.0% of the error budget is left")
        world.slos.delete(ENVIRONMENT, "shop", actor="ann")
        world.says(DUNNO, "no objective here any more")

    def test_prometheus_is_asked_for_an_objective_that_it_counts(self, world: GateWorld) -> None:
        source = PrometheusSource("http://prom", "failing[$window]")
        world.slos.put(ENVIRONMENT, "shop", 0.99, source=source, actor="ann")
        world.put(GateDefinition(slo=SloCheck("shop", 0.5)))
        world.http.body = (
            b'{"status":"success","data":{"resultType":"scalar","result":[1,"0.002"]}}'
        )
        world.says(GOOD, "80.0% of the error budget is left")
        assert len(world.http.asked) >= 8

    def test_an_approval_counts_at_once_and_for_its_time(self, world: GateWorld) -> None:
        world.put(GateDefinition(approval=True))
        world.says(DUNNO, "waits for a person's approval")
        world.gates.approve(
            ENVIRONMENT, "canary", reason="fine", valid_for=timedelta(hours=1), actor="bob"
        )
        world.says(GOOD, "bob approved")
        world.clock.forward(3_601)
        world.says(DUNNO, "approve again")


class TestWaiting:
    def test_the_first_answer_is_waited_for(self, world: GateWorld) -> None:
        world.put(HEALTH)
        world.says(GOOD, "answered 200")
        assert world.http.asked[0] == "http://a/healthz"

    def test_one_that_hangs_costs_its_timeout(self, world: GateWorld) -> None:
        world.put(HEALTH)
        world.http.is_hanging = True
        began = time.monotonic()
        world.says(DUNNO, "it gave no answer")
        assert 0.5 <= time.monotonic() - began < 20

    def test_memory_answers_at_once_and_knows_nothing_at_first(self, world: GateWorld) -> None:
        world.put(HEALTH)
        world.http.is_hanging, world.http.hangs_s = True, 60.0
        began = time.monotonic()
        verdict = world.verdicts.verdict(ENVIRONMENT, "canary")
        assert time.monotonic() - began < 20
        assert verdict.word is DUNNO
        assert "is being looked at" in verdict.against()
        world.http.released.set()
        eventually(
            lambda: "gave no answer" in world.verdicts.verdict(ENVIRONMENT, "canary").against()
        )

    def test_what_was_asked_for_is_kept_fresh(self, world: GateWorld) -> None:
        world.put(HEALTH)
        eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is GOOD)
        world.http.status = 500
        eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is RED)
        assert world.verdicts.is_green(ENVIRONMENT, "canary") == (
            False,
            "http://a/healthz answered 500",
        )
        world.http.status = 200
        eventually(lambda: world.verdicts.is_green(ENVIRONMENT, "canary") == (True, ""))

    def test_a_change_is_not_answered_from_memory(self, world: GateWorld) -> None:
        world.put(HEALTH)
        eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is GOOD)
        world.put(GateDefinition(approval=True))
        assert world.verdicts.verdict(ENVIRONMENT, "canary").word is DUNNO
        eventually(lambda: "approval" in world.verdicts.verdict(ENVIRONMENT, "canary").against())

    def test_a_verdict_on_what_the_gate_was_before_is_dropped(
        self, world: GateWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The gate is changed while it is being looked at."""
        world.put(HEALTH)
        world.ask()
        gather = GateFacts.gather
        words = []

        def gather_slowly(self: GateFacts, reader: Any, gate: Any) -> Any:
            facts = gather(self, reader, gate)
            if gate.definition == HEALTH:
                world.put(GateDefinition(approval=True))
            else:
                time.sleep(0.1)  # for which what was said before would stand
            return facts

        monkeypatch.setattr(GateFacts, "gather", gather_slowly)

        def has_changed() -> bool:
            words.append(world.verdicts.verdict(ENVIRONMENT, "canary").word)
            return "approval" in world.verdicts.verdict(ENVIRONMENT, "canary").against()

        words.clear()
        world.put(HEALTH)
        eventually(has_changed)
        assert set(words) == {DUNNO}

    def test_a_gate_that_is_gone_is_not_green(self, world: GateWorld) -> None:
        world.put(HEALTH)
        eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is GOOD)
        world.gates.delete(ENVIRONMENT, "canary", actor="ann")
        assert world.verdicts.verdict(ENVIRONMENT, "canary").word is DUNNO
        eventually(lambda: "no gate" in world.verdicts.verdict(ENVIRONMENT, "canary").against())
        with pytest.raises(NotFoundError, match="canary"):
            world.ask()

    def test_memory_is_asked_within_a_transaction(self, world: GateWorld) -> None:
        world.put(HEALTH)
        with world.storage.transaction() as tx:
            assert world.verdicts.exists(tx, ENVIRONMENT, "canary")
            assert not world.verdicts.exists(tx, ENVIRONMENT, "none")
            eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is GOOD)

    def test_a_verdict_that_nobody_renews_grows_old(
        self, world: GateWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.put(HEALTH)
        eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is GOOD)
        world.verdicts.close()
        looked_at = world.verdicts._watched[ENVIRONMENT, "canary"].judged_at
        monkeypatch.setattr(
            "flagd_server.services.gate_verdicts.time.monotonic", lambda: looked_at + 60
        )
        assert "last looked at 60 s ago" in world.verdicts.verdict(ENVIRONMENT, "canary").against()

    def test_a_database_that_can_not_be_read_is_not_health(self, world: GateWorld) -> None:
        world.put(HEALTH)
        eventually(lambda: world.verdicts.verdict(ENVIRONMENT, "canary").word is GOOD)
        world.ingestion.close()
        world.storage.close()
        eventually(lambda: "closed" in world.verdicts.verdict(ENVIRONMENT, "canary").against())
