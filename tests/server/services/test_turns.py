"""Who sends too many is told to wait, without harm to the others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flagd_server.domain.allowance import Rate
from flagd_server.errors import TooManyReportsError
from flagd_server.services import turns
from flagd_server.services.turns import Turns
from tests.server.services.guarded_world import ENVIRONMENT, World, sdk_token


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """With limits that a test can meet."""
    monkeypatch.setattr(turns, "SUMMARIES_OF_INSTANCE", Rate(1.0, 3.0))
    monkeypatch.setattr(turns, "SUMMARIES_OF_TOKEN", Rate(2.0, 6.0))
    monkeypatch.setattr(turns, "INSTANCES_OF_TOKEN_AN_HOUR", 3)
    world = World(tmp_path / "flagd.db")
    yield world
    world.close()


def alarms(world: World) -> list[str]:
    return sorted(alarm.subject for alarm in world.alarms.list(ENVIRONMENT))


def test_an_instance_that_sends_too_many_waits_and_others_do_not(world: World) -> None:
    world.release()
    for sequence in range(1, 4):
        world.report(sequence, [], after_s=0)
    with pytest.raises(TooManyReportsError, match="instance") as refused:
        world.report(4, [], after_s=0)
    assert refused.value.retry_after_s == 6  # a second, and the middle of the jitter
    for _ in range(9):
        with pytest.raises(TooManyReportsError):
            world.report(4, [], after_s=0)
    assert not world.report(1, [], instance="i-2", after_s=0).duplicate
    assert not world.report(4, [], after_s=1).duplicate
    assert alarms(world) == ["tok-1: summaries of an instance"]
    assert world.capped == [(ENVIRONMENT, "summaries of an instance")] * 10


def test_a_token_that_sends_too_many_waits_and_others_do_not(world: World) -> None:
    world.release()
    for sequence in range(1, 4):
        for instance in ("i-1", "i-2"):
            world.report(sequence, [], instance=instance, after_s=0)
    with pytest.raises(TooManyReportsError, match="token"):
        world.report(1, [], instance="i-3", after_s=0)
    assert not world.report(1, [], instance="i-3", token="tok-2", after_s=0).duplicate


def test_a_token_speaks_for_so_many_instances_an_hour(world: World) -> None:
    world.release()
    for number in range(3):
        world.report(1, [], instance=f"i-{number}")
    with pytest.raises(TooManyReportsError, match="instances of a token"):
        world.report(1, [], instance="i-3")
    assert not world.report(2, [], instance="i-2").duplicate
    assert not world.report(1, [], instance="i-3", after_s=3_600).duplicate


def test_a_flood_is_told_once_an_hour(world: World) -> None:
    world.release()
    for sequence in range(1, 4):
        world.report(sequence, [], after_s=0)
    for _ in range(20):
        with pytest.raises(TooManyReportsError):
            world.report(4, [], after_s=0)
    (alarm,) = world.alarms.list(ENVIRONMENT)
    assert (alarm.count, len(world.capped)) == (20, 20)
    with world.storage.read() as reader:
        assert len(reader.audit(100, action="alarm")) == 1


def test_jitter_spreads_who_comes_again(world: World) -> None:
    drawn = iter((0.0, 0.35, 0.999))
    again = Turns(world.alarms, clock=lambda: 0.0, random=lambda: next(drawn))
    world.release()
    for _ in range(3):
        again.require(ENVIRONMENT, sdk_token(), "i-1")
    waits = []
    for _ in range(3):
        with pytest.raises(TooManyReportsError) as refused:
            again.require(ENVIRONMENT, sdk_token(), "i-1")
        waits.append(refused.value.retry_after_s)
    assert waits == [1, 5, 11]
