"""Weights → which bucket serves which variant, moving as few buckets as a change forces.

An allocation is state: it is computed from the one before, kept with the configuration and
delivered with the flag. The buckets that move between two weightings are exactly their
total-variation distance, Σ |w' - w| / 2, which no assignment can go below.

Buckets can *rest*: users who have met a fault come last when the variant is released again. Resting
changes only the order in which buckets are dealt: those that do not rest, rising, and then those
that do. Everything is computed by a bucket's rank in that order.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from flagd_sdk.core.bucketing import BUCKETS

# [exclusive upper bound, variant] of each piece, rising to BUCKETS: JSON as it goes on the wire.
Allocation: TypeAlias = Sequence[Sequence[int | str]]

# [first bucket, exclusive upper bound] of each stretch, rising: as it is kept with a split.
Intervals: TypeAlias = Sequence[Sequence[int]]

_Interval: TypeAlias = tuple[int, int]  # half-open
# A stretch of buckets or ranks that lies elsewhere in the other order: (here, there, size).
_Stretch: TypeAlias = tuple[int, int, int]


def reallocate(
    allocation: Allocation | None,
    weights: Mapping[str, int],
    off_variant: str,
    rested: Intervals = (),
) -> list[list[int | str]]:
    """Return the allocation for new weights.

    One variant is the *base*: the off variant where it takes part, else the last one. It lies above
    the others, gives up its lowest buckets first and gets back what nobody else takes; every other
    variant gives up its highest buckets first and takes the lowest that are free. So a variant
    against the base always holds the lowest buckets, and one that is ramped up, down and up again
    meets the same users in the same order, whatever the steps were. Resting buckets count as higher
    than all others.

    Args:
        allocation: the one in force; None where there is none.
        weights: variant → share of `BUCKETS`; variants left out have none.
        rested: the buckets that rest, as `united` returns them.

    Raises:
        ValueError: a weight is negative, or they do not sum to `BUCKETS`.
    """
    if min(weights.values(), default=0) < 0 or sum(weights.values()) != BUCKETS:
        raise ValueError(f"weights {dict(weights)}: expected a sum of {BUCKETS}, none negative")
    base = off_variant if off_variant in weights else list(weights)[-1]
    stretches = _ranked(rested)
    held = {base: [(0, BUCKETS)]}
    if allocation is not None:
        by_bucket = held_by(allocation)
        held = {name: _translated(parts, stretches) for name, parts in by_bucket.items()}
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
    back = [(there, here, size) for here, there, size in stretches]
    return _joined({name: _translated(parts, back) for name, parts in kept.items()})


def united(*groups: Intervals) -> list[list[int]]:
    """Return the buckets that are in any of these, in the shortest form."""
    found: list[list[int]] = []
    for start, end in sorted((start, end) for group in groups for start, end in group):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return found


def _ranked(rested: Intervals) -> list[_Stretch]:
    """Return, for each stretch of buckets, the rank of its first: those that rest come last."""
    awake = []
    start = 0
    for first, end in (*rested, (BUCKETS, BUCKETS)):
        awake.append((start, first))
        start = end
    stretches = []
    rank = 0
    for start, end in (*awake, *rested):
        if start < end:
            stretches.append((start, rank, end - start))
            rank += end - start
    return stretches


def _translated(intervals: Sequence[_Interval], stretches: Sequence[_Stretch]) -> list[_Interval]:
    """Return where intervals of the one order lie in the other."""
    found = []
    for here, there, size in stretches:
        for start, end in intervals:
            low, high = max(start, here), min(end, here + size)
            if low < high:
                found.append((low - here + there, high - here + there))
    return sorted(found)


def _rank(variant: str, base: str, weights: Mapping[str, int]) -> tuple[bool, int, str]:
    """Order variants as they are written, those without a weight after them, the base last."""
    names = list(weights)
    place = names.index(variant) if variant in weights else len(names)
    return variant == base, place, variant


def held_by(allocation: Allocation) -> dict[str, list[_Interval]]:
    """Return the buckets that each variant holds."""
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
