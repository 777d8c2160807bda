"""Holds what summaries claim to the limits of `domain.allowance`.

Beyond them, cells are refused and names are pooled; whoever meets one raises an alarm.
"""

from collections.abc import Callable, Mapping

from flagd_sdk.core.summary import OTHER_KIND
from flagd_server.domain.allowance import (
    KINDS_OF_FLAG_AN_HOUR,
    RELEASES_OF_FLAG_AN_HOUR,
    Allowance,
    NamesOfHour,
)
from flagd_server.domain.faults import Fault
from flagd_server.domain.telemetry import ERROR_KINDS, Summary
from flagd_server.services.alarms import AlarmKind, Alarms
from flagd_server.services.served_versions import BelievableCell
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import Token

OTHER = "(other)"
"""Service and version of what comes from releases beyond the limit."""


class _FlagNames:
    __slots__ = ("kinds", "releases")

    def __init__(self) -> None:
        self.releases = NamesOfHour(RELEASES_OF_FLAG_AN_HOUR)
        self.kinds = NamesOfHour(KINDS_OF_FLAG_AN_HOUR)


class Claims:
    """Not thread-safe: for the one thread that writes. Hours are whole ones since the Unix epoch.

    Args:
        on_capped: told (environment, limit) of each time that a limit is met, once it is durable.
    """

    def __init__(
        self,
        alarms: Alarms,
        on_capped: Callable[[str, str], None] = lambda environment, limit: None,
    ) -> None:
        self._alarms = alarms
        self._on_capped = on_capped
        # As many as there are flags: a cell is held to its configuration before it is asked about.
        # By kind of token too, or whoever holds one for a web page could take all the names.
        self._flags: dict[tuple[str, str, str], _FlagNames] = {}

    def within_exposures(
        self,
        tx: Transaction,
        environment: str,
        token: Token,
        instance: str,
        by_flag: dict[str, list[BelievableCell]],
        allowance: Allowance,
        at: float,
    ) -> tuple[dict[str, list[BelievableCell]], list[Fault]]:
        """Take exposures off the instance's allowance; return what it covers, and faults.

        A flag is believed or refused with all its cells, whatever their variants.
        """
        # A unit of work is an exposure of each flag that it meets: the busiest flag tells how many
        # there were.
        sums = {}
        for flag, cells in by_flag.items():
            claimed = 0
            for each in cells:
                claimed += each.cell.exposures
            sums[flag] = claimed
        if not sums or allowance.take(max(sums.values()), at):
            return by_flag, []
        left = allowance.left(at)
        possible = [claimed for claimed in sums.values() if claimed <= left]
        allowance.take(max(possible, default=0), at)
        self._cap(
            tx,
            environment,
            "exposures",
            f"{token.id}: exposures",
            f"instance {instance!r} of token {token.name!r} claims {max(sums.values())} exposures"
            f" of one flag where {left:.0f} are possible",
        )
        faults = [
            Fault(
                f"cells[{each.place}].exposures",
                f"expected at most {left:.0f} of flag {flag!r} since the last summary,"
                f" got {sums[flag]}",
            )
            for flag, cells in by_flag.items()
            for each in cells
            if sums[flag] > left
        ]
        return {flag: cells for flag, cells in by_flag.items() if sums[flag] <= left}, faults

    def release(
        self,
        tx: Transaction,
        environment: str,
        token: Token,
        flag: str,
        summary: Summary,
        hour: int,
    ) -> tuple[str, str]:
        """Return service and version under which a flag is counted: their own, or `OTHER`."""
        release = (summary.service, summary.service_version)
        if self._names(environment, flag, token).releases.admit(release, hour):
            return release
        self._cap(
            tx,
            environment,
            "releases of a flag",
            f"{flag}: releases",
            f"more than {RELEASES_OF_FLAG_AN_HOUR} versions of services within an hour; "
            f"last, {summary.service_version!r} of {summary.service!r}",
            flag,
        )
        return OTHER, OTHER

    def units(
        self,
        tx: Transaction,
        environment: str,
        token: Token,
        flag: str,
        units: Mapping[str, tuple[str, ...]],
        hour: int,
    ) -> Mapping[str, tuple[str, ...]]:
        """Return a cell's unit events, kinds of errors beyond the limit counted as one kind.

        Other kinds beyond it, which no SDK makes, are left out.
        """
        names = self._names(environment, flag, token).kinds
        beyond = [kind for kind in units if not names.admit(kind, hour)]
        if not beyond:
            return units
        self._cap(
            tx,
            environment,
            "kinds of a flag",
            f"{flag}: kinds",
            f"more than {KINDS_OF_FLAG_AN_HOUR} kinds of events within an hour; last, {beyond[-1]}",
            flag,
        )
        kept = {kind: hashes for kind, hashes in units.items() if kind not in beyond}
        pooled = set(kept.get(OTHER_KIND, ()))
        for kind in beyond:
            if kind.startswith(ERROR_KINDS):
                pooled.update(units[kind])
        return {**kept, OTHER_KIND: tuple(sorted(pooled))} if pooled else kept

    def cap_services(self, tx: Transaction, environment: str, service: str) -> None:
        """Tell that a service is one too many for its latency to be measured."""
        self._cap(
            tx,
            environment,
            "services",
            "services",
            f"too many services for their latency to be measured; last, {service!r}",
        )

    def cap_numbers(self, tx: Transaction, environment: str, token: Token, instance: str) -> None:
        """Tell that a summary claims a number that its instance can't have got to."""
        self._cap(
            tx,
            environment,
            "numbers of an instance",
            f"{token.id}: numbers of an instance",
            f"token {token.name!r} sends numbers from far ahead; last, for instance {instance!r}",
        )

    def cap_deployments(
        self, tx: Transaction, environment: str, service: str, version: str
    ) -> None:
        """Tell that a version is one too many to become a deployment by its reports alone."""
        self._cap(
            tx,
            environment,
            "deployments",
            "deployments",
            f"too many new versions of services; last, {version!r} of {service!r}",
        )

    def _names(self, environment: str, flag: str, token: Token) -> _FlagNames:
        key = (environment, flag, token.kind)
        names = self._flags.get(key)
        if names is None:
            names = self._flags[key] = _FlagNames()
        return names

    def _cap(
        self,
        tx: Transaction,
        environment: str,
        limit: str,
        subject: str,
        detail: str,
        flag: str | None = None,
    ) -> None:
        tx.after_commit(lambda: self._on_capped(environment, limit))
        self._alarms.raise_in(
            tx,
            environment,
            kind=AlarmKind.TELEMETRY_CAPPED,
            subject=subject,
            detail=detail,
            flag=flag,
        )
