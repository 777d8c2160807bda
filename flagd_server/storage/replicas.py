"""The part of a storage's contract that several servers need to work as one.

The inbox holds what was acknowledged by a server that does not lead, for the one that does.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class InboxItem:
    """Something for the leader to work off.

    Attributes:
        key: of the caller's choice; of what comes under a key that is there, the first stays.
        kind: what the document is.
    """

    key: str
    kind: str
    document: str
    at: datetime


@dataclass(frozen=True, slots=True)
class GuardProgress:
    """How far a running life has come.

    Attributes:
        state_event: id of the last event that its saved state covers; 0 before the first.
        last_event: id of the last event there is; `state_event` where none came after.
    """

    life_id: int
    state_event: int
    last_event: int


class ReplicasReader(Protocol):
    """See `base.Reader`."""

    def inbox(self, limit: int) -> list[InboxItem]:
        """Return what waits for the leader and was not set aside, in the order of writing."""
        ...

    def inbox_span(self) -> int:
        """Return at most how many items wait; cheap."""
        ...

    def guard_progress(self) -> list[GuardProgress]:
        """Return how far each running life has come; cheap."""
        ...

    def blind_told(self) -> set[tuple[str, str]]:
        """Return (environment, flag) of those whose guard's blindness was told of."""
        ...


class ReplicasWriter(Protocol):
    """See `base.Transaction`."""

    def put_inbox(self, items: Iterable[InboxItem]) -> None: ...
    def delete_inbox(self, keys: Collection[str]) -> int:
        """Delete the items that are there and were not set aside; return how many those were."""
        ...

    def set_inbox_aside(self, key: str) -> None:
        """Keep an item that can't be worked off, where it stands in nobody's way."""
        ...

    def prune_inbox(self, before: datetime) -> None:
        """Delete what was set aside and came before that."""
        ...

    def put_blind_told(self, environment: str, flag: str) -> None:
        """Note it; once more changes nothing."""
        ...

    def delete_blind_told(self, keys: Collection[tuple[str, str]]) -> None: ...
