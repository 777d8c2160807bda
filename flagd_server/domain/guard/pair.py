"""Two arms of a split with all that is compared of them, and who of the reporters is believed."""

from dataclasses import dataclass, field
from typing import Any

from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.metrics import SAMPLE_RATIO, Metric
from flagd_server.domain.guard.poisoning import LEAST_EVENTS, Suspect, find_suspect
from flagd_server.domain.guard.records import Alarm, Cell

# When reporters are held against each other again: the log has become so much longer, or so much
# time has gone by that every process has reported once more. Who is out of proportion is set aside
# if he still is after that time: when a feature breaks, somebody has to be the first to say so.
_HOLD_AGAIN = 1.25
_HOLD_AGAIN_S = 10.0

Key = tuple[str, str, str]
"""(split, treatment, control)."""


@dataclass(slots=True, eq=False)
class Pair:
    """Two arms of a split, and what is compared of them, by the metrics' names.

    Attributes:
        set_aside: each reporter that is believed no longer, for the report.
        held_at: metric → (t, length of the log) when its reporters were last held against each
            other.
        alarms: raised, and not taken yet.
    """

    arms: Arms
    comparisons: dict[str, Comparison]
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    held_at: dict[str, list[float]] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)

    @classmethod
    def start(cls, key: Key, metrics: list[Metric], margin: float, at: float) -> "Pair":
        arms = Arms(*key)
        comparisons = {
            metric.name: Comparison.start(arms, metric, margin, at) for metric in metrics
        }
        return cls(arms, comparisons)

    @property
    def sample(self) -> Comparison:
        return self.comparisons[SAMPLE_RATIO.name]

    def observe(self, t: float, cells: list[Cell]) -> list[tuple[Metric, float]]:
        """Take one summary in; return the greatest score of each metric that heard something."""
        believed = self.arms.observe(t, cells)
        scores = []
        for name, comparison in self.comparisons.items():
            score = comparison.observe(t, believed)
            # A flood may have thinned the log so far that nothing more is heard for a while.
            if (score or name in self.arms.accused_at) and self._suspect(t, name, comparison):
                believed = [cell for cell in believed if not self.arms.disbelieves(cell)]
            if score:
                comparison.bound()
                scores.append((comparison.metric, score))
        return scores

    def _suspect(self, t: float, name: str, comparison: Comparison) -> bool:
        """Set aside who is out of proportion; return whether anybody was."""
        length, accused_at = len(comparison.log), self.arms.accused_at.get(name)
        if length < LEAST_EVENTS:
            self.arms.accused_at.pop(name, None)
            return False
        held_t, held_length = self.held_at.get(name, (t, 0))
        if accused_at is not None:
            is_due = t >= accused_at + _HOLD_AGAIN_S
        else:
            is_due = length >= held_length * _HOLD_AGAIN or t >= held_t + _HOLD_AGAIN_S
        if not is_due:
            return False
        self.arms.accused_at.pop(name, None)
        suspect = find_suspect(self.arms, comparison.heard_from)
        was_found = suspect is not None and accused_at is not None
        if suspect is not None and accused_at is None:
            self.arms.accused_at[name] = t
            suspect = None
        while suspect is not None:
            self._set_aside(t, comparison.metric, suspect)
            suspect = find_suspect(self.arms, comparison.heard_from)
        self.held_at[name] = [t, len(comparison.log)]
        return was_found

    def _set_aside(self, t: float, metric: Metric, suspect: Suspect) -> None:
        token = suspect.name if suspect.who == "token" else None
        self.arms.set_aside(suspect.instances, token)
        for comparison in self.comparisons.values():
            comparison.forget(suspect.instances)
        detail = (
            f"{suspect.units} unit events of {metric.name} in {suspect.exposures} exposures are "
            "out of all proportion to the others'; believed no longer"
        )
        self.alarms.append(Alarm("poisoned_telemetry", f"{suspect.who} {suspect.name}", detail))
        self.set_aside.append(
            {
                "t": t,
                "who": suspect.who,
                "name": suspect.name,
                "metric": metric.name,
                "units": suspect.units,
                "exposures": suspect.exposures,
            }
        )

    def to_document(self) -> dict[str, Any]:
        return {
            "arms": self.arms.to_document(),
            "comparisons": [each.to_document() for each in self.comparisons.values()],
            "set_aside": self.set_aside,
            "held_at": self.held_at,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Pair":
        arms = Arms.from_document(document["arms"])
        comparisons = [Comparison.from_document(row, arms) for row in document["comparisons"]]
        return cls(
            arms,
            {each.metric.name: each for each in comparisons},
            document["set_aside"],
            document["held_at"],
        )
