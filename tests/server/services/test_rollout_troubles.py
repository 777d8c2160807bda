"""Rollouts that can't go on: each says why, and none keeps another from going on."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.release import Plan
from flagd_server.domain.restart import Restore
from flagd_server.domain.rollout import Move, State
from flagd_server.domain.stages import Stage
from flagd_server.errors import ConflictError
from flagd_server.services.healthy import HealthWatch
from flagd_server.storage.release_records import RolloutRecord
from tests.server.services.guarded_world import ENVIRONMENT, FLAG
from tests.server.services.released_world import STAGES, Release


@pytest.fixture
def release(database: str) -> Iterator[Release]:
    release = Release(database)
    release.world.release(0)
    yield release
    release.world.close()


@pytest.mark.parametrize("document", ["{}", "no JSON", '{"id": "ro-0", "state": "flying"}'])
def test_one_that_cannot_be_read_keeps_no_other_from_going_on(
    release: Release, document: str, caplog: pytest.LogCaptureFixture
) -> None:
    release.world.release(0, flag="broken")
    broken = RolloutRecord(
        "ro-0", ENVIRONMENT, "broken", is_open=True, version=1, document=document
    )
    with release.world.storage.transaction() as tx:
        tx.insert_rollout(broken)
    release.start()  # comes after it
    release.forward(16)
    assert release.percent == 5.0
    logged = [row for row in caplog.records if "ro-0" in row.getMessage()]
    assert len(logged) == 1


def test_one_that_is_paused_before_its_date_is_not_resumed_before_it(release: Release) -> None:
    at = release.world.clock.at + timedelta(seconds=60)
    release.start(starts_at=at)
    release.steer(Move.PAUSE)
    resumed = release.steer(Move.RESUME)
    assert (resumed.state, resumed.stage, release.percent) == (State.SCHEDULED, None, 0.0)
    with pytest.raises(ConflictError):
        release.steer(Move.RESUME)
    release.forward(58)
    assert release.percent == 0.0
    release.forward(3)
    assert (release.rollout.state, release.percent) == (State.RUNNING, 1.0)


def test_one_whose_date_passed_while_it_was_paused_is_resumed_at_once(release: Release) -> None:
    release.start(starts_at=release.world.clock.at + timedelta(seconds=5))
    release.steer(Move.PAUSE)
    release.forward(10)
    assert release.percent == 0.0
    assert release.steer(Move.RESUME).state is State.RUNNING
    assert release.percent == 1.0


def test_one_that_may_not_start_at_its_date_says_why(release: Release) -> None:
    release.start(starts_at=release.world.clock.at + timedelta(seconds=5))
    release.held_off_in = 2
    release.forward(4)
    assert release.rollout.waiting_for == ()
    release.forward(5)
    rollout = release.rollout
    assert (rollout.state, release.percent) == (State.SCHEDULED, 0.0)
    assert [wait.what for wait in rollout.waiting_for] == ["decision"]
    assert "2 of the processes" in rollout.waiting_for[0].detail
    release.held_off_in = 0
    release.forward(1)
    assert release.percent == 1.0


def test_one_whose_flag_is_archived_waits_and_says_so(release: Release) -> None:
    release.world.patch(guard={"mode": "off"})
    release.start()
    release.forward(5, traffic=False)
    release.world.flags.update(FLAG, {"archived": True}, actor="test")
    release.forward(30, traffic=False)
    rollout = release.rollout
    assert (rollout.state, rollout.stage) == (State.WAITING, 0)
    assert "archived" in rollout.waiting_for[0].detail
    with pytest.raises(ConflictError, match="archived"):
        release.steer(Move.ADVANCE)
    release.world.flags.update(FLAG, {"archived": False}, actor="test")
    release.forward(12, traffic=False)
    assert release.percent == 5.0


def test_a_gate_that_comes_and_goes_is_told_once(release: Release) -> None:
    release.gates.green["slo"] = False
    release.start(Stage(1.0, bake_time_s=3_600.0, gates=("slo",)), Stage(5.0))
    for n in range(40):
        release.gates.green["slo"] = n % 2 == 0
        release.forward(1)
    moves = [moved.move for moved in release.rollout.moves]
    assert moves.count(Move.WAIT) > 10
    told = [told.text for told in release.told if told.kind == "waiting"]
    assert len([text for text in told if "gate" in text]) == 1
    release.now_s += 3_600
    for green in (True, False):
        release.gates.green["slo"] = green
        release.forward(1)
    told = [told.text for told in release.told if told.kind == "waiting"]
    assert len([text for text in told if "gate" in text]) == 2


def test_exposures_are_those_of_the_variant_in_its_split_since_the_stage_began(
    release: Release,
) -> None:
    release.start(Stage(1.0, min_exposures=1_000_000), Stage(5.0, min_exposures=4_000), Stage(25.0))
    release.forward(4)
    release.steer(Move.ADVANCE)
    release.forward(3)
    wait = next(each for each in release.rollout.waiting_for if each.what == "exposures")
    assert "0 of 4000" in wait.detail
    release.forward(4)
    assert release.percent == 5.0
    release.forward(2)
    assert release.percent == 25.0


def test_a_kill_ends_one_that_is_paused_before_its_date(release: Release) -> None:
    release.start(starts_at=release.world.clock.at + timedelta(days=1))
    release.steer(Move.PAUSE)
    release.world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="bad", actor="bob"
    )
    release.forward(1)
    assert release.rollout.state is State.KILLED
    with pytest.raises(ConflictError, match="is killed"):
        release.steer(Move.RESUME)


def test_a_dated_one_skips_no_stage_because_somebody_served_more_meanwhile(
    release: Release,
) -> None:
    release.start(starts_at=release.world.clock.at + timedelta(seconds=5))
    release.world.release(3_000)
    release.forward(8)
    rollout = release.rollout
    assert (rollout.state, release.percent) == (State.PAUSED, 3.0)
    assert "more is served already" in rollout.moves[-1].reason
    assert release.steer(Move.RESUME).stage == 1
    assert release.percent == 5.0


def test_what_was_changed_by_hand_can_prove_healthy_while_its_rollout_is_paused(
    release: Release,
) -> None:
    watch = HealthWatch(
        release.world.storage, release.world.guarding, release.world.clock, after_s=60.0
    )
    release.start()
    release.world.release(7_000)
    release.forward(1)
    assert release.rollout.state is State.PAUSED
    for _ in range(12):
        release.forward(10)
        watch.tick(release.now_s)
    assert release.world.configurations.get(ENVIRONMENT, FLAG).healthy_at is not None


def test_a_kill_ends_it_even_if_it_was_lifted_before_anybody_looked(release: Release) -> None:
    release.start()
    release.forward(3)
    killed = release.world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="bad", actor="bob"
    )
    release.world.kills.restore(ENVIRONMENT, FLAG, Restore(killed.kill.id, "fixed"), actor="eve")
    release.world.release(500)
    with pytest.raises(ConflictError):
        release.steer(Move.ADVANCE)
    release.forward(1)
    rollout = release.rollout
    assert (rollout.state, rollout.moves[-1].by) == (State.KILLED, "bob")


def test_a_kill_of_before_a_rollout_is_nothing_to_it(release: Release) -> None:
    killed = release.world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="bad", actor="bob"
    )
    release.world.kills.restore(ENVIRONMENT, FLAG, Restore(killed.kill.id, "fixed"), actor="eve")
    release.start()
    release.forward(20)
    assert release.percent == 5.0


def test_nobody_resumes_past_a_rollback_that_the_rollout_has_not_seen_yet(
    release: Release,
) -> None:
    release.world.patch(guard={"on_breach": "rollback"})
    release.start(Stage(1.0, bake_time_s=5.0), Stage(25.0, bake_time_s=600.0))
    while release.percent < 25.0:
        release.forward(1)
    release.forward(3)
    release.steer(Move.PAUSE)
    for n in range(60):
        release.traffic(failing={"error:New": [n]})
        if release.percent == 1.0:
            break
    assert (release.percent, release.world.is_killed()) == (1.0, False)
    with pytest.raises(ConflictError, match="rolled the flag back"):
        release.steer(Move.RESUME)
    release.forward(1)
    assert (release.rollout.state, release.percent) == (State.ROLLED_BACK, 1.0)

    # Nor does what is past end another one that is paused before its date.
    release.start(starts_at=release.world.clock.at + timedelta(days=1))
    release.steer(Move.PAUSE)
    release.forward(3)
    assert release.rollout.state is State.PAUSED


def test_another_may_follow_a_kill_at_once(release: Release) -> None:
    first = release.start()
    killed = release.world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="bad", actor="bob"
    )
    with pytest.raises(ConflictError, match="kill stands"):
        release.start()
    assert release.rollout == first, "nothing of it was written"
    restore = Restore(killed.kill.id, "fixed")
    release.rollouts.start(ENVIRONMENT, FLAG, Plan(stages=STAGES), actor="eve", restore=restore)
    second, ended = release.rollouts.list(ENVIRONMENT, FLAG)
    assert (second.state, release.percent) == (State.RUNNING, 1.0)
    assert (ended.id, ended.state, ended.moves[-1].by) == (first.id, State.KILLED, "bob")
