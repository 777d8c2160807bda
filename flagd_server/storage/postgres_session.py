"""A Postgres connection of which every exchange has a deadline. No SQL of its own.

A driver waits for an answer until the kernel gives the connection up, which takes minutes where
the other side is stopped or the wire is cut. Notices and leadership have seconds, so that they
drive libpq themselves, through `psycopg.pq`. Used by one thread at a time.
"""

import math
import os
import select
import time
from collections.abc import Sequence

import psycopg
from psycopg import pq

from flagd_server.errors import StorageError, StorageUnavailableError
from flagd_server.storage.postgres_connections import parameters

Row = tuple[str | None, ...]

_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
# The driver's own floor. A host that answers takes milliseconds.
_MIN_CONNECT_S = 2.0


class Waker:
    """Ends a wait of another thread's session, now or as soon as it begins one."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class Session:
    """Connected by the constructor. What fails once has failed for good: open another."""

    def __init__(self, url: str, name: str, waker: Waker, *, within_s: float) -> None:
        """Args:
            name: under which `pg_stat_activity` shows it.
            waker: ends `idle` before its time.
            within_s: for each host that the URL names; two seconds at least.

        Raises:
            StorageUnavailableError: nobody answers, or it is refused.
        """
        self._name = name
        settings = parameters(url) | {
            "application_name": name,
            "connect_timeout": math.ceil(max(_MIN_CONNECT_S, within_s)),
        }
        try:
            self._connection = psycopg.connect(**settings, autocommit=True)
        except psycopg.Error as error:
            raise StorageUnavailableError(
                f"can't connect for {name}: {_on_one_line(error)}"
            ) from error
        self._pq = self._connection.pgconn
        # Not select.select, which takes no descriptor above 1,023: streams are descriptors too.
        self._readable = select.poll()
        self._readable.register(self._pq.socket, select.POLLIN)
        self._woken = select.poll()
        self._woken.register(self._pq.socket, select.POLLIN)
        self._woken.register(waker, select.POLLIN)

    def query(
        self, statement: str, parameters: Sequence[str] = (), *, within_s: float
    ) -> list[Row]:
        """Run one statement, with parameters `$1`, `$2` …, and return its rows as text.

        Raises:
            StorageUnavailableError: the connection is lost, or there was no answer in time.
            StorageError: Postgres refused the statement.
        """
        deadline = time.monotonic() + within_s
        try:
            self._pq.send_query_params(
                statement.encode(), [parameter.encode() for parameter in parameters]
            )
            self._pq.flush()
            while self._pq.is_busy():
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._readable.poll(1000 * left_s):
                    raise StorageUnavailableError(
                        f"{self._name}: no answer came within {within_s:g} s"
                    )
                self._pq.consume_input()
            rows: list[Row] = []
            while result := self._pq.get_result():
                if result.status not in _GOOD:
                    self._raise(_on_one_line(result.error_message.decode(errors="replace")))
                rows += [_row(result, number) for number in range(result.ntuples)]
        except psycopg.Error as error:
            raise StorageUnavailableError(f"{self._name}: {_on_one_line(error)}") from error
        return rows

    def idle(self, within_s: float) -> list[str]:
        """Return the notices that have come, without waiting where there are any.

        Else wait for some, for the waker, or for the time to pass; none may have come then.

        Raises:
            StorageUnavailableError: the connection is lost.
        """
        try:
            # Some may have come along with the answer to a query.
            self._pq.consume_input()
            notices = self._notices()
            if not notices and self._woken.poll(1000 * within_s):
                self._pq.consume_input()
                notices = self._notices()
        except psycopg.Error as error:
            raise StorageUnavailableError(f"{self._name}: {_on_one_line(error)}") from error
        return notices

    def close(self) -> None:
        """End it; Postgres frees its locks at once, if it can be told."""
        self._connection.close()

    def _notices(self) -> list[str]:
        notices = []
        while notice := self._pq.notifies():
            notices.append(notice.extra.decode(errors="replace"))
        return notices

    def _raise(self, message: str) -> None:
        if self._pq.status != pq.ConnStatus.OK:
            raise StorageUnavailableError(f"{self._name}: {message}")
        raise StorageError(f"{self._name}: {message}")


def _row(result: pq.abc.PGresult, number: int) -> Row:
    values = (result.get_value(number, column) for column in range(result.nfields))
    return tuple(None if value is None else value.decode() for value in values)


def _on_one_line(message: object) -> str:
    return " ".join(str(message).split())
