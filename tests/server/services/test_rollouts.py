"""Rollouts on a real storage and a real guard: steered by people, moved on by the watch."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.restart import Restore
from flagd_server.domain.rollout import Move, Rollout, State
from flagd_server.domain.stages import Stage
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.conductor import Conductor
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World
from tests.server.services.released_world import Release


@pytest.fixture
def release(database: str) -> Iterator[Release]:
    release = Release(database)
    release.world.release(0)
    yield release
    release.world.close()


def waits(rollout: Rollout) -> set[str]:
    return {wait.what for wait in rollout.waiting_for}


def test_a_good_release_goes_through_its_stages_by_itself(release: Release) -> None:
    release.start()
    seen = [release.percent]
    for _ in range(60):
        release.forward(1)
        if release.percent != seen[-1]:
            seen.append(release.percent)
    assert seen == [1.0, 5.0, 25.0]
    rollout = release.rollout
    assert rollout.state is State.COMPLETED
    assert rollout.ended_at is not None
    moves = [moved.move for moved in rollout.moves if moved.move not in (Move.WAIT, Move.GO_ON)]
    assert moves == [Move.START, Move.ADVANCE, Move.ADVANCE, Move.COMPLETE]
    assert [told.kind for told in release.told if told.kind != "waiting"] == [
        "stage",
        "stage",
        "stage",
        "completed",
    ]
    history = release.world.configurations.history(ENVIRONMENT, FLAG).items
    assert [version.action for version in history[:3]] == ["rollout"] * 3


def test_each_stage_bakes_for_its_time_and_no_shorter(release: Release) -> None:
    release.start()
    release.forward(3)  # until the guard sees
    assert release.rollout.state is State.RUNNING
    baked_from = release.now_s
    while release.percent == 1.0:
        release.forward(1)
    assert 8 <= release.now_s - baked_from <= 11


def test_it_waits_while_nobody_reports_and_says_so(release: Release) -> None:
    release.start()
    release.forward(120, traffic=False)
    assert release.percent == 1.0
    assert release.rollout.state is State.WAITING
    assert "guard" in waits(release.rollout)
    assert release.rollout.baked_s == 0.0
    release.forward(16)
    assert release.percent == 5.0


def test_silence_after_a_good_hour_bakes_nothing(release: Release) -> None:
    release.start(Stage(1.0, bake_time_s=300.0), Stage(5.0))
    release.forward(10)
    baked = release.rollout.baked_s
    release.forward(600, traffic=False)
    # Silence is noticed after a minute.
    assert release.rollout.baked_s <= baked + 70
    assert release.rollout.state is State.WAITING


def test_a_stage_waits_for_its_exposures_and_gates(release: Release) -> None:
    release.gates.green["slo"] = False
    release.start(Stage(1.0, min_exposures=4_000, gates=("slo",)), Stage(5.0))
    release.forward(4)
    assert waits(release.rollout) >= {"exposures", "gate:slo"}
    release.forward(6)
    assert waits(release.rollout) == {"gate:slo"}
    assert release.percent == 1.0
    release.gates.green["slo"] = True
    release.forward(1)
    assert release.percent == 5.0


def test_it_switches_on_nothing_that_a_process_holds_off(release: Release) -> None:
    release.start()
    release.held_off_in = 1
    release.forward(30)
    assert release.percent == 1.0
    assert "decision" in waits(release.rollout)
    with pytest.raises(ConflictError, match="1 of the processes hold"):
        release.steer(Move.ADVANCE)
    release.held_off_in = 0
    release.forward(16)
    assert release.percent == 5.0


def test_a_stage_that_asks_for_it_waits_for_a_person(release: Release) -> None:
    rollout = release.start(Stage(1.0, approval=True), Stage(5.0))
    release.forward(5)
    assert waits(release.rollout) == {"approval"}
    for _ in range(2):
        release.rollouts.approve(ENVIRONMENT, FLAG, rollout.id, actor="bob", reason="fine")
    release.forward(1)
    assert release.percent == 5.0
    with pytest.raises(ConflictError):
        release.rollouts.approve(ENVIRONMENT, FLAG, rollout.id, actor="bob", reason="fine")


def test_a_flag_that_turns_bad_is_killed_and_its_rollout_ends(release: Release) -> None:
    release.start()
    release.forward(5)
    for n in range(40):
        release.traffic(failing={"error:New": [n]})
        release.watch.tick(release.now_s + n)
        if release.world.is_killed():
            break
    assert release.world.is_killed()
    release.forward(1)
    rollout = release.rollout
    assert (rollout.state, rollout.moves[-1].by) == (State.KILLED, "guard")
    release.forward(60)
    assert release.rollout == rollout


def test_a_kill_by_a_person_ends_it_and_a_restore_does_not_begin_it_anew(release: Release) -> None:
    release.start()
    killed = release.world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="bad", actor="bob"
    )
    with pytest.raises(ConflictError, match="kill stands"):
        release.steer(Move.ADVANCE)
    release.forward(1)
    assert (release.rollout.state, release.rollout.moves[-1].by) == (State.KILLED, "bob")
    with pytest.raises(ConflictError, match="kill stands"):
        release.start()
    release.world.kills.restore(ENVIRONMENT, FLAG, Restore(killed.kill.id, "fixed"), actor="bob")
    release.forward(30)
    assert (release.percent, release.rollout.state) == (1.0, State.KILLED)


def test_a_change_by_hand_pauses_it_and_resuming_takes_it_as_it_is(release: Release) -> None:
    release.start()
    release.world.release(7_000)
    with pytest.raises(ConflictError, match="by hand"):
        release.steer(Move.ADVANCE)
    release.forward(1)
    rollout = release.rollout
    assert rollout.state is State.PAUSED
    assert "test changed the flag by hand" in rollout.moves[-1].reason
    release.forward(60)
    assert release.percent == 7.0
    resumed = release.steer(Move.RESUME)
    assert (resumed.stage, release.percent) == (2, 25.0)


def test_resuming_begins_the_stage_anew(release: Release) -> None:
    release.start()
    release.forward(8)
    release.steer(Move.PAUSE)
    release.forward(60)
    assert release.percent == 1.0
    resumed = release.steer(Move.RESUME)
    assert (resumed.stage, resumed.baked_s) == (0, 0.0)
    release.forward(5)
    assert release.percent == 1.0


def test_advancing_cuts_a_stage_short_and_an_abort_leaves_what_is_served(release: Release) -> None:
    release.start()
    assert release.steer(Move.ADVANCE).stage == 1
    assert release.percent == 5.0
    assert release.steer(Move.ABORT).state is State.ABORTED
    release.forward(60)
    assert release.percent == 5.0
    with pytest.raises(ConflictError):
        release.steer(Move.RESUME)


def test_a_flag_has_one_rollout_at_a_time(release: Release) -> None:
    first = release.start()
    with pytest.raises(ConflictError, match=first.id):
        release.start()
    release.steer(Move.ABORT)
    assert release.start().id != first.id


def test_a_dated_rollout_starts_at_its_date(release: Release) -> None:
    at = release.world.clock.at + timedelta(seconds=20)
    rollout = release.start(starts_at=at)
    assert (rollout.state, release.percent) == (State.SCHEDULED, 0.0)
    release.forward(19)
    assert release.percent == 0.0
    release.forward(1)
    assert (release.rollout.state, release.percent) == (State.RUNNING, 1.0)


def test_a_dated_rollout_takes_the_variant_from_nobody_who_got_it_meanwhile(
    release: Release,
) -> None:
    release.start(starts_at=release.world.clock.at + timedelta(seconds=5))
    release.world.release(50_000)
    release.forward(6)
    assert release.percent == 50.0
    assert release.rollout.state is State.PAUSED


def test_no_jump_of_the_clock_bakes_a_stage(release: Release) -> None:
    release.start(Stage(1.0, bake_time_s=600.0), Stage(5.0))
    release.forward(5)
    release.world.clock.forward(86_400)
    release.now_s += 86_400
    release.forward(5)
    assert release.percent == 1.0
    assert release.rollout.baked_s < 20


def test_it_goes_on_after_a_restart(release: Release, database: str) -> None:
    release.start(Stage(1.0, bake_time_s=30.0), Stage(5.0))
    release.forward(20)
    baked = release.rollout.baked_s
    assert baked > 5
    release.world.close()
    again = Release(database, World(database, release.world.clock))
    again.sequence = release.sequence
    again.now_s = 5.0  # another machine, another beginning of monotonic time
    again.forward(5)
    assert again.rollout.baked_s >= baked
    assert again.percent == 1.0
    again.forward(30)
    assert again.percent == 5.0
    again.world.close()


def test_two_watches_make_each_move_once(release: Release) -> None:
    release.start()
    other = Release(Path("unused"), release.world)
    for _ in range(60):
        release.forward(1)
        other.watch.tick(release.now_s)
    moves = [moved.move for moved in release.rollout.moves if moved.move in (Move.ADVANCE,)]
    assert len(moves) == 2
    assert release.percent == 25.0


def test_a_flag_that_nobody_guards_bakes_by_time(release: Release) -> None:
    release.world.patch(guard={"mode": "off"})
    release.start()
    release.forward(12, traffic=False)
    assert release.percent == 5.0


def test_faults_of_a_plan_change_nothing(release: Release) -> None:
    before = release.world.version()
    with pytest.raises(InvalidError) as caught:
        release.start(Stage(5.0, gates=("none",)), Stage(4.0), to_variant="blue")
    assert [fault.field for fault in caught.value.faults] == [
        "stages[1].percent",
        "to_variant",
        "stages[0].gates",
    ]
    assert release.rollouts.list(ENVIRONMENT, FLAG) == []
    assert release.world.version() == before
    with pytest.raises(NotFoundError):
        release.rollouts.get(ENVIRONMENT, FLAG, "ro-1")
    with pytest.raises(NotFoundError):
        release.rollouts.list(ENVIRONMENT, "other")


def test_a_deleted_environment_takes_its_rollouts_with_it(release: Release) -> None:
    release.start()
    release.world.environments.delete(ENVIRONMENT, actor="ann")
    release.forward(2, traffic=False)
    with release.world.storage.read() as reader:
        assert reader.open_rollouts() == []


def test_a_step_that_fails_keeps_no_other_from_being_made(caplog: pytest.LogCaptureFixture) -> None:
    made: list[float] = []

    def fail(now_s: float) -> None:
        raise RuntimeError("broken")

    conductor = Conductor([fail, made.append], clock=lambda: 7.0)
    conductor.tick()
    assert made == [7.0]
    assert "could not be made" in caplog.text
