"""A rollout until it ends: drawn anew on a terminal, by lines elsewhere."""

from collections.abc import Iterator
from functools import partial

from rich.console import Group
from rich.live import Live

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Rendered, clean
from flagd_sdk.ctl.rollout_views import (
    FAILED_STATES,
    FINAL_STATES,
    baked_words,
    move_words,
    render_rollout,
    stage_words,
)
from flagd_sdk.ctl.session import Session, configuration_path
from flagd_sdk.ctl.waiting import looks


def watch_rollout(
    session: Session, flag: str, environment: str, rollout_id: str, timeout_s: float | None
) -> Exit:
    """Show a rollout until it ends; REFUSED where it failed.

    Raises:
        CommandError: the time is up (INCONCLUSIVE), or the server refuses.
    """
    path = configuration_path(flag, environment, "rollouts", rollout_id)
    seen: Iterator[Json] = looks(
        lambda: session.api.get(path), 1.0, timeout_s, lambda error: session.out.note(str(error))
    )
    state = _watch_live(session, seen) if session.out.is_live else _watch_lines(session, seen)
    if state in FINAL_STATES:
        return Exit.REFUSED if state in FAILED_STATES else Exit.OK
    raise CommandError(f"the time is up; the rollout is {state}", Exit.INCONCLUSIVE)


def _watch_live(session: Session, seen: Iterator[Json]) -> str:
    state = ""
    with Live(console=session.out.console, auto_refresh=False) as live:
        for each in seen:
            state = each["state"]
            live.update(Group(*render_rollout(clean(each))), refresh=True)
            if state in FINAL_STATES:
                break
    return state


def _watch_lines(session: Session, seen: Iterator[Json]) -> str:
    """Print each move once, or with --json the rollout whenever it has changed."""
    state, moves, waits = "", 0, None
    for each in seen:
        now_waits = [wait["what"] for wait in each["waiting_for"]]
        if (each["state"], len(each["moves"]), now_waits) != (state, moves, waits):
            session.out.show(each, partial(_news, known_moves=moves))
        state, moves, waits = each["state"], len(each["moves"]), now_waits
        if state in FINAL_STATES:
            break
    return state


def _news(rollout_now: Json, known_moves: int) -> Rendered:
    yield from map(move_words, rollout_now["moves"][known_moves:])
    where = ", ".join(p for p in (stage_words(rollout_now), baked_words(rollout_now)) if p)
    waits = "; ".join(wait["detail"] for wait in rollout_now["waiting_for"])
    state = rollout_now["state"].replace("_", " ")
    yield f"  {state}, {where}" + (f"; waits: {waits}" if waits else "")
