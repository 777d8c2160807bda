"""Which versions of services report, and which of them served a flag first.

A version that nobody registered becomes a deployment when a process of it is first heard of. A flag
belongs to the version that brought it: of the versions of the service that have served it, the one
that was itself seen first. So a flag that is served by old and new alike is the old one's, whoever
happens to report it first.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cachetools import LRUCache

from flagd_server.domain.allowance import DEPLOYMENTS_OF_ENVIRONMENT, Allowance
from flagd_server.domain.telemetry import Summary
from flagd_server.services.claims import Claims
from flagd_server.services.served_versions import BelievableCell
from flagd_server.storage.base import Transaction
from flagd_server.storage.release_records import Deployment, FirstServed

_SERVICES_REMEMBERED = 10_000


class _Service:
    """Attributes:
    seen: version → when it was first seen.
    brought: flag → when the version that brought it was first seen.
    """

    __slots__ = ("brought", "seen")

    def __init__(self, tx: Transaction, environment: str, service: str) -> None:
        self.seen = tx.first_seen(environment, service)
        self.brought = {
            row.flag: row.version_seen_at for row in tx.first_served(environment, service)
        }


class Releases:
    """Not thread-safe: for the one thread that writes.

    What is known already costs a summary some look-ups in memory.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._services: LRUCache[tuple[str, str], _Service] = LRUCache(_SERVICES_REMEMBERED)
        self._allowances: dict[str, Allowance] = {}

    def forget(self) -> None:
        """Drop what is in memory; it is read again when it is needed."""
        self._services.clear()

    def note(
        self,
        tx: Transaction,
        environment: str,
        summary: Summary,
        by_flag: Mapping[str, Sequence[BelievableCell]],
        now: datetime,
    ) -> None:
        """Take notice of a summary's version, and of the flags that it has served."""
        version = summary.service_version
        if not summary.service or not version:
            return  # nobody could register or kill what has no name
        key = (environment, summary.service)
        service = self._services.get(key)
        if service is None:
            service = self._services[key] = _Service(tx, *key)
        seen_at = service.seen.get(version)
        if seen_at is None:
            # A clock that was set back must not make a new version the older one.
            seen_at = max([now, *service.seen.values()])
            if not self._first_seen(tx, environment, summary, now, seen_at):
                return
            service.seen[version] = seen_at
        brought = []
        for flag, cells in by_flag.items():
            before = service.brought.get(flag)
            if (before is None or seen_at < before) and any(each.cell.exposures for each in cells):
                service.brought[flag] = seen_at
                brought.append(
                    FirstServed(environment, summary.service, flag, version, seen_at, now)
                )
        if brought:
            tx.put_first_served(brought)

    def _first_seen(
        self,
        tx: Transaction,
        environment: str,
        summary: Summary,
        now: datetime,
        seen_at: datetime,
    ) -> bool:
        """Note that a version is at work; return False where there are too many to keep."""
        known = tx.deployment_of(environment, summary.service, summary.service_version)
        if known is None:
            at = now.timestamp()
            allowance = self._allowances.setdefault(
                environment, Allowance(DEPLOYMENTS_OF_ENVIRONMENT, at)
            )
            if not allowance.take(1, at):
                self._claims.cap_deployments(
                    tx, environment, summary.service, summary.service_version
                )
                return False
            known = Deployment(
                new_deployment_id(), environment, summary.service, summary.service_version
            )
        tx.put_deployment(replace(known, first_seen_at=seen_at))
        return True


def new_deployment_id() -> str:
    return f"dp-{secrets.token_hex(8)}"
