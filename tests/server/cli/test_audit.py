"""The audit of a real database, reached into with raw SQL, and what `audit verify` says of it."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from flagd_server.cli import main
from flagd_server.storage import open_storage
from flagd_server.storage.migrations.sqlite import STEPS
from flagd_server.storage.records import AuditEntry
from tests.contract.storage_samples import AT

TRIGGERS = ("audit_is_not_changed", "audit_is_not_deleted", "audit_grows_at_its_end")
ENTRIES = 6
Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "flagd.db"
    with closing(open_storage(str(path))) as storage:
        for number in range(1, ENTRIES + 1):
            with storage.transaction() as tx:
                detail = {"number": number, "share": 0.25, "names": ("ä", "b")}
                tx.append_audit(
                    AuditEntry(AT, "ann", "flag.update", f"flags/{number}", detail=detail)
                )
    return path


@pytest.fixture
def verify(database: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(*options: str) -> tuple[int, str]:
        status = main(["audit", "verify", "--database", str(database), *options])
        captured = capsys.readouterr()
        return status, (captured.err or captured.out).strip().removeprefix("flagd-server: ")

    return run


@pytest.fixture
def sql(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def unguarded(sql: sqlite3.Connection) -> sqlite3.Connection:
    for trigger in TRIGGERS:
        sql.execute(f"DROP TRIGGER {trigger}")
    return sql


@pytest.fixture
def heads(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["audit", "head", "--database", str(database)]) == 0
    file = tmp_path / "heads.jsonl"
    file.write_text(capsys.readouterr().out)
    return file


def test_a_log_that_was_let_be_is_good(verify: Verify, heads: Path) -> None:
    assert verify() == (0, "6 entries are as they were written")
    assert verify("--head", str(heads)) == (
        0,
        "6 entries are as they were written, held to 1 exported heads",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'bob' WHERE id = 3",
        "UPDATE audit SET id = 99 WHERE id = 6",
        "DELETE FROM audit WHERE id = 6",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE id = 3",
        "INSERT INTO audit SELECT id + 10, at, actor, action, target, environment, flag,"
        " before_version, after_version, comment, detail, zeroblob(32), hash FROM audit LIMIT 1",
    ],
)
def test_the_database_itself_refuses(
    sql: sqlite3.Connection, verify: Verify, statement: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        sql.execute(statement)
    assert verify()[0] == 0


@pytest.mark.parametrize("column", ["at", "actor", "action", "target", "comment", "detail"])
def test_a_change_of_any_column_is_found(
    unguarded: sqlite3.Connection, verify: Verify, column: str
) -> None:
    values = {"at": "2020-01-01T00:00:00.000Z", "detail": '{"number":3}'}
    value = values.get(column, "other")
    unguarded.execute(f"UPDATE audit SET {column} = ? WHERE id = 3", (value,))
    assert verify() == (1, "audit entry 3 was changed")


@pytest.mark.parametrize(
    "column", ["environment", "flag", "before_version", "after_version", "hash", "previous_hash"]
)
def test_so_is_one_of_a_column_that_may_be_empty(
    unguarded: sqlite3.Connection, verify: Verify, column: str
) -> None:
    value: object = b"x" * 32 if "hash" in column else 7 if "version" in column else "x"
    unguarded.execute(f"UPDATE audit SET {column} = ? WHERE id = 3", (value,))
    assert verify() == (1, "audit entry 3 was changed")


def test_what_is_removed_is_found(unguarded: sqlite3.Connection, verify: Verify) -> None:
    unguarded.execute("DELETE FROM audit WHERE id IN (3, 4)")
    assert verify() == (1, "audit entry 3 is gone, with all up to 4")


def test_what_is_inserted_is_found(unguarded: sqlite3.Connection, verify: Verify) -> None:
    for entry_id in range(ENTRIES, 2, -1):
        unguarded.execute("UPDATE audit SET id = id + 1 WHERE id = ?", (entry_id,))
    unguarded.execute(
        "INSERT INTO audit SELECT 3, at, 'bob', action, target, environment, flag, before_version,"
        " after_version, comment, detail, previous_hash, hash FROM audit WHERE id = 4"
    )
    status, said = verify()
    assert (status, said.split(" was ")[0]) == (1, "audit entry 3")


def test_what_is_put_elsewhere_is_found(unguarded: sqlite3.Connection, verify: Verify) -> None:
    for before, after in ((2, 99), (5, 2), (99, 5)):
        unguarded.execute("UPDATE audit SET id = ? WHERE id = ?", (after, before))
    assert verify() == (1, "audit entry 2 was put in another place")


def test_a_tail_cut_off_is_found_against_an_exported_head(
    unguarded: sqlite3.Connection, verify: Verify, heads: Path
) -> None:
    unguarded.execute("DELETE FROM audit WHERE id > 4")
    assert verify() == (0, "4 entries are as they were written")
    gone = "audit entry 5 is gone, with all after it up to 6, which was exported"
    assert verify("--head", str(heads)) == (1, gone)


def test_a_log_written_anew_is_found_against_an_exported_head(
    database: Path, unguarded: sqlite3.Connection, verify: Verify, heads: Path
) -> None:
    unguarded.execute("DELETE FROM audit WHERE id > 4")
    with closing(open_storage(str(database))) as storage:
        for number in (5, 6, 7):
            with storage.transaction() as tx:
                tx.append_audit(AuditEntry(AT, "bob", "flag.update", f"flags/{number}"))
    assert verify()[0] == 0
    status, said = verify("--head", str(heads))
    assert (status, said.partition(":")[0]) == (1, "audit entry 6 is not what was exported")


def test_a_file_that_holds_no_heads_is_refused(verify: Verify, tmp_path: Path, heads: Path) -> None:
    file = tmp_path / "x"
    for content in ("", "{}", '{"id": 1, "hash": "00"}', heads.read_text() + "x"):
        file.write_text(content)
        status, said = verify("--head", str(file))
        assert status == 1
        assert said.startswith("--head: ")
    assert verify("--head", str(tmp_path / "none"))[0] == 1


def test_on_postgres_it_is_the_same(
    postgres_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setenv("FLAGD_DATABASE_URL", postgres_url)
    with closing(open_storage(postgres_url)) as storage:
        for number in range(1, ENTRIES + 1):
            with storage.transaction() as tx:
                tx.append_audit(AuditEntry(AT, "ann", "flag.update", f"flags/{number}"))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for statement in (
            "UPDATE audit SET actor = 'bob' WHERE id = 3",
            "DELETE FROM audit WHERE id = 6",
            "TRUNCATE audit",
            "INSERT INTO audit SELECT * FROM audit WHERE id = 6 ON CONFLICT DO NOTHING",
        ):
            with pytest.raises(psycopg.errors.IntegrityError, match="append-only"):
                connection.execute(statement)
        assert main(["audit", "verify"]) == 0
        connection.execute("ALTER TABLE audit DISABLE TRIGGER USER")
        connection.execute("UPDATE audit SET actor = 'bob' WHERE id = 3")
        assert main(["audit", "verify"]) == 1
        assert "audit entry 3 was changed" in capsys.readouterr().err


def test_what_was_written_before_there_was_a_chain_is_chained(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    before = Migrations("flagd_server")
    for name, step in STEPS.items():
        if name < "0013":
            before(name=name)(step)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        db = Database(connection, execute_plugins=False)
        before.apply(db)
        for number in (1, 2, 5):
            db.execute(
                "INSERT INTO audit VALUES (?, '2026-11-20T08:00:00.000Z', 'ann', 'flag.update',"
                " 'flags/a', 'production', 'a', 1, 2, 'ä', ?)",
                (number, json.dumps({"share": 0.5, "ä": [number]})),
            )
    with closing(open_storage(str(path))) as storage:
        with storage.transaction() as tx:
            tx.append_audit(AuditEntry(AT, "ann", "flag.update", "flags/b"))
        with storage.read() as reader:
            assert [entry.id for entry in reader.audit(10)] == [6, 5, 2, 1]
            assert reader.audit(10)[1].detail == {"share": 0.5, "ä": [5]}
    assert main(["audit", "verify", "--database", str(path)]) == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE tbl_name = 'audit'")
        assert {"audit_by_flag", "audit_by_environment", *TRIGGERS} <= {row[0] for row in names}
