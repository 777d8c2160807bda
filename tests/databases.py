"""Databases for tests that run on both kinds: a path or a URL, as `open_storage` takes it.

Tests run on SQLite; `--database=postgres` runs them on Postgres instead, and the mark
`both_databases` on each.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from flagd_server.storage import (
    open_storage,
    postgres,
    postgres_connections,
    postgres_leadership,
    postgres_notices,
)
from tests.postgres_cluster import PostgresCluster

KINDS = ("sqlite", "postgres")
_PATIENCE_S = 60
ANSWER_S = postgres_notices._BEAT_ANSWER_S
"""As it is in production, for tests of what is noticed by it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=KINDS, help="run tests that need a database on this one")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_databases: run on SQLite and on Postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    is_asked_for = metafunc.config.getoption("--database") is not None
    if "database_kind" not in metafunc.fixturenames or is_asked_for:
        return
    if metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("database_kind", KINDS, indirect=True)


@pytest.fixture(scope="session", autouse=True)
def patience_with_postgres() -> Iterator[None]:
    """Let servers within this process wait for Postgres as long as a test may take.

    In production a server that gets nothing for some seconds gives up its connection, its turn or
    its lead, and tests of what comes of that shorten it again. To all others a machine that stands
    still for as long would look like a mistake of the server.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_connections, "CONNECT_S", _PATIENCE_S)
        patch.setattr(postgres, "WRITER_PAUSE_MS", 1_000 * _PATIENCE_S)
        patch.setattr(postgres, "LOCK_MS", 1_000 * _PATIENCE_S)
        for timeout in ("statement_timeout", "lock_timeout"):
            patch.setitem(postgres._SESSION, timeout, 1_000 * _PATIENCE_S)
        patch.setattr(postgres_notices.PostgresNotices.wait, "__defaults__", (_PATIENCE_S,))
        for module in (postgres_notices, postgres_leadership):
            patch.setattr(module, "_CONNECT_S", _PATIENCE_S)
        patch.setattr(postgres_notices, "_FIRST_WITHIN_S", _PATIENCE_S)
        patch.setattr(postgres_notices, "_BEAT_ANSWER_S", _PATIENCE_S)
        patch.setattr(postgres_leadership, "_ANSWER_S", _PATIENCE_S)
        patch.setattr(postgres_leadership, "LEASE_S", _PATIENCE_S)
        patch.setattr(postgres_leadership, "IDLE_TIMEOUT_S", 2 * _PATIENCE_S)
        yield


class ReusedDatabase:
    """A database that is put back as it was, which costs a tenth of making a new one.

    What it holds when this is constructed is what `restore` brings back; its schema stays.
    """

    def __init__(self, cluster: PostgresCluster, name: str) -> None:
        self.url = cluster.url(name)
        # A superuser may delete what triggers and references protect.
        self._of_superuser = cluster.url(name, "postgres")
        self._connection = self._connect()
        self._connection.execute("CREATE SCHEMA kept")
        restore = [
            sql.SQL("SET session_replication_role = replica"),
            sql.SQL("SET lock_timeout = '60s'"),
        ]
        for (table,) in self._connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall():
            names = {
                "table": sql.Identifier("public", table),
                "kept": sql.Identifier("kept", table),
            }
            self._connection.execute(
                sql.SQL("CREATE TABLE {kept} AS TABLE {table}").format(**names)
            )
            restore.append(sql.SQL("DELETE FROM {table}").format(**names))
            restore.append(
                sql.SQL("INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {kept}").format(
                    **names
                )
            )
        for (sequence,) in self._connection.execute(
            "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
        ).fetchall():
            name = sql.Identifier("public", sequence)
            row = self._connection.execute(
                sql.SQL("SELECT last_value, is_called FROM {}").format(name)
            ).fetchone()
            assert row is not None
            restore.append(sql.SQL("SELECT setval({}, {}, {})").format(f"public.{sequence}", *row))
        self._restore = sql.SQL("; ").join(restore)

    def restore(self) -> None:
        try:
            self._connection.execute(self._restore)
        except psycopg.OperationalError:  # a test before has ended its session, or the cluster
            self._connection.close()
            self._connection = self._connect()
            self._connection.execute(self._restore)

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(self._of_superuser, autocommit=True)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """ "sqlite" or "postgres"."""
    kind: str = (
        getattr(request, "param", None) or request.config.getoption("--database") or "sqlite"
    )
    return kind


@pytest.fixture(scope="session")
def emptied_postgres(postgres_cluster: PostgresCluster) -> Iterator[ReusedDatabase]:
    open_storage(postgres_cluster.create_database("emptied")).close()
    database = ReusedDatabase(postgres_cluster, "emptied")
    yield database
    database.close()


@pytest.fixture
def postgres_database(emptied_postgres: ReusedDatabase) -> str:
    """The URL of a database with our schema and nothing else."""
    emptied_postgres.restore()
    return emptied_postgres.url


@pytest.fixture
def sqlite_database(tmp_path: Path) -> str:
    """The path of a file that is not there yet."""
    return str(tmp_path / "flagd.db")


@pytest.fixture
def database(database_kind: str, request: pytest.FixtureRequest) -> str:
    """One of the kind that is asked for."""
    url: str = request.getfixturevalue(f"{database_kind}_database")
    return url
