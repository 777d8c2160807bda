"""Which move of a rollout is due, and that no path of moves breaks the rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_server.domain.guard.blindness import NO_CONTROL, NO_SUMMARIES, Blind
from flagd_server.domain.rollout import OPEN_STATES, RAISING, TABLE, Move, Rollout, Sight, State
from flagd_server.domain.rollout_rules import due_move, missing, moved, refusal, stage_from
from flagd_server.domain.stages import Stage

AT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
STAGES = (
    Stage(1.0, bake_time_s=60.0),
    Stage(5.0, bake_time_s=60.0, min_exposures=100, gates=("slo",)),
    Stage(25.0, bake_time_s=60.0, approval=True),
    Stage(100.0),
)
SCHEDULED = Rollout(
    id="ro-1",
    environment="production",
    flag="checkout",
    split="default",
    from_variant="off",
    to_variant="on",
    stages=STAGES,
    template=None,
    created_at=AT,
    created_by="ann",
)
CLEAR = Sight(config_version=7, exposures=1_000, gates={"slo": (True, "")})


def at_stage(stage: int, **changes: object) -> Rollout:
    started = replace(
        SCHEDULED,
        state=State.RUNNING,
        stage=stage,
        stage_version=7,
        config_version=7,
        baked_s=60.0,
        approved=True,
    )
    return replace(started, **changes)  # type: ignore[arg-type]


def due(rollout: Rollout, sight: Sight = CLEAR, now: datetime = AT) -> Move | None:
    found = due_move(rollout, now, sight)
    return None if found is None else found[0]


def waits(rollout: Rollout, sight: Sight = CLEAR) -> list[str]:
    return [wait.what for wait in missing(rollout, sight)]


def test_a_document_says_all_of_a_rollout() -> None:
    rollout = moved(
        replace(SCHEDULED, starts_at=AT + timedelta(hours=1)),
        Move.START,
        at=AT,
        by="rollout",
        reason="its time has come",
        stage=0,
        config_version=8,
    )
    rollout = replace(rollout, waiting_for=missing(rollout, CLEAR))
    assert rollout.waiting_for
    assert Rollout.from_document(rollout.to_document()) == rollout


def test_a_stage_that_has_passed_is_followed_by_the_next_and_the_last_by_the_end() -> None:
    assert [due(at_stage(stage)) for stage in range(4)] == [
        Move.ADVANCE,
        Move.ADVANCE,
        Move.ADVANCE,
        Move.COMPLETE,
    ]


@pytest.mark.parametrize(
    ("stage", "changes", "sight", "expected"),
    [
        (0, {"baked_s": 59.9}, {}, "bake_time"),
        (1, {}, {"exposures": 99}, "exposures"),
        (1, {}, {"gates": {"slo": (False, "no data")}}, "gate:slo"),
        (1, {}, {"gates": {}}, "gate:slo"),
        (2, {"approved": False}, {}, "approval"),
        (0, {}, {"red": "against it"}, "decision"),
        (0, {}, {"blind": [Blind(NO_SUMMARIES, "silence", "default")]}, "guard"),
        (0, {}, {"blind": [Blind("sample ratio", "broken")]}, "guard"),
    ],
)
def test_a_stage_waits_for_each_thing_that_it_lacks(
    stage: int, changes: dict[str, object], sight: dict[str, object], expected: str
) -> None:
    rollout, seen = at_stage(stage, **changes), replace(CLEAR, **sight)  # type: ignore[arg-type]
    assert waits(rollout, seen) == [expected]
    assert due(rollout, seen) in (None, Move.WAIT)
    ordinary = expected in ("bake_time", "exposures")
    assert due(rollout, seen) is (None if ordinary else Move.WAIT)
    waiting = replace(rollout, state=State.WAITING)
    assert due(waiting, seen) is (Move.GO_ON if ordinary else None)
    assert due(at_stage(stage, state=State.WAITING)) is Move.ADVANCE


def test_blindness_of_another_split_is_nothing_to_this_one() -> None:
    blind = [Blind(NO_SUMMARIES, "silence", "rule-1")]
    assert due(at_stage(0), replace(CLEAR, blind=blind)) is Move.ADVANCE


def test_with_everybody_on_it_nobody_is_left_to_compare_with() -> None:
    blind = [Blind(NO_CONTROL, "no split with two variants")]
    assert due(at_stage(3), replace(CLEAR, blind=blind)) is Move.COMPLETE
    assert due(at_stage(0), replace(CLEAR, blind=blind)) is Move.WAIT


def test_what_takes_the_feature_away_comes_first() -> None:
    killed = replace(CLEAR, is_killed=True, config_version=8)
    rolled_back = replace(CLEAR, is_rolled_back=True, config_version=8)
    by_hand = replace(CLEAR, config_version=8, changed_by="bob")
    for state in (State.RUNNING, State.WAITING):
        rollout = at_stage(0, state=state)
        assert due(rollout, killed) is Move.KILL
        assert due(rollout, rolled_back) is Move.ROLL_BACK
        assert due(rollout, by_hand) is Move.DISTURB
    paused = at_stage(0, state=State.PAUSED)
    assert due(paused, killed) is Move.KILL
    assert due(paused, rolled_back) is Move.ROLL_BACK
    assert due(paused, by_hand) is None
    assert due(replace(SCHEDULED, starts_at=AT), killed) is Move.KILL


def test_a_dated_start_comes_at_its_date_and_not_while_the_guard_is_against_the_flag() -> None:
    dated = replace(SCHEDULED, starts_at=AT)
    assert due(dated, now=AT - timedelta(milliseconds=1)) is None
    assert due(dated) is Move.START
    assert due(dated, replace(CLEAR, red="against it")) is None


@pytest.mark.parametrize(("state", "move"), [(state, move) for state in State for move in Move])
def test_a_person_can_do_what_the_table_says_and_no_more(state: State, move: Move) -> None:
    rollout = at_stage(0, state=state)
    assert (refusal(rollout, move, CLEAR) is None) is ((state, move) in TABLE)
    if move in RAISING:
        assert refusal(rollout, move, replace(CLEAR, is_killed=True)) is not None
        assert refusal(rollout, move, replace(CLEAR, red="against it")) is not None


def test_the_last_stage_has_none_after_it() -> None:
    assert refusal(at_stage(3), Move.ADVANCE, CLEAR) == "this is the last stage"


def test_it_goes_on_with_the_stage_that_takes_the_variant_from_nobody() -> None:
    assert stage_from(at_stage(1), 0) == 1
    assert stage_from(at_stage(1), 5_000) == 1
    assert stage_from(at_stage(1), 5_001) == 2
    assert stage_from(at_stage(0, stages=STAGES[:2]), 5_001) is None


# --- any path ------------------------------------------------------------------------------------

SIGHTS = st.builds(
    lambda killed, red, blind, exposures, gate, by_hand: (
        replace(
            CLEAR,
            is_killed=killed,
            red="against it" if red else "",
            blind=[Blind(NO_SUMMARIES, "silence", "default")] if blind else [],
            exposures=exposures,
            gates={"slo": (gate, "not green")},
        ),
        by_hand,
    ),
    killed=st.integers(0, 12).map(lambda n: n == 0),
    red=st.integers(0, 5).map(lambda n: n == 0),
    blind=st.integers(0, 3).map(lambda n: n == 0),
    exposures=st.sampled_from([0, 99, 100, 5_000]),
    gate=st.booleans(),
    by_hand=st.sampled_from([None, None, None, None, 500, 30_000]),
)
PERSONS = st.none() | st.sampled_from(
    [Move.PAUSE, Move.RESUME, Move.ADVANCE, Move.ABORT, "approve"]
)


@given(st.lists(st.tuples(SIGHTS, PERSONS, st.floats(0.0, 90.0)), max_size=60))
def test_no_path_breaks_the_rules(
    steps: list[tuple[tuple[Sight, int | None], object, float]],
) -> None:
    rollout, version, weight = SCHEDULED, 1, 0
    for (seen, by_hand), person, passed_s in steps:
        if by_hand is not None:
            version, weight = version + 1, by_hand
        sight = replace(seen, config_version=version)
        before, raises = rollout, None
        if rollout.state in (State.RUNNING, State.WAITING):
            rollout = replace(rollout, baked_s=rollout.baked_s + passed_s)
        present = rollout
        if person == "approve":
            rollout = replace(rollout, approved=True)
        elif isinstance(person, Move) and refusal(rollout, person, sight) is None:
            raises = person if person in RAISING else None
            stage = rollout.stage
            if person is Move.ADVANCE:
                stage = (stage or 0) + 1
            elif person is Move.RESUME:
                stage = stage_from(rollout, weight)
                if stage is None:
                    continue
            version += raises is not None
            rollout = moved(
                rollout, person, at=AT, by="ann", reason="", stage=stage, config_version=version
            )
        elif person is None and (found := due_move(rollout, AT, sight)) is not None:
            move, reason, missed = found
            raises = move if move in RAISING else None
            stage = rollout.stage
            if move is Move.ADVANCE:
                assert missing(rollout, sight) == ()
                assert rollout.baked_s >= STAGES[stage or 0].bake_time_s
                stage = (stage or 0) + 1
            elif move is Move.START:
                stage = stage_from(rollout, weight)
            version += raises is not None
            rollout = moved(
                rollout,
                move,
                at=AT,
                by="rollout",
                reason=reason,
                stage=stage,
                config_version=version,
                waiting_for=missed,
            )
        if raises is not None:
            assert not sight.is_killed
            assert not sight.red
            assert rollout.present is not None
            assert rollout.present.weight >= weight
            weight = rollout.present.weight
        elif rollout.stage != before.stage:
            raise AssertionError("the stage changed by a move that serves none")
        if before.state not in OPEN_STATES:
            assert rollout.state is before.state
        assert (present.state, rollout.state) in {
            *((state, after) for (state, _), after in TABLE.items()),
            *((state, state) for state in State),
        }
