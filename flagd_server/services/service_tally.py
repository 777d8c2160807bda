"""Adds up what the services with an objective report, for their error budgets."""

from collections.abc import Iterable, Mapping, Sequence

from flagd_server.domain.objectives import MAX_WINDOW_DAYS
from flagd_server.services.served_versions import BelievableCell
from flagd_server.storage.base import Reader
from flagd_server.storage.records import Slo
from flagd_server.storage.telemetry_records import ServiceCounts

_DAY_MINUTES = 24 * 60


class ServiceTally:
    """Of one transaction, which counts what it has read the objectives for. Not thread-safe."""

    def __init__(self) -> None:
        self._slos: dict[str, dict[str, Slo]] = {}
        self._sums: dict[tuple[str, str], list[int]] = {}

    def count(
        self,
        reader: Reader,
        environment: str,
        service: str,
        by_flag: Mapping[str, Sequence[BelievableCell]],
    ) -> None:
        """Count one summary's believable cells; of a service without an objective, nothing."""
        slos = self._slos.get(environment)
        if slos is None:
            slos = {slo.service: slo for slo in reader.slos(environment)}
            self._slos[environment] = slos
        slo = slos.get(service)
        if slo is None:
            return
        sums = self._sums.setdefault((environment, service), [0, 0, 0, 0, 0])
        first_slow = None if slo.latency is None else slo.latency.first_slow_bucket
        busiest = 0
        for cells in by_flag.values():
            exposures = sum([each.cell.exposures for each in cells])
            busiest = max(busiest, exposures)
            sums[0] += exposures
            sums[1] += sum([each.cell.errors for each in cells])
            if first_slow is not None:
                for each in cells:
                    for bucket, count in each.cell.latency.items():
                        sums[3] += count
                        if bucket >= first_slow:
                            sums[4] += count
        sums[2] += busiest

    def rows(self, minute: int) -> Iterable[ServiceCounts]:
        return (
            ServiceCounts(environment, service, minute, *sums)
            for (environment, service), sums in self._sums.items()
            if sums[0]
        )


def oldest_counts(minute: int) -> tuple[int, int]:
    """Return the first minute of which the minutes still matter, and that of the hours."""
    return minute - 2 * _DAY_MINUTES, minute - (MAX_WINDOW_DAYS + 1) * _DAY_MINUTES
