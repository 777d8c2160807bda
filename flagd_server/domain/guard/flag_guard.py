"""The guard of one flag in one environment: its comparisons, its life, its one decision."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_server.domain.guard.comparison import ERROR_PREFIX, Comparison
from flagd_server.domain.guard.judgement import WITNESS_BAR, Standing, judge, spoken
from flagd_server.domain.guard.records import Cell, Decision, Event, Policy, RecordError
from flagd_server.domain.guard.streams import ERRORS_SHARE, LIFE_S
from flagd_server.stats.coin import CoinBets

# The reason given while there is nothing to compare with.
NO_CONTROL = "no control"
# How often what is held is judged again while no unit fails: only time can lift an objection then.
REJUDGE_S = 10.0
# What is held is judged at every toss; but that may run a stream again, so in a life with a long
# log it waits for a second for each ten thousand tosses, and takes a tenth of the time at most.
_SHORT_LOG = 1_000
_PAUSE_S_PER_TOSS = 1e-4
# A stream this close to its threshold is judged in full, so that rounding decides nothing.
_NEARLY = 0.999

_Pair = tuple[str, str, str]
"""(split, treatment, control)."""


@dataclass(slots=True)
class FlagGuard:
    """A life of a guarded flag. Feed it events in the order of commit; the same events, the same
    bits, whether in one run or through `to_document` and `from_document` in between.

    Attributes:
        controls: split → the variant it is compared with, chosen when the split first has two arms.
        served: split → variant → the first configuration version that exposed anyone to it.
        standing_decision: the latest that held or killed; one that kills is the last.
    """

    policy: Policy
    started_at: float
    comparisons: dict[_Pair, Comparison] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)
    served: dict[str, dict[str, int]] = field(default_factory=dict)
    standing_decision: Decision | None = None
    last_t: float | None = None
    # Where the cells of a (split, variant) went last, and for which weights that holds.
    _routes: dict[tuple[str, str], tuple[Mapping[str, int], list[Comparison]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def is_over(self, t: float) -> bool:
        """Return whether a new life is due: after seven days."""
        return t >= self.started_at + LIFE_S

    def renewed(self, t: float) -> "FlagGuard":
        """Return the life that follows: no evidence, but the same controls."""
        served = {split: dict(first) for split, first in self.served.items()}
        return FlagGuard(self.policy, t, controls=dict(self.controls), served=served)

    @property
    def has_killed(self) -> bool:
        return self.standing_decision is not None and self.standing_decision.kill

    @property
    def alpha_each(self) -> float:
        """Each comparison's part: alpha divided equally among the pairs of the flag."""
        return self.policy.alpha / max(1, len(self.comparisons))

    @property
    def decision(self) -> Decision:
        """The one that holds or kills, else what would be said now."""
        if self.standing_decision is not None:
            return self.standing_decision
        return self._decide(self.started_at if self.last_t is None else self.last_t)

    def observe(self, event: Event) -> None:
        """Take in one summary or announcement whole, then decide.

        Raises:
            RecordError: the event is older than the one before it.
        """
        t = event.t
        if self.last_t is not None and t < self.last_t:
            raise RecordError(f"t: expected at least {self.last_t}, got {t}")
        self.last_t = t
        if self.has_killed:
            return
        if event.announced is not None:
            for comparison in self.comparisons.values():
                comparison.announce(t, event.announced)
        score = 0.0
        for comparison, cells in self._by_comparison(event).items():
            score = max(score, comparison.observe(t, cells))
        if self._is_due(t, score):
            decision = self._decide(t)
            self.standing_decision = decision if decision.kill or decision.hold else None

    def _is_due(self, t: float, score: float) -> bool:
        """Return whether to judge in full, after an event whose tosses scored this at most."""
        held = self.standing_decision
        if held is None:
            return score * self.alpha_each >= _NEARLY
        longest = max(len(comparison.log) for comparison in self.comparisons.values())
        pause_s = _PAUSE_S_PER_TOSS * longest if longest > _SHORT_LOG else 0.0
        return t >= held.t + (pause_s if score > 0.0 else REJUDGE_S)

    def _by_comparison(self, event: Event) -> dict[Comparison, list[Cell]]:
        found: dict[Comparison, list[Cell]] = {}
        for cell in event.cells:
            if cell.split is None:
                continue
            route = self._routes.get((cell.split, cell.variant))
            if route is None or route[0] != cell.weights:
                route = (cell.weights, self._comparisons_of(cell.split, cell, event.t))
                self._routes[cell.split, cell.variant] = route
            for comparison in route[1]:
                found.setdefault(comparison, []).append(cell)
        return found

    def _comparisons_of(self, split: str, cell: Cell, t: float) -> list[Comparison]:
        """Return the comparisons in which the cell's variant is an arm.

        Those of the split's other arms are opened with them: alpha is divided by the number of
        pairs, which must not depend on who has reported.
        """
        arms = {name: weight for name, weight in cell.weights.items() if weight > 0}
        served = self.served.setdefault(split, {})
        if cell.variant not in arms:
            return []
        served.setdefault(cell.variant, cell.config_version)
        control = self._control(split, arms, cell.config_version)
        if control is None:
            return []
        pairs = [(split, name, control) for name in arms if name != control]
        for pair in pairs:
            if pair not in self.comparisons:
                bets = CoinBets.for_margin(self.policy.margin)
                self.comparisons[pair] = Comparison.start(*pair, bets, t)
        return [self.comparisons[pair] for pair in pairs if cell.variant in pair[1:]]

    def _control(self, split: str, arms: Mapping[str, int], version: int) -> str | None:
        """Return the variant to compare with, None where there is none.

        The policy's control, else the off variant, else the variant of the greatest weight that
        was already served before this version of the configuration.
        """
        if len(arms) < 2:
            return None
        if self.policy.control is not None:
            return self.policy.control if self.policy.control in arms else None
        chosen = self.controls.get(split)
        if chosen not in arms:
            chosen = self._choose_control(arms, self.served[split], version)
            self.controls[split] = chosen
            self._routes.clear()
        return chosen

    def _choose_control(
        self, arms: Mapping[str, int], served: Mapping[str, int], version: int
    ) -> str:
        off = self.policy.off_variant
        if off is not None and off in arms:
            return off
        before = [name for name in arms if served.get(name, version) < version]
        # Where two are alike any choice does; by name, it can be made again.
        return min(before or arms, key=lambda name: (-arms[name], name))

    def standings(self, t: float) -> list[Standing]:
        """Return where each comparison stands, in order of appearance."""
        return [judge(c, self.alpha_each, t) for c in self.comparisons.values()]

    def _decide(self, t: float) -> Decision:
        standings = self.standings(t)
        if not standings:
            threshold = 1.0 / (self.policy.alpha * ERRORS_SHARE)
            reason = f"{NO_CONTROL}: no split with two variants of weight has been exposed"
            return Decision(t, False, False, 1.0, 1.0, threshold, "errors, life", 1.0, reason)
        worst = max(standings, key=lambda s: (s.kills, s.e_value / s.threshold))
        return Decision(
            t=t,
            kill=worst.kills,
            hold=any(s.is_decisive and not s.kills for s in standings),
            e_value=worst.e_value,
            rate_witness=worst.rate_witness,
            threshold=worst.threshold,
            stream=worst.name,
            ratio=worst.ratio,
            reason=_explain(worst),
            split=worst.comparison.split,
            treatment=worst.comparison.treatment,
            control=worst.comparison.control,
        )

    def to_document(self) -> dict[str, Any]:
        decision = self.standing_decision
        return {
            "policy": asdict(self.policy),
            "started_at": self.started_at,
            "comparisons": [c.to_document() for c in self.comparisons.values()],
            "controls": self.controls,
            "served": self.served,
            "standing_decision": None if decision is None else decision.to_document(),
            "last_t": self.last_t,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "FlagGuard":
        policy = Policy(**document["policy"])
        bets = CoinBets.for_margin(policy.margin)
        comparisons = [Comparison.from_document(row, bets) for row in document["comparisons"]]
        decision = document["standing_decision"]
        return cls(
            policy=policy,
            started_at=document["started_at"],
            comparisons={(c.split, c.treatment, c.control): c for c in comparisons},
            controls=document["controls"],
            served=document["served"],
            standing_decision=None if decision is None else Decision(**decision),
            last_t=document["last_t"],
        )


def _explain(standing: Standing) -> str:
    """Return one sentence that a person who knows no statistics can read."""
    stream, comparison = standing.stream, standing.comparison
    total = stream.in_treatment + stream.in_control
    if total == 0:
        return "no unit has failed yet"
    kind = comparison.kind_of(stream)
    of_kind = "" if kind is None else f" with {kind.removeprefix(ERROR_PREFIX)}"
    found = (
        f"{stream.in_treatment} of {total} failing units{of_kind} had "
        f"“{comparison.treatment}”, {stream.expected_share:.1%} expected by chance"
    )
    compared = f"evidence {spoken(standing.e_value)} of {spoken(standing.threshold)} needed"
    if standing.kills:
        by_exposures = f"by exposures {spoken(standing.rate_witness)} of {WITNESS_BAR:.0f}"
        return f"{found}: {compared}, {by_exposures}"
    if standing.is_decisive:
        return f"{found}: {compared}, but held back: {standing.objection}"
    return f"{found}: {compared}"
