"""What a comparison may be about: which unit events it hears, and how its evidence is divided.

One engine serves them all (`comparison.py`). A metric says only which events are its tosses, on
which bets and on which streams.
"""

from dataclasses import dataclass

from flagd_sdk.core.guard.coin import CoinBets
from flagd_sdk.core.guard.policy import ERRORS_ALPHA, LATENCY_ALPHA

ERROR_PREFIX = "error:"
EXPOSED = "exposed"

# The sample-ratio test makes a guard blind and kills nothing; its alpha is its own.
SAMPLE_RATIO_ALPHA = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """Attributes:
    name: "errors", "slow:p99", "slow:p90" or "exposed": the kind that it hears, but for errors.
    has_kinds: it hears every kind of error, and each has streams of its own beside those of all.
    has_epochs: it starts afresh at announced changes and every hour.
    has_witness: a second e-value by exposures has to agree.
    near: a kind that counts as this one's in the control, and not at all in the treatment.
    units_kept: beyond so many units of a life they are thinned by hash.
    """

    name: str
    has_kinds: bool
    has_epochs: bool
    has_witness: bool
    near: str | None = None
    # A stream hears no unit that the life has not seen, so a bound on the life's bounds them all.
    units_kept: int = 100_000

    def hears(self, kind: str) -> bool:
        """Return whether an event of this kind may be a toss of it, on either side."""
        return kind.startswith(ERROR_PREFIX) if self.has_kinds else kind in (self.name, self.near)

    def heard(self, kind: str, *, in_treatment: bool) -> str | None:
        """Return the kind under which an event is a toss of this metric; None where it is none.

        Whether the treatment is slowed by more than the tolerated share is asked by hearing, in
        the treatment, only of requests beyond the threshold *and* that share: a unit that is
        slowed by no more would then have been heard in the control as well.
        """
        if self.has_kinds:
            return kind if kind.startswith(ERROR_PREFIX) else None
        if kind == self.name or (kind == self.near and not in_treatment):
            return self.name
        return None

    @property
    def guard(self) -> str:
        """The guard of the policy that it serves."""
        return "error_rate" if self.has_kinds else "latency"

    @property
    def is_two_sided(self) -> bool:
        """Too few on the treatment's side say as much as too many."""
        return self.name == EXPOSED

    def bets(self, margin: float) -> CoinBets:
        """Return what it bets on, where the policy tolerates this ratio of failures.

        The sample ratio tolerates none: its null hypothesis is the split's own weights.
        """
        return CoinBets.two_sided() if self.is_two_sided else CoinBets.for_margin(margin)


ERRORS = Metric("errors", has_kinds=True, has_epochs=True, has_witness=True)
SLOW = {
    quantile: Metric(
        f"slow:{quantile}",
        has_kinds=False,
        has_epochs=True,
        has_witness=True,
        near=f"near:{quantile}",
    )
    for quantile in ("p99", "p90")
}
# Three thousand units tell a share of 25 % from one of 29 %.
SAMPLE_RATIO = Metric(
    EXPOSED, has_kinds=False, has_epochs=False, has_witness=False, units_kept=10_000
)

METRICS = {metric.name: metric for metric in (ERRORS, *SLOW.values(), SAMPLE_RATIO)}
"""Every metric by its name."""


def alpha_shares(guards: tuple[str, ...], slow: tuple[str, ...]) -> dict[Metric, float]:
    """Return each killing metric's share of a pair's alpha, in the order of judgement.

    Args:
        guards: what the policy watches: "error_rate", "latency", "availability".
        slow: the quantiles by which it watches latency.
    """
    quantiles = slow if "latency" in guards else ()
    if "error_rate" not in guards:
        return {SLOW[name]: 1.0 / len(quantiles) for name in quantiles}
    errors = ERRORS_ALPHA if quantiles else 1.0
    return {ERRORS: errors} | {SLOW[name]: LATENCY_ALPHA / len(quantiles) for name in quantiles}
