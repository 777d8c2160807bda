"""What every storage keeps to: counts, error kinds, and the guard's records."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flagd_server.errors import StorageError
from flagd_server.storage.base import COVERED_EVENTS_KEPT, Storage
from flagd_server.storage.records import EvidenceNote, Slo
from flagd_server.storage.telemetry_records import (
    ErrorKindRow,
    Instance,
    LatencyRow,
    ServiceCounts,
    ServiceSums,
)
from tests.contract.storage_samples import AT, COUNT, KIND, LOCAL_KILL, PRODUCTION


class TelemetryContract:
    def test_instances_are_as_they_last_reported(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            assert tx.last_sequences("production", ["i-1"]) == {}
            tx.put_instances([Instance("production", "i-1", 1, "shop", "v1", 5, AT)])
            second = Instance("production", "i-1", 2, "shop", "v2", 6, AT)
            tx.put_instances([replace(second, sequence=1), second])
            assert tx.last_sequences("production", ["i-1", "i-2"]) == {"i-1": 2}
            assert tx.last_sequences("staging", ["i-1"]) == {}
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

    def test_which_flags_a_version_served_and_how_often(self, storage: Storage) -> None:
        first = COUNT.minute
        later = replace(COUNT, minute=first + 5, config_version=COUNT.config_version + 1)
        banner = replace(COUNT, flag="banner", minute=first + 9)
        other = replace(banner, flag="other", service_version="v0")
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_environment(replace(PRODUCTION, key="staging"))
            elsewhere = replace(COUNT, flag="elsewhere", environment="staging")
            tx.add_counts([COUNT, later, banner, other, elsewhere])
        version = (COUNT.service, COUNT.service_version)
        with storage.read() as reader:

            def served(since: int, until: int) -> set[str]:
                return reader.flags_served("production", *version, since, until)

            def exposures(config_version: int, since: int) -> int:
                return reader.exposures_since("production", "checkout", config_version, since)

            def of(split: str | None, variant: str | None) -> int:
                return reader.exposures_since(
                    "production", "checkout", COUNT.config_version, 0, split=split, variant=variant
                )

            assert served(first, first + 9) == {"checkout", "banner"}
            assert served(first + 1, first + 8) == {"checkout"}
            assert served(first + 6, first + 8) == set()
            assert exposures(COUNT.config_version, 0) == COUNT.exposures
            assert exposures(later.config_version, first + 5) == COUNT.exposures
            assert exposures(COUNT.config_version, first + 1) == 0
            assert of(COUNT.split, COUNT.variant) == of(COUNT.split, None) == COUNT.exposures
            assert of(None, COUNT.variant) == COUNT.exposures
            assert of("no-such-rule", COUNT.variant) == of(COUNT.split, "other") == 0

    def test_control_latencies_add_up_and_come_by_minute(self, storage: Storage) -> None:
        row = LatencyRow("production", "shop", 29_000_000, {3: 9, 40: 1})
        later = replace(row, minute=row.minute + 1)
        other = replace(row, service="cart")
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.add_control_latencies([later, row, other, replace(row, latency={3: 1, 5: 2})])
        with storage.transaction() as tx:
            tx.add_control_latencies(iter([replace(row, latency={5: 1})]))
            tx.add_control_latencies([])
        total = replace(row, latency={3: 10, 40: 1, 5: 3})
        with storage.read() as reader:
            assert list(reader.control_latencies("production", 0)) == [other, total, later]
            assert list(reader.control_latencies("production", later.minute)) == [later]
            assert list(reader.control_latencies("staging", 0)) == []
        with storage.transaction() as tx:
            tx.prune_control_latencies(later.minute)
            assert list(tx.control_latencies("production", 0)) == [later]
            tx.delete_environment("production")
            assert list(tx.control_latencies("production", 0)) == []

    def test_service_counts_add_up_by_minute_and_by_hour(self, storage: Storage) -> None:
        row = ServiceCounts("production", "shop", 29_000_005, 10, 1, 6, 8, 2)
        hour = row.minute - row.minute % 60
        later = replace(row, minute=hour + 60)
        slo = Slo("production", "shop", 0.99, 1, AT)
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            for service in ("shop", "cart"):
                tx.put_slo(replace(slo, service=service))
            tx.add_service_counts([row, row, later, replace(row, service="cart")])
        with storage.transaction() as tx:
            tx.add_service_counts(iter([replace(row, minute=row.minute + 1)]))
            tx.put_slo(replace(slo, version=2))

        def sums(since: int, by_hour: bool, service: str = "shop") -> ServiceSums:
            with storage.read() as reader:
                return reader.service_sums("production", service, since, by_hour=by_hour)

        assert sums(0, False) == sums(0, True) == ServiceSums(40, 4, 24, 32, 8)
        assert sums(row.minute + 1, False).exposures == 20
        assert sums(hour, True).exposures == 40
        assert sums(hour + 1, True) == ServiceSums(10, 1, 6, 8, 2)
        assert sums(0, False, "cart").exposures == 10
        assert sums(0, False, "till") == ServiceSums(0, 0, 0, 0, 0)
        with storage.transaction() as tx:
            tx.forget_service_latencies("production", "shop")
        assert sums(0, True) == ServiceSums(40, 4, 24, 0, 0)
        assert sums(0, True, "cart").measured == 8
        with storage.transaction() as tx:
            tx.prune_service_counts(later.minute, hour)
        assert (sums(0, False).exposures, sums(0, True).exposures) == (10, 40)
        with storage.transaction() as tx:
            tx.prune_service_counts(later.minute, later.minute)
        assert (sums(0, False).exposures, sums(0, True).exposures) == (10, 10)
        with storage.transaction() as tx:
            tx.delete_slo("production", "shop")
            tx.put_slo(slo)
        assert sums(0, True) == ServiceSums(0, 0, 0, 0, 0)

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

    def test_a_local_kill_is_told_ends_and_may_begin_again(self, storage: Storage) -> None:
        other = replace(LOCAL_KILL, id="local-2", flag="cart", told_at=AT + timedelta(seconds=1))
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.put_local_kill(LOCAL_KILL)
            tx.put_local_kill(other)
            tx.put_local_kill(replace(LOCAL_KILL, instance="i-2"))
            tx.end_local_kills("production", "i-1", ["local-1", "unknown"], AT)
        ended = replace(LOCAL_KILL, ended_at=AT)
        with storage.read() as reader:
            shared = replace(LOCAL_KILL, instance="i-2")
            assert reader.local_kills() == [other, ended, shared]
            assert reader.local_kills("production", "checkout") == [ended, shared]
            assert reader.local_kills("staging") == []
        with storage.transaction() as tx:
            tx.put_local_kill(replace(LOCAL_KILL, told_at=AT + timedelta(hours=1)))
            assert tx.local_kills("production", "checkout") == [LOCAL_KILL, shared]

    def test_a_local_kill_is_lifted_for_all_who_told_of_it(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.put_local_kill(LOCAL_KILL)
            tx.put_local_kill(replace(LOCAL_KILL, instance="i-2"))
            tx.put_local_kill(replace(LOCAL_KILL, id="local-2"))
            tx.lift_local_kills("production", ["local-1"], AT, "ann")
        with storage.read() as reader:
            lifted = [row for row in reader.local_kills() if row.lifted_at == AT]
            assert [(row.id, row.instance, row.lifted_by) for row in lifted] == [
                ("local-1", "i-1", "ann"),
                ("local-1", "i-2", "ann"),
            ]
            ids = ["local-1", "local-2", "local-3"]
            assert reader.lifted_local_kills("production", ids) == {"local-1"}
            assert reader.lifted_local_kills("staging", ids) == set()

    def test_local_kills_are_pruned_once_they_are_over_or_their_process_is(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            for instance, seen_at in (("i-1", AT + timedelta(days=2)), ("i-2", AT)):
                tx.put_instances([Instance("production", instance, 1, "shop", "v1", 5, seen_at)])
                tx.put_local_kill(replace(LOCAL_KILL, instance=instance))
            tx.put_local_kill(replace(LOCAL_KILL, id="local-2"))
            tx.end_local_kills("production", "i-1", ["local-2"], AT)
            tx.prune_telemetry(AT + timedelta(days=1))
        with storage.read() as reader:
            assert reader.local_kills() == [LOCAL_KILL]

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

    def test_the_lives_of_a_flag_are_listed_newest_first(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_environment(replace(PRODUCTION, key="staging"))
            first = tx.insert_guard_life("production", "checkout", '{"n":1}')
            tx.insert_guard_life("production", "other", "{}")
            tx.insert_guard_life("staging", "checkout", "{}")
            second = tx.insert_guard_life("production", "checkout", '{"n":2}')
            tx.end_guard_life(first, AT, "killed")
        with storage.read() as reader:
            lives = reader.guard_lives("production", "checkout")
            assert [(life.id, life.ended_at, life.outcome) for life in lives] == [
                (second, None, None),
                (first, AT, "killed"),
            ]
            assert lives[1].document == '{"n":1}'
            assert reader.guard_lives("production", "unheard-of") == []

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

    def test_a_life_keeps_a_bounded_number_of_events_that_its_state_covers(
        self, storage: Storage
    ) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            life = tx.insert_guard_life("production", "checkout", "{}")
            ids = [
                tx.append_guard_event(life, float(n), "{}", has_units=True)
                for n in range(COVERED_EVENTS_KEPT + 3)
            ]
            tx.save_guard_state(life, ids[-2], "{}")
        with storage.read() as reader:
            left = [event.id for event in reader.guard_events_after(life, 0)]
        assert left == ids[2:]

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

    def test_a_report_has_one_note_of_each_kind_and_window(self, storage: Storage) -> None:
        told = EvidenceNote("ev-1", "told", 0, AT, '{"confirmed":3}')
        soon = EvidenceNote("ev-1", "aftermath", 120, AT + timedelta(minutes=2), "{}")
        later = replace(soon, window_s=600, at=AT + timedelta(minutes=10))
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_evidence("ev-1", "production", "checkout", AT, "{}")
            for note in (told, soon, later):
                tx.insert_evidence_note(note)
        for refused in (replace(soon, document='{"again":1}'), replace(told, evidence_id="ev-2")):
            with pytest.raises(StorageError), storage.transaction() as tx:
                tx.insert_evidence_note(refused)
        with storage.read() as reader:
            assert reader.evidence_notes("ev-1") == [told, soon, later]
            assert reader.evidence_notes("ev-2") == []

    def test_reports_are_found_by_time_across_flags_and_environments(
        self, storage: Storage
    ) -> None:
        second = timedelta(seconds=1)
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_environment(replace(PRODUCTION, key="staging"))
            tx.insert_evidence("ev-3", "production", "checkout", AT - second, "{}")
            tx.insert_evidence("ev-2", "production", "checkout", AT, "{}")
            tx.insert_evidence("ev-1", "staging", "banner", AT + second, "{}")
        with storage.read() as reader:
            assert [evidence.id for evidence in reader.evidence_since(AT)] == ["ev-2", "ev-1"]

    def test_pruning_deletes_what_is_old_and_nothing_that_runs(self, storage: Storage) -> None:
        minute = int(AT.timestamp()) // 60
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.add_counts([replace(COUNT, minute=minute - 1), replace(COUNT, minute=minute)])
            new = Instance("production", "new", 1, "", "", 0, AT)
            old = replace(new, instance="old", seen_at=AT - timedelta(seconds=1))
            tx.put_instances([old, new])
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
