"""Objectives fed by what is reported here, and by what Prometheus says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagd_sdk.core.latency import latency_bucket
from flagd_server.domain.answers import Answer, Question, Sample, Samples, Unknown
from flagd_server.domain.objectives import (
    BUDGET,
    LatencyObjective,
    ObjectiveState,
    PrometheusSource,
    SloState,
)
from flagd_server.errors import NotFoundError
from flagd_server.services.slo_states import SloStates
from tests.server.services.guarded_world import ENVIRONMENT, World, cell

BAD = "error:PaymentError"
FAST, SLOW = latency_bucket(50_000), latency_bucket(500_000)


class FakeAnswering:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Answer | None = None
        self.by_part: dict[str, Answer] = {}

    def ask(self, question: Question) -> Answer | None:
        self.asked.append(question.url)
        for part, answer in self.by_part.items():
            if part in question.url:
                return answer
        return self.answer


class SloWorld(World):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.answering = FakeAnswering()
        self.states = SloStates(self.storage, self.answering, self.clock)
        self.version_on = self.release()
        self._sequence = 0

    def hold(self, availability: float = 0.99, **more: object) -> None:
        self.slos.put(ENVIRONMENT, "shop", availability, actor="ann", **more)  # type: ignore[arg-type]

    def serve(self, exposures: int, failing: int = 0, slow: int = 0, **more: object) -> None:
        """Report so many exposures, and so many failures besides, within a second."""
        self._sequence += 1
        one = cell(
            "on",
            self.version_on,
            exposures=exposures,
            failing={BAD: list(range(failing))} if failing else {},
            latency={FAST: exposures - slow, SLOW: slow},
        )
        accepted = self.report(self._sequence, [one], **more)  # type: ignore[arg-type]
        assert accepted.refused == ()

    def state(self) -> SloState:
        return self.states.get(ENVIRONMENT, "shop")

    def availability(self) -> ObjectiveState:
        return self.state().objectives[0]


@pytest.fixture
def world(database: str) -> Iterator[SloWorld]:
    world = SloWorld(database)
    yield world
    world.close()


def test_a_service_is_counted_from_when_it_is_held_to_something(world: SloWorld) -> None:
    world.serve(1_000, 500)
    world.hold()
    assert world.availability().windows[BUDGET].events == 0
    assert world.availability().budget_left is None
    world.serve(1_000, 5)
    counted = world.availability().windows[BUDGET]
    assert (counted.events, counted.bad) == (1_000, 5)
    assert world.availability().budget_left == pytest.approx(0.5)


def test_windows_forget_and_the_budget_remembers(world: SloWorld) -> None:
    world.hold()
    world.serve(1_000, 100)

    def burns() -> list[float | None]:
        found = [world.availability().burn(name) for name in ("5m", "1h", "1d", "3d", BUDGET)]
        return [None if burn is None else round(burn, 6) for burn in found]

    assert burns() == [10] * 5
    world.clock.forward(400)
    world.serve(1_000)
    assert burns() == [0, 5, 5, 5, 5]
    world.clock.forward(3_700)
    world.serve(2_000)
    assert burns() == [0, 0, 2.5, 2.5, 2.5]
    world.clock.forward(25 * 3_600)
    assert burns() == [None, None, None, 2.5, 2.5]
    world.clock.forward(3 * 24 * 3_600)
    assert burns() == [None, None, None, None, 2.5]
    world.clock.forward(31 * 24 * 3_600)
    assert burns() == [None] * 5


def test_pruning_leaves_what_a_window_needs(world: SloWorld) -> None:
    world.hold(window_days=90)
    world.serve(1_000, 100)
    world.clock.forward(23.5 * 3_600)
    world.serve(1)  # prunes
    assert world.availability().burn("1d") == pytest.approx(10, rel=0.01)
    world.clock.forward(88 * 24 * 3_600)
    world.serve(1)
    assert world.availability().burn(BUDGET) == pytest.approx(10, rel=0.01)
    world.clock.forward(4 * 24 * 3_600)
    world.serve(1)
    world.ingestion.close()  # prunes after it has acknowledged
    with world.storage.read() as reader:
        assert reader.service_sums(ENVIRONMENT, "shop", 0, by_hour=True).exposures == 2


def test_a_request_is_an_exposure_of_each_flag_it_meets(world: SloWorld) -> None:
    world.hold()
    other = world.release(flag="banner")
    on = world.version_on
    world.report(
        1,
        [
            cell("on", on, exposures=60, failing={BAD: [1, 2]}),
            cell("off", on, exposures=40),
            cell("on", other, exposures=70, flag="banner", failing={BAD: [1, 2]}),
        ],
    )
    state = world.state()
    counted = state.objectives[0].windows[BUDGET]
    assert (counted.events, counted.bad, state.requests) == (170, 4, 100)


def test_what_the_guard_does_not_hear_spends_no_budget(world: SloWorld) -> None:
    world.hold()
    world.serve(1_000, 1_000, kind="client", token="tok-web", instance="page")
    world.serve(100, service="other", instance="i-2")
    assert world.availability().windows[BUDGET].events == 0


def test_a_summary_sent_again_spends_the_budget_once(world: SloWorld) -> None:
    world.hold()
    cells = [cell("on", world.version_on, exposures=10)]
    for _ in range(2):
        world.report(7, cells)
    assert world.availability().windows[BUDGET].events == 10


def test_slow_exposures_spend_the_budget_of_the_latency_objective(world: SloWorld) -> None:
    world.hold(latency=LatencyObjective(0.3, 0.9))
    world.serve(1_000, slow=50)
    availability, latency = world.state().objectives
    assert (availability.name, availability.budget_left) == ("availability", 1.0)
    assert (latency.name, latency.budget_left) == ("latency", pytest.approx(0.5))
    assert latency.burn("5m") == pytest.approx(0.5)


def test_another_threshold_counts_slowness_anew(world: SloWorld) -> None:
    world.hold(latency=LatencyObjective(0.3, 0.9))
    world.serve(1_000, slow=50)
    world.hold(latency=LatencyObjective(0.3, 0.95))
    assert world.state().objectives[1].windows[BUDGET].events == 1_000
    world.hold(latency=LatencyObjective(0.6, 0.95))
    assert world.state().objectives[1].windows[BUDGET].events == 0
    assert world.availability().windows[BUDGET].events == 1_000
    world.serve(1_000, slow=50)
    assert world.state().objectives[1].budget_left == 1.0


def test_what_is_not_there_is_named(world: SloWorld) -> None:
    with pytest.raises(NotFoundError, match="shop"):
        world.state()
    with pytest.raises(NotFoundError, match="nowhere"):
        world.states.questions("nowhere", "shop")


def test_all_states_are_those_of_every_environment(world: SloWorld) -> None:
    world.hold()
    world.environments.create("staging", "Staging", actor="ann")
    world.slos.put("staging", "api", 0.9, actor="ann")
    assert [(s.environment, s.service) for s in world.states.all()] == [
        ("production", "shop"),
        ("staging", "api"),
    ]


def test_the_counts_survive_a_restart(database: str) -> None:
    first = SloWorld(database)
    first.hold()
    first.serve(100, 1)
    first.close()
    second = World(database, first.clock)
    states = SloStates(second.storage, FakeAnswering(), second.clock)
    assert states.get(ENVIRONMENT, "shop").objectives[0].budget_left == pytest.approx(0)
    second.close()


class TestPrometheus:
    SOURCE = PrometheusSource("http://prom:9090/", "bad[$window] + $window", "slow[$window]")

    def hold(self, world: SloWorld) -> None:
        world.hold(0.99, latency=LatencyObjective(0.3, 0.9), source=self.SOURCE, window_days=28)

    def test_each_window_is_a_query(self, world: SloWorld) -> None:
        self.hold(world)
        world.answering.answer = Samples((Sample("", 0.005),))
        world.answering.by_part = {"slow%5B28d%5D": Samples((Sample("", 0.02),))}
        availability, latency = world.state().objectives
        assert availability.budget_left == pytest.approx(0.5)
        assert latency.budget_left == pytest.approx(0.8)
        assert availability.windows["5m"].events is None
        assert len(set(world.answering.asked)) == 16
        assert world.answering.asked[0] == (
            "http://prom:9090/api/v1/query?query=bad%5B5m%5D+%2B+5m"
        )
        asked = [question.url for question in world.states.questions(ENVIRONMENT, "shop")]
        assert sorted(asked) == sorted(set(world.answering.asked))

    def test_what_is_reported_here_does_not_count(self, world: SloWorld) -> None:
        self.hold(world)
        world.answering.answer = Samples((Sample("", 0.0),))
        world.serve(100, 100)
        assert world.availability().budget_left == 1.0

    @pytest.mark.parametrize(
        ("answer", "fault"),
        [
            (None, "not answered yet"),
            (Unknown("it hangs"), "it hangs"),
            (Samples(()), "expected one number, got nothing"),
            (Samples((Sample("", float("nan")),)), "expected one number, got nan"),
            (Samples((Sample("", float("inf")),)), "got inf"),
            (Samples((Sample("a", 0.1), Sample("b", 0.2))), "got 0.1, 0.2"),
            (Samples((Sample("", 1.5),)), "a share from 0 to 1, got 1.5"),
            (Samples((Sample("", -0.5),)), "a share from 0 to 1, got -0.5"),
        ],
    )
    def test_what_is_missing_is_not_known_and_why(
        self, world: SloWorld, answer: Answer | None, fault: str
    ) -> None:
        self.hold(world)
        world.answering.answer = answer
        state = world.state()
        assert [objective.budget_left for objective in state.objectives] == [None, None]
        assert state.alert is None
        assert len(state.faults) == 16
        assert all(fault in one for one in state.faults)
        assert state.faults[0].startswith("failing over 5m: ")
        json.dumps(state.to_document(), allow_nan=False)
