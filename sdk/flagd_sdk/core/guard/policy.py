"""What a process must know to guard a flag by itself, read from the flag as it is delivered.

A flag without a policy, from a server older than this or a file, is guarded as one whose policy
says nothing. A policy that can't be understood guards nothing: the flag is served all the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flagd_sdk.core.guard.coin import DEFAULT_MARGIN

DEFAULT_ALPHA = 0.001
ERROR_RATE, LATENCY = "error_rate", "latency"
_GUARDS = (ERROR_RATE, LATENCY)

# Shares of the life's alpha, where latency is guarded; otherwise errors have all of it.
ERRORS_ALPHA, LATENCY_ALPHA = 0.7, 0.3


class Guarding(NamedTuple):
    """How one version of a flag is guarded.

    Attributes:
        alpha: what watching errors may spend of the flag's, over all its pairs.
        control: the variant that the policy names, or None.
        splits: split → variant → buckets, of the variants that have any.
        meaning: of the evidence: while it is the same, what was seen before goes on counting.
    """

    alpha: float
    margin: float
    control: str | None
    off_variant: str
    splits: Mapping[str, Mapping[str, int]]
    meaning: object

    def control_of(self, split: str, chosen: str | None) -> str | None:
        """Return the variant that the others of a split are compared with, None where none is.

        Args:
            chosen: what this returned before, in the same life; it stays while it has weight.
        """
        arms = self.splits.get(split, {})
        if len(arms) < 2:
            return None
        if self.control is not None:
            return self.control if self.control in arms else None
        if chosen in arms:
            return chosen
        if self.off_variant in arms:
            return self.off_variant
        # Where two are alike any choice does; by name, it can be made again.
        return min(arms, key=lambda name: (-arms[name], name))

    @property
    def pairs(self) -> int:
        """Among how many comparisons alpha is divided: all that could be made."""
        return sum(len(arms) - 1 for arms in self.splits.values() if len(arms) > 1)


def guarding_of(flag: object) -> Guarding | None:
    """Return how a flag of the wire is guarded by the process itself; None where it is not.

    Never raises, whatever the document is.
    """
    try:
        return _guarding(flag)  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _guarding(flag: Mapping[str, Any]) -> Guarding | None:
    policy = flag.get("guard")
    if policy is None:
        policy = {}
    # What a process knows no earlier version of, it can't roll back: it is off until the server has
    # spoken.
    on_breach = policy.get("on_breach", "kill")
    if policy.get("mode", "enforce") != "enforce" or on_breach not in ("kill", "rollback"):
        return None
    guards = policy.get("guards", _GUARDS)
    alpha, margin = policy.get("alpha", DEFAULT_ALPHA), policy.get("margin", DEFAULT_MARGIN)
    control = policy.get("control")
    if (
        ERROR_RATE not in guards
        or not 0.0 < alpha < 1.0
        or not 1.0 <= margin <= 1_000.0
        or not isinstance(control, str | None)
    ):
        return None
    return Guarding(
        alpha=alpha * (ERRORS_ALPHA if LATENCY in guards else 1.0),
        margin=float(margin),
        control=control,
        off_variant=flag["off_variant"],
        splits={name: _arms(split["allocation"]) for name, split in _splits(flag)},
        meaning=(policy, flag["off_variant"], flag["variants"]),
    )


def _splits(flag: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for rule in flag["rules"]:
        if "split" in rule["serve"]:
            yield rule["id"], rule["serve"]["split"]
    if "split" in flag["default_serve"]:
        yield "default", flag["default_serve"]["split"]


def _arms(allocation: list[tuple[int, str]]) -> dict[str, int]:
    """Count the buckets of each variant: they, and no rounded weights, are the coin."""
    arms: dict[str, int] = {}
    last = 0
    for upto, variant in allocation:
        arms[variant] = arms.get(variant, 0) + upto - last
        last = upto
    return arms
