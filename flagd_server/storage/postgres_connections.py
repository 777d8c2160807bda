"""Connections to Postgres: what they agree on with the server, and the pool that lends them.

Every wait has an end. A server that has gone away is told within seconds; one that is known to be
away costs a request nothing but a short look whether it has come back.
"""

import logging
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from flagd_server.errors import StorageError, StorageUnavailableError
from flagd_server.storage.base import PoolUse

Connection: TypeAlias = psycopg.Connection[DictRow]

TURN_LOCK = 0x666C_6167_7475_726E
"""The advisory lock of a transaction that writes: "flagturn" in ASCII. Like the others, it belongs
to the whole database, whatever else is in there."""
SCHEMA_LOCK = 0x666C_6167_7363_686D
"""Held while the schema is brought up to date: "flagschm"."""
LEAD_LOCK = 0x666C_6167_6C65_6164
"""Held by the session of the server that leads: "flaglead"."""

CONNECT_S = 3
"""For one attempt to connect. A server that is only slow does so at once, or is overloaded."""
LOCK_MS = 5_000
"""For the turn to write, which other servers have too."""
STATEMENT_MS = 10_000
WRITER_PAUSE_MS = 3_000
"""How long a transaction that holds the turn may pause: a process that was stopped in one, or cut
off, must not keep the others from writing."""
READER_PAUSE_MS = 60_000
"""Reading an event at a time, somebody may judge each one."""
_UNHEARD_MS = 5_000
"""How long what was sent may stay without any sign that it arrived."""
_ABSENT_S = 0.25
"""How long is waited for a server that was away the last time."""
_PREPARED = 300
"""Statements that a connection keeps prepared: more than there are."""

# It warns of each attempt to connect, several a second while the server is away; that it is away
# is logged by what needs it.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def parameters(url: str, **settings: str | int) -> dict[str, Any]:
    """Return what to connect with; what the URL says itself goes before our own.

    Args:
        settings: of the session, by their names in Postgres.

    Raises:
        StorageUnavailableError: the URL can't be understood.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # Without the URL, which may hold a password, and without the error that quotes it.
        raise StorageUnavailableError("the URL of the database can't be understood") from error
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return {
        "application_name": "flagd-server",
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": _UNHEARD_MS,
        "keepalives_idle": 2,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        **given,
        "options": f"{options} {given.get('options', '')}".strip(),
    }


def place(url: str) -> str:
    """Return which database it is, as a person may be told: without user and password."""
    given = parameters(url)
    host, port = given.get("host", "localhost"), given.get("port", 5432)
    return f"postgresql://{host}:{port}/{given.get('dbname', '')}"


def connect(url: str, **settings: str | int) -> Connection:
    """Return a connection of one's own, in autocommit mode."""
    return psycopg.connect(**parameters(url, **settings), autocommit=True, row_factory=dict_row)


class Connections:
    """A pool, lent from by any thread. It connects in the background, and again after an outage."""

    def __init__(self, url: str, max_size: int, **settings: str | int) -> None:
        """Args:
        settings: of the sessions, by their names in Postgres.
        """
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            kwargs={**parameters(url, **settings), "autocommit": True, "row_factory": dict_row},
            configure=_configure,
            min_size=1,
            max_size=max_size,
            # Whoever needs one makes it try again: a longer patience would make them wait for it.
            reconnect_timeout=_ABSENT_S,
            num_workers=1,
            open=True,
        )

    @contextmanager
    def lent(self, begin: str, *, is_away: bool) -> Iterator[Connection]:
        """Lend a connection for one transaction, which the borrower ends unless it failed.

        Args:
            begin: what begins it; "" for none. A connection that turns out to be lost by then is
                replaced: nothing was done on it yet.
            is_away: the server was away the last time, so that it is not waited for.
        """
        connection = self._begun(begin, _ABSENT_S if is_away else CONNECT_S)
        try:
            yield connection
        except BaseException:
            roll_back(connection)
            raise
        finally:
            self._pool.putconn(connection)

    def use(self) -> PoolUse:
        said = self._pool.get_stats()
        size = said.get("pool_size", 0)
        return PoolUse(
            size=size,
            limit=said.get("pool_max", 0),
            lent=size - said.get("pool_available", 0),
            waiting=said.get("requests_waiting", 0),
        )

    def close(self) -> None:
        """Close what is not lent; what is lent is closed when it comes back."""
        self._pool.close()

    def _begun(self, begin: str, timeout_s: float) -> Connection:
        deadline = monotonic() + timeout_s
        while True:
            connection = self._pool.getconn(max(deadline - monotonic(), 0.001))
            try:
                if _is_alive(connection):
                    if begin:
                        connection.execute(begin, prepare=False)
                    return connection
                connection.close()  # what is given back closed, the pool replaces
            except BaseException:
                roll_back(connection)
                if not connection.broken or monotonic() > deadline:
                    self._pool.putconn(connection)
                    raise
            self._pool.putconn(connection)


def roll_back(connection: Connection) -> None:
    """End the transaction, if there is still a connection to end it on."""
    with suppress(psycopg.Error):
        connection.execute("ROLLBACK", prepare=False)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the driver's errors into ours, which name what was being done."""
    try:
        yield
    except (PoolTimeout, PoolClosed) as error:
        raise StorageUnavailableError(f"can't {what}: Postgres can't be reached") from error
    except (
        psycopg.IntegrityError,
        psycopg.ProgrammingError,
        psycopg.DataError,
        psycopg.NotSupportedError,
    ) as error:
        raise StorageError(f"can't {what}: {_said(error)}") from error
    except psycopg.Error as error:
        raise StorageUnavailableError(f"can't {what}: {_said(error)}") from error


def _said(error: psycopg.Error) -> str:
    # The details that the server adds name values of the row.
    return error.diag.message_primary or str(error).partition("\n")[0]


def _configure(connection: Connection) -> None:
    connection.prepared_max = _PREPARED


def _is_alive(connection: Connection) -> bool:
    """Return whether the server has not ended the session, without asking it.

    What ends a session can be read from the socket; a session that is idle is otherwise silent.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not poll.poll(0):
        return True
    try:
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return connection.pgconn.status == ConnStatus.OK
