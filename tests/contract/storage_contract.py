"""What every storage keeps to. A storage's test inherits the class and gives it the fixtures."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flagd_server.domain.configuration import Configuration, Kill, KillSource
from flagd_server.errors import StorageError, StorageUnavailableError
from flagd_server.storage.base import (
    AuditEntry,
    ConfigurationVersion,
    CountRow,
    Environment,
    ErrorKindRow,
    Flag,
    Segment,
    Storage,
    Token,
    Transaction,
)

AT = datetime(2026, 11, 23, 12, 0, 0, 123_000, tzinfo=UTC)
SPLIT = {
    "split": {
        "bucket_by": "targetingKey",
        "salt": "checkout",
        "weights": {"on": 25_000, "off": 75_000},
        "allocation": [[25_000, "on"], [100_000, "off"]],
    }
}
CONDITION = {"attribute": "city", "op": "in", "values": ["Zürich", 1, 1.5, True]}

PRODUCTION = Environment("production", "Production", bytes(range(16)), 5, AT)
FLAG = Flag(
    key="checkout",
    type="boolean",
    variants={"on": True, "off": False},
    description="the new one",
    owner="shop",
    tags=("web", "b"),
    lifetime="temporary",
    expires_at=AT + timedelta(days=30),
    archived=False,
    version=1,
    created_at=AT,
    updated_at=AT,
)
CONFIGURATION = Configuration(
    enabled=True,
    off_variant="off",
    rules=({"id": "swiss", "condition": CONDITION, "serve": SPLIT},),
    default_serve={"variant": "off"},
    guard={"mode": "enforce", "control": None, "alpha": 0.001, "margin": 1.05},
    kill=Kill("kill-1", AT, "guard", KillSource.GUARD, "errors", "ev-1"),
)
FIRST = ConfigurationVersion(
    environment="production",
    flag="checkout",
    version=1,
    configuration=CONFIGURATION,
    variants=FLAG.variants,
    at=AT,
    actor="ann",
    action="create",
    comment="why not",
)
TOKEN = Token(
    id="tok-1",
    name="shop",
    scope="sdk",
    environment="production",
    kind="server",
    prefix="fr_sdk_production",
    digest=b"\x01" * 32,
    created_at=AT,
    created_by="ann",
)
COUNT = CountRow(
    environment="production",
    flag="checkout",
    split="default",
    variant="on",
    config_version=3,
    service="shop",
    service_version="3f2c1ab",
    minute=29_000_000,
    exposures=10,
    errors=1,
    latency={3: 9, 40: 1},
)
KIND = ErrorKindRow("production", "checkout", "on", "error:KeyError", "shop.py:7", 2, "KeyError: 1")


def fill(tx: Transaction) -> None:
    """Write one environment with one flag."""
    tx.insert_environment(PRODUCTION)
    tx.insert_flag(FLAG)
    tx.write_configuration(FIRST)


class StorageContract:
    """Inherit it, override nothing but the fixtures."""

    @pytest.fixture
    def reopen(self) -> Callable[[], Storage]:
        """Return what opens the same database anew, as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, reopen: Callable[[], Storage]) -> Iterator[Storage]:
        storage = reopen()
        yield storage
        storage.close()

    # Transactions

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

    # Environments, flags, configurations

    def test_environments(self, storage: Storage) -> None:
        other = Environment("a", "A", b"\0" * 16, 1, AT)
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_environment(other)
            tx.rename_environment("a", "Ä")
            tx.set_sequence("a", 1_763_925_277_123)
        with storage.read() as reader:
            changed = replace(other, name="Ä", sequence=1_763_925_277_123)
            assert reader.environments() == [changed, PRODUCTION]
            assert reader.environment("a") == changed
            assert reader.environment("b") is None

    def test_flags_are_found_by_tag_and_state(self, storage: Storage) -> None:
        archived = replace(FLAG, key="old", tags=("we",), archived=True, expires_at=None)
        with storage.transaction() as tx:
            tx.insert_flag(replace(FLAG, version=0, owner="nobody"))
            tx.insert_flag(archived)
            tx.update_flag(FLAG)
        with storage.read() as reader:
            assert reader.flags() == [FLAG, archived]
            assert reader.flags(archived=False) == [FLAG]
            assert reader.flags(archived=True) == [archived]
            assert reader.flags(tag="web") == [FLAG]
            assert reader.flags(tag="we", archived=False) == []
            assert reader.flag("old") == archived
            assert reader.flag("new") is None

    def test_values_come_back_as_they_were_down_to_type_and_order(self, storage: Storage) -> None:
        variants = {"z": 1, "a": 1.0, "m": {"deep": [None, True, "\u2028 \U0001f600", 2**53 - 1]}}
        flag = replace(FLAG, type="object", variants=variants)
        with storage.transaction() as tx:
            tx.insert_flag(flag)
        with storage.read() as reader:
            found = reader.flag("checkout")
        assert found is not None
        assert repr(found.variants) == repr(variants)

    def test_every_version_is_kept_and_the_newest_is_current(self, storage: Storage) -> None:
        second = replace(
            FIRST,
            version=2,
            configuration=replace(CONFIGURATION, kill=None, default_serve=SPLIT, rules=()),
            action="restore",
        )
        with storage.transaction() as tx:
            fill(tx)
            tx.write_configuration(second)
        with storage.read() as reader:
            assert reader.configuration("production", "checkout") == second
            assert reader.configurations_of("checkout") == [second]
            assert reader.configuration_version("production", "checkout", 1) == FIRST
            assert reader.configuration_version("production", "checkout", 3) is None
            assert reader.history("production", "checkout", 10) == [second, FIRST]
            assert reader.history("production", "checkout", 1) == [second]
            assert reader.history("production", "checkout", 10, before=2) == [FIRST]
            weights = {"on": 25_000, "off": 75_000}
            assert reader.split_weights("production", "checkout", 1) == {"swiss": weights}
            assert reader.split_weights("production", "checkout", 2) == {"default": weights}
            assert reader.split_weights("production", "checkout", 3) is None

    def test_a_deleted_environment_takes_all_but_the_audit_with_it(self, storage: Storage) -> None:
        staging = replace(PRODUCTION, key="staging")
        in_staging = replace(FIRST, environment="staging")
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_environment(staging)
            tx.write_configuration(in_staging)
            tx.put_segment(Segment("production", "beta", CONDITION, "", 1, AT))
            tx.append_audit(AuditEntry(AT, "ann", "a", "b", environment="production"))
            tx.upsert_instance("production", "i-1", 1, "", "", 0, AT)
            tx.add_counts([COUNT])
            tx.add_error_kinds([KIND])
            life = tx.insert_guard_life("production", "checkout", "{}")
            event = tx.append_guard_event(life, 1.0, "{}", has_units=True)
            tx.save_guard_state(life, event, "{}")
            tx.insert_evidence("ev-1", "production", "checkout", AT, "{}")
        with storage.transaction() as tx:
            tx.delete_environment("production")
        with storage.read() as reader:
            assert reader.environments() == [staging]
            assert reader.configurations_of("checkout") == [in_staging]
            assert reader.history("production", "checkout", 10) == []
            assert reader.segments("production") == []
            assert reader.instances("production") == []
            assert reader.counts("production", "checkout", 0) == []
            assert reader.error_kinds("production", "checkout") == []
            assert reader.running_lives() == []
            assert list(reader.guard_events_after(life, 0)) == []
            assert reader.load_guard_state(life) is None
            assert reader.evidence("ev-1") is None
            assert len(reader.audit(10)) == 1

    def test_segments(self, storage: Storage) -> None:
        beta = Segment("production", "beta", CONDITION, "people", 1, AT)
        alpha = replace(beta, key="alpha")
        with storage.transaction() as tx:
            fill(tx)
            tx.put_segment(beta)
            tx.put_segment(alpha)
            tx.put_segment(replace(beta, version=2, description=""))
        with storage.read() as reader:
            beta = replace(beta, version=2, description="")
            assert reader.segments("production") == [alpha, beta]
            assert reader.segments("staging") == []
            assert reader.segment("production", "beta") == beta
        with storage.transaction() as tx:
            tx.delete_segment("production", "beta")
            assert tx.segment("production", "beta") is None

    # Audit and tokens

    def test_the_audit_is_paged_and_filtered_newest_first(self, storage: Storage) -> None:
        entries = [
            AuditEntry(
                at=AT + timedelta(seconds=n),
                actor="ann",
                action="configuration.update",
                target=f"t/{n}",
                environment="production" if n % 2 else None,
                flag="checkout" if n % 3 == 0 else None,
                before_version=n,
                after_version=n + 1,
                comment="c",
                detail={"n": [n]},
            )
            for n in range(12)
        ]
        with storage.transaction() as tx:
            for entry in entries:
                tx.append_audit(entry)
        with storage.read() as reader:
            found = reader.audit(100)
            assert [replace(entry, id=0) for entry in found] == entries[::-1]
            assert [entry.id for entry in found] == sorted({entry.id for entry in found})[::-1]
            assert reader.audit(3) == found[:3]
            assert reader.audit(3, before=found[2].id) == found[3:6]
            assert reader.audit(9, flag="checkout") == [e for e in found if e.flag == "checkout"]
            assert reader.audit(9, flag="checkout", environment="production") == [
                e for e in found if e.flag == "checkout" and e.environment == "production"
            ]

    def test_tokens_and_their_generation(
        self, storage: Storage, reopen: Callable[[], Storage]
    ) -> None:
        admin = replace(TOKEN, id="tok-0", environment=None, digest=b"\x02" * 32)
        generations = [storage.token_generation()]
        with storage.transaction() as tx:
            tx.insert_token(TOKEN)
            tx.insert_token(admin)
        generations.append(storage.token_generation())
        other_process = reopen()
        with other_process.transaction() as tx:
            tx.revoke_token("tok-1", AT)
        other_process.close()
        generations.append(storage.token_generation())
        assert generations == sorted(set(generations))
        with storage.read() as reader:
            assert reader.tokens() == [replace(TOKEN, revoked_at=AT), admin]
            assert reader.token("tok-0") == admin
            assert reader.token("tok-2") is None
        assert storage.token_generation() == generations[-1]

    def test_two_tokens_never_share_a_digest(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_token(TOKEN)
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.insert_token(replace(TOKEN, id="tok-2"))

    # Telemetry

    def test_instances_are_as_they_last_reported(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            assert tx.last_sequence("production", "i-1") is None
            tx.upsert_instance("production", "i-1", 1, "shop", "v1", 5, AT)
            tx.upsert_instance("production", "i-1", 2, "shop", "v2", 6, AT)
            assert tx.last_sequence("production", "i-1") == 2
        with storage.read() as reader:
            (instance,) = reader.instances("production")
            assert (instance.service_version, instance.applied_sequence) == ("v2", 6)
            assert instance.seen_at == AT

    def test_counts_of_one_key_add_up_within_a_batch_and_across(self, storage: Storage) -> None:
        other = replace(COUNT, split=None, minute=COUNT.minute + 1, latency={})
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.add_counts([COUNT, other, replace(COUNT, latency={3: 1})])
        with storage.transaction() as tx:
            tx.add_counts(iter([replace(COUNT, errors=0, latency={5: 1})]))
        total = replace(COUNT, exposures=30, errors=2, latency={3: 10, 40: 1, 5: 1})
        with storage.read() as reader:
            assert reader.counts("production", "checkout", 0) == [total, other]
            assert reader.counts("production", "checkout", other.minute) == [other]
            assert reader.counts("production", "other", 0) == []

    def test_error_kinds_add_up_and_keep_the_newest_sample(self, storage: Storage) -> None:
        rare = replace(KIND, variant="off", count=1)
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.add_error_kinds([rare, KIND, replace(KIND, count=3, sample="KeyError: 2")])
        with storage.transaction() as tx:
            tx.add_error_kinds([replace(KIND, count=1, sample="KeyError: 3")])
        with storage.read() as reader:
            kinds = reader.error_kinds("production", "checkout")
        assert kinds == [replace(KIND, count=6, sample="KeyError: 3"), rare]

    def test_a_flag_keeps_a_bounded_number_of_error_kinds(self, storage: Storage) -> None:
        def rows(numbers: range, flag: str = "checkout") -> list[ErrorKindRow]:
            return [replace(KIND, flag=flag, where=f"shop.py:{n}") for n in numbers]

        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.add_error_kinds(rows(range(3), "other"))
            tx.add_error_kinds(rows(range(400)))
            tx.add_error_kinds(rows(range(400, 600)))
            kept = {row.where for row in tx.error_kinds("production", "checkout")}
            assert len(kept) == 500
            assert kept >= {row.where for row in rows(range(400, 600))}
            assert len(tx.error_kinds("production", "other")) == 3

    def test_a_guard_life_from_start_to_end(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            first = tx.insert_guard_life("production", "checkout", '{"n":1}')
            second = tx.insert_guard_life("production", "checkout", '{"n":2}')
            tx.end_guard_life(first, AT, "killed")
        with storage.read() as reader:
            (life,) = reader.running_lives()
            assert (life.id, life.document, life.outcome) == (second, '{"n":2}', None)
            assert reader.load_guard_state(second) is None

    def test_guard_events_keep_their_order_and_the_state_replaces_those_without_units(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            other = tx.insert_guard_life("production", "other", "{}")
            other_event = tx.append_guard_event(other, 0.5, "other", has_units=False)
            life = tx.insert_guard_life("production", "checkout", "{}")
            ids = [
                tx.append_guard_event(life, n + 0.25, f"e{n}", has_units=n % 2 == 0)
                for n in range(6)
            ]
        assert ids == sorted(ids)
        with storage.transaction() as tx:
            tx.save_guard_state(life, ids[0], "old")
            tx.save_guard_state(life, ids[3], "new")
        with storage.read() as reader:
            state = reader.load_guard_state(life)
            assert state is not None
            assert (state.event_id, state.document) == (ids[3], "new")
            left = [(e.at, e.document) for e in reader.guard_events_after(life, 0)]
            assert left == [(0.25, "e0"), (2.25, "e2"), (4.25, "e4"), (5.25, "e5")]
            after = [event.id for event in reader.guard_events_after(life, ids[3])]
            assert after == ids[4:]
            assert [event.id for event in reader.guard_events_after(other, 0)] == [other_event]

    def test_evidence_is_listed_newest_first_and_written_once(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_evidence("ev-1", "production", "checkout", AT, '{"a":1}')
            tx.insert_evidence("ev-0", "production", "checkout", AT + timedelta(1), "{}")
        with storage.read() as reader:
            listed = reader.list_evidence("production", "checkout")
            assert [evidence.id for evidence in listed] == ["ev-0", "ev-1"]
            assert reader.evidence("ev-1") == listed[1]
            assert (listed[1].document, listed[1].at) == ('{"a":1}', AT)
            assert reader.list_evidence("staging", "checkout") == []
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.insert_evidence("ev-1", "production", "checkout", AT, "{}")

    def test_pruning_deletes_what_is_old_and_nothing_that_runs(self, storage: Storage) -> None:
        minute = int(AT.timestamp()) // 60
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.add_counts([replace(COUNT, minute=minute - 1), replace(COUNT, minute=minute)])
            tx.upsert_instance("production", "old", 1, "", "", 0, AT - timedelta(seconds=1))
            tx.upsert_instance("production", "new", 1, "", "", 0, AT)
            ended = tx.insert_guard_life("production", "checkout", "{}")
            running = tx.insert_guard_life("production", "checkout", "{}")
            for life in (ended, running):
                tx.append_guard_event(life, 1.0, "{}", has_units=True)
            tx.end_guard_life(ended, AT - timedelta(seconds=1), "expired")
            tx.insert_evidence("ev-1", "production", "checkout", AT - timedelta(days=900), "{}")
        with storage.transaction() as tx:
            tx.add_error_kinds([KIND])
            tx.prune_telemetry(AT.replace(second=0, microsecond=0))
        with storage.read() as reader:
            assert [row.minute for row in reader.counts("production", "checkout", 0)] == [minute]
            assert [row.instance for row in reader.instances("production")] == ["new"]
            assert list(reader.guard_events_after(ended, 0)) == []
            assert len(list(reader.guard_events_after(running, 0))) == 1
            assert reader.evidence("ev-1") is not None
            assert reader.error_kinds("production", "checkout") == [KIND]
        with storage.transaction() as tx:
            tx.prune_telemetry(datetime.now(UTC) + timedelta(days=1))
            assert tx.error_kinds("production", "checkout") == []


def run_together(work: Callable[[], None], threads: int) -> None:
    """Run it in so many threads at once, and raise the first of their exceptions."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=guarded) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
