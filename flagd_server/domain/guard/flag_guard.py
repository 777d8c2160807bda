"""The guard of one flag in one environment: its comparisons, its life, its one decision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flagd_sdk.core.guard.streams import LIFE_S
from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.availability import SUSPECT_WITHIN_S, Availability, Breach
from flagd_server.domain.guard.blindness import (
    NO_CONTROL,
    SAMPLE_RATIO_BLINDNESS,
    TOO_FEW,
    Blind,
    blindness_of,
)
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.controls import Controls
from flagd_server.domain.guard.epochs import ERRORS_SHARE
from flagd_server.domain.guard.harm import excess_failures, has_spent
from flagd_server.domain.guard.judgement import BURNING_E, Standing, judge, spoken
from flagd_server.domain.guard.metrics import (
    SAMPLE_RATIO,
    SAMPLE_RATIO_ALPHA,
    Metric,
    alpha_shares,
)
from flagd_server.domain.guard.pair import Key, Pair
from flagd_server.domain.guard.records import (
    Alarm,
    Cell,
    Decision,
    Event,
    Policy,
    RecordError,
)
from flagd_server.domain.guard.versions import VersionBook
from flagd_server.domain.guard.wording import explain, explain_breach, explain_sample

# What may be announced that is a change of the flag itself.
FLAG_CHANGES = frozenset({"weights", "rules", "variant", "variants"})
# How often what is held is judged again while no unit fails: only time can lift an objection then.
REJUDGE_S = 10.0
# What is held is judged at every toss; but that may run a stream again, so in a life with a long
# log it waits for a second for each ten thousand tosses, and takes a tenth of the time at most.
_SHORT_LOG = 1_000
_PAUSE_S_PER_TOSS = 1e-4
# A stream this close to its threshold is judged in full, so that rounding decides nothing.
_NEARLY = 0.999


@dataclass(slots=True)
class FlagGuard:
    """A life of a guarded flag. Feed it events in the order of commit; the same events, the same
    bits, whether in one run or through `to_document` and `from_document` in between.

    Attributes:
        book: what each version of the services did, for verdicts.
        availability: the burn tests of the services' objectives.
        changed_at: when the flag itself was changed last, within the life.
        standing_decision: the latest that held or killed; one that kills is the last.
    """

    policy: Policy
    started_at: float
    pairs: dict[Key, Pair] = field(default_factory=dict)
    controls: Controls = field(default_factory=Controls)
    book: VersionBook = field(default_factory=VersionBook)
    availability: Availability = field(default_factory=lambda: Availability({}))
    changed_at: float | None = None
    standing_decision: Decision | None = None
    last_t: float | None = None
    # Where the cells of a (split, variant) went last, and for which weights that holds.
    _routes: dict[tuple[str, str], tuple[Mapping[str, int], list[Pair]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _alarms: list[Alarm] = field(default_factory=list, repr=False, compare=False)
    _shares: dict[Metric, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._shares = alpha_shares(self.policy.guards, self.policy.slow)
        if self.availability.objectives != self.policy.objectives:
            self.availability = Availability(self.policy.objectives)
        if self.changed_at is None:
            self.changed_at = self.started_at

    def is_over(self, t: float) -> bool:
        """Return whether a new life is due: after seven days."""
        return t >= self.started_at + LIFE_S

    def renewed(self, t: float, policy: Policy | None = None) -> "FlagGuard":
        """Return the life that follows: no evidence, but the same controls under one policy."""
        policy = policy or self.policy
        controls = self.controls.copy(keep_chosen=policy == self.policy)
        return FlagGuard(policy, t, controls=controls)

    @property
    def has_killed(self) -> bool:
        return self.standing_decision is not None and self.standing_decision.kill

    @property
    def comparisons(self) -> list[Comparison]:
        """What may kill, in order of appearance."""
        return [each for pair in self.pairs.values() for each in self._killing(pair)]

    @staticmethod
    def _killing(pair: Pair) -> Iterator[Comparison]:
        return (each for each in pair.comparisons.values() if each.metric is not SAMPLE_RATIO)

    @property
    def highest_e_value(self) -> float:
        """The strongest evidence of any stream that may kill; 1 where there is none."""
        values = (stream.coin.value for each in self.comparisons for _, stream in each.streams())
        return max(values, default=1.0)

    @property
    def sample_below(self) -> int:
        """The hash below which exposed units are still of use to every sample-ratio test."""
        return min((pair.sample.tau for pair in self.pairs.values()), default=1 << 64)

    def alpha_of(self, metric: Metric) -> float:
        """Return a comparison's part: alpha is divided equally among pairs, then by metric."""
        pairs = max(1, len(self.pairs))
        if metric is SAMPLE_RATIO:
            return SAMPLE_RATIO_ALPHA / pairs
        return self.policy.alpha * self._shares[metric] / pairs

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
            if event.announced in FLAG_CHANGES:
                self.changed_at = t
            for comparison in self.comparisons:
                comparison.announce(t, event.announced)
        believed: Sequence[Cell] = event.cells
        if any(pair.set_aside for pair in self.pairs.values()):
            believed = [cell for cell in believed if not self._is_disbelieved(cell)]
        self.book.observe(t, believed)
        self.availability.observe(t, believed)
        is_near = has_news = False
        for pair, cells in self._by_pair(event).items():
            for metric, score in pair.observe(t, cells):
                has_news = True
                is_near = is_near or score * self._bar_of(metric) >= _NEARLY
        if self._is_due(t, is_near, has_news) or self._is_costly(t):
            decision = self._decide(t)
            if SAMPLE_RATIO_BLINDNESS in decision.blind and not self._mistrusts:
                self._alarms.append(Alarm("sample_ratio", "sample ratio", decision.reason))
            self.standing_decision = decision if decision.kill or decision.hold else None

    @property
    def _mistrusts(self) -> bool:
        held = self.standing_decision
        return held is not None and SAMPLE_RATIO_BLINDNESS in held.blind

    def take_alarms(self) -> list[Alarm]:
        """Return what was not told yet, once."""
        found = self._alarms
        self._alarms = []
        for pair in self.pairs.values():
            if pair.alarms:
                found += pair.alarms
                pair.alarms = []
        return found

    def _is_disbelieved(self, cell: Cell) -> bool:
        return any(pair.arms.disbelieves(cell) for pair in self.pairs.values())

    def _is_costly(self, t: float) -> bool:
        """Return whether the harm budget is spent, or an objective missed without a control."""
        return self._spent(t) is not None or (self._breach is not None and not self.comparisons)

    @property
    def _breach(self) -> Breach | None:
        return self.availability.breach(self.policy.alpha)

    def _is_due(self, t: float, is_near: bool, has_news: bool) -> bool:
        """Return whether to judge in full, after an event that had tosses or brought some near."""
        held = self.standing_decision
        if held is None:
            return is_near
        logs = (each.log for pair in self.pairs.values() for each in pair.comparisons.values())
        longest = max(map(len, logs), default=0)
        pause_s = _PAUSE_S_PER_TOSS * longest if longest > _SHORT_LOG else 0.0
        return t >= held.t + (pause_s if has_news else REJUDGE_S)

    def _by_pair(self, event: Event) -> dict[Pair, list[Cell]]:
        found: dict[Pair, list[Cell]] = {}
        for cell in event.cells:
            if cell.split is None:
                continue
            route = self._routes.get((cell.split, cell.variant))
            if route is None or route[0] != cell.weights:
                route = (cell.weights, self._pairs_of(cell.split, cell, event.t))
                self._routes[cell.split, cell.variant] = route
            for pair in route[1]:
                found.setdefault(pair, []).append(cell)
        return found

    def _pairs_of(self, split: str, cell: Cell, t: float) -> list[Pair]:
        """Return the pairs in which the cell's variant is an arm.

        Those of the split's other arms are opened with them: alpha is divided by the number of
        pairs, which must not depend on who has reported.
        """
        arms = {name: weight for name, weight in cell.weights.items() if weight > 0}
        if cell.variant not in arms:
            return []
        self.controls.note(split, cell)
        before = self.controls.chosen.get(split)
        control = self.controls.of(split, arms, cell.config_version, self.policy)
        if self.controls.chosen.get(split) != before:
            self._routes.clear()
        if control is None:
            return []
        keys = [(split, name, control) for name in arms if name != control]
        for key in keys:
            if key not in self.pairs:
                metrics = [*self._shares, SAMPLE_RATIO]
                self.pairs[key] = Pair.start(key, metrics, self.policy.margin, t)
        return [self.pairs[key] for key in keys if cell.variant in key[1:]]

    def standings(self, t: float) -> list[Standing]:
        """Return where each comparison stands, in order of appearance.

        A breach of the objective lowers the bar for errors: something is wrong, and the only
        question left is whether it is this flag.
        """
        return [judge(each, self._bar_of(each.metric), t) for each in self.comparisons]

    def _bar_of(self, metric: Metric) -> float:
        """Return the alpha that decides now: a stream is decisive at 1 over its share of it."""
        alpha = self.alpha_of(metric)
        is_burning = metric.has_kinds and self._breach is not None
        return max(alpha, 1.0 / BURNING_E) if is_burning else alpha

    def sample_ratios(self, t: float) -> list[Standing]:
        """Return where each pair's sample ratio stands; one that "kills" makes the guard blind."""
        alpha = self.alpha_of(SAMPLE_RATIO)
        return [judge(pair.sample, alpha, t) for pair in self.pairs.values()]

    def blindness(self, t: float) -> list[Blind]:
        """Return why the guard cannot see at time t; empty where it can."""
        if not self.pairs:
            return [Blind(NO_CONTROL, "no split with two variants of weight has been exposed")]
        found = [blind for pair in self.pairs.values() for blind in blindness_of(pair.arms, t)]
        if self.has_killed:
            # What was seen was enough.
            found = [blind for blind in found if blind.reason != TOO_FEW]
        found += (
            Blind(SAMPLE_RATIO_BLINDNESS, explain_sample(standing))
            for standing in self.sample_ratios(t)
            if standing.kills
        )
        return found

    def _decide(self, t: float) -> Decision:
        blind = self.blindness(t)
        standings = self.standings(t)
        worst = max(standings, key=lambda s: (s.kills, s.e_value / s.threshold), default=None)
        decision = self._uncompared(t, blind) if worst is None else _decision_of(worst, t)
        spent = None if decision.kill else self._spent(t)
        if spent is not None:
            decision = replace(
                decision,
                kill=True,
                guard="harm_budget",
                reason=self._explain_spent(spent),
                split=spent.split,
                treatment=spent.treatment,
                control=spent.control,
            )
        holds = decision.hold or any(s.is_decisive and not s.kills for s in standings)
        reasons = _reasons(blind)
        mistrusted = next((b.detail for b in blind if b.reason == SAMPLE_RATIO_BLINDNESS), None)
        if mistrusted is None:
            if decision.kill:
                reasons = tuple(each for each in reasons if each != TOO_FEW)
            return replace(decision, hold=holds, blind=reasons)
        reason = f"{mistrusted}; {decision.reason}"
        return replace(decision, kill=False, hold=True, reason=reason, blind=reasons)

    def _uncompared(self, t: float, blind: list[Blind]) -> Decision:
        """Decide where there is no control: by the objectives, which hold and rarely kill."""
        breach = self._breach
        no_control = next((b.detail for b in blind if b.reason == NO_CONTROL), None)
        reason = "nothing is compared" if no_control is None else f"{NO_CONTROL}: {no_control}"
        is_suspect = breach is not None and self._is_suspect(breach)
        if breach is not None:
            reason = f"{explain_breach(breach, is_suspect)}; {reason}"
        return Decision(
            t=t,
            kill=is_suspect and self.policy.on_burn == "kill",
            hold=breach is not None,
            e_value=1.0 if breach is None else breach.value,
            rate_witness=1.0,
            threshold=1.0 / (self.policy.alpha * (ERRORS_SHARE if breach is None else 1.0)),
            stream="objective" if breach is not None else "errors, life",
            ratio=1.0,
            reason=reason,
            guard="availability" if breach is not None else "error_rate",
        )

    def _is_suspect(self, breach: Breach) -> bool:
        """Return whether the breach began soon after a change of the flag."""
        assert self.changed_at is not None, "set when the life starts"
        return 0.0 <= breach.began - self.changed_at <= SUSPECT_WITHIN_S

    def _spent(self, t: float) -> Arms | None:
        """Return the arms whose treatment has spent the harm budget, None where none has."""
        budget = self.policy.harm_budget
        if budget is None:
            return None
        return next((p.arms for p in self.pairs.values() if has_spent(p.arms, budget, t)), None)

    def _explain_spent(self, arms: Arms) -> str:
        excess = excess_failures(arms.in_treatment, arms.in_control)
        return (
            f"“{arms.treatment}” has cost {spoken(excess)} failing requests more than "
            f"“{arms.control}” would have; its budget is {self.policy.harm_budget}"
        )

    def to_document(self) -> dict[str, Any]:
        decision = self.standing_decision
        return {
            "policy": asdict(self.policy),
            "started_at": self.started_at,
            "pairs": [pair.to_document() for pair in self.pairs.values()],
            "controls": asdict(self.controls),
            "book": self.book.to_document(),
            "availability": self.availability.to_document(),
            "changed_at": self.changed_at,
            "standing_decision": None if decision is None else decision.to_document(),
            "last_t": self.last_t,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "FlagGuard":
        pairs = [Pair.from_document(row) for row in document["pairs"]]
        decision = document["standing_decision"]
        return cls(
            policy=Policy.from_document(document["policy"]),
            started_at=document["started_at"],
            pairs={
                (pair.arms.split, pair.arms.treatment, pair.arms.control): pair for pair in pairs
            },
            controls=Controls(**document["controls"]),
            book=VersionBook.from_document(document["book"]),
            availability=Availability.from_document(document["availability"]),
            changed_at=document["changed_at"],
            standing_decision=None if decision is None else Decision.from_document(decision),
            last_t=document["last_t"],
        )


def _decision_of(standing: Standing, t: float) -> Decision:
    """Return what this standing says by itself."""
    arms = standing.comparison.arms
    return Decision(
        t=t,
        kill=standing.kills,
        hold=False,
        e_value=standing.e_value,
        rate_witness=standing.rate_witness,
        threshold=standing.threshold,
        stream=standing.name,
        ratio=standing.ratio,
        reason=explain(standing),
        split=arms.split,
        treatment=arms.treatment,
        control=arms.control,
        guard=standing.comparison.metric.guard,
    )


def _reasons(blind: list[Blind]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.reason for each in blind))
