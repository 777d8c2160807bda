"""The coin test: on which side of a split do failing units fall?

A split's hash places a unit in the treatment with known probability, blind to everything else
about it. Under the null hypothesis "the feature multiplies nobody's chance to fail by more than
`margin`", the side of a unit that fails for the first time is a coin whose bias is known, however
bursty, clustered or shared between both sides the failures are. `EProcess` bets against that coin
and is a non-negative supermartingale with mean at most 1, so the probability that it ever reaches
x is at most 1/x, however often it is looked at (Ville's inequality).

Sources: Lindon and Malek, "Anytime-valid inference for multinomial count data", 2020 (the test);
Ham, Bojinov, Lindon and Tingley, "Design-based confidence sequences", 2022 (resting it on the
randomisation rather than on a model of the outcomes).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log, log1p

DEFAULT_MARGIN = 1.05
# Ratios of failure rates the test bets on, at the default margin, and the share of each bet:
# a doubling is what most faults look like, so the middle of the grid carries the most.
_RATIOS = (1.3, 1.6, 2.2, 5.0, 12.0, 50.0)
_PRIOR = (0.1, 0.18, 0.27, 0.27, 0.12, 0.06)
# The same for one kind of error: a new fault mostly has a kind that the control never shows.
_KIND_PRIOR = (0.02, 0.05, 0.13, 0.2, 0.2, 0.4)

_TWO_SIDED = (1 / 2, 1 / 1.5, 1 / 1.2, 1.2, 1.5, 2.0)

_TIME_UNIT_S = 60.0

# Keeps every product finite: two of these multiply to a float. A stream this far above every
# threshold has nothing more to prove.
_CEILING = 1e150
LOG_CEILING = log(_CEILING)

Tosses = tuple[float, int, int]
"""(s, failing units found in the treatment, failing units found in the control)."""


@dataclass(frozen=True, slots=True)
class CoinBets:
    """The alternatives the test bets on.

    Attributes:
        ratios: each above the margin; `prior` has the share of the bet on each, 1 in all, and
            `kind_prior` that of streams of one kind of error.
        log_gains, excesses: log(r / margin) and r - 1 for each ratio.
    """

    margin: float
    ratios: tuple[float, ...]
    prior: tuple[float, ...]
    log_gains: tuple[float, ...]
    excesses: tuple[float, ...]
    kind_prior: tuple[float, ...]

    @classmethod
    def for_margin(cls, margin: float) -> "CoinBets":
        """Scale the default grid so that each ratio keeps its distance to the margin.

        Raises:
            ValueError: the margin is below 1.
        """
        scale = margin / DEFAULT_MARGIN
        return cls.of(margin, tuple(r * scale for r in _RATIOS), _PRIOR, _KIND_PRIOR)

    @classmethod
    def two_sided(cls) -> "CoinBets":
        """Bet on both sides of the coin against the null hypothesis that it is fair.

        At margin 1 each factor has mean exactly 1, whether its ratio is above or below.
        """
        log_gains = tuple(log(r) for r in _TWO_SIDED)
        prior = tuple(1.0 / len(_TWO_SIDED) for _ in _TWO_SIDED)
        excesses = tuple(r - 1.0 for r in _TWO_SIDED)
        return cls(1.0, _TWO_SIDED, prior, log_gains, excesses, prior)

    @classmethod
    def of(
        cls,
        margin: float,
        ratios: tuple[float, ...],
        prior: tuple[float, ...],
        kind_prior: tuple[float, ...] | None = None,
    ) -> "CoinBets":
        """Check a grid of one's own; `kind_prior` is the prior where it is not given.

        Raises:
            ValueError: the margin is below 1, a ratio is not above the margin (its bet would have
                mean above 1), or the shares are no shares or do not sum to 1.
        """
        if not margin >= 1.0:
            raise ValueError(f"margin: expected a number of at least 1, got {margin!r}")
        for ratio in ratios:
            if not ratio > margin:
                raise ValueError(f"ratios: {ratio!r} must be above the margin {margin!r}")
        if kind_prior is None:
            kind_prior = prior
        for name, shares in (("prior", prior), ("kind_prior", kind_prior)):
            if (
                len(ratios) != len(shares)
                or any(share < 0.0 for share in shares)
                or abs(sum(shares) - 1.0) > 1e-9
            ):
                raise ValueError(f"{name}: expected one share for each ratio, summing to 1")
        log_gains = tuple(log(r / margin) for r in ratios)
        excesses = tuple(r - 1.0 for r in ratios)
        return cls(margin, ratios, prior, log_gains, excesses, kind_prior)

    def multipliers(self, tosses: Iterable[Tosses]) -> list[float]:
        """Return, for each bet, the product of its factors over one batch of tosses.

        A toss with coin s multiplies the bet on r by r (ms + 1 - s) / (m (rs + 1 - s)) in the
        treatment and by (ms + 1 - s) / (rs + 1 - s) in the control, which has mean exactly 1
        where the true ratio is m, and less below it. `s` may be anything from 0 to 1.
        """
        logs = [0.0] * len(self.ratios)
        for s, in_treatment, in_control in tosses:
            total = in_treatment + in_control
            at_margin = total * log1p((self.margin - 1.0) * s)
            for k, excess in enumerate(self.excesses):
                logs[k] += at_margin + in_treatment * self.log_gains[k] - total * log1p(excess * s)
        return [exp(value if value < LOG_CEILING else LOG_CEILING) for value in logs]


@dataclass(frozen=True, slots=True)
class Onset:
    """The prior on when the fault began, on a stream's own clock: mass that its bets wait for.

    Without it a healthy day hides a bad hour. A stream's first batch gets `first`, whenever it
    comes; the rest is spread until the horizon, over the logarithm of time where the fault is the
    likelier the sooner (`fades`), else evenly. It depends on times only, so any choice is valid.
    """

    first: float
    horizon_s: float
    fades: bool

    def elapsed(self, since_opened_s: float) -> float:
        """Return G(t), the part of the time to the horizon that time t has used up, 0 to 1."""
        if since_opened_s >= self.horizon_s:
            return 1.0
        if not self.fades:
            return since_opened_s / self.horizon_s
        return log1p(since_opened_s / _TIME_UNIT_S) / log1p(self.horizon_s / _TIME_UNIT_S)

    def mass(self, now: float, before: float | None) -> float:
        """Return the mass that a batch injects before it is multiplied in.

        Args:
            now: G at the batch, as `elapsed` returns it.
            before: G at the batch before; None for the stream's first.
        """
        return self.first if before is None else (1.0 - self.first) * (now - before)


AT_A_CHANGE = Onset(first=0.8, horizon_s=7 * 86_400.0, fades=True)
"""Most faults are there from the start, and the others the likelier the sooner, within a week."""


@dataclass(slots=True)
class EProcess:
    """Evidence against the null: Σ_r S_r plus the mass not yet injected. Starts at exactly 1.

    Attributes:
        value: the e-value; at most 1 in mean under the null, at any time it is looked at.
    """

    bets: list[float]
    mass: float = 0.0
    value: float = 1.0

    @classmethod
    def start(cls, bets: CoinBets) -> "EProcess":
        return cls([0.0] * len(bets.ratios))

    def update(self, prior: tuple[float, ...], mass: float, multipliers: list[float]) -> None:
        """Inject `mass` by the prior's shares, then multiply one batch of tosses in."""
        bets = []
        self.mass = used = self.mass + mass
        value = 1.0 - used
        # The guard's inner loop: a comprehension and a sum take half as long again, and all three
        # are as long as the grid, which is not checked here.
        for bet, share, factor in zip(self.bets, prior, multipliers):  # noqa: B905
            bet = (bet + mass * share) * factor
            bets.append(bet)
            value += bet
        if value > _CEILING:
            bets = [min(bet, _CEILING) for bet in bets]
            value = _CEILING
        self.bets, self.value = bets, value
