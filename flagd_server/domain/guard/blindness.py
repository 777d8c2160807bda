"""When a guard cannot see. Silence is not health: a blind guard says so, and rollouts wait."""

from dataclasses import dataclass

from flagd_sdk.core.guard.window import WINDOW_S
from flagd_server.domain.guard.arms import Arms

# A process that serves the flag reports at least every ten seconds.
SILENCE_S = 60.0
# Some twelve failing users of a new kind decide; a fault in one request of twenty shows them
# within so many exposures of the treatment. With fewer, nothing worth the name could have shown.
LEAST_EXPOSURES = 240

NO_CONTROL = "no control"
NO_SUMMARIES = "no summaries"
ARM_SILENT = "one arm silent"
TOO_FEW = "too few events"
SAMPLE_RATIO_BLINDNESS = "sample ratio"


@dataclass(frozen=True, slots=True)
class Blind:
    """Attributes:
    reason: one of the five above.
    detail: one sentence for a person, who can act on it.
    split: where it can't see; None where it sees nowhere.
    """

    reason: str
    detail: str
    split: str | None = None


def blindness_of(arms: Arms, t: float) -> list[Blind]:
    """Return why the guard cannot see these two arms at time t; empty where it can."""
    seen = [at for at in (arms.last_treatment, arms.last_control) if at is not None]
    exposed = arms.in_treatment.exposures
    if not seen or max(seen) < t - SILENCE_S:
        return [
            Blind(
                NO_SUMMARIES,
                f"nobody has reported an exposure of split {arms.split!r} for "
                f"{SILENCE_S:.0f} seconds or more",
                arms.split,
            )
        ]
    found = []
    for variant, seen_at in (
        (arms.treatment, arms.last_treatment),
        (arms.control, arms.last_control),
    ):
        if seen_at is None or seen_at < t - WINDOW_S:
            found.append(
                Blind(
                    ARM_SILENT,
                    f"{variant!r} has weight in split {arms.split!r}, but was served to nobody "
                    f"for {WINDOW_S / 60:.0f} minutes",
                    arms.split,
                )
            )
    if exposed < LEAST_EXPOSURES:
        found.append(
            Blind(
                TOO_FEW,
                f"{arms.treatment!r} was served {exposed} times; below {LEAST_EXPOSURES} even a "
                "fault in one request of twenty could hide",
                arms.split,
            )
        )
    return found
