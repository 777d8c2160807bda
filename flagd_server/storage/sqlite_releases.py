"""Rollouts, webhooks and the secrets of hooks in the SQLite database."""

from dataclasses import asdict
from datetime import datetime

from flagd_server.domain.times import format_time
from flagd_server.storage import release_rows as convert
from flagd_server.storage.release_records import (
    Delivery,
    HookSecret,
    PendingDeliveries,
    RolloutRecord,
    Webhook,
)
from flagd_server.storage.releases import DELIVERIES_KEPT
from flagd_server.storage.rows import first
from flagd_server.storage.sqlite_rows import SqliteRows


class ReleasesReader(SqliteRows):
    """See `storage.releases`."""

    def webhooks(self, environment: str) -> list[Webhook]:
        rows = self._rows(
            "SELECT * FROM webhooks WHERE environment = ? ORDER BY key", [environment]
        )
        return [convert.webhook(row) for row in rows]

    def webhook(self, environment: str, key: str) -> Webhook | None:
        rows = self._rows(
            "SELECT * FROM webhooks WHERE environment = ? AND key = ?", [environment, key]
        )
        return first(convert.webhook, rows)

    def deliveries(self, environment: str, webhook: str, limit: int) -> list[Delivery]:
        rows = self._rows(
            "SELECT * FROM deliveries WHERE environment = ? AND webhook = ?"
            " ORDER BY id DESC LIMIT ?",
            [environment, webhook, limit],
        )
        return [convert.delivery(row) for row in rows]

    def due_deliveries(self, at: datetime) -> list[Delivery]:
        rows = self._rows(
            "SELECT d.* FROM deliveries AS d JOIN webhooks AS w"
            " ON w.environment = d.environment AND w.key = d.webhook AND w.enabled"
            " WHERE d.next_at <= ? AND d.id IN (SELECT min(id) FROM deliveries"
            " WHERE state = 'pending' GROUP BY environment, webhook) ORDER BY d.id",
            [format_time(at)],
        )
        return [convert.delivery(row) for row in rows]

    def pending_deliveries(self) -> list[PendingDeliveries]:
        # The columns beside a MIN are those of its row (SQLite, "Bare columns in an aggregate
        # query").
        rows = self._db.execute(
            "SELECT w.environment, w.key, COUNT(d.id), COALESCE(d.attempts, 0), MIN(d.id)"
            " FROM webhooks AS w LEFT JOIN deliveries AS d ON d.environment = w.environment"
            " AND d.webhook = w.key AND d.state = 'pending'"
            " WHERE w.enabled GROUP BY w.environment, w.key ORDER BY w.environment, w.key"
        )
        return [PendingDeliveries(*row[:4]) for row in rows]

    def hook_secret(self, environment: str) -> HookSecret | None:
        rows = self._rows("SELECT * FROM hook_secrets WHERE environment = ?", [environment])
        return first(convert.hook_secret, rows)

    def rollout(self, rollout_id: str) -> RolloutRecord | None:
        return first(
            convert.rollout, self._rows("SELECT * FROM rollouts WHERE id = ?", [rollout_id])
        )

    def rollouts(self, environment: str, flag: str) -> list[RolloutRecord]:
        rows = self._rows(
            "SELECT * FROM rollouts WHERE environment = ? AND flag = ? ORDER BY number DESC",
            [environment, flag],
        )
        return [convert.rollout(row) for row in rows]

    def open_rollouts(self) -> list[RolloutRecord]:
        rows = self._rows("SELECT * FROM rollouts WHERE is_open ORDER BY number")
        return [convert.rollout(row) for row in rows]


class ReleasesWriter(SqliteRows):
    """See `storage.releases`."""

    def put_webhook(self, webhook: Webhook) -> None:
        self._table("webhooks").upsert(convert.webhook_row(webhook), pk=("environment", "key"))

    def delete_webhook(self, environment: str, key: str) -> None:
        self._table("webhooks").delete((environment, key))

    def insert_delivery(self, delivery: Delivery) -> None:
        self._table("deliveries").insert(convert.delivery_row(delivery))
        self._db.execute(
            "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE environment = ?"
            " AND webhook = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (delivery.environment, delivery.webhook, DELIVERIES_KEPT),
        )

    def update_delivery(self, delivery: Delivery) -> None:
        self._db.execute(
            "UPDATE deliveries SET next_at = ?, state = ?, attempts = ?, outcome = ? WHERE id = ?",
            (
                format_time(delivery.next_at),
                delivery.state,
                delivery.attempts,
                delivery.outcome,
                delivery.id,
            ),
        )

    def put_hook_secret(self, secret: HookSecret) -> None:
        self._table("hook_secrets").upsert(convert.hook_secret_row(secret), pk="environment")

    def delete_hook_secret(self, environment: str) -> None:
        self._table("hook_secrets").delete(environment)

    def insert_rollout(self, record: RolloutRecord) -> None:
        self._table("rollouts").insert(asdict(record))

    def update_rollout(self, record: RolloutRecord) -> None:
        self._db.execute(
            "UPDATE rollouts SET is_open = ?, version = ?, document = ? WHERE id = ?",
            (record.is_open, record.version, record.document, record.id),
        )
