"""The guard of one flag in one environment: its comparisons, its life, its one decision."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.judgement import Standing, explain, judge
from flagd_server.domain.guard.records import Cell, Decision, Event, Policy, RecordError
from flagd_server.domain.guard.streams import ERRORS_SHARE, LIFE_S
from flagd_server.stats.coin import CoinBets

# The reason given while there is nothing to compare with.
NO_CONTROL = "no control"
# How often what is held is judged again while no unit fails: judging may run a stream again.
REJUDGE_S = 10.0


@dataclass(slots=True)
class FlagGuard:
    """A life of a guarded flag. Feed it events in the order of commit; the same events, the same
    bits, whether in one run or through `to_document` and `from_document` in between.

    Attributes:
        controls: split → the variant it is compared with, chosen when the split first has two arms.
        served: split → variant → the first configuration version that exposed anyone to it.
        decision: the latest; one that kills is the last.
    """

    policy: Policy
    started_at: float
    comparisons: dict[tuple[str, str, str], Comparison] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)
    served: dict[str, dict[str, int]] = field(default_factory=dict)
    decision: Decision | None = None
    last_t: float | None = None

    def is_over(self, t: float) -> bool:
        """Return whether a new life is due: after seven days."""
        return t >= self.started_at + LIFE_S

    @property
    def has_killed(self) -> bool:
        return self.decision is not None and self.decision.kill

    def observe(self, event: Event) -> Decision:
        """Take in one summary or announcement whole, then decide.

        Raises:
            RecordError: the event is older than the one before it.
        """
        if self.last_t is not None and event.t < self.last_t:
            raise RecordError(f"t: expected at least {self.last_t}, got {event.t}")
        self.last_t = event.t
        if self.decision is not None and self.decision.kill:
            return self.decision
        if event.announced is not None:
            for comparison in self.comparisons.values():
                comparison.announce(event.t, event.announced)
        tossed = self._observe_cells(event)
        if tossed or self._is_stale(event):
            self.decision = self._decide(event.t)
        assert self.decision is not None
        return self.decision

    def _is_stale(self, event: Event) -> bool:
        """Without a toss only time can change the verdict, and only where something is held."""
        if self.decision is None or event.announced is not None:
            return True
        return self.decision.hold and event.t >= self.decision.t + REJUDGE_S

    def _observe_cells(self, event: Event) -> bool:
        tossed = False
        for key, cells in self._by_comparison(event).items():
            comparison = self.comparisons.get(key)
            if comparison is None:
                bets = CoinBets.for_margin(self.policy.margin)
                comparison = Comparison.start(*key, bets, event.t)
                self.comparisons[key] = comparison
                self.decision = None
            tossed = comparison.observe(event.t, cells) or tossed
        return tossed

    def _by_comparison(self, event: Event) -> dict[tuple[str, str, str], list[Cell]]:
        found: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in event.cells:
            if cell.split is None or cell.weights.get(cell.variant, 0) <= 0:
                continue
            control = self._control(cell.split, cell)
            if control is None:
                continue
            for treatment, weight in cell.weights.items():
                if weight > 0 and treatment != control and cell.variant in (treatment, control):
                    found.setdefault((cell.split, treatment, control), []).append(cell)
        return found

    def _control(self, split: str, cell: Cell) -> str | None:
        """Return the variant to compare with under this cell's weights, None where there is none.

        The policy's control, else the off variant, else the variant of the greatest weight that
        was already served before this version of the configuration.
        """
        served = self.served.setdefault(split, {})
        if cell.exposures:
            served.setdefault(cell.variant, cell.config_version)
        arms = {name: weight for name, weight in cell.weights.items() if weight > 0}
        if len(arms) < 2:
            return None
        if self.policy.control is not None:
            return self.policy.control if self.policy.control in arms else None
        chosen = self.controls.get(split)
        if chosen not in arms:
            chosen = self._choose_control(arms, served, cell.config_version)
            self.controls[split] = chosen
        return chosen

    def _choose_control(
        self, arms: Mapping[str, int], served: Mapping[str, int], version: int
    ) -> str:
        off = self.policy.off_variant
        if off is not None and off in arms:
            return off
        before = [name for name in arms if served.get(name, version) < version]
        return max(before or arms, key=lambda name: (arms[name], name))

    @property
    def alpha_each(self) -> float:
        """Each comparison's part: alpha divided equally among the pairs of the flag."""
        return self.policy.alpha / max(1, len(self.comparisons))

    def standings(self, t: float) -> list[tuple[Comparison, Standing]]:
        """Return where each comparison stands, in order of appearance."""
        return [(c, judge(c, self.alpha_each, t)) for c in self.comparisons.values()]

    def _decide(self, t: float) -> Decision:
        standings = self.standings(t)
        if not standings:
            threshold = 1.0 / (self.policy.alpha * ERRORS_SHARE)
            reason = f"{NO_CONTROL}: no split with two variants of weight has been exposed"
            return Decision(t, False, False, 1.0, 1.0, threshold, "errors, life", 1.0, reason)
        comparison, worst = max(
            standings, key=lambda pair: (pair[1].kills, pair[1].e_value / pair[1].threshold)
        )
        return Decision(
            t=t,
            kill=worst.kills,
            hold=any(s.is_decisive and not s.kills for _, s in standings),
            e_value=worst.e_value,
            rate_witness=worst.rate_witness,
            threshold=worst.threshold,
            stream=worst.name,
            ratio=worst.ratio,
            reason=explain(comparison, worst),
            split=comparison.split,
            treatment=comparison.treatment,
            control=comparison.control,
        )

    def to_document(self) -> dict[str, Any]:
        return {
            "policy": asdict(self.policy),
            "started_at": self.started_at,
            "comparisons": [c.to_document() for c in self.comparisons.values()],
            "controls": self.controls,
            "served": self.served,
            "decision": None if self.decision is None else self.decision.to_document(),
            "last_t": self.last_t,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "FlagGuard":
        policy = Policy(**document["policy"])
        bets = CoinBets.for_margin(policy.margin)
        comparisons = [Comparison.from_document(row, bets) for row in document["comparisons"]]
        decision = document["decision"]
        return cls(
            policy=policy,
            started_at=document["started_at"],
            comparisons={(c.split, c.treatment, c.control): c for c in comparisons},
            controls=document["controls"],
            served=document["served"],
            decision=None if decision is None else Decision(**decision),
            last_t=document["last_t"],
        )
