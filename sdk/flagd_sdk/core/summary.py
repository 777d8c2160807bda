"""Exposures, outcomes and unit events of one process, as counts that merge in any order.

What decides whether something is kept must not know which variant was served, or the guard's
comparison would be biased: units are dropped by a threshold on their hash, cells by flag.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf

from cachetools import TTLCache

from flagd_sdk.core.bucketing import TARGETING_KEY
from flagd_sdk.core.counts import UNTIMED, CellEvents, Counts, Durations, ErrorKind, Failed, sort_of
from flagd_sdk.core.failure import Failure, one_line, unit_hasher
from flagd_sdk.core.latency import latency_bucket
from flagd_sdk.core.looking import (
    NOBODY,
    NOTHING,
    Finished,
    FirstExposure,
    FirstExposures,
    Watch,
    units_by,
)
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.types import ContextMapping

MAX_KINDS_PER_FLAG = 50
OTHER_KIND = "error:other"
MAX_CELLS = 2_000
MAX_UNSCOPED_FLAGS = 1_000
MAX_ERROR_KINDS = 500
MAX_SENT_UNITS = 16_384  # remembered; it saves bytes only, since the server counts a unit once
# Short, so that the guard's later epochs, which start with a fresh memory, see a unit again.
RESEND_AFTER_S = 60.0
MAX_SAMPLE_CHARACTERS = 200
MAX_WHERE_CHARACTERS = 200

# A serialised summary stays below 640 KiB, of the 1 MiB that the server takes. These are upper
# estimates in bytes of what an entry adds, beside the names in it; units are bounded by number
# (4,096 and twice 2,048 of 19 bytes and, where they are alone in a cell, a kind).
_MAX_ESTIMATED_BYTES = 400_000
# A flag is let in at its first exposure, on whichever side, while so little is taken that its
# other side will find room; and what has no side takes its room in between. Otherwise a full
# summary would keep the flags of which it happened to see one side only.
_MAX_CELLS_TO_ADMIT = MAX_CELLS // 2
_MAX_BYTES_TO_ADMIT = 160_000
_MAX_BYTES_TO_ADD = 240_000
_CELL_BYTES = 160
_LATENCY_BYTES = 18
_ENTRY_BYTES = 120


EXPOSED_KIND = "exposed"


def _estimated_bytes(served: Resolution) -> int:
    return len(served.flag) + len(served.split or "") + len(served.variant or "") + _CELL_BYTES


class Tally:
    """Counts units of work. Not thread-safe: the caller holds one lock around each method.

    Times are arguments, in seconds of any clock that does not run backwards, so that recorded
    traffic can be counted in recorded time.

    Attributes:
        witnessed: what a `Witness` has to tell, its units by these attributes beside the targeting
            key; None while nothing is looked at, so that no witness is needed.
        failed: of the unit of work that `record` counted last.
    """

    __slots__ = (
        "_counts",
        "_first",
        "_hash_of",
        "_kinds",
        "_looked_at_over_us",
        "_now_s",
        "_sent",
        "_slow_over_us",
        "_thresholds",
        "_unit_key",
        "_watch",
        "failed",
        "witnessed",
    )

    witnessed: tuple[str, ...] | None
    _hash_of: Callable[[str], str]  # with `_unit_key`, once there is one

    def __init__(self, watch: Watch = NOTHING) -> None:
        self._counts = Counts()
        self.failed: list[Failed] = []
        self._first = FirstExposures()
        self._unit_key = b""
        self.watch(watch)
        self._kinds: dict[str, set[str]] = {}
        self._now_s = 0.0
        # (flag, split, config version, kind, hash) of the unit events of the last minute.
        self._sent: TTLCache[tuple[str, str | None, int, str, str], None] = TTLCache(
            MAX_SENT_UNITS, RESEND_AFTER_S, timer=lambda: self._now_s
        )

    @property
    def cells(self) -> Mapping[Resolution, Durations]:
        """The exposures counted since the last `take`."""
        return self._counts.cells

    @property
    def has_news(self) -> bool:
        """Whether anything was counted since the last `take`."""
        return bool(self._counts)

    def watch(self, watch: Watch) -> None:
        """From now on, look at units of work for this."""
        self._watch = watch
        self.witnessed = None if watch.is_idle else self._first.attributes
        self._thresholds = watch.thresholds()
        self._slow_over_us = min((each.near_us for each in self._thresholds), default=inf)
        self._looked_at_over_us = self._slow_over_us if watch.exposed_below == NOBODY else -inf

    def record(
        self,
        served: Mapping[str, Resolution],
        context: ContextMapping,
        unit_key: bytes,
        duration_us: int,
        failures: Sequence[Failure],
        now_s: float,
    ) -> bool:
        """Count one unit of work: its exposures together with its outcome.

        Args:
            served: flag → what was served in it, none of them an error.
            context: that they were evaluated with.
            unit_key: of the flag set; where it is empty no unit event is made.

        Returns:
            Whether a unit event of a kind new to its flag appeared, which is worth a summary at
            once. It does not depend on the side: the first event on either says so.
        """
        attributes = {each.bucket_by for each in served.values() if each.bucket_by is not None}
        units = units_by(attributes, context)
        witness = None
        if self.witnessed is not None:
            witness = units.get(TARGETING_KEY), units, unit_key, int(now_s * 1e9)
        self.count_all(deque(((served, max(0, duration_us), witness),)))
        self._now_s = max(self._now_s, now_s)
        return self._count_failures(served, units, unit_key, failures)

    def count_all(self, finished: deque[Finished]) -> None:
        """Take units of work off a queue and count them as ones that did not fail.

        No duration may be negative. Other threads may append meanwhile; what they append later than
        this begins may stay.
        """
        cells = self._counts.cells
        witnessed = []
        take = finished.popleft
        for _ in range(len(finished)):
            try:
                unit_of_work = take()
            except IndexError:  # a signal handler came between and counted the rest
                break
            served, duration_us, witness = unit_of_work
            # Short scopes are the ones that would notice the call.
            bucket = duration_us if duration_us < 16 else latency_bucket(duration_us)
            for resolution in served.values():
                try:
                    cells[resolution][bucket] += 1
                except KeyError:
                    self._open(resolution, bucket)
            if witness is not None:
                witnessed.append(unit_of_work)
        if witnessed:
            for first in self._first.among(witnessed, self._looked_at_over_us):
                self._look(first)
            if self.witnessed is not None:
                self.witnessed = self._first.attributes

    def unscoped(self, flag: str) -> None:
        """Count one evaluation outside any unit of work.

        The one method that needs no lock: threads that meet here lose a count at worst.
        """
        counts = self._counts
        seen = counts.unscoped.get(flag)
        if seen is not None:
            counts.unscoped[flag] = seen + 1
        elif (
            len(counts.unscoped) < MAX_UNSCOPED_FLAGS and counts.estimated_bytes < _MAX_BYTES_TO_ADD
        ):
            counts.estimated_bytes += len(flag) + _ENTRY_BYTES
            counts.unscoped[flag] = 1
        else:
            counts.drop("unscoped")

    def drop(self, what: str) -> None:
        """Count something that was left out beyond the tally's own bounds."""
        self._counts.drop(what)

    def take(self) -> Counts:
        """Hand over what was counted and begin anew; constant time."""
        left_out = self._first.left_out
        if left_out:
            self._first.left_out = 0
            self._counts.drop("looks", left_out)
        taken, self._counts = self._counts, Counts()
        return taken

    def _open(self, resolution: Resolution, bucket: int) -> None:
        """Count the first exposure of a cell, or the first in one of its buckets."""
        counts = self._counts
        durations = counts.cells.get(resolution)
        if durations is None:
            if not self._has_room(resolution.flag):
                counts.drop("exposures")
                return
            counts.estimated_bytes += _estimated_bytes(resolution)
            durations = counts.cells[resolution] = {}
        if counts.estimated_bytes < _MAX_BYTES_TO_ADD:
            counts.estimated_bytes += _LATENCY_BYTES
        else:
            counts.drop("latencies")
            bucket = UNTIMED
        durations[bucket] = durations.get(bucket, 0) + 1

    def _has_room(self, flag: str) -> bool:
        """Whether another cell of a flag can be opened; where not, all of it are left out."""
        counts = self._counts
        if flag in counts.admitted:
            if len(counts.cells) < MAX_CELLS and counts.estimated_bytes < _MAX_ESTIMATED_BYTES:
                return True
            self._refuse(flag)
        elif flag not in counts.refused:
            if (
                len(counts.cells) < _MAX_CELLS_TO_ADMIT
                and counts.estimated_bytes < _MAX_BYTES_TO_ADMIT
            ):
                counts.admitted.add(flag)
                return True
            counts.refused.add(flag)
        return False

    def _refuse(self, flag: str) -> None:
        """Leave a flag out of this summary with all its variants.

        One that has room for some of its variants only would show the side that came first.
        """
        counts = self._counts
        counts.admitted.discard(flag)
        counts.refused.add(flag)
        for served in [served for served in counts.cells if served.flag == flag]:
            durations = counts.cells.pop(served)
            counts.estimated_bytes -= _estimated_bytes(served) + _LATENCY_BYTES * len(durations)
            counts.drop("exposures", sum(durations.values()))
            events = counts.events.pop(served, None)
            for kind, hashes in events.units.items() if events else ():
                counts.bounds[sort_of(kind)].pending -= len(hashes)
                for hashed in hashes:
                    self._forget(served, kind, hashed)

    def _look(self, first: FirstExposure) -> None:
        """Add the unit events of a first exposure."""
        served, new, unit, unit_key, duration_us = first
        if not unit_key:
            return
        hashed = self._hashed(unit, unit_key)
        is_sampled = hashed < self._watch.exposed_below  # as the numbers: both are of 16 digits
        if not is_sampled and duration_us <= self._slow_over_us:
            return
        kinds = [threshold.kind_of(duration_us) for threshold in self._thresholds]
        if is_sampled:
            kinds.append(EXPOSED_KIND)
        for resolution in self._first.met(served, new):
            if resolution in self._counts.cells:  # else it was dropped as a whole
                for kind in kinds:
                    if kind is not None:
                        self._add_unit(resolution, kind, hashed)

    def _hashed(self, unit: str, unit_key: bytes) -> str:
        if unit_key != self._unit_key:
            self._unit_key, self._hash_of = unit_key, unit_hasher(unit_key)
        return self._hash_of(unit)

    def _count_failures(
        self,
        served: Mapping[str, Resolution],
        units: Mapping[str, str | None],
        unit_key: bytes,
        failures: Sequence[Failure],
    ) -> bool:
        """Add to a unit of work just counted how it failed; see `record`."""
        is_worth_telling = False
        self.failed = []
        for resolution in served.values():
            if resolution not in self._counts.cells:
                continue  # dropped as a whole
            linked = [each for each in failures if each.flag in (None, resolution.flag)]
            if not linked:
                continue
            self._events(resolution).errors += 1
            unit = units.get(resolution.bucket_by or "") if unit_key else None
            hashed = None if unit is None else self._hashed(unit, unit_key)
            kinds = []
            for failure in linked:
                kind, is_new = self._known_kind(resolution.flag, failure.kind)
                self._count_error_kind(resolution, kind, failure)
                kinds.append(kind)
                if hashed is not None:
                    is_worth_telling = is_worth_telling or is_new
                    self._add_error_unit(resolution, kind, hashed)
            if hashed is not None:
                self.failed.append((resolution, hashed, kinds))
        return is_worth_telling

    def _known_kind(self, flag: str, kind: str) -> tuple[str, bool]:
        """Return the kind to count under, and whether it is new to the flag."""
        kinds = self._kinds.get(flag)
        if kinds is None:
            if len(self._kinds) >= MAX_CELLS:
                return OTHER_KIND, False
            kinds = self._kinds[flag] = set()
        if kind in kinds:
            return kind, False
        if len(kinds) >= MAX_KINDS_PER_FLAG:
            return OTHER_KIND, False
        kinds.add(kind)
        return kind, True

    def _count_error_kind(self, resolution: Resolution, kind: str, failure: Failure) -> None:
        counts = self._counts
        key = (resolution.flag, resolution.variant or "", kind)
        entry = counts.error_kinds.get(key)
        if entry is None:
            if (
                len(counts.error_kinds) >= MAX_ERROR_KINDS
                or counts.estimated_bytes >= _MAX_BYTES_TO_ADD
            ):
                counts.drop("error_kinds")
                return
            where = one_line(failure.where, MAX_WHERE_CHARACTERS)
            sample = one_line(failure.sample, MAX_SAMPLE_CHARACTERS)
            entry = counts.error_kinds[key] = ErrorKind(where, sample)
            names = "".join((*key, where, sample))
            # Quotes and backslashes take two bytes in JSON.
            counts.estimated_bytes += 2 * len(names.encode()) + _ENTRY_BYTES
        entry.count += 1

    def _events(self, resolution: Resolution) -> CellEvents:
        events = self._counts.events.get(resolution)
        if events is None:
            events = self._counts.events[resolution] = CellEvents()
        return events

    def _add_error_unit(self, served: Resolution, kind: str, hashed: str) -> None:
        key = (served.flag, served.split, served.version, kind, hashed)
        if key not in self._sent:
            self._sent[key] = None
            self._add_unit(served, kind, hashed)

    def _add_unit(self, served: Resolution, kind: str, hashed: str) -> None:
        sort = sort_of(kind)
        bound = self._counts.bounds[sort]
        if int(hashed, 16) >= bound.threshold:
            self._forget(served, kind, hashed)
            return
        hashes = self._events(served).units.setdefault(kind, set())
        if hashed not in hashes:
            hashes.add(hashed)
            bound.pending += 1
            while bound.pending > bound.most:
                self._halve_threshold(sort)

    def _halve_threshold(self, sort: str) -> None:
        """Drop the upper half of the hashes of a sort, whatever their side, flag, kind or age."""
        bound = self._counts.bounds[sort]
        bound.threshold //= 2
        limit = f"{bound.threshold:016x}"  # equally long hex text sorts like the number
        bound.pending = 0
        for served, events in self._counts.events.items():
            for kind, hashes in events.units.items():
                if sort_of(kind) != sort:
                    continue
                for hashed in [hashed for hashed in hashes if hashed >= limit]:
                    hashes.discard(hashed)
                    self._forget(served, kind, hashed)
                bound.pending += len(hashes)
            events.units = {kind: hashes for kind, hashes in events.units.items() if hashes}

    def _forget(self, served: Resolution, kind: str, hashed: str) -> None:
        """Count a unit event that was dropped, and let one of an error come again.

        What was looked at comes again with the next hour.
        """
        self._counts.drop("units")
        self._sent.pop((served.flag, served.split, served.version, kind, hashed), None)
