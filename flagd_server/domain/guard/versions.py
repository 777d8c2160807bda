"""What the versions of each service did under one flag, minute by minute, in bounded memory.

Fed with the flag's cells in the order of commit. It only counts; `version_verdict` says what the
counts mean. Whether a unit is counted depends on its hash and on when it last failed, never on the
version that served it.
"""

from array import array
from base64 import b64decode, b64encode
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_server.domain.guard.metrics import ERROR_PREFIX
from flagd_server.domain.guard.records import Cell
from flagd_server.stats.two_sample import Stratum, Window

WINDOW_S = 60.0
# Six hours in which versions of a service ran side by side.
WINDOWS_KEPT = 360
SERVICES_KEPT = 16
VERSIONS_KEPT = 8
# A new version takes the place of one that has been silent for so long; until then it is pooled.
SILENT_S = 3_600.0
# A unit's failures within this time of the one that was counted are repeats of it.
REPEAT_S = 3_600.0
UNITS_KEPT = 10_000
_ALL_HASHES = 1 << 64


@dataclass(slots=True)
class VersionCounts:
    """Sums over one version of a service since it was first heard of, in seconds."""

    first_seen: float
    last_seen: float
    exposures: int = 0
    failing_units: int = 0


@dataclass(slots=True)
class _Minute:
    """One window: version → variant → [exposures, failing units]."""

    t: float
    counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def is_shared(self) -> bool:
        """Return whether two versions served the same variant, so that they can be compared."""
        seen: set[str] = set()
        for variants in self.counts.values():
            if not seen.isdisjoint(variants):
                return True
            seen.update(variants)
        return False


@dataclass(slots=True)
class ServiceBook:
    """The versions of one service.

    Attributes:
        versions: in order of appearance.
        pooled_exposures: of versions for which there was no place, and of those that gave it up.
        minutes: closed windows in which versions ran side by side; `open_minute` is still filling.
        counted: unit → when its failure was counted, within the last hour, oldest first.
        tau: units whose hash is not under it are ignored (thinning by hash).
    """

    versions: dict[str, VersionCounts] = field(default_factory=dict)
    pooled_exposures: int = 0
    minutes: deque[_Minute] = field(default_factory=lambda: deque(maxlen=WINDOWS_KEPT))
    open_minute: _Minute | None = None
    counted: OrderedDict[int, float] = field(default_factory=OrderedDict)
    tau: int = _ALL_HASHES

    def observe(self, t: float, cell: Cell) -> None:
        """Take in a cell that exposed somebody; `t` is never before the one before it."""
        self._turn_minute(t)
        failing = self._count_failing(t, cell)
        version = self._version(cell.service_version, t)
        if version is None:
            self.pooled_exposures += cell.exposures
            return
        version.last_seen = t
        version.exposures += cell.exposures
        version.failing_units += failing
        assert self.open_minute is not None, "a minute was opened above"
        variants = self.open_minute.counts.setdefault(cell.service_version, {})
        counts = variants.setdefault(cell.variant, [0, 0])
        counts[0] += cell.exposures
        counts[1] += failing

    def _turn_minute(self, t: float) -> None:
        start = t - t % WINDOW_S
        if self.open_minute is None or self.open_minute.t < start:
            if self.open_minute is not None and self.open_minute.is_shared():
                self.minutes.append(self.open_minute)
            self.open_minute = _Minute(start)

    def _version(self, name: str, t: float) -> VersionCounts | None:
        """Return the version's counts, None where it has no place."""
        known = self.versions.get(name)
        if known is None:
            if len(self.versions) >= VERSIONS_KEPT:
                quietest = min(self.versions, key=lambda other: self.versions[other].last_seen)
                if self.versions[quietest].last_seen > t - SILENT_S:
                    return None
                self.pooled_exposures += self.versions.pop(quietest).exposures
            known = self.versions[name] = VersionCounts(t, t)
        return known

    def _count_failing(self, t: float, cell: Cell) -> int:
        """Return how many units failed that had not in the last hour, in whichever version.

        Counting a unit once in each version would feign a difference: the one that always fails
        would be counted as often in a version that serves it once as in one that always does.
        """
        if not cell.units:
            return 0
        while self.counted and t - next(iter(self.counted.values())) >= REPEAT_S:
            self.counted.popitem(last=False)
        units = {
            unit
            for kind, hashes in cell.units.items()
            if kind.startswith(ERROR_PREFIX)
            for unit in map(_unit_of, hashes)
            if unit < self.tau and unit not in self.counted
        }
        # Nobody can fail who was not exposed: this bounds what a forged cell can say.
        fresh = sorted(units)[: cell.exposures]
        self.counted.update(dict.fromkeys(fresh, t))
        while len(self.counted) > UNITS_KEPT:
            self.tau //= 2
            for unit in [unit for unit in self.counted if unit >= self.tau]:
                del self.counted[unit]
        return len(fresh)

    def compared(
        self, newer: str, older: str, variants: Collection[str] | None = None
    ) -> list[Window]:
        """Return the closed windows in which both versions served the same variant.

        Each variant is a stratum, so that the flag is held fixed; `newer` is the treatment.

        Args:
            variants: only these; None means all.
        """
        windows = []
        for minute in self.minutes:
            treated, spared = minute.counts.get(newer, {}), minute.counts.get(older, {})
            strata: list[Stratum] = [
                (*_pair(treated[variant]), *_pair(spared[variant]))
                for variant in sorted(treated)
                if variant in spared and (variants is None or variant in variants)
            ]
            if strata:
                windows.append(Window(minute.t, tuple(strata)))
        return windows

    def to_document(self) -> dict[str, Any]:
        minutes = [*self.minutes, *([self.open_minute] if self.open_minute is not None else [])]
        return {
            "versions": {name: asdict(counts) for name, counts in self.versions.items()},
            "pooled_exposures": self.pooled_exposures,
            "minutes": [[minute.t, minute.counts] for minute in minutes],
            "has_open_minute": self.open_minute is not None,
            "counted_units": _encode(array("Q", self.counted)),
            "counted_at": _encode(array("d", self.counted.values())),
            "tau": self.tau,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ServiceBook":
        minutes = [_Minute(t, counts) for t, counts in document["minutes"]]
        open_minute = minutes.pop() if document["has_open_minute"] else None
        units = _decode("Q", document["counted_units"])
        counted_at = _decode("d", document["counted_at"])
        return cls(
            versions={name: VersionCounts(**row) for name, row in document["versions"].items()},
            pooled_exposures=document["pooled_exposures"],
            minutes=deque(minutes, WINDOWS_KEPT),
            open_minute=open_minute,
            counted=OrderedDict(zip(units, counted_at, strict=True)),
            tau=document["tau"],
        )


@dataclass(slots=True)
class VersionBook:
    """The services of one flag, in order of appearance. Same cells, same bits, restarted or not.

    Attributes:
        dropped_exposures: of services beyond the bound.
    """

    services: dict[str, ServiceBook] = field(default_factory=dict)
    dropped_exposures: int = 0

    def observe(self, t: float, cells: Iterable[Cell]) -> None:
        """Take in a summary's cells of the flag, whether a split decided them or not.

        Args:
            t: seconds, never before the summary before it.
        """
        # A unit that two cells name counts for one of them: for the same one however they come.
        for cell in sorted(cells, key=_cell_order):
            if not cell.exposures:
                continue
            book = self.services.get(cell.service)
            if book is None:
                if len(self.services) >= SERVICES_KEPT:
                    self.dropped_exposures += cell.exposures
                    continue
                book = self.services[cell.service] = ServiceBook()
            book.observe(t, cell)

    def to_document(self) -> dict[str, Any]:
        return {
            "services": {name: book.to_document() for name, book in self.services.items()},
            "dropped_exposures": self.dropped_exposures,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "VersionBook":
        services = {
            name: ServiceBook.from_document(row) for name, row in document["services"].items()
        }
        return cls(services, document["dropped_exposures"])


def _cell_order(cell: Cell) -> tuple[int, str, str]:
    return cell.config_version, cell.variant, cell.split or ""


def _pair(counts: list[int]) -> tuple[int, int]:
    exposures, failing = counts
    return exposures, failing


def _unit_of(text: str) -> int:
    return int(text, 16)


def _encode(column: "array[Any]") -> str:
    return b64encode(column.tobytes()).decode("ascii")


def _decode(code: str, text: str) -> "array[Any]":
    column: array[Any] = array(code)
    column.frombytes(b64decode(text))
    return column
