"""What the guard asks a process to look at besides errors: slow units, and a sample of all units.

A unit is looked at once an hour for each configuration of a split: at its first exposure. Neither
what is remembered, nor what is left out where there are too many, knows a unit's side.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from flagd_sdk.core.bucketing import TARGETING_KEY, unit_of
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.types import ContextMapping

# A feature may slow its users by this factor before the guard counts them as slowed.
TOLERATED_SLOWDOWN: Final = 1.05
QUANTILES: Final = ("p99", "p90")
MAX_THRESHOLD_S: Final = 86_400.0
HOUR_NS: Final = 3_600 * 10**9

MAX_REMEMBERED_UNITS: Final = 32_768  # some 4 MB
MAX_REMEMBERED_SPLITS: Final = 1_024  # in an hour, each configuration version by itself
MAX_ATTRIBUTES: Final = 8  # that place units, beside the targeting key
_MAX_CACHED_RESOLUTIONS: Final = 16_384

_LOWEST_MARK: Final = -(1 << 63)
_ABOVE_ALL_MARKS: Final = 1 << 63

# --- what the server asks for ------------------------------------------------------------------

NOBODY: Final = "0" * 16
_HASH = r"[0-9a-f]{16}"


class Watch(NamedTuple):
    """What to look at.

    Attributes:
        slow_over_s: quantile → seconds beyond which an exposure is slow in this service.
        exposed_below: first exposures are reported of units whose hash is below this one.
    """

    slow_over_s: Mapping[str, float] = {}
    exposed_below: str = NOBODY

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be looked at."""
        return not self.slow_over_s and self.exposed_below == NOBODY

    def after(self, reply: Mapping[str, Any]) -> "Watch":
        """Return what to look at after a reply to a summary.

        Never raises. What is missing in the reply, of another type or absurd leaves what was.
        """
        slow_over_s = self.slow_over_s
        asked = reply.get("slow_over_s")
        if isinstance(asked, Mapping):
            usable = {name: _usable(asked[name]) for name in QUANTILES if name in asked}
            kept = {name: slow_over_s.get(name) if s is None else s for name, s in usable.items()}
            slow_over_s = {name: s for name, s in kept.items() if s is not None}
        below = reply.get("exposed_below")
        if not (isinstance(below, str) and re.fullmatch(_HASH, below)):
            below = self.exposed_below
        return Watch(slow_over_s, below)

    def thresholds(self) -> tuple["Threshold", ...]:
        """Return the thresholds in the form that a duration is compared with."""
        return tuple(
            Threshold(s * 1e6, s * 1e6 * TOLERATED_SLOWDOWN, f"near:{name}", f"slow:{name}")
            for name, s in self.slow_over_s.items()
        )


NOTHING: Final = Watch()


class Threshold(NamedTuple):
    """Microseconds beyond which an exposure is of the kind `near`, and beyond which `slow`.

    The guard counts `near` as slow in the control, and in the treatment not. So the process need
    not know which of its variants is the control, and the treatment may be slower by the tolerated
    factor.
    """

    near_us: float
    slow_us: float
    near: str
    slow: str

    def kind_of(self, duration_us: int) -> str | None:
        """Return the kind of an exposure of such a duration, or None where it is fast enough."""
        if duration_us <= self.near_us:
            return None
        return self.slow if duration_us > self.slow_us else self.near


def _usable(seconds: object) -> float | None:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return float(seconds) if 0 < seconds <= MAX_THRESHOLD_S else None
    return None


# --- whose first exposure it is ----------------------------------------------------------------

# Of a unit of work: its unit by the targeting key; by each other attribute that was asked for; the
# key of the hashes; and when it ended, in nanoseconds. It holds no context, which may be large and,
# once the unit of work has ended, be used for another.
Witness: TypeAlias = tuple[str | None, Mapping[str, str | None], bytes, int]

# What was served in a unit of work, its duration in microseconds, and, where something is looked
# at, its witness.
Finished: TypeAlias = tuple[Mapping[str, Resolution], int, Witness | None]

NO_UNITS: Final[Mapping[str, str | None]] = {}


def units_by(attributes: Iterable[str], context: ContextMapping) -> Mapping[str, str | None]:
    """Return attribute → the unit that a context has by it. Never raises."""
    units = {}
    for attribute in attributes:
        try:
            units[attribute] = unit_of(context.get(attribute))
        except Exception:  # the host's edge: reading a context may run any code
            units[attribute] = None
    return units


# A unit that met something for the first time in the hour: what was served, the bits of what was
# new to it, the unit, the key of its hash, and the duration in microseconds.
FirstExposure: TypeAlias = tuple[Mapping[str, Resolution], int, str, bytes, int]


class FirstExposures:
    """Remembers for an hour whose exposure was looked at. Not thread-safe.

    A unit is remembered as one integer (its mark, Python's own hash of it, which each process
    salts), with one bit for each configuration of a split that it has met. Both variants of a
    configuration share the bit. Where there are too many units, those with the higher marks are no
    longer looked at: marks know nothing of the hash that placed a unit, nor of when it came.

    Attributes:
        attributes: by which splits place units, beside the targeting key. They are learned from
            what was served, so that a unit of work reads no more of its context than is needed.
        left_out: exposures that were not looked at for want of room, since it was last set to 0.
    """

    __slots__ = (
        "_bits",
        "_ends_ns",
        "_limit",
        "_masks",
        "_met",
        "_splits",
        "attributes",
        "left_out",
    )

    def __init__(self) -> None:
        self.left_out = 0
        self._met: dict[int, int] = {}
        self._splits: dict[tuple[str, str | None, int], int] = {}
        self._masks: dict[str, int] = {}  # attribute → the bits of the splits that use it
        # A cache of `_splits`; 0 where no split decided.
        self._bits: dict[Resolution, int] = {}
        self._begin(0)

    def _begin(self, now_ns: int) -> None:
        """Forget everybody, and all configurations."""
        self._ends_ns = now_ns + HOUR_NS
        self._limit = _ABOVE_ALL_MARKS
        for memory in (self._met, self._splits, self._masks, self._bits):
            memory.clear()
        self.attributes: tuple[str, ...] = ()

    def among(self, finished: Iterable[Finished], over_us: float) -> Iterator[FirstExposure]:
        """Take note of the units of work that have a witness, in their order.

        Args:
            over_us: yield those alone that lasted longer: mostly they are the few of interest.

        Yields:
            What `met` understands until the next one is asked for.
        """
        bits, met_by = self._bits, self._met.get
        for served, duration_us, witness in finished:
            if witness is None:
                continue
            unit, units, unit_key, ended_ns = witness
            if ended_ns >= self._ends_ns:
                self._begin(ended_ns)
            asked = 0
            try:
                for resolution in served.values():
                    asked |= bits[resolution]
            except KeyError:
                asked = self._learn(served)
            mark = hash(unit)
            if self.attributes:
                placed = self._placed(asked, unit, units)
            elif unit is None or not asked & ~met_by(mark, 0):
                continue  # the way of nearly all units of work
            else:
                placed = ((unit, mark, asked),)
            for text, mark, part in placed:
                new = self._meet(mark, part)
                if new and duration_us > over_us:
                    yield served, new, text, unit_key, duration_us

    def met(self, served: Mapping[str, Resolution], new: int) -> list[Resolution]:
        """Return what was served that has one of these bits."""
        bits = self._bits
        return [each for each in served.values() if bits.get(each, 0) & new]

    def _placed(
        self, asked: int, unit: str | None, units: Mapping[str, str | None]
    ) -> Iterable[tuple[str, int, int]]:
        """Yield the units of a unit of work, each with its mark and the bits that it was asked."""
        for attribute, mask in self._masks.items():
            text = unit if attribute == TARGETING_KEY else units.get(attribute)
            if text is not None and asked & mask:
                yield text, hash(text), asked & mask

    def _meet(self, mark: int, asked: int) -> int:
        """Remember a unit; return the bits that are new to it."""
        met = self._met
        before = met.get(mark, 0)
        new = asked & ~before
        if not new:
            return 0
        if mark >= self._limit:
            self.left_out += 1
            return 0
        met[mark] = before | new
        while len(met) > MAX_REMEMBERED_UNITS:
            self._limit = limit = (self._limit + _LOWEST_MARK) // 2
            for high in [mark for mark in met if mark >= limit]:
                del met[high]
        return new

    def _learn(self, served: Mapping[str, Resolution]) -> int:
        """Return the bits of everything served; from now on they are in the cache."""
        if len(self._bits) >= _MAX_CACHED_RESOLUTIONS:
            self._bits.clear()  # flag sets of the past
        asked = 0
        for resolution in served.values():
            bit = self._bits.get(resolution)
            if bit is None:
                bit = self._bits[resolution] = self._bit(resolution)
            asked |= bit
        return asked

    def _bit(self, resolution: Resolution) -> int:
        attribute = resolution.bucket_by
        if attribute is None:
            return 0
        key = (resolution.flag, resolution.split, resolution.version)
        bit = self._splits.get(key)
        if bit is None:
            if len(self._splits) >= MAX_REMEMBERED_SPLITS or not self._has_place(attribute):
                self.left_out += 1
                return 0
            bit = self._splits[key] = 1 << len(self._splits)
            self._masks[attribute] = self._masks.get(attribute, 0) | bit
            self.attributes = tuple(each for each in self._masks if each != TARGETING_KEY)
        return bit

    def _has_place(self, attribute: str) -> bool:
        return (
            attribute == TARGETING_KEY
            or attribute in self._masks
            or len(self.attributes) < MAX_ATTRIBUTES
        )
