"""The commands that move databases: migrate, backup, restore, copy."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from flagd_server.cli import main
from flagd_server.storage import open_storage
from flagd_server.storage.migrations.sqlite import MIGRATIONS, STEPS
from tests.contract.storage_samples import PRODUCTION, fill

NEWEST = list(STEPS)[-1]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command, on the file `flagd.db` unless a URL is given; (status, output, errors)."""

    def run(*arguments: str, url: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("FLAGD_DATABASE", "" if url else str(tmp_path / "flagd.db"))
        monkeypatch.setenv("FLAGD_DATABASE_URL", url)
        status = main(arguments)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file, with something in it."""
    path = tmp_path / "flagd.db"
    with closing(open_storage(str(path))) as storage, storage.transaction() as tx:
        fill(tx)
    return path


def environments(database: str) -> list[str]:
    with closing(open_storage(database)) as storage, storage.read() as reader:
        return [environment.key for environment in reader.environments()]


def test_what_is_pending_is_named_and_then_applied(run: Run, tmp_path: Path) -> None:
    with closing(Database(sqlite3.connect(tmp_path / "flagd.db"))) as db:
        MIGRATIONS.apply(db, stop_before=NEWEST)
        db.conn.commit()

    for _ in range(2):  # looking changes nothing
        assert run("migrate", "--check") == (3, f"{NEWEST}  pending\n", "")
    assert run("migrate") == (0, f"{NEWEST}  applied\n", "")
    assert run("migrate", "--check") == (0, "the schema is up to date\n", "")


def test_an_empty_postgres_lacks_all_until_it_is_migrated(run: Run, postgres_url: str) -> None:
    status, output, _ = run("migrate", "--check", url=postgres_url)
    assert (status, output.partition("\n")[0]) == (3, "0001_schema  pending")
    assert run("migrate", url=postgres_url)[0] == 0
    assert run("migrate", "--check", url=postgres_url) == (0, "the schema is up to date\n", "")


def test_looking_at_a_file_that_is_not_there_makes_none(run: Run, tmp_path: Path) -> None:
    status, output, _ = run("migrate", "--check")
    assert (status, output.count("pending")) == (3, len(STEPS))
    assert list(tmp_path.iterdir()) == []


def test_a_backup_is_restored_where_nothing_is(
    run: Run, database: Path, tmp_path: Path, postgres_url: str
) -> None:
    status, output, errors = run("backup", str(tmp_path / "backup"))
    assert (status, errors) == (0, "")
    assert re.fullmatch(r"\S*/backup: [\d,]+ bytes\n", output)

    status, _, errors = run("restore", str(tmp_path / "backup"))
    assert status == 1
    assert f"{database} is there already" in errors

    database.unlink()
    assert run("restore", str(tmp_path / "backup"))[0] == 0
    assert run("restore", str(tmp_path / "backup"), url=postgres_url)[0] == 0
    assert environments(str(database)) == environments(postgres_url) == [PRODUCTION.key]


def test_a_copy_names_every_table_that_is_the_same_in_both(
    run: Run, database: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # somebody watches
    status, output, errors = run("copy", "--from", f"sqlite:{database}", "--to", postgres_url)

    assert status == 0, errors
    assert re.search(r"^environments +1  [0-9a-f]{32}$", output, re.MULTILINE)
    assert re.search(r"^\d+ rows of \d+ tables are the same in both$", output, re.MULTILINE)
    assert "copying" in errors
    assert "100%" in errors
    assert environments(postgres_url) == [PRODUCTION.key]

    status, _, errors = run("copy", "--from", f"sqlite:{database}", url=postgres_url)
    assert status == 1
    assert "expected an empty database" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "flagd.db", "--to", "postgresql://x/y"], "--from: expected sqlite:PATH"),
        (["--from", "sqlite:flagd.db", "--to", "mysql://x/y"], "--to: expected postgresql://"),
        (["--from", "sqlite:flagd.db"], "--to: expected postgresql://"),
        (["--from", "sqlite:/nowhere", "--to", "postgresql://x/y"], "there is no /nowhere"),
    ],
)
def test_a_copy_says_what_it_expected(run: Run, arguments: list[str], message: str) -> None:
    status, output, errors = run("copy", *arguments)
    assert (status, output) == (1, "")
    assert message in errors
