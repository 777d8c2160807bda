"""What several servers need to work as one, in the SQLite database. See `storage.replicas`."""

from collections.abc import Collection, Iterable
from datetime import datetime

from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage.replicas import GuardProgress, InboxItem
from flagd_server.storage.sqlite_rows import SqliteRows

_GUARD_PROGRESS = """
    SELECT life.id, state.event_id, MAX(state.event_id, COALESCE(
        (SELECT MAX(event.id) FROM guard_events AS event WHERE event.life_id = life.id), 0))
    FROM guard_lives AS life JOIN guard_states AS state ON state.life_id = life.id
    WHERE life.ended_at IS NULL ORDER BY life.id
"""


class ReplicasReader(SqliteRows):
    """See `storage.replicas`."""

    def inbox(self, limit: int) -> list[InboxItem]:
        # Asked with every summary: without the dictionaries of _rows.
        cursor = self._db.execute(
            "SELECT key, kind, document, at FROM inbox WHERE NOT is_set_aside"
            " ORDER BY number LIMIT ?",
            (limit,),
        )
        return [
            InboxItem(key, kind, document, parse_time(at)) for key, kind, document, at in cursor
        ]

    def inbox_span(self) -> int:
        row = self._db.execute(
            "SELECT COALESCE(MAX(number) - MIN(number) + 1, 0) FROM inbox WHERE NOT is_set_aside"
        ).fetchone()
        return int(row[0])

    def guard_progress(self) -> list[GuardProgress]:
        return [GuardProgress(*row) for row in self._db.execute(_GUARD_PROGRESS)]

    def blind_told(self) -> set[tuple[str, str]]:
        return set(self._db.execute("SELECT environment, flag FROM blind_told"))


class ReplicasWriter(SqliteRows):
    """See `storage.replicas`."""

    def put_inbox(self, items: Iterable[InboxItem]) -> None:
        self._db.conn.executemany(
            "INSERT INTO inbox (key, kind, document, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            ((item.key, item.kind, item.document, format_time(item.at)) for item in items),
        )

    def delete_inbox(self, keys: Collection[str]) -> int:
        cursor = self._db.conn.executemany(
            "DELETE FROM inbox WHERE key = ? AND NOT is_set_aside", ((key,) for key in keys)
        )
        return cursor.rowcount

    def set_inbox_aside(self, key: str) -> None:
        self._db.execute("UPDATE inbox SET is_set_aside = 1 WHERE key = ?", (key,))

    def prune_inbox(self, before: datetime) -> None:
        self._db.execute("DELETE FROM inbox WHERE is_set_aside AND at < ?", (format_time(before),))

    def put_blind_told(self, environment: str, flag: str) -> None:
        self._db.execute(
            "INSERT INTO blind_told (environment, flag) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (environment, flag),
        )

    def delete_blind_told(self, keys: Collection[tuple[str, str]]) -> None:
        self._db.conn.executemany(
            "DELETE FROM blind_told WHERE environment = ? AND flag = ?", list(keys)
        )
