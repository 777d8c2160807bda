"""Rollouts, webhooks and the secrets of hooks in the Postgres database."""

from dataclasses import asdict
from datetime import datetime

from flagd_server.domain.times import format_time
from flagd_server.storage import release_rows as convert
from flagd_server.storage.postgres_rows import PostgresRows, PostgresTable, select
from flagd_server.storage.release_records import (
    Delivery,
    HookSecret,
    PendingDeliveries,
    RolloutRecord,
    Webhook,
)
from flagd_server.storage.releases import DELIVERIES_KEPT
from flagd_server.storage.rows import first

_WEBHOOKS = select(Webhook, "webhooks")
_DELIVERIES = select(Delivery, "deliveries")
_HOOK_SECRETS = select(HookSecret, "hook_secrets")
_ROLLOUTS = select(RolloutRecord, "rollouts")
_DUE = (
    "WHERE next_at <= %s AND id IN (SELECT MIN(d.id) FROM deliveries AS d JOIN webhooks AS w"
    " ON w.environment = d.environment AND w.key = d.webhook AND w.enabled"
    " WHERE d.state = 'pending' GROUP BY d.environment, d.webhook) ORDER BY id"
)


class ReleasesReader(PostgresRows):
    """See `storage.releases`."""

    def webhooks(self, environment: str) -> list[Webhook]:
        rows = self._rows(f"{_WEBHOOKS} WHERE environment = %s ORDER BY key", [environment])
        return [convert.webhook(row) for row in rows]

    def webhook(self, environment: str, key: str) -> Webhook | None:
        rows = self._rows(f"{_WEBHOOKS} WHERE environment = %s AND key = %s", [environment, key])
        return first(convert.webhook, rows)

    def deliveries(self, environment: str, webhook: str, limit: int) -> list[Delivery]:
        rows = self._rows(
            f"{_DELIVERIES} WHERE environment = %s AND webhook = %s ORDER BY id DESC LIMIT %s",
            [environment, webhook, limit],
        )
        return [convert.delivery(row) for row in rows]

    def due_deliveries(self, at: datetime) -> list[Delivery]:
        return [
            convert.delivery(row) for row in self._rows(f"{_DELIVERIES} {_DUE}", [format_time(at)])
        ]

    def pending_deliveries(self) -> list[PendingDeliveries]:
        rows = self._rows(
            "SELECT w.environment, w.key AS webhook, COUNT(d.id) AS waiting,"
            " COALESCE((ARRAY_AGG(d.attempts ORDER BY d.id))[1], 0) AS attempts"
            " FROM webhooks AS w LEFT JOIN deliveries AS d ON d.environment = w.environment"
            " AND d.webhook = w.key AND d.state = 'pending'"
            " WHERE w.enabled GROUP BY w.environment, w.key ORDER BY w.environment, w.key"
        )
        return [PendingDeliveries(**row) for row in rows]

    def hook_secret(self, environment: str) -> HookSecret | None:
        rows = self._rows(f"{_HOOK_SECRETS} WHERE environment = %s", [environment])
        return first(convert.hook_secret, rows)

    def rollout(self, rollout_id: str) -> RolloutRecord | None:
        return first(convert.rollout, self._rows(f"{_ROLLOUTS} WHERE id = %s", [rollout_id]))

    def rollouts(self, environment: str, flag: str) -> list[RolloutRecord]:
        rows = self._rows(
            f"{_ROLLOUTS} WHERE environment = %s AND flag = %s ORDER BY number DESC",
            [environment, flag],
        )
        return [convert.rollout(row) for row in rows]

    def open_rollouts(self) -> list[RolloutRecord]:
        rows = self._rows(f"{_ROLLOUTS} WHERE is_open ORDER BY number")
        return [convert.rollout(row) for row in rows]


class ReleasesWriter(PostgresTable):
    """See `storage.releases`."""

    def put_webhook(self, webhook: Webhook) -> None:
        self._upsert("webhooks", convert.webhook_row(webhook), ("environment", "key"))

    def delete_webhook(self, environment: str, key: str) -> None:
        self._delete("webhooks", environment=environment, key=key)

    def insert_delivery(self, delivery: Delivery) -> None:
        self._insert("deliveries", convert.delivery_row(delivery))
        self._run(
            "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE environment = %s"
            " AND webhook = %s ORDER BY id DESC OFFSET %s)",
            [delivery.environment, delivery.webhook, DELIVERIES_KEPT],
        )

    def update_delivery(self, delivery: Delivery) -> None:
        changes = {
            "next_at": format_time(delivery.next_at),
            "state": delivery.state,
            "attempts": delivery.attempts,
            "outcome": delivery.outcome,
        }
        self._update("deliveries", {"id": delivery.id}, changes)

    def put_hook_secret(self, secret: HookSecret) -> None:
        self._upsert("hook_secrets", convert.hook_secret_row(secret), ("environment",))

    def delete_hook_secret(self, environment: str) -> None:
        self._delete("hook_secrets", environment=environment)

    def insert_rollout(self, record: RolloutRecord) -> None:
        self._insert("rollouts", asdict(record))

    def update_rollout(self, record: RolloutRecord) -> None:
        changes = {
            "is_open": record.is_open,
            "version": record.version,
            "document": record.document,
        }
        self._update("rollouts", {"id": record.id}, changes)
