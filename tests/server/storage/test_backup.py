"""Backups and copies: all of it arrives as it was, or nothing does."""

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlite_utils import Database

from flagd_server.errors import SchemaError, StorageError, StorageInUseError
from flagd_server.storage import is_postgres, open_storage
from flagd_server.storage.backup import back_up, copy_to_postgres, restore
from flagd_server.storage.migrations.sqlite import MIGRATIONS, STEPS
from flagd_server.storage.postgres_connections import connect
from flagd_server.storage.postgres_transfer import PostgresContent
from tests.contract.storage_samples import PRODUCTION, fill
from tests.postgres_cluster import PostgresCluster
from tests.server.storage.every_table import ROWS, content_of, fill_every_table
from tests.waiting import eventually

NOW_MS = 1_800_000_000_000


def unwatched(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


@pytest.fixture(scope="module")
def empty_postgres(postgres_cluster: PostgresCluster) -> str:
    """The name of a database that has the schema, and nothing else."""
    open_storage(postgres_cluster.create_database("empty")).close()
    return "empty"


@pytest.fixture
def postgres(postgres_cluster: PostgresCluster, empty_postgres: str) -> str:
    return postgres_cluster.create_database(template=empty_postgres)


@pytest.fixture(scope="module")
def full(postgres_cluster: PostgresCluster, empty_postgres: str, tmp_path_factory: Any) -> Path:
    """An SQLite database with rows in every table; of the guard's lives the newest is gone."""
    path = Path(tmp_path_factory.mktemp("full") / "flagd.db")
    open_storage(str(path)).close()
    with closing(connect(postgres_cluster.url(empty_postgres))) as connection:
        tables = PostgresContent(connection).tables()
    fill_every_table(path, tables)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("DELETE FROM guard_lives WHERE id = ?", (ROWS,))
    connection.commit()
    connection.close()
    return path


def test_all_of_it_comes_back_from_postgres_as_it_was(
    full: Path, postgres: str, tmp_path: Path
) -> None:
    moved = copy_to_postgres(full, postgres, NOW_MS, unwatched)
    back_up(postgres, tmp_path / "backup", unwatched)

    before, after = content_of(full), content_of(tmp_path / "backup")
    assert {table.table: table.rows for table in moved} == {
        name: len(rows) for name, rows in before.items() if name != "sqlite_sequence"
    }
    assert all(before.values()), "a table without a row shows nothing"
    assert before.keys() == after.keys()
    for name, rows in before.items():
        assert after[name] == rows, name


def test_postgres_numbers_on_where_sqlite_was(full: Path, postgres: str) -> None:
    copy_to_postgres(full, postgres, NOW_MS, unwatched)
    storage = open_storage(postgres)
    environment = content_of(full)["environments"][0][0]
    with storage.transaction() as tx:
        assert tx.insert_guard_life(str(environment), "flag", "{}") == ROWS + 1
    storage.close()


# A clock that is behind must not take them back either.
@pytest.mark.parametrize("now_ms", [NOW_MS, 1])
@pytest.mark.parametrize("on", ["sqlite", "postgres"])
def test_a_restored_environment_is_ahead_of_what_applications_hold(
    full: Path, postgres: str, tmp_path: Path, on: str, now_ms: int
) -> None:
    database = postgres if on == "postgres" else str(tmp_path / "restored.db")
    restore(full, database, now_ms, unwatched)
    restored = select(database, "SELECT sequence FROM environments ORDER BY sequence")
    assert restored == [max(held + 1, now_ms) for held in range(1, ROWS + 1)]


@pytest.mark.parametrize("on", ["sqlite", "postgres"])
def test_a_database_that_is_not_empty_is_not_restored_over(
    full: Path, postgres: str, tmp_path: Path, on: str
) -> None:
    database = postgres if on == "postgres" else str(tmp_path / "there.db")
    storage = open_storage(database)
    with storage.transaction() as tx:
        fill(tx)
    with pytest.raises(StorageError, match=r"empty|already"):
        restore(full, database, NOW_MS, unwatched)
    with storage.read() as reader:
        assert reader.environments() == [PRODUCTION]
    storage.close()


def test_what_postgres_cannot_hold_leaves_nothing_of_a_copy(
    full: Path, postgres: str, tmp_path: Path
) -> None:
    source = tmp_path / "source.db"
    back_up(str(full), source, unwatched)
    connection = sqlite3.connect(source)
    connection.execute("UPDATE evidence_notes SET document = 'a' || char(0)")
    connection.commit()
    connection.close()

    with pytest.raises(StorageError, match=r"evidence_notes.* NUL"):
        copy_to_postgres(source, postgres, NOW_MS, unwatched)
    assert select(postgres, "SELECT key FROM environments") == []


def test_a_row_that_arrives_otherwise_is_noticed_and_nothing_stays(
    full: Path, postgres: str
) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.name := rtrim(NEW.name) || '!'; RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER spoil BEFORE INSERT ON environments"
            " FOR EACH ROW EXECUTE FUNCTION spoil()"
        )
    with pytest.raises(StorageError, match="environments did not arrive as it was sent"):
        copy_to_postgres(full, postgres, NOW_MS, unwatched)
    assert select(postgres, "SELECT key FROM environments") == []


def select(database: str, query: str) -> list[Any]:
    """Return the first column."""
    if is_postgres(database):
        with psycopg.connect(database) as connection:
            return [row[0] for row in connection.execute(query)]
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query)]


def test_a_file_on_which_a_server_runs_is_backed_up_but_not_copied(
    full: Path, postgres: str, tmp_path: Path
) -> None:
    server = open_storage(str(full), as_server=True)
    try:
        back_up(str(full), tmp_path / "backup", unwatched)
        with pytest.raises(StorageInUseError):
            copy_to_postgres(full, postgres, NOW_MS, unwatched)
    finally:
        server.close()
    assert content_of(tmp_path / "backup") == content_of(full)
    assert select(postgres, "SELECT key FROM environments") == []


@pytest.mark.parametrize("on", ["sqlite", "postgres"])
def test_a_backup_is_of_one_moment_while_others_write(
    postgres: str, tmp_path: Path, on: str
) -> None:
    database = postgres if on == "postgres" else str(tmp_path / "flagd.db")
    storage = open_storage(database)
    with storage.transaction() as tx:
        fill(tx)
    enough = threading.Event()
    written = []

    def write() -> None:
        while not enough.is_set():
            with storage.transaction() as tx:  # both, or none
                life = tx.insert_guard_life("production", "checkout", "{}")
                tx.set_sequence("production", life)
            written.append(life)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            before = len(written)
            eventually(lambda b=before: len(written) > b)
            back_up(database, tmp_path / f"backup-{number}", unwatched)
    finally:
        enough.set()
        writer.join()
        storage.close()

    for number in range(3):
        with sqlite3.connect(tmp_path / f"backup-{number}") as connection:
            sequence, life = connection.execute(
                "SELECT (SELECT sequence FROM environments), (SELECT max(id) FROM guard_lives)"
            ).fetchone()
        connection.close()
        assert sequence == life


def older(path: Path) -> Path:
    """A database of a server that did not know the newest step."""
    db = Database(sqlite3.connect(path))
    MIGRATIONS.apply(db, stop_before=list(STEPS)[-1])
    db.execute(
        "INSERT INTO environments VALUES ('old', 'Old', ?, 7, '2026-11-23T12:00:00.000Z')",
        [bytes(range(16))],
    )
    db.conn.commit()
    db.close()
    return path


def test_a_backup_of_an_older_server_is_restored_to_either(postgres: str, tmp_path: Path) -> None:
    backup = older(tmp_path / "old.db")
    kept = backup.read_bytes()
    for database in (postgres, str(tmp_path / "new.db")):
        restore(backup, database, NOW_MS, unwatched)
        open_storage(database).close()  # a file is brought up to date when it is opened
        assert select(database, "SELECT key FROM environments") == ["old"]
    assert backup.read_bytes() == kept


def make_foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()


def make_newer(path: Path) -> None:
    open_storage(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('flagd_server', '9999_later', '')"
        )
    connection.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_bytes(b"x" * 5_000), "not a database"),
        (make_foreign, "something else"),
        (make_newer, "newer server"),
    ],
)
def test_what_is_no_backup_of_ours_is_refused_and_makes_nothing(
    make: Callable[[Path], None], message: str, tmp_path: Path, postgres: str
) -> None:
    file = tmp_path / "file"
    make(file)
    for database in (postgres, str(tmp_path / "new.db")):
        with pytest.raises(StorageError, match=message):
            restore(file, database, NOW_MS, unwatched)
    assert not (tmp_path / "new.db").exists()
    assert select(postgres, "SELECT key FROM environments") == []


def test_a_backup_is_private_and_overwrites_nothing(full: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    back_up(str(full), file, unwatched)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    kept = file.read_bytes()

    with pytest.raises(StorageError, match="is there already"):
        back_up(str(full), file, unwatched)
    assert file.read_bytes() == kept
    assert os.listdir(tmp_path) == ["backup"]


def test_a_postgres_of_an_older_server_is_not_backed_up_half(postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute("DELETE FROM schema_steps")
    with pytest.raises(SchemaError, match="older server"):
        back_up(postgres, tmp_path / "backup", unwatched)
    assert os.listdir(tmp_path) == []
