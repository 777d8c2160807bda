"""Splits that share a salt on purpose place every unit alike: a fault of one shows in both."""

from random import Random

import pytest

from flagd_server.storage.release_records import HealthyVersion
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"
OTHER = "new-basket"


@pytest.fixture
def world(database: str):
    world = World(database)
    yield world
    world.close()


def fail_both(world: World, older: int, newer: int) -> None:
    """A unit a second fails that has both flags, the one that was changed first judged first."""
    for sequence in range(1, 30):
        failing = {BAD: [sequence]}
        world.report(
            sequence,
            [
                cell("on", older, exposures=5, failing=failing),
                cell("off", older, exposures=15),
                cell("on", newer, exposures=5, failing=failing, flag=OTHER),
                cell("off", newer, exposures=15, flag=OTHER),
            ],
        )
        if any(row["action"] in ("kill", "rollback") for row in world.evidence()):
            return
        if world.is_killed(OTHER):
            return


def releases(world: World, **newer_policy: object) -> tuple[int, int]:
    older = world.release(salt="pair")
    world.clock.forward(60)
    newer = world.release(flag=OTHER, salt="pair", **newer_policy)
    return older, newer


def life_of(world: World, flag: str) -> int:
    running = world.guarding.running_evidence(ENVIRONMENT, flag)
    assert running is not None
    return int(running["life"])


def test_the_one_changed_last_goes_first_and_the_other_starts_anew(world: World) -> None:
    older, newer = releases(world)
    world.report(100, [cell("on", older), cell("on", newer, flag=OTHER)], instance="i-0")
    before = life_of(world, FLAG)
    fail_both(world, older, newer)
    assert (world.is_killed(FLAG), world.is_killed(OTHER)) == (False, True)
    assert life_of(world, FLAG) != before
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    assert running["comparisons"] == []
    assert world.guarding.running_evidence(ENVIRONMENT, OTHER) is None


def test_the_reports_name_both(world: World) -> None:
    fail_both(world, *releases(world))
    (deferred,), (kill,) = world.evidence(FLAG), world.evidence(OTHER)
    assert deferred["action"] == "deferred"
    assert deferred["shared_salt"] == {"flags": [OTHER], "goes_first": OTHER, "decided_on": None}
    assert kill["action"] == "kill"
    assert kill["shared_salt"] == {"flags": [FLAG], "goes_first": None, "decided_on": FLAG}
    standing = world.configurations.get(ENVIRONMENT, OTHER).configuration.kill
    assert standing is not None
    assert standing.evidence == kill["id"]


def test_if_that_did_not_help_the_other_is_killed_next(world: World) -> None:
    older, newer = releases(world)
    fail_both(world, older, newer)
    for sequence in range(101, 140):
        world.report(
            sequence,
            [
                cell("on", older, exposures=5, failing={BAD: [sequence]}),
                cell("off", older, exposures=15),
            ],
        )
    assert world.is_killed(FLAG)


@pytest.mark.parametrize("policy", [{"mode": "observe"}, {"on_breach": "hold"}], ids=str)
def test_one_that_is_not_to_be_killed_does_not_go_first(
    world: World, policy: dict[str, str]
) -> None:
    fail_both(world, *releases(world, guard=policy))
    assert (world.is_killed(FLAG), world.is_killed(OTHER)) == (True, False)


def test_one_that_goes_back_does_so_for_its_own_figures_only(world: World) -> None:
    """Whose figures are another flag's has no share that they speak of, and goes off."""
    world.release(5_000, flag=OTHER, salt="pair", guard={"on_breach": "rollback"})
    mark_healthy(world, OTHER)
    fail_both(world, *releases(world))
    assert world.is_killed(OTHER)
    (report,) = world.evidence(OTHER)
    assert report["action"] == "kill"
    assert "another flag" in report["not_rolled_back"]


def test_after_a_rollback_the_other_starts_anew(world: World) -> None:
    world.release(5_000, salt="pair", guard={"on_breach": "rollback"})
    healthy = mark_healthy(world, FLAG)
    older, newer = releases(world, guard={"on_breach": "hold"})
    world.report(100, [cell("on", older), cell("on", newer, flag=OTHER)], instance="i-0")
    before = life_of(world, OTHER)
    fail_both(world, older, newer)
    (report,) = world.evidence(FLAG)
    assert (report["action"], report["rollback"]["to_version"]) == ("rollback", healthy)
    assert life_of(world, OTHER) != before


def mark_healthy(world: World, flag: str) -> int:
    version = world.version(flag)
    with world.storage.transaction() as tx:
        tx.mark_healthy(HealthyVersion(ENVIRONMENT, flag, version, world.clock.at, ""))
    return version


def test_one_whose_units_show_nothing_is_no_suspect(world: World) -> None:
    older, newer = releases(world)
    for sequence in range(1, 30):
        world.report(
            sequence,
            [
                cell("on", older, exposures=5, failing={BAD: [sequence]}),
                cell("off", older, exposures=15),
                cell("on", newer, flag=OTHER),
                cell("off", newer, flag=OTHER),
            ],
        )
    assert (world.is_killed(FLAG), world.is_killed(OTHER)) == (True, False)
    assert world.evidence(FLAG)[0]["shared_salt"]["flags"] == []


@pytest.mark.parametrize("seed", range(5))
def test_flags_with_salts_of_their_own_are_not_blamed_for_a_bad_neighbour(
    world: World, seed: int
) -> None:
    """Both are evaluated in the same scopes; whoever has the bad one fails in the other, too."""
    random = Random(f"neighbours {seed}")
    bad, healthy = world.release(), world.release(share=50_000, flag=OTHER)
    users = [(unit, random.random() < 0.25, random.random() < 0.5) for unit in range(1, 4_001)]
    for sequence in range(1, 120):
        exposed = {(flag, side): 0 for flag in (FLAG, OTHER) for side in ("on", "off")}
        failing = {key: set[int]() for key in exposed}
        for unit, has_bad, has_healthy in random.sample(users, 40):
            fails = random.random() < (0.30 if has_bad else 0.02)
            for flag, has_it in ((FLAG, has_bad), (OTHER, has_healthy)):
                key = (flag, "on" if has_it else "off")
                exposed[key] += 1
                if fails:
                    failing[key].add(unit)
        world.report(
            sequence,
            [
                cell(
                    side,
                    bad if flag == FLAG else healthy,
                    exposures=count,
                    failing={BAD: sorted(failing[flag, side])},
                    flag=flag,
                )
                for (flag, side), count in exposed.items()
                if not (flag == FLAG and world.is_killed(FLAG))
            ],
        )
    assert (world.is_killed(FLAG), world.is_killed(OTHER)) == (True, False)
