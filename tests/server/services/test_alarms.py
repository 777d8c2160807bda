from collections.abc import Iterator

import pytest

from flagd_server.errors import NotFoundError, StorageUnavailableError
from flagd_server.services.alarms import AlarmKind, Alarms
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

CAPPED = AlarmKind.TELEMETRY_CAPPED


@pytest.fixture
def world(database: str) -> Iterator[World]:
    world = World(database)
    world.release()
    yield world
    world.close()


def raise_one(
    world: World, subject: str = "tok-1", detail: str = "too much", flag: str | None = None
) -> None:
    with world.storage.transaction() as tx:
        world.alarms.raise_in(
            tx, ENVIRONMENT, kind=CAPPED, subject=subject, detail=detail, flag=flag
        )


def audited(world: World) -> list[str]:
    with world.storage.read() as reader:
        entries = reader.audit(1_000, action="alarm")
    assert all(entry.target == "alarms/telemetry_capped" for entry in entries)
    return [entry.detail["subject"] for entry in reversed(entries)]


def test_an_alarm_is_one_however_often_it_is_raised(world: World) -> None:
    first_at = world.clock.now()
    raise_one(world, flag=FLAG)
    world.clock.forward(10)
    raise_one(world, detail="still too much", flag=FLAG)
    (alarm,) = world.alarms.list(ENVIRONMENT)
    assert (alarm.kind, alarm.environment, alarm.flag) == (CAPPED, ENVIRONMENT, FLAG)
    assert (alarm.subject, alarm.detail, alarm.count) == ("tok-1", "still too much", 2)
    assert (alarm.first_at, alarm.last_at) == (first_at, world.clock.now())
    assert world.raised == [(ENVIRONMENT, "telemetry_capped")] * 2


def test_the_same_of_two_flags_is_two(world: World) -> None:
    with world.storage.transaction() as tx:
        for flag in ("a", "b", "a"):
            world.alarms.raise_by_name(
                tx, ENVIRONMENT, "sample_ratio", "sample ratio", "too many", flag
            )
    found = {(alarm.flag, alarm.count) for alarm in world.alarms.list(ENVIRONMENT)}
    assert found == {("a", 2), ("b", 1)}


def test_what_the_guard_sets_aside_is_an_alarm(world: World) -> None:
    version = world.version()
    for number in range(3):
        failing = {"error:E": [1_000 * number + n for n in range(10)]}
        world.report(
            1, [cell("off", version, exposures=3_000, failing=failing)], instance=f"i-{number}"
        )
    forged = {"error:Forged": list(range(10_000, 12_000))}
    for sequence in (1, 2):
        cells = [cell("on", version, exposures=2_000, failing=forged)]
        # It still is out of proportion when everybody has had the time to report again.
        world.report(sequence, cells, instance="i-forger", after_s=10)
    assert not world.is_killed()
    (alarm,) = world.alarms.list(ENVIRONMENT)
    assert (alarm.kind, alarm.flag) == (AlarmKind.POISONED_TELEMETRY, FLAG)
    assert "i-forger" in alarm.subject


def test_the_latest_is_listed_first(world: World) -> None:
    for subject in ("a", "b", "a"):
        world.clock.forward(1)
        raise_one(world, subject)
    assert [alarm.subject for alarm in world.alarms.list(ENVIRONMENT)] == ["a", "b"]


def test_the_audit_has_it_once_an_hour(world: World) -> None:
    for _ in range(7):
        raise_one(world)
        world.alarms.raise_now(ENVIRONMENT, kind=CAPPED, subject="tok-1", detail="again")
        world.clock.forward(600)
    raise_one(world, "tok-2")
    assert audited(world) == ["tok-1", "tok-1", "tok-2"]


def test_the_audit_has_it_once_for_several_in_one_transaction(world: World) -> None:
    with world.storage.transaction() as tx:
        for _ in range(3):
            world.alarms.raise_in(tx, ENVIRONMENT, kind=CAPPED, subject="tok-1", detail="x")
    assert audited(world) == ["tok-1"]
    assert world.alarms.list(ENVIRONMENT)[0].count == 3


def test_one_that_was_rolled_back_was_never_raised_and_may_come_again(world: World) -> None:
    def fail() -> None:
        with world.storage.transaction() as tx:
            world.alarms.raise_in(tx, ENVIRONMENT, kind=CAPPED, subject="tok-1", detail="x")
            raise StorageUnavailableError("disk full")

    with pytest.raises(StorageUnavailableError):
        fail()
    assert (world.alarms.list(ENVIRONMENT), world.raised, audited(world)) == ([], [], [])
    raise_one(world)
    assert audited(world) == ["tok-1"]


def test_after_a_restart_the_audit_says_what_was_raised_and_is_not_told_twice(
    world: World,
) -> None:
    raise_one(world)
    alarms = Alarms(world.storage, world.clock)
    (alarm,) = alarms.list(ENVIRONMENT)
    assert (alarm.subject, alarm.detail, alarm.count) == ("tok-1", "too much", 1)
    again = Alarms(world.storage, world.clock)
    with world.storage.transaction() as tx:
        again.raise_in(tx, ENVIRONMENT, kind=CAPPED, subject="tok-1", detail="x")
    again.raise_now(ENVIRONMENT, kind=CAPPED, subject="tok-1", detail="x")
    assert audited(world) == ["tok-1"]
    assert again.list(ENVIRONMENT)[0].count == 3


def test_after_a_restart_one_outside_a_transaction_is_not_told_twice_either(world: World) -> None:
    raise_one(world)
    again = Alarms(world.storage, world.clock)
    again.raise_now(ENVIRONMENT, kind=CAPPED, subject="tok-1", detail="x")
    assert audited(world) == ["tok-1"]
    assert again.list(ENVIRONMENT)[0].count == 2


def test_a_day_later_it_is_history(world: World) -> None:
    raise_one(world)
    world.clock.forward(86_401)
    assert world.alarms.list(ENVIRONMENT) == []
    assert audited(world) == ["tok-1"]


def test_a_flood_of_subjects_is_bounded(world: World) -> None:
    with world.storage.transaction() as tx:
        for number in range(1_500):
            world.alarms.raise_in(tx, ENVIRONMENT, kind=CAPPED, subject=f"tok-{number}", detail="x")
    assert len(world.alarms.list(ENVIRONMENT)) == 1_000


def test_an_environment_made_again_has_none_of_the_one_before(world: World) -> None:
    raise_one(world)
    world.clock.forward(1)
    world.environments.delete(ENVIRONMENT, actor="test")
    with pytest.raises(NotFoundError):
        world.alarms.list(ENVIRONMENT)
    world.environments.create(ENVIRONMENT, "Production", actor="test")
    assert world.alarms.list(ENVIRONMENT) == []
