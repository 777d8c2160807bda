"""Weights → which bucket serves which variant, moving as few buckets as a change forces.

An allocation is state: it is computed from the one before, kept with the configuration and
delivered with the flag. The buckets that move between two weightings are exactly their
total-variation distance, Σ |w' - w| / 2, which no assignment can go below.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from flagd_sdk.core.bucketing import BUCKETS

# [exclusive upper bound, variant] of each piece, rising to BUCKETS: JSON as it goes on the wire.
Allocation: TypeAlias = Sequence[Sequence[int | str]]

_Interval: TypeAlias = tuple[int, int]  # half-open


def reallocate(
    allocation: Allocation | None, weights: Mapping[str, int], off_variant: str
) -> list[list[int | str]]:
    """Return the allocation for new weights.

    One variant is the *base*: the off variant where it takes part, else the last one. It lies above
    the others, gives up its lowest buckets first and gets back what nobody else takes; every other
    variant gives up its highest buckets first and takes the lowest that are free. So a variant
    against the base always holds the lowest buckets, and one that is ramped up, down and up again
    meets the same users in the same order, whatever the steps were.

    Args:
        allocation: the one in force; None where there is none.
        weights: variant → share of `BUCKETS`; variants left out have none.

    Raises:
        ValueError: a weight is negative, or they do not sum to `BUCKETS`.
    """
    if min(weights.values(), default=0) < 0 or sum(weights.values()) != BUCKETS:
        raise ValueError(f"weights {dict(weights)}: expected a sum of {BUCKETS}, none negative")
    base = off_variant if off_variant in weights else list(weights)[-1]
    held = _held(allocation) if allocation is not None else {base: [(0, BUCKETS)]}
    order = sorted({*held, *weights}, key=lambda variant: _rank(variant, base, weights))
    kept: dict[str, list[_Interval]] = {}
    free: list[_Interval] = []
    for variant in order:
        intervals = held.get(variant, [])
        surplus = max(_size(intervals) - weights.get(variant, 0), 0)
        if variant == base:
            given, kept[variant] = _cut(intervals, surplus)
        else:
            kept[variant], given = _cut(intervals, _size(intervals) - surplus)
        free.extend(given)
    free.sort()
    for variant in order:
        taken, free = _cut(free, weights.get(variant, 0) - _size(kept[variant]))
        kept[variant].extend(taken)
    return _joined(kept)


def _rank(variant: str, base: str, weights: Mapping[str, int]) -> tuple[bool, int, str]:
    """Order variants as they are written, those without a weight after them, the base last."""
    names = list(weights)
    place = names.index(variant) if variant in weights else len(names)
    return variant == base, place, variant


def _held(allocation: Allocation) -> dict[str, list[_Interval]]:
    held: dict[str, list[_Interval]] = {}
    start = 0
    for upto, variant in allocation:
        held.setdefault(str(variant), []).append((start, int(upto)))
        start = int(upto)
    return held


def _size(intervals: Sequence[_Interval]) -> int:
    return sum(end - start for start, end in intervals)


def _cut(intervals: Sequence[_Interval], size: int) -> tuple[list[_Interval], list[_Interval]]:
    """Split sorted intervals into the lowest `size` buckets and the rest."""
    lower: list[_Interval] = []
    upper: list[_Interval] = []
    for start, end in intervals:
        middle = min(start + max(size, 0), end)
        size -= middle - start
        if start < middle:
            lower.append((start, middle))
        if middle < end:
            upper.append((middle, end))
    return lower, upper


def _joined(held: Mapping[str, Sequence[_Interval]]) -> list[list[int | str]]:
    pieces = sorted((end, variant) for variant, parts in held.items() for _, end in parts)
    return [
        [end, variant]
        for index, (end, variant) in enumerate(pieces)
        if index + 1 == len(pieces) or pieces[index + 1][1] != variant
    ]
