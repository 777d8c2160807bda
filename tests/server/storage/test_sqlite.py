"""What is SQLite's own: its file, its settings, its schema, its errors."""

import logging
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from flagd_server.errors import (
    SchemaError,
    StorageError,
    StorageInUseError,
    StorageUnavailableError,
)
from flagd_server.storage import open_reader, open_storage
from flagd_server.storage.base import Transaction
from flagd_server.storage.migrations.sqlite import STEPS
from flagd_server.storage.sqlite import SqliteStorage
from flagd_server.storage.sqlite_reader import SqliteReader
from tests.contract.storage_samples import COUNT, FLAG, PRODUCTION, fill, run_together

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "flagd.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(str(path))) as storage:
        yield storage


def test_the_file_and_its_folder_are_made_for_the_owner_alone(
    storage: SqliteStorage, path: Path
) -> None:
    with storage.transaction() as tx:
        fill(tx)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_writer_is_durable_and_checks_references(storage: SqliteStorage) -> None:
    with storage.transaction():
        pragmas = {
            name: storage._writer.conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


def test_a_reader_can_not_write(storage: SqliteStorage) -> None:
    with pytest.raises(StorageUnavailableError, match="readonly"), storage.read() as reader:
        reader._db.execute("DELETE FROM flags")


def test_helpers_of_the_library_leave_one_transaction_one(
    storage: SqliteStorage, path: Path
) -> None:
    """sqlite-utils commits by itself where no transaction is open; none of ours may end early."""
    with closing(sqlite3.connect(path)) as witness:
        with storage.transaction() as tx:
            fill(tx)
            tx.update_flag(FLAG)
            tx.set_sequence("production", 9)
            tx.add_counts([COUNT])
            assert storage._writer.conn.in_transaction
            assert witness.execute("SELECT count(*) FROM flags").fetchone() == (0,)
        assert witness.execute("SELECT count(*) FROM flags").fetchone() == (1,)


def test_a_commit_that_fails_is_announced_to_nobody(storage: SqliteStorage) -> None:
    announced = []

    def write_what_can_not_be_committed(tx: Transaction) -> None:
        fill(tx)
        tx.after_commit(lambda: announced.append(1))
        # A reference that is checked only at the commit: the commit itself is what fails.
        storage._writer.execute("PRAGMA defer_foreign_keys = ON")
        storage._writer.execute(
            "INSERT INTO configurations (environment, flag, version) VALUES ('nowhere', 'x', 1)"
        )

    with pytest.raises(StorageError, match="FOREIGN KEY"), storage.transaction() as tx:
        write_what_can_not_be_committed(tx)
    assert announced == []
    with storage.transaction() as tx:
        assert tx.environments() == []
        fill(tx)
    with storage.read() as reader:
        assert reader.environments() == [PRODUCTION]


def test_readers_are_as_many_as_read_at_once_and_no_more(storage: SqliteStorage) -> None:
    with storage.read(), storage.read():
        pass

    def read() -> None:
        for _ in range(20):
            with storage.read() as reader:
                reader.environments()

    run_together(read, 3)
    assert 2 <= len(storage._idle) <= 5


def test_a_connection_lent_while_closing_is_closed_when_it_comes_back(
    storage: SqliteStorage,
) -> None:
    with storage.read() as reader:
        storage.close()
        connection = reader._db.conn
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_the_schema_is_recorded_and_opening_again_changes_nothing(
    storage: SqliteStorage, path: Path
) -> None:
    def schema() -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            recorded = connection.execute(
                "SELECT migration_set, name FROM _sqlite_migrations ORDER BY id"
            ).fetchall()
            assert recorded == [("flagd_server", name) for name in STEPS]
            return connection.execute("SELECT name, sql FROM sqlite_master").fetchall()

    before = schema()
    open_storage(str(path)).close()
    assert schema() == before


def test_a_database_of_an_older_server_gets_the_steps_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "older.db"
    older = Migrations("flagd_server")
    first = next(iter(STEPS))
    older(name=first)(STEPS[first])
    with closing(sqlite3.connect(path)) as connection:
        database = Database(connection)
        older.apply(database)
        database.execute(
            "INSERT INTO environments VALUES (?, ?, ?, ?, ?)",
            ("production", "Production", bytes(16), 1, "2026-11-23T19:14:37.123Z"),
        )
        connection.commit()
    storage = open_storage(str(path))
    with storage.read() as reader:
        assert [environment.key for environment in reader.environments()] == ["production"]
        assert reader.slos("production") == []
    storage.close()


def test_a_database_of_a_newer_server_is_refused_untouched(
    storage: SqliteStorage, path: Path
) -> None:
    storage.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('flagd_server', '9999_future', '')"
        )
    content = path.read_bytes()
    with pytest.raises(SchemaError, match="9999_future"):
        open_storage(str(path))
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE flags (id INTEGER)")
    with pytest.raises(SchemaError, match="something else"):
        open_storage(str(path))


def test_what_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(StorageUnavailableError, match=r"notes\.txt"):
        open_storage(str(path))


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailableError, match="can't open"):
        open_storage(str(tmp_path / "file" / "flagd.db"))


def test_processes_that_start_together_make_one_schema(path: Path) -> None:
    program = (
        "import sys; from flagd_server.storage import open_storage;"
        "sys.stdin.read(); open_storage(sys.argv[1]).close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(90) for process in processes] == [0, 0, 0]
    open_storage(str(path)).close()


def test_a_full_disk_undoes_the_transaction_and_the_storage_goes_on(
    storage: SqliteStorage,
) -> None:
    with storage.transaction() as tx:
        fill(tx)
    pages = storage._writer.execute("PRAGMA page_count").fetchone()[0]
    storage._writer.execute(f"PRAGMA max_page_count = {pages}")
    announced = []

    def write_too_much(tx: Transaction) -> None:
        tx.after_commit(lambda: announced.append(1))
        tx.set_sequence("production", 99)
        tx.insert_evidence("ev-1", "production", "checkout", PRODUCTION.created_at, "x" * 100_000)

    with pytest.raises(StorageUnavailableError, match="full"), storage.transaction() as tx:
        write_too_much(tx)
    assert announced == []
    storage._writer.execute(f"PRAGMA max_page_count = {pages + 1_000}")
    with storage.transaction() as tx:
        assert tx.environments() == [PRODUCTION]
        tx.set_sequence("production", 6)


def test_a_file_that_another_process_holds_is_unavailable_until_it_lets_go(
    storage: SqliteStorage, path: Path
) -> None:
    storage._writer.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="locked"), storage.transaction():
            raise AssertionError("it was begun")
        with pytest.raises(StorageUnavailableError, match="locked"):
            storage.check_writable(1.0)
        with storage.read() as reader:
            assert reader.environments() == []
        other.execute("ROLLBACK")
    storage.check_writable(1.0)
    with storage.transaction() as tx:
        fill(tx)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow, which is what SQLite sees of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_not_writable_until_there_is_room(storage: SqliteStorage) -> None:
    with full_disk(), pytest.raises(StorageUnavailableError):
        storage.check_writable(1.0)
    storage.check_writable(1.0)


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    storage: SqliteStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with full_disk():
        for _ in range(3):
            with pytest.raises(StorageUnavailableError), storage.transaction() as tx:
                fill(tx)
    with storage.transaction() as tx:
        fill(tx)
    storage.check_writable(1.0)
    logged = [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "flagd_server.storage.outages"
    ]
    assert [level for level, _ in logged] == [logging.ERROR, logging.WARNING]
    assert "can't write to the database: " in logged[0][1]
    assert logged[1][1] == "can write to the database again"


def test_a_second_server_on_one_file_is_refused_until_the_first_has_left(path: Path) -> None:
    first = SqliteStorage(str(path), sole_server_within_s=0.0)
    with pytest.raises(StorageInUseError, match=r"another server runs on .*flagd\.db"):
        SqliteStorage(str(path), sole_server_within_s=0.0)
    # The command line goes on working beside it.
    SqliteStorage(str(path)).close()
    first.close()
    SqliteStorage(str(path), sole_server_within_s=0.0).close()


def test_a_server_that_is_killed_leaves_the_file_to_the_next(path: Path) -> None:
    program = (
        "import sys; from flagd_server.storage import open_storage;"
        "storage = open_storage(sys.argv[1], as_server=True); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(StorageInUseError):
            SqliteStorage(str(path), sole_server_within_s=0.0)
        first.kill()
        SqliteStorage(str(path), sole_server_within_s=60.0).close()


def test_what_only_looks_sees_what_a_running_server_has_committed(path: Path) -> None:
    with closing(open_storage(str(path), as_server=True)) as server:
        with server.transaction() as tx:
            fill(tx)
        with open_reader(str(path)) as reader:
            with server.transaction() as tx:
                tx.rename_environment("production", "Live")
            seen = reader.environment("production")
        assert seen == PRODUCTION


def test_what_only_looks_writes_nothing(storage: SqliteStorage, path: Path) -> None:
    storage.close()
    content = path.read_bytes()
    with open_reader(str(path)) as reader:
        assert isinstance(reader, SqliteReader)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM meta")
    assert path.read_bytes() == content


def test_what_only_looks_makes_no_database(path: Path) -> None:
    with (
        pytest.raises(StorageUnavailableError, match="can't read the database"),
        open_reader(str(path)),
    ):
        pass
    assert not path.parent.exists()


def test_what_only_looks_reads_after_a_server_that_was_killed(path: Path) -> None:
    program = (
        "import os, sys\n"
        "from flagd_server.storage import open_storage\n"
        "from tests.contract.storage_samples import fill\n"
        "storage = open_storage(sys.argv[1], as_server=True)\n"
        "with storage.transaction() as tx:\n"
        "    fill(tx)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    with open_reader(str(path)) as reader:
        assert reader.environment("production") == PRODUCTION


def test_what_only_looks_refuses_another_schema(tmp_path: Path) -> None:
    other, older = tmp_path / "other.db", tmp_path / "older.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE flags (id INTEGER)")
    older.touch()
    for path, message in ((other, "something else"), (older, "lacks step 0001_initial")):
        with pytest.raises(SchemaError, match=message), open_reader(str(path)):
            pass
