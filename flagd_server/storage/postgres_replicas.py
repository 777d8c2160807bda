"""What several servers need to work as one, in the Postgres database. See `storage.replicas`."""

from collections.abc import Collection, Iterable
from dataclasses import asdict
from datetime import datetime

from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage.postgres_rows import PostgresRows, PostgresTable, select
from flagd_server.storage.replicas import GuardProgress, InboxItem

_INBOX = select(InboxItem, "inbox")
_PUT_INBOX = """
    INSERT INTO inbox (key, kind, document, at)
    SELECT key, kind, document, at FROM json_populate_recordset(NULL::inbox, %s)
    ON CONFLICT (key) DO NOTHING
"""
_GUARD_PROGRESS = """
    SELECT life.id AS life_id, state.event_id AS state_event, GREATEST(state.event_id,
        (SELECT MAX(event.id) FROM guard_events AS event WHERE event.life_id = life.id)
    ) AS last_event
    FROM guard_lives AS life JOIN guard_states AS state ON state.life_id = life.id
    WHERE life.ended_at IS NULL ORDER BY life.id
"""


class ReplicasReader(PostgresRows):
    """See `storage.replicas`."""

    def inbox(self, limit: int) -> list[InboxItem]:
        rows = self._rows(f"{_INBOX} WHERE NOT is_set_aside ORDER BY number LIMIT %s", [limit])
        return [InboxItem(**{**row, "at": parse_time(row["at"])}) for row in rows]

    def inbox_span(self) -> int:
        (row,) = self._rows(
            "SELECT COALESCE(MAX(number) - MIN(number) + 1, 0) AS span FROM inbox"
            " WHERE NOT is_set_aside"
        )
        return int(row["span"])

    def guard_progress(self) -> list[GuardProgress]:
        return [GuardProgress(**row) for row in self._rows(_GUARD_PROGRESS)]

    def blind_told(self) -> set[tuple[str, str]]:
        rows = self._rows("SELECT environment, flag FROM blind_told")
        return {(row["environment"], row["flag"]) for row in rows}


class ReplicasWriter(PostgresTable):
    """See `storage.replicas`."""

    def put_inbox(self, items: Iterable[InboxItem]) -> None:
        self._add(_PUT_INBOX, [asdict(item) | {"at": format_time(item.at)} for item in items])

    def delete_inbox(self, keys: Collection[str]) -> int:
        deleted = self._run(
            "DELETE FROM inbox WHERE key = ANY(%s) AND NOT is_set_aside", [list(keys)]
        )
        return deleted.rowcount

    def set_inbox_aside(self, key: str) -> None:
        self._update("inbox", {"key": key}, {"is_set_aside": True})

    def prune_inbox(self, before: datetime) -> None:
        self._run("DELETE FROM inbox WHERE is_set_aside AND at < %s", [format_time(before)])

    def put_blind_told(self, environment: str, flag: str) -> None:
        self._run(
            "INSERT INTO blind_told (environment, flag) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [environment, flag],
        )

    def delete_blind_told(self, keys: Collection[tuple[str, str]]) -> None:
        for environment, flag in keys:
            self._delete("blind_told", environment=environment, flag=flag)
