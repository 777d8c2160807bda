"""What is Postgres's own: its schema, its sessions, its turns among servers, and its absence."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import replace

import psycopg
import pytest

from flagd_server.errors import SchemaError, StorageError, StorageUnavailableError
from flagd_server.storage import open_reader, open_storage, postgres, postgres_connections
from flagd_server.storage.base import Reader, Transaction
from flagd_server.storage.migrations import postgres as migrations
from flagd_server.storage.postgres import PostgresStorage
from flagd_server.storage.postgres_connections import TURN_LOCK
from tests.contract.storage_samples import COUNT, FLAG, PRODUCTION, TOKEN, fill, run_together
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually


@pytest.fixture
def storage(postgres_database: str) -> Iterator[PostgresStorage]:
    with closing(PostgresStorage(postgres_database)) as storage:
        yield storage


@pytest.fixture
def beside(postgres_database: str) -> Iterator[psycopg.Connection]:
    """A session of something else."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        yield connection


def tables(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        ).fetchall()
    return [name for (name,) in rows]


def steps(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT name FROM schema_steps ORDER BY number").fetchall()
    return [name for (name,) in rows]


def test_servers_that_start_together_make_one_schema(postgres_url: str) -> None:
    run_together(lambda: open_storage(postgres_url).close(), 3)
    assert steps(postgres_url) == list(migrations.STEPS)


def test_a_database_of_an_older_server_gets_all_the_steps_it_lacks_or_none(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = dict(migrations.STEPS)
    first = next(iter(known))
    monkeypatch.setattr(migrations, "STEPS", {first: known[first]})
    open_storage(postgres_url).close()
    before = tables(postgres_url)
    good, bad = ("CREATE TABLE one (id bigint)",), ("CREATE TABLE two (id bigint)", "CREATE two")

    monkeypatch.setattr(migrations, "STEPS", {first: known[first], "0002": good, "0003": bad})
    with pytest.raises(StorageError, match="syntax error"):
        open_storage(postgres_url)
    assert (tables(postgres_url), steps(postgres_url)) == (before, [first])

    monkeypatch.setattr(migrations, "STEPS", {first: known[first], "0002": good})
    open_storage(postgres_url).close()
    assert tables(postgres_url) == sorted([*before, "one"])
    assert steps(postgres_url) == [first, "0002"]


def test_a_database_of_a_newer_server_is_refused_untouched(
    postgres_database: str, beside: psycopg.Connection
) -> None:
    beside.execute("INSERT INTO schema_steps (name) VALUES ('9999_future')")
    recorded = steps(postgres_database)
    for refused in (open_storage, lambda url: open_reader(url).__enter__()):
        with pytest.raises(SchemaError, match=r"a newer server \(it has step 9999_future\)"):
            refused(postgres_database)
    assert steps(postgres_database) == recorded


def test_a_database_of_something_else_is_refused_untouched(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE flags (id bigint)")
    for refused in (open_storage, lambda url: open_reader(url).__enter__()):
        with pytest.raises(SchemaError, match="something else"):
            refused(postgres_url)
    assert tables(postgres_url) == ["flags"]


def test_what_a_newer_server_adds_does_not_stop_the_older_ones(
    storage: PostgresStorage, postgres_url: str
) -> None:
    """Replicas are updated one by one."""
    open_storage(postgres_url).close()
    with closing(PostgresStorage(postgres_url)) as older:
        with older.transaction() as tx:
            fill(tx)

        def work() -> None:
            # Often enough that the driver prepares the statements.
            for _ in range(7):
                with older.transaction() as tx:
                    tx.add_counts([COUNT])
                    tx.update_flag(FLAG)
                    tx.insert_token(replace(TOKEN, id="tok-9", digest=b"\x09" * 32))
                    assert tx.token("tok-9") is not None
                    tx._delete("tokens", id="tok-9")
                with older.read() as reader:
                    assert reader.flags() == [FLAG]
                    assert reader.configuration("production", "checkout") is not None
                    assert len(reader.counts("production", "checkout", 0)) == 1

        work()
        with psycopg.connect(postgres_url) as newer:
            for table in ("flags", "tokens", "counts", "configuration_versions"):
                newer.execute(f"ALTER TABLE {table} ADD COLUMN more text NOT NULL DEFAULT ''")
        work()


def test_keys_are_sorted_by_code_point_whatever_the_database_was_made_for(
    postgres_cluster: PostgresCluster,
) -> None:
    with psycopg.connect(postgres_cluster.admin_url, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE sorted_for_people OWNER flagd TEMPLATE template0"
            " LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        )
    keys = ["A", "B", "a", "b", "é", "ﬀ", "\U0001f600"]
    with closing(PostgresStorage(postgres_cluster.url("sorted_for_people"))) as storage:
        with storage.transaction() as tx:
            for key in reversed(keys):
                tx.insert_environment(replace(PRODUCTION, key=key))
        with storage.read() as reader:
            assert [environment.key for environment in reader.environments()] == keys


def test_a_reader_can_not_write(storage: PostgresStorage, postgres_database: str) -> None:
    with pytest.raises(StorageUnavailableError, match="read-only"), storage.read() as reader:
        reader._run("DELETE FROM flags")
    with (
        pytest.raises(StorageUnavailableError, match="read-only"),
        open_reader(postgres_database) as looking,
    ):
        looking._run("DELETE FROM flags")  # type: ignore[attr-defined]


def test_what_only_looks_sees_what_was_committed_when_it_began(
    storage: PostgresStorage, postgres_database: str
) -> None:
    with storage.transaction() as tx:
        fill(tx)
    with open_reader(postgres_database) as reader:
        seen = [reader.environment("production")]
        with storage.transaction() as tx:
            tx.rename_environment("production", "Live")
        seen.append(reader.environment("production"))
    assert seen == [PRODUCTION, PRODUCTION]


def test_what_only_looks_refuses_an_empty_database(postgres_url: str) -> None:
    with pytest.raises(SchemaError, match="lacks step 0001_schema"), open_reader(postgres_url):
        pass
    assert tables(postgres_url) == []


def test_a_transaction_in_which_a_statement_failed_is_not_taken_for_committed(
    storage: PostgresStorage,
) -> None:
    """Postgres answers its COMMIT with a rollback, and calls that no error."""
    announced = []

    def write_on_regardless(tx: Transaction) -> None:
        fill(tx)
        tx.after_commit(lambda: announced.append(1))
        try:
            tx.insert_flag(FLAG)
        except psycopg.IntegrityError:
            return

    with pytest.raises(StorageError, match="a statement has failed"), storage.transaction() as tx:
        write_on_regardless(tx)
    assert announced == []
    with storage.read() as reader:
        assert reader.environments() == []


def test_sessions_that_the_server_has_ended_are_replaced_before_anybody_meets_one(
    storage: PostgresStorage, postgres_cluster: PostgresCluster
) -> None:
    with storage.transaction() as tx:
        fill(tx)
    with storage.read(), storage.read(), storage.read():
        assert storage.token_generation() == 0
    assert postgres_cluster.disconnect("flagd-server") >= 5
    with storage.transaction() as tx:
        tx.set_sequence("production", 6)
    with storage.read() as reader:
        assert reader.environment("production") == replace(PRODUCTION, sequence=6)
    assert storage.token_generation() == 0


def test_a_session_that_ends_within_a_transaction_undoes_it(
    storage: PostgresStorage, postgres_cluster: PostgresCluster
) -> None:
    def write_and_be_cut_off(tx: Transaction) -> None:
        fill(tx)
        assert tx.environments() == [PRODUCTION]
        postgres_cluster.disconnect("flagd-server")
        tx.set_sequence("production", 6)

    with pytest.raises(StorageUnavailableError, match="terminat"), storage.transaction() as tx:
        write_and_be_cut_off(tx)
    with storage.transaction() as tx:
        assert tx.environments() == []


def test_servers_take_turns_and_see_what_the_others_wrote(
    storage: PostgresStorage, postgres_database: str
) -> None:
    with storage.transaction() as tx:
        fill(tx)
    with closing(PostgresStorage(postgres_database)) as other:
        servers = [storage, other]

        def add_one() -> None:
            server = servers.pop()
            for _ in range(20):
                with server.transaction() as tx:
                    environment = tx.environment("production")
                    assert environment is not None
                    tx.set_sequence("production", environment.sequence + 1)

        run_together(add_one, 2)
        with other.read() as reader:
            environment = reader.environment("production")
    assert environment is not None
    assert environment.sequence == PRODUCTION.sequence + 40


def test_a_server_that_is_stopped_within_its_turn_loses_it(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "WRITER_PAUSE_MS", 200)
    with closing(PostgresStorage(postgres_database)) as stopped:
        monkeypatch.undo()
        with closing(PostgresStorage(postgres_database)) as other, ThreadPoolExecutor(1) as beside:

            def write_theirs() -> None:
                with other.transaction() as theirs:
                    theirs.insert_environment(replace(PRODUCTION, key="other"))

            def stop_within(tx: Transaction) -> None:
                # First of all: a machine that stands still stops this one sooner than is meant.
                written = beside.submit(write_theirs)
                fill(tx)
                tx.environments()
                written.result()  # comes when the stopped one has lost its turn
                tx.set_sequence("production", 6)

            with (
                pytest.raises(StorageUnavailableError, match="idle-in-transaction"),
                stopped.transaction() as tx,
            ):
                stop_within(tx)
            beside.shutdown()
            with stopped.read() as reader:
                assert [each.key for each in reader.environments()] == ["other"]


def test_who_gets_no_turn_among_the_servers_is_told_in_time_and_may_try_again(
    postgres_database: str, beside: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres._SESSION, "lock_timeout", 100)
    with closing(PostgresStorage(postgres_database)) as storage:
        beside.execute("SELECT pg_advisory_lock(%s)", [TURN_LOCK])
        with pytest.raises(StorageUnavailableError, match="lock timeout"), storage.transaction():
            raise AssertionError("it was begun")
        with pytest.raises(StorageUnavailableError, match="lock timeout"):
            storage.check_writable(1.0)
        with storage.read() as reader:
            assert reader.environments() == []
        beside.execute("SELECT pg_advisory_unlock(%s)", [TURN_LOCK])
        storage.check_writable(1.0)


def test_no_message_holds_the_password() -> None:
    for url in (
        "postgresql://flagd:s3cret@127.0.0.1:1/flags",
        "postgresql://flagd:s3cret@127.0.0.1:port/flags",
        "postgresql://flagd:s3cret@127.0.0.1/flags?no_such_setting=1",
    ):
        with pytest.raises(StorageError) as refused:
            open_storage(url)
        assert "s3cret" not in str(refused.value)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("flagd_server.storage.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError, match=r"flagd-release\[server,postgres\]"):
        open_storage("postgresql://127.0.0.1:1/flags")


def test_without_postgres_everybody_is_told_and_is_served_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        closing(PostgresCluster()) as cluster,
        closing(PostgresStorage(cluster.create_database())) as storage,
    ):
        with storage.transaction() as tx:
            fill(tx)
        monkeypatch.setattr(postgres_connections, "CONNECT_S", 0.5)
        cluster.crash()
        for _ in range(4):
            for use in (storage.transaction, storage.read):
                with pytest.raises(StorageUnavailableError), use():
                    raise AssertionError("it was begun")
            with pytest.raises(StorageUnavailableError):
                storage.token_generation()
        cluster.start()
        # Whoever looks too soon is refused at once, and has it connect again meanwhile.
        for use in (storage.read, storage.transaction):
            assert eventually(lambda u=use: _content(u)) == [PRODUCTION]
    logged = [
        record.getMessage()
        for record in caplog.records
        if record.name == "flagd_server.storage.outages"
    ]
    assert set(logged[-2:]) == {
        "can read from the database again",
        "can write to the database again",
    }
    # Once for each cause, and there are few of them.
    assert len(logged) <= 6


def _content(use: Callable[[], AbstractContextManager[Reader]]) -> list[object] | None:
    try:
        with use() as reader:
            return list(reader.environments())
    except StorageUnavailableError:
        return None
