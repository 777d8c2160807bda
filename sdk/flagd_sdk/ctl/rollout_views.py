"""A rollout in words, and as bars of progress. Pure but for the library that draws."""

from rich.table import Table
from rich.text import Text

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.charts import draw_share
from flagd_sdk.ctl.durations import format_duration
from flagd_sdk.ctl.output import Rendered
from flagd_sdk.ctl.wording import STATE_STYLES, time_words

FAILED_STATES = frozenset(("aborted", "killed", "rolled_back"))
FINAL_STATES = FAILED_STATES | {"completed"}
_BAR_WIDTH = 20


def stage_words(rollout: Json) -> str:
    """Return "stage 2 of 5 (5 %)", or what there is before the first."""
    index, stages = rollout["stage"], rollout["stages"]
    if index is None:
        return f"begins at {time_words(rollout['starts_at'])}" if rollout["starts_at"] else "–"
    return f"stage {index + 1} of {len(stages)} ({stages[index]['percent']:g} %)"


def baked_words(rollout: Json) -> str:
    """Return how much of its bake time the stage has had; "" where it needs none."""
    if rollout["stage"] is None or rollout["state"] in FINAL_STATES:
        return ""
    bake_time_s = rollout["stages"][rollout["stage"]]["bake_time_s"]
    if not bake_time_s:
        return ""
    return f"baked {format_duration(rollout['baked_s'])} of {format_duration(bake_time_s)}"


def progress(rollout: Json) -> float:
    """Return from 0 to 1 how far it has come: each stage is one part, its bake time within it."""
    if rollout["state"] == "completed":
        return 1.0
    if rollout["stage"] is None:
        return 0.0
    bake_time_s = rollout["stages"][rollout["stage"]]["bake_time_s"]
    baked = min(1.0, rollout["baked_s"] / bake_time_s) if bake_time_s else 0.0
    return float((rollout["stage"] + baked) / len(rollout["stages"]))


def bar(rollout: Json) -> Text:
    return draw_share(progress(rollout), 1.0, _BAR_WIDTH, STATE_STYLES.get(rollout["state"], ""))


def render_rollout(rollout: Json) -> Rendered:
    """Yield the whole of a rollout, with what it waits for and what has happened to it."""
    state = rollout["state"]
    yield Text.assemble(
        (rollout["flag"], "bold"),
        f" in {rollout['environment']}: {rollout['from_variant']} → {rollout['to_variant']}"
        f" on {rollout['split']}, ",
        (state.replace("_", " "), STATE_STYLES.get(state, "")),
        f"  ({rollout['id']})",
    )
    stages = " → ".join(f"{stage['percent']:g}" for stage in rollout["stages"])
    where = ", ".join(part for part in (stage_words(rollout), baked_words(rollout)) if part)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("  ", bar(rollout), f"{where}; {stages} %")
    yield grid
    for wait in rollout["waiting_for"]:
        yield f"  waits for {wait['what']}: {wait['detail']}"
    for move in rollout["moves"]:
        yield f"  {move_words(move)}"


def move_words(move: Json) -> str:
    at = "" if move["percent"] is None else f" ({move['percent']:g} %)"
    why = f": {move['reason']}" if move["reason"] else ""
    return f"{time_words(move['at'])}  {move['move'].replace('_', ' ')}{at} by {move['by']}{why}"
