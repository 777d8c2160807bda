"""What each version of a service did, out of the minutes that were counted.

A request is counted once for each flag that it meets, so that sums over flags would count it many
times. The flag that met most of a version's requests stands for them; the true number is never
below.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flagd_sdk.core.latency import bucket_bounds_us
from flagd_server.domain.latency_hours import add_up, quantile_bucket
from flagd_server.stats.two_sample import Window
from flagd_server.storage.base import Reader
from flagd_server.storage.telemetry_records import CountRow


@dataclass(frozen=True, slots=True)
class Traffic:
    """Attributes:
    flag: the one that met most requests; None where there were none.
    latency: bucket index → requests.
    """

    flag: str | None = None
    exposures: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @property
    def error_rate(self) -> float | None:
        return self.errors / self.exposures if self.exposures else None

    def latency_ms(self, quantile: float) -> float | None:
        """Return the duration up to which this share of the requests took; off by at most 1/8."""
        if not self.latency:
            return None
        return bucket_bounds_us(quantile_bucket(self.latency, quantile))[1] / 1000


class ReleaseCounts:
    """The counted minutes of one service, by flag, from one minute on."""

    def __init__(
        self, reader: Reader, environment: str, service: str, flags: Iterable[str], since: int
    ) -> None:
        self._rows: dict[tuple[str, str], list[CountRow]] = {}  # by (flag, version)
        for flag in flags:
            for row in reader.counts(environment, flag, since):
                if row.service == service:
                    self._rows.setdefault((flag, row.service_version), []).append(row)
        self._exposures = {
            key: sum(row.exposures for row in rows) for key, rows in self._rows.items()
        }

    def traffic(self) -> dict[str, Traffic]:
        """Return each version's traffic."""
        busiest: dict[str, str] = {}
        for (flag, version), exposures in self._exposures.items():
            if exposures > self._exposures.get((busiest.get(version, ""), version), 0):
                busiest[version] = flag
        return {version: self._traffic(flag, version) for version, flag in busiest.items()}

    def beside(self, version: str) -> dict[str, str]:
        """Return other version → the flag that met most requests of both, where one did."""
        found: dict[str, tuple[int, str]] = {}
        for (flag, other), exposures in self._exposures.items():
            shared = min(exposures, self._exposures.get((flag, version), 0))
            if other != version and shared > found.get(other, (0, ""))[0]:
                found[other] = shared, flag
        return {other: flag for other, (_, flag) in found.items()}

    def _traffic(self, flag: str, version: str) -> Traffic:
        rows = self._rows[flag, version]
        return Traffic(
            flag,
            self._exposures[flag, version],
            sum(row.errors for row in rows),
            add_up(row.latency for row in rows),
        )

    def minutes(self, flag: str, version: str) -> list[tuple[float, int, int]]:
        """Return (beginning in seconds, exposures, errors) of the version's minutes, in order."""
        sums: dict[int, list[int]] = {}
        for row in self._rows.get((flag, version), ()):
            minute = sums.setdefault(row.minute, [0, 0])
            minute[0] += row.exposures
            minute[1] += row.errors
        return [(60.0 * minute, *counts) for minute, counts in sorted(sums.items())]  # type: ignore[misc]

    def windows(self, flag: str, version: str, other: str, before: int) -> list[Window]:
        """Return what both did minute by minute, each variant by itself; `version` is treated.

        Args:
            before: the minute that is not over yet.
        """
        minutes: dict[int, dict[str, list[int]]] = {}
        for place, name in ((0, version), (2, other)):
            for row in self._rows.get((flag, name), ()):
                if row.minute < before:
                    strata = minutes.setdefault(row.minute, {})
                    counts = strata.setdefault(row.variant, [0, 0, 0, 0])
                    counts[place] += row.exposures
                    counts[place + 1] += row.errors
        return [
            Window(
                60.0 * minute,
                tuple((c[0], c[1], c[2], c[3]) for _, c in sorted(minutes[minute].items())),
            )
            for minute in sorted(minutes)
        ]
