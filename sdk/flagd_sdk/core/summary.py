"""Exposures, outcomes and unit events of one process, as counts that merge in any order.

What decides whether something is kept must not know which variant was served, or the guard's
comparison would be biased: units are dropped by a threshold on their hash, cells by flag.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cachetools import TTLCache

from flagd_sdk.core.bucketing import unit_of
from flagd_sdk.core.counts import UNTIMED, Counts, ErrorKind, Failed
from flagd_sdk.core.failure import Failure, one_line, unit_hash
from flagd_sdk.core.latency import latency_bucket
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.types import ContextMapping

MAX_KINDS_PER_FLAG = 50
OTHER_KIND = "error:other"
MAX_CELLS = 2_000
MAX_UNSCOPED_FLAGS = 1_000
MAX_ERROR_KINDS = 500
MAX_PENDING_UNITS = 4_096
MAX_SENT_UNITS = 16_384  # remembered; it saves bytes only, since the server counts a unit once
# Short, so that the guard's later epochs, which start with a fresh memory, see a unit again.
RESEND_AFTER_S = 60.0
MAX_SAMPLE_CHARACTERS = 200
MAX_WHERE_CHARACTERS = 200

# A serialised summary stays below 512 KiB. These are upper estimates in bytes of what an entry
# adds, beside the names in it; units are bounded by number (4,096 of 19 bytes).
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


# What was served in a unit of work, and its duration in microseconds.
Finished: TypeAlias = tuple[Mapping[str, Resolution], int]


def _estimated_bytes(served: Resolution) -> int:
    return len(served.flag) + len(served.split or "") + len(served.variant or "") + _CELL_BYTES


def _unit_hash(served: Resolution, context: ContextMapping, unit_key: bytes) -> str | None:
    """Return the hash that a unit event of a resolution carries, or None where it makes none."""
    if served.bucket_by is None or not unit_key:
        return None
    try:
        unit = unit_of(context.get(served.bucket_by))
    except Exception:  # the host's edge: its failure counts although it can't be placed
        return None
    return None if unit is None else unit_hash(unit, unit_key)


class Tally:
    """Counts units of work. Not thread-safe: the caller holds one lock around each method.

    Times are arguments, in seconds of any clock that does not run backwards, so that recorded
    traffic can be counted in recorded time.
    """

    __slots__ = ("_counts", "_kinds", "_now_s", "_sent")

    def __init__(self) -> None:
        self._counts = Counts()
        self._kinds: dict[str, set[str]] = {}
        self._now_s = 0.0
        # (flag, split, config version, kind, hash) of the unit events of the last minute.
        self._sent: TTLCache[tuple[str, str | None, int, str, str], None] = TTLCache(
            MAX_SENT_UNITS, RESEND_AFTER_S, timer=lambda: self._now_s
        )

    @property
    def has_news(self) -> bool:
        """Whether anything was counted since the last `take`."""
        return bool(self._counts)

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
        self.count_all(deque(((served, duration_us),)))
        self._now_s = max(self._now_s, now_s)
        return self._count_failures(served, context, unit_key, failures)

    def count_all(self, finished: deque[Finished]) -> None:
        """Take units of work that did not fail off a queue and count them.

        Other threads may append meanwhile; what they append later than this begins may stay.
        """
        cells = self._counts.cells
        take = finished.popleft
        for _ in range(len(finished)):
            served, duration_us = take()
            # Short scopes are the ones that would notice the call.
            bucket = duration_us if 0 <= duration_us < 16 else latency_bucket(duration_us)
            for resolution in served.values():
                try:
                    cells[resolution][bucket] += 1
                except KeyError:
                    self._open(resolution, bucket)

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
            failed = counts.failed.pop(served, None)
            for kind, hashes in failed.units.items() if failed else ():
                counts.pending_units -= len(hashes)
                for hashed in hashes:
                    self._forget(served, kind, hashed)

    def _count_failures(
        self,
        served: Mapping[str, Resolution],
        context: ContextMapping,
        unit_key: bytes,
        failures: Sequence[Failure],
    ) -> bool:
        """Add to a unit of work just counted how it failed; see `record`."""
        is_worth_telling = False
        for resolution in served.values():
            if resolution not in self._counts.cells:
                continue  # dropped as a whole
            linked = [each for each in failures if each.flag in (None, resolution.flag)]
            if not linked:
                continue
            self._failed(resolution).errors += 1
            hashed = _unit_hash(resolution, context, unit_key)
            for failure in linked:
                kind, is_new = self._known_kind(resolution.flag, failure.kind)
                self._count_error_kind(resolution, kind, failure)
                if hashed is not None:
                    is_worth_telling = is_worth_telling or is_new
                    self._add_unit(resolution, kind, hashed)
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

    def _failed(self, resolution: Resolution) -> Failed:
        return self._counts.failed.setdefault(resolution, Failed())

    def _add_unit(self, served: Resolution, kind: str, hashed: str) -> None:
        counts = self._counts
        if int(hashed, 16) >= counts.threshold:
            counts.drop("units")
            return
        key = (served.flag, served.split, served.version, kind, hashed)
        if key in self._sent:
            return
        self._sent[key] = None
        self._failed(served).units.setdefault(kind, set()).add(hashed)
        counts.pending_units += 1
        while counts.pending_units > MAX_PENDING_UNITS:
            self._halve_threshold()

    def _halve_threshold(self) -> None:
        """Drop the upper half of the hashes, whatever their side, flag, kind or age."""
        counts = self._counts
        counts.threshold //= 2
        limit = f"{counts.threshold:016x}"  # equally long hex text sorts like the number
        kept = 0
        for served, failed in counts.failed.items():
            for kind, hashes in failed.units.items():
                for hashed in [hashed for hashed in hashes if hashed >= limit]:
                    hashes.discard(hashed)
                    self._forget(served, kind, hashed)
                kept += len(hashes)
            failed.units = {kind: hashes for kind, hashes in failed.units.items() if hashes}
        counts.pending_units = kept

    def _forget(self, served: Resolution, kind: str, hashed: str) -> None:
        """Let a unit event that was dropped come again: it was never sent."""
        counts = self._counts
        counts.drop("units")
        self._sent.pop((served.flag, served.split, served.version, kind, hashed), None)
