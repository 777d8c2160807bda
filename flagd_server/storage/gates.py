"""The part of a storage's contract that is about gates."""

from typing import Protocol

from flagd_server.domain.gates import Approval
from flagd_server.storage.release_records import Gate


class GatesReader(Protocol):
    """See `base.Reader`."""

    def gates(self, environment: str) -> list[Gate]:
        """Return the gates with their approvals, by key."""
        ...

    def gate(self, environment: str, key: str) -> Gate | None: ...
    def flags_served(
        self,
        environment: str,
        service: str,
        service_version: str,
        since_minute: int,
        until_minute: int,
    ) -> set[str]:
        """Return the flags that a version was exposed to between two minutes, both included."""
        ...

    def exposures_since(
        self,
        environment: str,
        flag: str,
        config_version: int,
        since_minute: int,
        *,
        split: str | None = None,
        variant: str | None = None,
    ) -> int:
        """Return the exposures in one version of the configuration, from the minute on.

        Args:
            split, variant: which of them; None is all.
        """
        ...


class GatesWriter(Protocol):
    """See `base.Transaction`."""

    def put_gate(self, gate: Gate) -> None:
        """Create it or replace it, with the approval that the record has."""
        ...

    def delete_gate(self, environment: str, key: str) -> None: ...
    def set_gate_approval(self, environment: str, key: str, approval: Approval | None) -> None:
        """Replace the approval of a gate that is there."""
        ...
