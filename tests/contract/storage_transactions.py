"""What every storage keeps to: transactions, views, and what is told after a commit."""

import queue
from collections.abc import Callable
from dataclasses import replace

import pytest

from flagd_server.errors import StorageError, StorageUnavailableError
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import AuditEntry, Segment
from tests.contract.storage_samples import (
    AT,
    CONDITION,
    COUNT,
    FIRST,
    FLAG,
    PRODUCTION,
    TOKEN,
    fill,
    run_together,
)


class TransactionContract:
    def test_what_was_committed_is_there_after_reopening(
        self, storage: Storage, reopen: Callable[[], Storage]
    ) -> None:
        with storage.transaction() as tx:
            fill(tx)
        storage.close()
        again = reopen()
        with again.read() as reader:
            assert reader.environments() == [PRODUCTION]
            assert reader.flags() == [FLAG]
            assert reader.configurations("production") == [FIRST]
        again.close()

    def test_an_exception_undoes_all_of_a_transaction(self, storage: Storage) -> None:
        announced = []

        def write_and_fail(tx: Transaction) -> None:
            fill(tx)
            tx.put_segment(Segment("production", "beta", CONDITION, "", 1, AT))
            tx.insert_token(TOKEN)
            tx.append_audit(AuditEntry(AT, "ann", "a", "b"))
            tx.add_counts([COUNT])
            tx.after_commit(lambda: announced.append(1))
            raise KeyError

        with pytest.raises(KeyError), storage.transaction() as tx:
            write_and_fail(tx)
        with storage.read() as reader:
            assert reader.environments() == []
            assert reader.flags() == []
            assert reader.tokens() == []
            assert reader.audit(10) == []
        assert announced == []

    def test_a_transaction_reads_its_own_writes_and_nobody_else_does(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            fill(tx)
            assert tx.configuration("production", "checkout") == FIRST
            with storage.read() as reader:
                assert reader.configuration("production", "checkout") is None
        with storage.read() as reader:
            assert reader.configuration("production", "checkout") == FIRST

    def test_a_view_stays_as_it_was_while_others_write(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            fill(tx)
        with storage.read() as reader:
            assert reader.environment("production") == PRODUCTION
            with storage.transaction() as tx:
                tx.set_sequence("production", 6)
            assert reader.environment("production") == PRODUCTION
        with storage.read() as reader:
            assert reader.environment("production") == replace(PRODUCTION, sequence=6)

    def test_callbacks_run_after_the_commit_in_order_and_before_the_next_writer(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            fill(tx)
        seen: list[tuple[int, int]] = []
        rounds = 25

        def announce(sequence: int, part: int) -> None:
            with storage.read() as reader:
                environment = reader.environment("production")
            assert environment is not None
            assert environment.sequence == sequence, "another writer came between"
            seen.append((sequence, part))

        def write() -> None:
            for _ in range(rounds):
                with storage.transaction() as tx:
                    environment = tx.environment("production")
                    assert environment is not None
                    sequence = environment.sequence + 1
                    tx.set_sequence("production", sequence)
                    tx.after_commit(lambda s=sequence: announce(s, 1))
                    tx.after_commit(lambda s=sequence: announce(s, 2))

        run_together(write, 4)
        first = PRODUCTION.sequence + 1
        assert seen == [(first + n, part) for n in range(4 * rounds) for part in (1, 2)]

    def test_a_failing_callback_stops_neither_the_others_nor_the_next_transaction(
        self, storage: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        announced = []
        with storage.transaction() as tx:
            fill(tx)
            tx.after_commit(lambda: {}["missing"])
            tx.after_commit(lambda: announced.append(1))
        assert announced == [1]
        assert "missing" in caplog.text
        with storage.transaction() as tx:
            assert tx.flag("checkout") == FLAG

    def test_a_transaction_inside_another_is_refused_and_the_outer_one_goes_on(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            fill(tx)
            with pytest.raises(StorageError), storage.transaction():
                raise AssertionError("it was opened")
        with storage.read() as reader:
            assert reader.flag("checkout") == FLAG

    def test_a_callback_can_not_write(self, storage: Storage) -> None:
        refused: list[StorageError] = []

        def write() -> None:
            try:
                with storage.transaction():
                    pass
            except StorageError as error:
                refused.append(error)

        with storage.transaction() as tx:
            tx.after_commit(write)
        assert len(refused) == 1

    def test_what_contradicts_the_records_is_a_storage_error_and_undone(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            fill(tx)

        def write_a_version_again(tx: Transaction) -> None:
            tx.set_sequence("production", 99)
            tx.write_configuration(FIRST)

        with pytest.raises(StorageError), storage.transaction() as tx:
            write_a_version_again(tx)
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.write_configuration(replace(FIRST, environment="nowhere"))
        with storage.read() as reader:
            assert reader.environment("production") == PRODUCTION

    def test_it_is_writable_when_open_and_unavailable_when_closed(self, storage: Storage) -> None:
        storage.check_writable(1.0)
        storage.close()
        with pytest.raises(StorageUnavailableError), storage.transaction():
            raise AssertionError("it was opened")
        with pytest.raises(StorageUnavailableError), storage.read():
            raise AssertionError("it was opened")
        with pytest.raises(StorageUnavailableError):
            storage.check_writable(1.0)

    def test_it_is_not_writable_while_a_writer_holds_its_turn(self, storage: Storage) -> None:
        with storage.transaction():
            refused: list[StorageError] = []

            def check() -> None:
                try:
                    storage.check_writable(0.01)
                except StorageUnavailableError as error:
                    refused.append(error)

            run_together(check, 1)
        assert len(refused) == 1

    def test_notices_are_heard_in_the_order_of_the_commits_before_the_transaction_returns(
        self, storage: Storage
    ) -> None:
        heard: list[tuple[str, object]] = []
        storage.listen(lambda topic, document: heard.append((topic, document)), lambda: None)
        with storage.transaction() as tx:
            fill(tx)
        rounds = 10

        def write() -> None:
            for _ in range(rounds):
                with storage.transaction() as tx:
                    environment = tx.environment("production")
                    assert environment is not None
                    sequence = environment.sequence + 1
                    tx.set_sequence("production", sequence)
                    tx.announce("flag", {"sequence": sequence})
                    tx.announce("kill", {"sequence": sequence, "by": "zoë"})
                assert ("kill", {"sequence": sequence, "by": "zoë"}) in heard

        run_together(write, 3)
        first = PRODUCTION.sequence + 1
        assert heard == [
            notice
            for n in range(3 * rounds)
            for notice in (
                ("flag", {"sequence": first + n}),
                ("kill", {"sequence": first + n, "by": "zoë"}),
            )
        ]

    def test_nobody_hears_of_a_transaction_that_failed(self, storage: Storage) -> None:
        heard: list[str] = []
        storage.listen(lambda topic, document: heard.append(topic), lambda: None)

        def announce_and_fail(tx: Transaction) -> None:
            tx.announce("lost", {})
            raise KeyError

        with pytest.raises(KeyError), storage.transaction() as tx:
            announce_and_fail(tx)
        with storage.transaction() as tx:
            tx.announce("kept", {})
        assert heard == ["kept"]

    def test_a_notice_that_is_too_long_is_refused(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.announce("long", {"text": "x" * 7_000})
            with pytest.raises(StorageError, match="takes 8"):
                tx.announce("long", {"text": "x" * 8_000})

    def test_a_listener_that_fails_keeps_nobody_from_hearing_the_next_notice(
        self, storage: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[str] = []

        def hear(topic: str, document: object) -> None:
            heard.append(topic)
            assert topic != "bad", "this one is too much"

        storage.listen(hear, lambda: None)
        with storage.transaction() as tx:
            tx.announce("bad", {})
            tx.announce("good", {})
        assert heard == ["bad", "good"]
        assert "this one is too much" in caplog.text

    def test_who_stands_alone_leads(self, storage: Storage) -> None:
        changes: queue.Queue[bool] = queue.Queue()
        storage.lead(changes.put)
        assert changes.get(timeout=10.0)
        assert storage.is_leading
        with storage.transaction() as tx:
            assert tx.require_lead() == storage.term
            fill(tx)
        assert changes.empty()
