"""Unit → hash → bucket → outcome, in integers all the way.

`bucket = (murmur3_x86_32(utf8(salt + ":" + unit), seed 0) * 100_000) >> 32`. Hash, salt format and
rounding are a contract with every other SDK and with the users already placed; `tests/golden`
holds them. (MurmurHash3: Austin Appleby, public domain.)

mmh3 5.x crashes the process on text with a lone surrogate, so no text reaches it unchecked: here
alone is it called.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from mmh3 import hash as murmur3

from flagd_sdk.core.model import Peers, Resolution, Resolver
from flagd_sdk.core.types import ContextMapping

BUCKETS: Final = 100_000
TARGETING_KEY: Final = "targetingKey"

_NO_HASH: Final = 1 << 32  # above all of them


def bucket(salt: str, unit: str) -> int:
    """Return the bucket, 0 to 99,999, of a unit.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 can't carry.
    """
    return murmur3(f"{salt}:{unit}".encode(), 0, False) * BUCKETS >> 32


def unit_of(value: object) -> str | None:
    """Return the text by which a value places its bearer, or None where it can't place anyone.

    A non-empty string counts as it is, an integer and an integral float as their digits; a boolean
    and everything else is no identity.
    """
    kind = type(value)
    if issubclass(kind, str):
        text = str.__str__(value)  # exact, whatever the subclass overrides
        try:
            text.encode()
        except UnicodeEncodeError:
            return None
        return text or None
    try:
        if issubclass(kind, float):
            number = float.__float__(value)  # type: ignore[arg-type]
            return str(int(number)) if number.is_integer() else None
        if issubclass(kind, int) and kind is not bool:
            return str(int.__int__(value))  # type: ignore[arg-type]
    except ValueError:  # more digits than Python converts (sys.get_int_max_str_digits)
        return None
    return None


def targeting_unit(context: ContextMapping) -> str | None:
    """Return the unit that a context's targeting key is, or None where it has none."""
    value = context.get(TARGETING_KEY)
    if type(value) is str and value.isascii() and value:
        return value
    return unit_of(value)


def hash_threshold(upto: int) -> int:
    """Return the least hash whose bucket is `upto` or more: `hash < threshold ⇔ bucket < upto`.

    Comparing hashes saves the multiplication at each evaluation and is exact.
    """
    return -((-upto << 32) // BUCKETS)


def compile_split(
    bucket_by: str,
    salt: str,
    thresholds: Sequence[int],
    served: Sequence[Resolution],
    unplaced: Resolution,
) -> Resolver:
    """Make the function that places a context.

    Args:
        salt: text that UTF-8 can carry.
        thresholds: of `hash_threshold`, rising, where one outcome ends and the next begins.
        served: the outcomes, one more than there are thresholds.
        unplaced: served where the context has no unit.
    """
    prefix = f"{salt}:"
    place = _in_two if len(served) == 2 else _in_four if 3 <= len(served) <= 4 else _in_many
    resolve = place(prefix, thresholds, served, unplaced)
    if bucket_by == TARGETING_KEY:
        return resolve

    def resolve_by(context: ContextMapping, peers: Peers, _unit: str | None) -> Resolution:
        return resolve(context, peers, unit_of(context.get(bucket_by)))

    return resolve_by


def _in_two(
    prefix: str, thresholds: Sequence[int], served: Sequence[Resolution], unplaced: Resolution
) -> Resolver:
    (threshold,) = thresholds
    below, above = served

    def resolve(_context: ContextMapping, _peers: Peers, unit: str | None) -> Resolution:
        if unit is None:
            return unplaced
        return below if murmur3(prefix + unit, 0, False) < threshold else above

    return resolve


def _in_four(
    prefix: str, thresholds: Sequence[int], served: Sequence[Resolution], unplaced: Resolution
) -> Resolver:
    # A search for the place costs half as much as the hash; three comparisons next to nothing.
    first, second, third = (*thresholds, _NO_HASH)[:3]
    lowest, lower, upper, highest = (*served, served[-1])[:4]

    def resolve(_context: ContextMapping, _peers: Peers, unit: str | None) -> Resolution:
        if unit is None:
            return unplaced
        hashed = murmur3(prefix + unit, 0, False)
        if hashed < second:
            return lowest if hashed < first else lower
        return upper if hashed < third else highest

    return resolve


def _in_many(
    prefix: str, thresholds: Sequence[int], served: Sequence[Resolution], unplaced: Resolution
) -> Resolver:
    def resolve(_context: ContextMapping, _peers: Peers, unit: str | None) -> Resolution:
        if unit is None:
            return unplaced
        return served[bisect_right(thresholds, murmur3(prefix + unit, 0, False))]

    return resolve
