"""The stages a rollout goes through, and the templates for those who name none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.faults import Fault

DEFAULT_STAGES = (1.0, 5.0, 25.0, 50.0, 95.0)
"""Shares of the traffic in percent, ascending.

The last keeps a holdback of 5 %: at 100 % no user is without the feature, so there is no control
to compare with and no coin to toss, and the guard could only watch the service as a whole.
"""

MAX_STAGES: Final = 50
MAX_BAKE_TIME_S: Final = 30 * 86_400
MAX_EXPOSURES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a rollout.

    Attributes:
        percent: of the split's units that get the new variant; thousandths count.
        bake_time_s: how long the stage lasts at least, while the guard sees and is quiet.
        min_exposures: of the new variant in this stage, before the next.
        gates: keys of the gates that have to be green before the next.
        approval: whether a person has to approve before the next.
    """

    percent: float
    bake_time_s: float = 0.0
    min_exposures: int = 0
    gates: tuple[str, ...] = ()
    approval: bool = False

    @property
    def weight(self) -> int:
        """The share as a weight of a split."""
        return round(self.percent * BUCKETS / 100)

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "gates": list(self.gates)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Stage":
        return cls(**{**document, "gates": tuple(document.get("gates", ()))})


def _template(bake_time_s: float, min_exposures: int) -> tuple[Stage, ...]:
    return tuple(Stage(percent, bake_time_s, min_exposures) for percent in DEFAULT_STAGES)


TEMPLATES: Final[Mapping[str, tuple[Stage, ...]]] = {
    # Two days: each stage sees the hours of a day, and rare errors have time to show.
    "careful": _template(bake_time_s=8 * 3_600.0, min_exposures=10_000),
    "standard": _template(bake_time_s=3_600.0, min_exposures=1_000),
    # For what is known to be harmless: long enough for the guard to see a grave fault.
    "fast": _template(bake_time_s=300.0, min_exposures=240),
}
"""A rollout takes a copy, so that changing a template changes no rollout that runs."""


def check_stages(stages: Sequence[Stage], path: str = "stages") -> list[Fault]:
    """Return what is wrong with stages, each fault with its place."""
    if not 1 <= len(stages) <= MAX_STAGES:
        return [Fault(path, f"{len(stages)} stages; expected 1 to {MAX_STAGES}")]
    faults = []
    reached = 0
    for index, stage in enumerate(stages):
        place = f"{path}[{index}]"
        if not 0 < stage.percent <= 100 or stage.weight == 0:
            message = f"{stage.percent:g}; expected more than 0, in thousandths, to 100"
            faults.append(Fault(f"{place}.percent", message))
        elif stage.weight <= reached:
            message = f"{stage.percent:g}; expected more than the stage before has"
            faults.append(Fault(f"{place}.percent", message))
        reached = max(reached, stage.weight)
        if not 0 <= stage.bake_time_s <= MAX_BAKE_TIME_S:
            message = f"{stage.bake_time_s:g}; expected 0 to {MAX_BAKE_TIME_S} seconds"
            faults.append(Fault(f"{place}.bake_time_s", message))
        if not 0 <= stage.min_exposures <= MAX_EXPOSURES:
            message = f"{stage.min_exposures}; expected 0 to {MAX_EXPOSURES}"
            faults.append(Fault(f"{place}.min_exposures", message))
        if len(set(stage.gates)) != len(stage.gates):
            faults.append(Fault(f"{place}.gates", "expected each gate once"))
    return faults
