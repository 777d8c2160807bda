"""The part of a storage's contract that is about releasing: rollouts, who is told of them, and who
may call for a kill.
"""

from datetime import datetime
from typing import Protocol

from flagd_server.storage.release_records import (
    Delivery,
    HookSecret,
    PendingDeliveries,
    RolloutRecord,
    Webhook,
)

# A receiver that is away for long does not fill the disk; what it missed last counts most.
DELIVERIES_KEPT = 1_000


class ReleasesReader(Protocol):
    """See `base.Reader`."""

    def webhooks(self, environment: str) -> list[Webhook]:
        """Return the environment's, by key."""
        ...

    def webhook(self, environment: str, key: str) -> Webhook | None: ...
    def deliveries(self, environment: str, webhook: str, limit: int) -> list[Delivery]:
        """Return messages to the webhook, newest first."""
        ...

    def due_deliveries(self, at: datetime) -> list[Delivery]:
        """Return, of each webhook that is enabled, the oldest pending message, where it is due."""
        ...

    def pending_deliveries(self) -> list[PendingDeliveries]:
        """Return one for each webhook that is enabled, by environment and key."""
        ...

    def hook_secret(self, environment: str) -> HookSecret | None: ...
    def rollout(self, rollout_id: str) -> RolloutRecord | None: ...
    def rollouts(self, environment: str, flag: str) -> list[RolloutRecord]:
        """Return the flag's rollouts, newest first."""
        ...

    def open_rollouts(self) -> list[RolloutRecord]:
        """Return those of all environments that may still move, oldest first."""
        ...


class ReleasesWriter(Protocol):
    """See `base.Transaction`."""

    def put_webhook(self, webhook: Webhook) -> None: ...
    def delete_webhook(self, environment: str, key: str) -> None:
        """Delete it with its messages."""
        ...

    def insert_delivery(self, delivery: Delivery) -> None:
        """Add a message; the webhook keeps its newest `DELIVERIES_KEPT`."""
        ...

    def update_delivery(self, delivery: Delivery) -> None:
        """Replace the message of this id, if it is still there."""
        ...

    def put_hook_secret(self, secret: HookSecret) -> None:
        """Store it in place of the environment's one, if it has one."""
        ...

    def delete_hook_secret(self, environment: str) -> None: ...
    def insert_rollout(self, record: RolloutRecord) -> None: ...
    def update_rollout(self, record: RolloutRecord) -> None: ...
