"""What a flag's policy makes of a decision, and that a change of it starts a new life."""

import pytest

from flagd_server.domain.guard_policy import complete_policy
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"


@pytest.fixture
def world(database: str):
    world = World(database)
    yield world
    world.close()


def fail(world: World, sequence: int, version: int, kind: str = BAD) -> None:
    first = 100 * sequence
    world.report(
        sequence,
        [
            cell("on", version, exposures=20, failing={kind: list(range(first, first + 20))}),
            cell("off", version, exposures=60),
        ],
    )


def running(world: World) -> dict:
    found = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("policy", "action", "mode"),
    [
        ({}, "kill", "enforce"),
        ({"on_breach": "hold"}, "hold", "enforce"),
        ({"mode": "observe"}, "none", "observe"),
        ({"mode": "observe", "on_breach": "hold"}, "none", "observe"),
    ],
    ids=str,
)
def test_what_follows_a_decision_is_the_policys(
    world: World, policy: dict[str, str], action: str, mode: str
) -> None:
    version = world.release(guard=policy)
    fail(world, 1, version)
    (evidence,) = world.evidence()
    assert (evidence["action"], evidence["mode"]) == (action, mode)
    assert evidence["decision"]["kill"] is True
    assert world.is_killed() is (action == "kill")
    assert (evidence["kill"] is not None) is (action == "kill")


def test_one_that_is_held_is_reported_once_and_stays_on(world: World) -> None:
    version = world.release(guard={"on_breach": "hold"})
    for sequence in range(1, 6):
        fail(world, sequence, version)
    assert len(world.evidence()) == 1
    assert not world.is_killed()
    assert running(world)["decision"]["kill"] is True
    assert world.brakes.get(ENVIRONMENT) == (None, [])


def test_a_harm_budget_reaches_the_guard_and_the_report(world: World) -> None:
    version = world.release(guard={"harm_budget": 30, "alpha": 1e-9})
    for sequence in range(1, 20):
        # The same unit again and again: no evidence, but harm.
        on = cell("on", version, exposures=5, failing={BAD: [7]})
        world.report(sequence, [on, cell("off", version, exposures=15)])
    assert not world.is_killed()
    for sequence in range(20, 40):
        on = cell("on", version, exposures=5, failing={BAD: [7]})
        world.report(sequence, [on, cell("off", version, exposures=15)])
    (evidence,) = world.evidence()
    assert evidence["decision"]["guard"] == "harm_budget"
    assert evidence["harm"] == {"budget": 30, "excess": 30.0}


def test_a_latency_fault_is_killed_with_its_report(world: World) -> None:
    version = world.release()
    fail(world, 1, version, kind="slow:p99")
    (evidence,) = world.evidence()
    assert evidence["decision"]["guard"] == "latency"
    assert evidence["decision"]["stream"] == "slow:p99, life"


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.01},
        {"guards": ["error_rate"]},
        {"slow": ["p90"]},
        {"harm_budget": 5},
        {"on_breach": "hold"},
        {"on_burn": "kill"},
        {"mode": "observe"},
        {"control": "on"},
    ],
    ids=str,
)
def test_a_change_of_policy_is_a_version_and_starts_a_new_life(
    world: World, change: dict[str, object]
) -> None:
    version = world.release()
    world.report(1, [cell("on", version, failing={BAD: [1]}), cell("off", version)])
    before = running(world)
    changed = world.patch(guard=change)
    assert changed == version + 1
    with world.storage.read() as reader:
        rows = [reader.configuration_version(ENVIRONMENT, FLAG, n) for n in (version, changed)]
    assert [row.configuration.guard for row in rows if row is not None] == [
        complete_policy({}),
        complete_policy(change),
    ]
    world.report(2, [cell("on", changed), cell("off", changed)])
    after = running(world)
    assert after["life"] != before["life"]
    assert all(row["treatment"]["failing_units"] == 0 for row in after["comparisons"])
    # A late report of the old version belongs to the old life.
    world.report(3, [cell("on", version, failing={BAD: list(range(200, 230))})])
    assert not world.is_killed()


def test_the_same_policy_again_starts_no_new_life(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version), cell("off", version)])
    before = running(world)["life"]
    world.release(share=30_000, guard={"alpha": 0.001})
    world.report(2, [])
    assert running(world)["life"] == before
