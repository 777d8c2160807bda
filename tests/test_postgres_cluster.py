"""The tests' own Postgres: what is committed outlives its death, and nothing of it stays behind."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres_cluster import PostgresCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    cluster = PostgresCluster()
    yield cluster
    cluster.close()


def _names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM kept").fetchall()]


def test_committed_rows_outlive_a_crash_and_a_restart_on_the_same_port(
    cluster: PostgresCluster,
) -> None:
    url = cluster.create_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (name text)")
        connection.execute("INSERT INTO kept VALUES ('before')")

    cluster.crash()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    cluster.start()
    cluster.restart()

    assert _names(url) == ["before"]


def test_a_database_starts_as_its_template(cluster: PostgresCluster) -> None:
    with psycopg.connect(cluster.create_database("original")) as connection:
        connection.execute("CREATE TABLE kept (name text)")
        connection.execute("INSERT INTO kept VALUES ('copied')")

    copy = cluster.create_database(template="original")

    assert _names(copy) == ["copied"]
    cluster.drop_database(copy)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(copy)


def test_sessions_are_ended_by_name(cluster: PostgresCluster) -> None:
    with psycopg.connect(cluster.create_database(), application_name="victim") as connection:
        assert cluster.disconnect("victim") == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_nothing_is_left_of_a_closed_cluster() -> None:
    cluster = PostgresCluster()
    pid, folder = cluster.pid, Path(cluster._folder)
    cluster.close()

    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()
