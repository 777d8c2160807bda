"""Which move of a rollout is due, and which a person may make. Pure.

Kept whatever comes in:

- exposure is raised by START, ADVANCE and RESUME only, and none of these is made past a kill or
  while the guard is against the flag;
- ADVANCE by itself waits until the stage has baked and all that it asks for is green;
- a rollout that has ended never moves again.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.guard.blindness import NO_CONTROL, Blind
from flagd_server.domain.rollout import (
    BAKING,
    OPEN_STATES,
    RAISING,
    TABLE,
    Move,
    Moved,
    Rollout,
    Sight,
    State,
    Waiting,
)

MAX_MOVES_KEPT: Final = 500


def is_seeing(rollout: Rollout, sight: Sight) -> bool:
    """Return whether the guard sees the stage and has nothing against it: time counts as baked."""
    return not sight.red and not _blind(rollout, sight)


def missing(rollout: Rollout, sight: Sight) -> tuple[Waiting, ...]:
    """Return all that keeps the stage from its end; empty where the next move may be made."""
    stage = rollout.present
    assert stage is not None, "a rollout that runs has a stage"
    found = []
    if sight.red:
        found.append(Waiting("decision", sight.red))
    found += (
        Waiting("guard", f"the guard is blind ({blind.reason}): {blind.detail}")
        for blind in _blind(rollout, sight)
    )
    left_s = stage.bake_time_s - rollout.baked_s
    if left_s > 0:
        detail = (
            f"{rollout.baked_s:.0f} of {stage.bake_time_s:.0f} seconds baked; time counts while"
            " the guard sees and is quiet"
        )
        found.append(Waiting("bake_time", detail))
    if sight.exposures < stage.min_exposures:
        detail = (
            f"{rollout.to_variant!r} was served {sight.exposures} of {stage.min_exposures} times"
            " in this stage"
        )
        found.append(Waiting("exposures", detail))
    for key in stage.gates:
        is_green, why = sight.gates.get(key, (False, "there is no such gate"))
        if not is_green:
            found.append(Waiting(f"gate:{key}", why))
    if stage.approval and not rollout.approved:
        found.append(Waiting("approval", "a person has to approve the end of this stage"))
    return tuple(found)


def waits_for(rollout: Rollout, now: datetime, sight: Sight) -> tuple[Waiting, ...]:
    """Return all that keeps a rollout from going on by itself, in whatever state it is."""
    if rollout.state in BAKING:
        return missing(rollout, sight)
    if rollout.state is State.SCHEDULED and _is_time(rollout, now) and sight.red:
        return (Waiting("decision", sight.red),)
    return ()


# What a stage lacks in the ordinary course of it: it is running, not waiting.
_ORDINARY: Final = frozenset(("bake_time", "exposures"))


def due_move(
    rollout: Rollout, now: datetime, sight: Sight
) -> tuple[Move, str, tuple[Waiting, ...]] | None:
    """Return the move that is to be made by itself now, its reason, and what is waited for then.

    None where nothing is to be done. The order matters: what takes the feature away comes first.
    """
    if not rollout.is_open:
        return None
    if sight.is_killed:
        return Move.KILL, "the flag was killed", ()
    if rollout.state is State.SCHEDULED:
        is_due = _is_time(rollout, now) and not sight.red
        return (Move.START, "its time has come", ()) if is_due else None
    if sight.config_version != rollout.config_version:
        if sight.is_rolled_back:
            return Move.ROLL_BACK, "the guard has rolled the flag back", ()
        if rollout.state is State.PAUSED:
            return None
        reason = (
            f"{sight.changed_by} changed the flag by hand (version {sight.config_version});"
            " resume when it is as it should be"
        )
        return Move.DISTURB, reason, ()
    if rollout.state is State.PAUSED:
        return None
    waits = missing(rollout, sight)
    if not waits:
        if rollout.is_last:
            return Move.COMPLETE, "the last stage has passed", ()
        return Move.ADVANCE, "the stage has passed", ()
    if any(wait.what not in _ORDINARY for wait in waits):
        if rollout.state is State.RUNNING:
            return Move.WAIT, "; ".join(w.detail for w in waits if w.what not in _ORDINARY), waits
        return None
    if rollout.state is State.WAITING:
        return Move.GO_ON, "what it waited for has come", waits
    return None


def resuming(rollout: Rollout, now: datetime) -> Move:
    """Return what resuming comes to: one that was paused before its date waits for that again."""
    is_early = rollout.state is State.PAUSED and rollout.stage is None
    return Move.SCHEDULE if is_early and not _is_time(rollout, now) else Move.RESUME


def refusal(rollout: Rollout, move: Move, sight: Sight) -> str | None:
    """Return why a person can't make a move; None where they can.

    A person may end a stage early, but not raise exposure past a kill or a red guard.
    """
    if (rollout.state, move) not in TABLE:
        return f"a rollout that is {rollout.state.value} can't {move.value.replace('_', ' ')}"
    if move in RAISING and sight.is_killed:
        return "a kill stands; restore the flag first"
    if move in RAISING and sight.red:
        return sight.red
    # Whoever starts one has seen it; whoever resumes one may not have.
    if move is Move.RESUME and sight.is_rolled_back:
        return "the guard has rolled the flag back, which ends the rollout"
    if move is Move.ADVANCE:
        if rollout.is_last:
            return "this is the last stage"
        if sight.config_version != rollout.config_version:
            return f"{sight.changed_by} has changed the flag by hand; the rollout pauses"
    return None


def moved(
    rollout: Rollout,
    move: Move,
    *,
    at: datetime,
    by: str,
    reason: str,
    stage: int | None,
    config_version: int | None,
    waiting_for: tuple[Waiting, ...] = (),
) -> Rollout:
    """Return the rollout after a move.

    Args:
        stage: that is served after it; a move of `RAISING` begins it anew.
        config_version: the newest configuration after it.

    Raises:
        KeyError: the table has no such move.
    """
    state = TABLE[rollout.state, move]
    percent = None if stage is None else rollout.stages[stage].percent
    entry = Moved(at, move, by, reason, stage, percent, config_version)
    after = replace(
        rollout,
        state=state,
        waiting_for=waiting_for,
        config_version=config_version,
        ended_at=at if state not in OPEN_STATES else None,
        moves=(*rollout.moves, entry)[-MAX_MOVES_KEPT:],
        version=rollout.version + 1,
    )
    if move in RAISING:
        after = replace(
            after,
            stage=stage,
            stage_started_at=at,
            stage_version=config_version,
            baked_s=0.0,
            approved=False,
        )
    return after


def stage_from(rollout: Rollout, weight: int) -> int | None:
    """Return the stage with which a rollout goes on where the new variant has this weight already.

    Never one that would take the variant from anyone; None where all stages lie below.
    """
    first = rollout.stage or 0
    for index in range(first, len(rollout.stages)):
        if rollout.stages[index].weight >= weight:
            return index
    return None


def _is_time(rollout: Rollout, now: datetime) -> bool:
    return rollout.starts_at is None or now >= rollout.starts_at


def _blind(rollout: Rollout, sight: Sight) -> list[Blind]:
    stage = rollout.present
    # With everybody on the new variant nobody is left to compare with, and the stage asks for it.
    is_whole = stage is not None and stage.weight == BUCKETS
    return [
        blind
        for blind in sight.blind
        if blind.split in (None, rollout.split) and not (is_whole and blind.reason == NO_CONTROL)
    ]
