"""The one way by which a change reaches the storage, and then applications.

A change, its history, its audit entry and its new sequence number are written in the transaction
that the caller has open; what applications are told is prepared there too. Every server hears of it
after the commit, this one too, and `propagation` takes it from there. If the commit fails, nobody
hears of anything.
"""

from dataclasses import dataclass
from typing import Protocol

from flagd_server import request_id
from flagd_server.clock import Clock
from flagd_server.domain.configuration import Configuration, JsonObject
from flagd_server.services.notices import Topic
from flagd_server.services.own_changes import OwnChanges
from flagd_server.services.snapshots import encode_flag, encode_segments
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import AuditEntry, ConfigurationVersion, Flag


class Announcer(Protocol):
    """The part of the hub that is needed here."""

    def publish(self, environment: str, sequence: int, event: bytes) -> None:
        """Send the event to every stream of the environment, without waiting for any."""
        ...


@dataclass(frozen=True, slots=True)
class Published:
    """A version as it was written, and the sequence number under which SDKs hear of it."""

    version: ConfigurationVersion
    sequence: int


class Publisher:
    """Writes changes within a transaction, and has them announced after it.

    Args:
        own: where whoever listens in this process finds what it has encoded already.
    """

    def __init__(self, clock: Clock, own: OwnChanges | None = None) -> None:
        self.clock = clock
        self._own = OwnChanges() if own is None else own

    def apply_config_change(
        self,
        tx: Transaction,
        flag: Flag,
        present: ConfigurationVersion,
        configuration: Configuration,
        *,
        action: str,
        actor: str,
        comment: str = "",
        detail: JsonObject | None = None,
    ) -> Published:
        """Make `configuration` the version after `present`, and have it announced.

        Args:
            flag: as it is to be delivered: after the change, where the change is of variants.
            present: the newest version, read in this transaction; the content was checked before.
            action: one word for the history: "update", "kill", …
            detail: what the audit is to say besides.
        """
        published = self._write(
            tx,
            flag,
            ConfigurationVersion(
                environment=present.environment,
                flag=flag.key,
                version=present.version + 1,
                configuration=configuration,
                variants=flag.variants,
                at=self.clock.now(),
                actor=actor,
                action=action,
                comment=comment,
            ),
        )
        self.record(
            tx,
            actor=actor,
            action=f"configuration.{action}",
            target=f"flags/{flag.key}/environments/{present.environment}",
            environment=present.environment,
            flag=flag.key,
            before_version=present.version,
            after_version=published.version.version,
            comment=comment,
            detail=detail or {},
        )
        return published

    def start_configuration(
        self,
        tx: Transaction,
        flag: Flag,
        environment: str,
        configuration: Configuration,
        *,
        actor: str,
    ) -> Published:
        """Write version 1 of a flag that the environment has not had, and have it announced.

        The audit entry is that of the new flag or environment, which the caller writes.
        """
        return self._write(
            tx,
            flag,
            ConfigurationVersion(
                environment=environment,
                flag=flag.key,
                version=1,
                configuration=configuration,
                variants=flag.variants,
                at=self.clock.now(),
                actor=actor,
                action="create",
                comment="",
            ),
        )

    def announce_flag(self, tx: Transaction, flag: Flag, version: ConfigurationVersion) -> int:
        """Have one flag announced under a new sequence number, which is returned.

        Args:
            flag: one that is archived is delivered no longer.
            version: the newest one of the environment.
        """
        environment = version.environment
        encoded = None if flag.archived else encode_flag(flag, version)
        sequence = self._next_sequence(tx, environment)
        tx.announce(
            Topic.FLAG,
            {
                "environment": environment,
                "sequence": sequence,
                "key": flag.key,
                "version": None if flag.archived else version.version,
                "own": self._own.keep(encoded),
            },
        )
        return sequence

    def announce_segments(self, tx: Transaction, environment: str) -> int:
        """Have the whole flag set announced, with the segments as `tx` sees them now."""
        sequence = self._next_sequence(tx, environment)
        own = self._own.keep(encode_segments(tx, environment))
        tx.announce(Topic.SEGMENTS, {"environment": environment, "sequence": sequence, "own": own})
        return sequence

    def forget_environment(self, tx: Transaction, environment: str) -> None:
        """Have the flag set of a deleted environment dropped."""
        tx.announce(Topic.ENVIRONMENT, {"environment": environment})

    def record(
        self,
        tx: Transaction,
        *,
        actor: str,
        action: str,
        target: str,
        environment: str | None = None,
        flag: str | None = None,
        before_version: int | None = None,
        after_version: int | None = None,
        comment: str = "",
        detail: JsonObject | None = None,
    ) -> None:
        """Write an audit entry of this moment; its detail names the request, where one asked."""
        current = request_id.CURRENT.get()
        of_request: JsonObject = {} if current is None else {"request_id": current}
        tx.append_audit(
            AuditEntry(
                at=self.clock.now(),
                actor=actor,
                action=action,
                target=target,
                environment=environment,
                flag=flag,
                before_version=before_version,
                after_version=after_version,
                comment=comment,
                detail={**(detail or {}), **of_request},
            )
        )

    def _write(self, tx: Transaction, flag: Flag, version: ConfigurationVersion) -> Published:
        tx.write_configuration(version)
        return Published(version, self.announce_flag(tx, flag, version))

    def _next_sequence(self, tx: Transaction, environment: str) -> int:
        record = tx.environment(environment)
        assert record is not None, "callers have read the environment in this transaction"
        # The time keeps a server restored from a backup ahead of what its SDKs hold.
        sequence = max(record.sequence + 1, self.clock.now_ms())
        tx.set_sequence(environment, sequence)
        return sequence
