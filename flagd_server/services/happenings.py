"""What people and chat rooms want to hear of; `outbox.py` takes it to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from flagd_server.storage.base import Transaction


@dataclass(frozen=True, slots=True)
class Happening:
    """Attributes:
    kind: one of `domain.notifications.KINDS`.
    by: who or what did it.
    text: one sentence for a person.
    detail: JSON for a machine.
    """

    kind: str
    environment: str
    flag: str
    at: datetime
    by: str
    text: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Happenings(Protocol):
    """Where they are told."""

    def tell(self, tx: Transaction, happening: Happening) -> None:
        """Have it told once the transaction is durable; never if it fails."""
        ...
