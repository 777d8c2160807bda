"""The one way by which a change reaches the storage, and then applications.

A change, its history, its audit entry and its new sequence number are written in the transaction
that the caller has open; what applications are told is prepared there too, and goes out after the
commit. If the commit fails, nobody hears of anything.
"""

from dataclasses import dataclass
from typing import Protocol

from flagd_sdk.core import sse
from flagd_server.clock import Clock
from flagd_server.domain.configuration import Configuration, JsonObject
from flagd_server.services.snapshots import Snapshots, encode, encode_flag, encode_segments
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
    """Writes changes within a transaction, and announces them after it."""

    def __init__(self, snapshots: Snapshots, hub: Announcer, clock: Clock) -> None:
        self.clock = clock
        self._snapshots = snapshots
        self._hub = hub

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

    def announce_flag(
        self, tx: Transaction, environment: str, key: str, encoded: bytes | None
    ) -> int:
        """Have one flag announced under a new sequence number, which is returned.

        Args:
            encoded: the flag as it is delivered; None where it is delivered no longer.
        """
        sequence = self._next_sequence(tx, environment)
        event = sse.encode(
            "flag",
            b'{"sequence":%d,"key":%b,"flag":%b}'
            % (sequence, encode(key), b"null" if encoded is None else encoded),
            str(sequence),
        )

        def announce() -> None:
            self._snapshots.apply_flag(environment, sequence, key, encoded)
            self._hub.publish(environment, sequence, event)

        tx.after_commit(announce)
        return sequence

    def announce_segments(self, tx: Transaction, environment: str) -> int:
        """Have the whole flag set announced, with the segments as `tx` sees them now."""
        sequence = self._next_sequence(tx, environment)
        encoded = encode_segments(tx, environment)

        def announce() -> None:
            self._snapshots.apply_segments(environment, sequence, encoded)
            self._hub.publish(environment, sequence, self._snapshots.current(environment).event)

        tx.after_commit(announce)
        return sequence

    def forget_environment(self, tx: Transaction, environment: str) -> None:
        """Have the flag set of a deleted environment dropped."""
        tx.after_commit(lambda: self._snapshots.forget(environment))

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
        """Write an audit entry of this moment."""
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
                detail=detail or {},
            )
        )

    def _write(self, tx: Transaction, flag: Flag, version: ConfigurationVersion) -> Published:
        tx.write_configuration(version)
        encoded = None if flag.archived else encode_flag(flag, version)
        sequence = self.announce_flag(tx, version.environment, flag.key, encoded)
        return Published(version, sequence)

    def _next_sequence(self, tx: Transaction, environment: str) -> int:
        record = tx.environment(environment)
        assert record is not None, "callers have read the environment in this transaction"
        # The time keeps a server restored from a backup ahead of what its SDKs hold.
        sequence = max(record.sequence + 1, self.clock.now_ms())
        tx.set_sequence(environment, sequence)
        return sequence
