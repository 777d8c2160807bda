"""Measures the controls' latency of every service, for the thresholds that SDKs are given."""

from collections.abc import Mapping

from flagd_server.domain.allowance import SERVICES_OF_ENVIRONMENT
from flagd_server.domain.latency_hours import HOURS_KEPT, LatencyHours
from flagd_server.storage.base import Reader


class Thresholds:
    """What the storage has of the last day, kept in memory. Not thread-safe."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, LatencyHours]] = {}

    def forget(self) -> None:
        """Drop what is in memory; it is read again when it is needed."""
        self._services.clear()

    def add(
        self,
        reader: Reader,
        environment: str,
        service: str,
        minute: int,
        latency: Mapping[int, int],
    ) -> bool:
        """Add exposures of a control; return whether the service is measured.

        Beyond `SERVICES_OF_ENVIRONMENT` a new service is not. What was measured is to be stored.
        """
        services = self._loaded(reader, environment, minute)
        hours = services.get(service)
        if hours is None:
            if len(services) >= SERVICES_OF_ENVIRONMENT:
                return False
            hours = services[service] = LatencyHours()
        hours.add(minute, latency)
        return True

    def slow_over_s(
        self, reader: Reader, environment: str, service: str, minute: int
    ) -> Mapping[str, float]:
        """Return the service's thresholds in seconds, by quantile; empty while it has none."""
        hours = self._loaded(reader, environment, minute).get(service)
        return {} if hours is None else hours.slow_over_s(minute)

    def _loaded(self, reader: Reader, environment: str, minute: int) -> dict[str, LatencyHours]:
        services = self._services.get(environment)
        if services is None:
            services = self._services[environment] = {}
            for row in reader.control_latencies(environment, oldest_minute(minute)):
                services.setdefault(row.service, LatencyHours()).add(row.minute, row.latency)
        return services


def oldest_minute(minute: int) -> int:
    """Return the first minute that still matters in this one."""
    return (minute // 60 - HOURS_KEPT) * 60
