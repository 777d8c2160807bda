"""What every area's reader and writer of the SQLite database shares."""

from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database
from sqlite_utils.db import Table

from flagd_server.storage.rows import Row


class SqliteRows:
    """Reads through a connection that the owner has put inside a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def _rows(
        self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None
    ) -> list[Row]:
        return list(self._db.query(sql, parameters))

    def _table(self, name: str) -> Table:
        return self._db.table(name)
