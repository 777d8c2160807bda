"""Postgres, for any number of servers on one database.

- Writers take turns: first those of this process, then those of all, under an advisory lock that
  the transaction holds to its end. So each one sees all that was committed before it, and what
  follows a commit here follows it in the order of the commits.
- Readers have one snapshot for all they read, and sessions that can't write.
- Every wait is bounded (`postgres_connections`): without Postgres a request fails within seconds.
- A server that is stopped, or cut off, while it has the turn loses it after `WRITER_PAUSE_MS`: its
  transaction is undone.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from flagd_server.errors import StorageError
from flagd_server.storage.base import OnNotice, PoolUse
from flagd_server.storage.migrations import postgres as migrations
from flagd_server.storage.outages import Outage
from flagd_server.storage.postgres_connections import (
    LOCK_MS,
    READER_PAUSE_MS,
    STATEMENT_MS,
    TURN_LOCK,
    WRITER_PAUSE_MS,
    Connection,
    Connections,
    connect,
    place,
    roll_back,
    translated,
)
from flagd_server.storage.postgres_leadership import PostgresLeadership
from flagd_server.storage.postgres_notices import PostgresNotices
from flagd_server.storage.postgres_reader import PostgresReader
from flagd_server.storage.postgres_transaction import PostgresTransaction
from flagd_server.storage.writer_turn import WriterTurn, call_back

_MAX_READERS = 10
"""At once; others wait for one to end. Three servers fit well into the 100 sessions of Postgres."""

_SESSION = {"statement_timeout": STATEMENT_MS, "lock_timeout": LOCK_MS}
# One message to the server and back. Each statement after the lock sees what was committed until
# then.
_BEGIN_WRITING = f"BEGIN; SELECT pg_advisory_xact_lock({TURN_LOCK})"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_COUNT_CHECK = (
    "INSERT INTO meta (name, value) VALUES ('checks', 1)"
    " ON CONFLICT (name) DO UPDATE SET value = meta.value + 1"
)


class PostgresStorage:
    """The storage of servers that share a database. See `Storage` for the contract."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = WriterTurn()
        self._writing = Outage("write to the database", translated)
        self._reading = Outage("read from the database", translated)
        self._notices = PostgresNotices(url)
        self._leadership: PostgresLeadership | None = None
        with translated(f"open the database {place(url)}"):
            with closing(connect(url, lock_timeout=LOCK_MS)) as connection:
                migrations.bring_up_to_date(connection, place(url))
            self._writers = Connections(
                url, 1, **_SESSION, idle_in_transaction_session_timeout=WRITER_PAUSE_MS
            )
            self._readers = Connections(
                url,
                _MAX_READERS,
                **_SESSION,
                idle_in_transaction_session_timeout=READER_PAUSE_MS,
                default_transaction_read_only="on",
            )

    @contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        with self._turn.for_transaction():
            with self._written() as connection:
                tx = PostgresTransaction(connection, self._notices, self.term)
                yield tx
                tx.send_held()
            call_back(tx.callbacks)
        if tx.last_notice is not None:
            self._notices.wait(tx.last_notice)

    @contextmanager
    def read(self) -> Iterator[PostgresReader]:
        with self._read_only(_BEGIN_READING) as connection:
            yield PostgresReader(connection)
            roll_back(connection)

    def listen(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        self._notices.listen(on_notice, on_gap)

    def lead(self, on_change: Callable[[bool], None]) -> None:
        self._leadership = PostgresLeadership(self._url, on_change)
        self._leadership.start()

    @property
    def is_leading(self) -> bool:
        return self.term is not None

    @property
    def term(self) -> int | None:
        return None if self._leadership is None else self._leadership.term

    def token_generation(self) -> int:
        with self._read_only() as connection:
            row = connection.execute(
                "SELECT value FROM meta WHERE name = 'token_generation'"
            ).fetchone()
        assert row is not None
        return int(row["value"])

    def pools(self) -> Mapping[str, PoolUse]:
        return {"writers": self._writers.use(), "readers": self._readers.use()}

    def check_writable(self, timeout_s: float) -> None:
        with self._turn.within(timeout_s), self._written() as connection:
            connection.execute(_COUNT_CHECK)

    def close(self) -> None:
        # Before the turn: a leader that steps down may have something left to write.
        if self._leadership is not None:
            self._leadership.close()
        self._notices.close()
        with self._turn.last():
            self._writers.close()
            self._readers.close()

    @contextmanager
    def _written(self) -> Iterator[Connection]:
        """Take the turn among all processes for one transaction, and commit it."""
        with (
            self._writing.noticed(),
            self._writers.lent(_BEGIN_WRITING, is_away=self._writing.lasts) as connection,
        ):
            yield connection
            # Postgres answers the commit of a transaction that has failed with a rollback, and
            # calls that no error.
            if connection.execute("COMMIT").statusmessage != "COMMIT":
                raise StorageError("can't write to the database: a statement has failed")

    @contextmanager
    def _read_only(self, begin: str = "") -> Iterator[Connection]:
        self._turn.require_open()
        with (
            self._reading.noticed(),
            self._readers.lent(begin, is_away=self._reading.lasts) as connection,
        ):
            yield connection


@contextmanager
def read_existing(url: str) -> Iterator[PostgresReader]:
    """Open a view of a database as it is: it is not migrated or written."""
    with (
        translated(f"read the database {place(url)}"),
        closing(connect(url, **_SESSION, default_transaction_read_only="on")) as connection,
    ):
        connection.execute(_BEGIN_READING)
        migrations.require_current(connection, place(url))
        yield PostgresReader(connection)


def pending_steps(url: str) -> list[str]:
    """Return the steps of the schema that the database lacks; nothing is changed."""
    with (
        translated(f"read the database {place(url)}"),
        closing(connect(url, **_SESSION, default_transaction_read_only="on")) as connection,
    ):
        return migrations.pending_steps(connection, place(url))
