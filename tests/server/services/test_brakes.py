"""The brake: after five automatic kills a minute a person has to look."""

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.errors import NotFoundError
from tests.server.services.guarded_world import ENVIRONMENT, World, cell

SIX = [f"flag-{number}" for number in range(1, 7)]
BAD = "error:PaymentError"


@pytest.fixture
def world(database: str):
    world = World(database)
    yield world
    world.close()


def fail(world: World, sequence: int, versions: dict[str, int]) -> None:
    """Report, in one summary, a dozen failing users of each flag's treatment."""
    world.report(
        sequence,
        [
            each
            for number, (flag, version) in enumerate(versions.items())
            for each in (
                cell(
                    "on",
                    version,
                    exposures=12,
                    failing={BAD: list(range(number * 100 + 1, number * 100 + 13))},
                    flag=flag,
                ),
                cell("off", version, exposures=36, flag=flag),
            )
        ],
    )


def killed(world: World) -> list[str]:
    known = {flag.key for flag in world.flags.list()}
    return [flag for flag in SIX if flag in known and world.is_killed(flag)]


def brake(world: World) -> tuple[bool, list[str]]:
    engaged, waiting = world.brakes.get(ENVIRONMENT)
    return engaged is not None, waiting


def test_five_kills_a_minute_are_made(world: World) -> None:
    fail(world, 1, {flag: world.release(flag=flag) for flag in SIX[:5]})
    assert killed(world) == SIX[:5]
    assert brake(world) == (False, [])
    assert world.raised == []


def test_the_sixth_is_not_and_a_person_is_called(world: World) -> None:
    fail(world, 1, {flag: world.release(flag=flag) for flag in SIX})
    assert killed(world) == SIX[:5]
    (evidence,) = world.evidence("flag-6")
    assert evidence["action"] == "braked"
    assert evidence["kill"] is None
    assert evidence["decision"]["kill"] is True
    assert brake(world) == (True, ["flag-6"])
    engaged, _ = world.brakes.get(ENVIRONMENT)
    assert engaged is not None
    assert "5 flags within a minute and 'flag-6' is next" in engaged.reason
    assert world.raised == [(ENVIRONMENT, "brake")]


def test_spread_over_more_than_a_minute_six_are_made(world: World) -> None:
    for sequence, flag in enumerate(SIX, start=1):
        fail(world, sequence, {flag: world.release(flag=flag)})
        world.clock.forward(15)
    assert killed(world) == SIX
    assert brake(world) == (False, [])


def test_an_operators_kills_do_not_count(world: World) -> None:
    versions = {flag: world.release(flag=flag) for flag in SIX}
    for flag in SIX[:5]:
        world.kills.kill(ENVIRONMENT, flag, source=KillSource.OPERATOR, reason="drill", actor="ana")
    fail(world, 1, {"flag-6": versions["flag-6"]})
    assert killed(world) == SIX


def test_it_stays_engaged_until_a_person_releases_it(world: World) -> None:
    fail(world, 1, {flag: world.release(flag=flag) for flag in SIX})
    world.clock.forward(3_600)
    fail(world, 2, {"late": world.release(flag="late")})
    assert not world.is_killed("late")
    assert brake(world) == (True, ["flag-6", "late"])


def test_released_the_guard_acts_at_once_on_what_it_had_decided(world: World) -> None:
    """Within the minute too: a person has looked."""
    fail(world, 1, {flag: world.release(flag=flag) for flag in SIX})
    assert world.brakes.release(ENVIRONMENT, actor="ana") == ["flag-6"]
    assert killed(world) == SIX
    assert brake(world) == (False, [])
    assert [row["action"] for row in world.evidence("flag-6")] == ["kill", "braked"]
    with world.storage.read() as reader:
        newest = reader.configuration(ENVIRONMENT, "flag-6")
    assert newest is not None
    assert newest.configuration.kill is not None
    assert newest.configuration.kill.source is KillSource.GUARD
    with pytest.raises(NotFoundError, match="engaged brake"):
        world.brakes.release(ENVIRONMENT, actor="ana")


def test_it_is_not_forgotten_over_a_restart(database: str) -> None:
    first = World(database)
    fail(first, 1, {flag: first.release(flag=flag) for flag in SIX})
    first.close()
    second = World(database, first.clock)
    assert brake(second) == (True, ["flag-6"])
    second.brakes.release(ENVIRONMENT, actor="ana")
    assert killed(second) == SIX
    assert len(second.evidence("flag-6")) == 2
    second.close()


def test_what_a_person_has_killed_or_archived_meanwhile_waits_no_longer(world: World) -> None:
    fail(world, 1, {flag: world.release(flag=flag) for flag in SIX})
    world.clock.forward(60)
    fail(world, 2, {"late": world.release(flag="late"), "later": world.release(flag="later")})
    assert brake(world) == (True, ["flag-6", "late", "later"])
    world.kills.kill(ENVIRONMENT, "flag-6", source=KillSource.OPERATOR, reason="seen", actor="ana")
    world.flags.update("late", {"archived": True}, actor="ana")
    assert brake(world) == (True, ["later"])
    assert world.brakes.release(ENVIRONMENT, actor="ana") == ["later"]
    assert [row["action"] for row in world.evidence("flag-6")] == ["braked"]
    assert [row["action"] for row in world.evidence("late")] == ["braked"]


def test_each_environment_has_its_own(world: World) -> None:
    fail(world, 1, {flag: world.release(flag=flag) for flag in SIX})
    world.environments.create("staging", "Staging", actor="test")
    assert world.brakes.get("staging") == (None, [])
    with pytest.raises(NotFoundError):
        world.brakes.get("nowhere")
