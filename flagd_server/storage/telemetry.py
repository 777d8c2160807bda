"""The part of a storage's contract that is about what processes report."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Protocol

from flagd_server.storage.telemetry_records import (
    CountRow,
    ErrorKindRow,
    Instance,
    LatencyRow,
    LocalKillRow,
    ServiceCounts,
    ServiceSums,
)


class TelemetryReader(Protocol):
    """See `base.Reader`."""

    def last_sequences(self, environment: str, instances: Collection[str]) -> dict[str, int]:
        """Return instance → number of the last summary counted, of those that had any."""
        ...

    def instances(self, environment: str) -> list[Instance]: ...
    def counts(self, environment: str, flag: str, since_minute: int) -> list[CountRow]: ...
    def control_latencies(self, environment: str, since_minute: int) -> Iterator[LatencyRow]:
        """Yield the rows by minute, without holding them all."""
        ...

    def error_kinds(self, environment: str, flag: str) -> list[ErrorKindRow]:
        """Return the kinds, most frequent first."""
        ...

    def service_sums(
        self, environment: str, service: str, since_minute: int, *, by_hour: bool
    ) -> ServiceSums:
        """Return what the service counted from the minute on.

        Args:
            by_hour: read the sums of whole hours, which are kept for longer, and of those the ones
                that began in the minute or later.
        """
        ...

    def local_kills(self, environment: str = "", flag: str = "") -> list[LocalKillRow]:
        """Return what processes told, ended ones too, newest first; of all where none is named."""
        ...

    def lifted_local_kills(self, environment: str, ids: Collection[str]) -> set[str]:
        """Return which of these kills were lifted, whoever had told of them."""
        ...


class TelemetryWriter(Protocol):
    """See `base.Transaction`."""

    def put_instances(self, rows: Iterable[Instance]) -> None:
        """Keep how processes were when they last reported: of each, the last row."""
        ...

    def add_counts(self, rows: Iterable[CountRow]) -> None:
        """Add the rows to what is there. Cheapest with all rows of a batch at once."""
        ...

    def add_control_latencies(self, rows: Iterable[LatencyRow]) -> None:
        """Add the rows to what is there."""
        ...

    def prune_control_latencies(self, before_minute: int) -> None: ...
    def add_error_kinds(self, rows: Iterable[ErrorKindRow]) -> None:
        """Add the rows to what is there; a flag keeps the 500 kinds it saw last."""
        ...

    def add_service_counts(self, rows: Iterable[ServiceCounts]) -> None:
        """Add the rows to what is there, by minute and by hour; the services have objectives."""
        ...

    def forget_service_latencies(self, environment: str, service: str) -> None:
        """Count what is measured and slow anew, as after a change of what counts as slow."""
        ...

    def prune_service_counts(self, before_minute: int, before_hour: int) -> None:
        """Delete sums of minutes and of hours that began before; both are minutes."""
        ...

    def put_local_kill(self, row: LocalKillRow) -> None:
        """Add it; where the process has told of it before, it has not ended any more."""
        ...

    def end_local_kills(
        self, environment: str, instance: str, ids: Collection[str], at: datetime
    ) -> None: ...

    def lift_local_kills(
        self, environment: str, ids: Collection[str], at: datetime, actor: str
    ) -> None: ...

    def prune_telemetry(self, before: datetime) -> None:
        """Delete counts, error kinds, instances and the events of ended lives older than that.

        Local kills too, but those that stand in an instance that is kept.
        """
        ...
