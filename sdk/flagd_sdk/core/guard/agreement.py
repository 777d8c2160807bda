"""What must agree before a stream's evidence kills: all errors together, by coin and by exposures.

A kind of error can be new because the feature fails, or because it only changed the name under
which its users fail; and all errors can fall on the treatment because it fails, or because its
users ask more often. Both look the same to the stream that decides, so two more tests ask about
every unit that has failed since that stream's evidence began, whatever the kind: does the total
fall on the treatment's side by the coin, and does it by the treatment's share of exposures?

They can only object, so the guarantee of the streams does not rest on them, and they may look at
the sides to choose when they start and what they bet on. Each toss is bet at margin 1 on a ratio
predicted from the batches before it; so from any given start on either is a supermartingale with
mean at most 1 where the total is not raised, and of features that only changed names, in whatever
part and way, at most one in x ever shows an x.

By exposures that is approximate, as units repeat and rates are of the last ten minutes.

The predicted ratio is what makes them quick. If a kind is new, the other kinds fail alike on both
sides, and its excess beside the control's errors tells how much greater the total must be. Names
that changed leave a mark: the old ones fall short in the treatment, and that is subtracted.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from math import exp, log, log1p

from flagd_sdk.core.guard.tosses import TossLog

# What must agree with a kind of error, and with all errors. A kind is decided within a dozen of
# failing units, so its bar is most of the delay; all errors need hundreds, so theirs costs none.
KIND_BAR, ERRORS_BAR = 10.0, 50.0

_MOST_RATIO = 100.0
_LOG_CEILING = 300.0
# What predictions start from, 1.5, so that a fault which comes in one summary is not kept waiting
# for another; a greater one costs more where it is wrong.
_FIRST_RATIO = 1.5
_PRIOR_ERRORS = 1.0
_PRIOR_MASS = 0.5


def rate_bar(kind: int | None) -> float:
    """Return the evidence by exposures that a kill for this kind, or for all errors, needs."""
    return ERRORS_BAR if kind is None else KIND_BAR


@dataclass(slots=True)
class Agreement:
    """Both tests for one stream, fed from the toss log as far as it has grown.

    Nothing of it is stored: it is a function of the log, and running it again gives the same bits.

    Attributes:
        kind: the kind of the stream that decides, None where it hears all errors.
        next_batch: the first batch of the log that it has not heard.
        tau: the log's hash threshold; once the log is thinned the tests start again.
        found, spared: failing units in the treatment and in the control by kind index; `coins`
            is Σ s over both.
        treatment_mass, control_mass: Σ (1 - s) over the former, Σ s over the latter, all kinds.
    """

    kind: int | None
    began: float
    tau: int
    next_batch: int
    log_coin: float = 0.0
    log_rate: float = 0.0
    memory: set[int] = field(default_factory=set)
    found: dict[int, int] = field(default_factory=dict)
    spared: dict[int, int] = field(default_factory=dict)
    coins: dict[int, float] = field(default_factory=dict)
    treatment_mass: float = 0.0
    control_mass: float = 0.0

    @classmethod
    def since(cls, began: float, kind: int | None, tosses: TossLog, tau: int) -> "Agreement":
        return cls(kind, began, tau, next_batch=bisect_left(tosses.times, began))

    @property
    def coin(self) -> float:
        """The evidence that the total is raised by the coin, less what the other kinds lack."""
        return exp(min(self.log_coin - self._shortfall(), _LOG_CEILING))

    @property
    def rate(self) -> float:
        return exp(min(self.log_rate, _LOG_CEILING))

    @property
    def objection(self) -> str | None:
        """Why the stream must not kill, None where both agree."""
        if self.kind is not None and self.coin < KIND_BAR:
            return (
                "errors of every kind together do not fall more often on its users: "
                "errors that only changed their name look like this"
            )
        if self.rate < rate_bar(self.kind):
            return (
                "measured by exposures the rates do not differ enough: "
                "a feature whose users ask more often looks like this"
            )
        return None

    def catch_up(self, tosses: TossLog) -> None:
        """Hear the batches that the log has gained."""
        heard: list[tuple[int, int, float]] = []
        batch, ratio = -1, 1.0
        for toss in tosses.since(self.next_batch):
            if toss.unit in self.memory:
                continue
            self.memory.add(toss.unit)
            if toss.batch != batch:
                self._count(heard)
                heard.clear()
                batch, ratio = toss.batch, self._predicted(toss.share)
            heard.append((toss.kind, toss.in_treatment, toss.share))
            gain = log(ratio) if toss.in_treatment else 0.0
            self.log_coin += gain - log1p((ratio - 1.0) * toss.share)
            self.log_rate += gain - log1p((ratio - 1.0) * tosses.rate_shares[batch])
        self._count(heard)
        self.next_batch = len(tosses.times)

    def _count(self, heard: list[tuple[int, int, float]]) -> None:
        for kind, in_treatment, share in heard:
            self.coins[kind] = self.coins.get(kind, 0.0) + share
            if in_treatment:
                self.found[kind] = self.found.get(kind, 0) + 1
                self.treatment_mass += 1.0 - share
            else:
                self.spared[kind] = self.spared.get(kind, 0) + 1
                self.control_mass += share

    def _suspects(self) -> set[int]:
        """Return the kind that decides and those that the control has not shown at all.

        A feature that renames its errors mostly renames more than one.
        """
        return {kind for kind in self.found if kind == self.kind or kind not in self.spared}

    def _shortfall(self) -> float:
        """Return by how much the other kinds fall short in the treatment, as a log-likelihood.

        Where errors only changed their name, the old names lack what the new ones gained. N KL
        (p | s) for their share p of the treatment where that is below the coin's.
        """
        if self.kind is None:
            return 0.0
        suspects = self._suspects()
        others = [kind for kind in self.coins if kind not in suspects]
        found = sum(self.found.get(kind, 0) for kind in others)
        total = found + sum(self.spared.get(kind, 0) for kind in others)
        expected = sum(self.coins[kind] for kind in others)
        if found >= expected:
            return 0.0
        missing = found * log(found / expected) if found else 0.0
        return missing + (total - found) * log((total - found) / (total - expected))

    def _predicted(self, share: float) -> float:
        """Return the ratio of all errors to bet on, from what was counted before.

        What the other kinds should come to in the treatment is taken from the control, which a
        new name does not change.
        """
        if self.kind is None:
            found = self.treatment_mass + _FIRST_RATIO * _PRIOR_MASS
            ratio = found / (self.control_mass + _PRIOR_MASS)
        else:
            odds = share / (1.0 - share)
            excess = sum(
                max(0.0, self.found[kind] - odds * self.spared.get(kind, 0))
                for kind in self._suspects()
            )
            expected = odds * sum(self.spared.values())
            prior = (_FIRST_RATIO - 1.0) * _PRIOR_ERRORS
            ratio = 1.0 + (excess + prior) / (expected + _PRIOR_ERRORS)
        return min(max(ratio, 1.0), _MOST_RATIO)
