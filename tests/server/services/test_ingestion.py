import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flagd_server.domain.telemetry import ErrorKind
from flagd_server.errors import NotFoundError, StorageUnavailableError
from flagd_server.services import thresholds
from flagd_server.services.lives import SAMPLED_HASHES
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

pytestmark = pytest.mark.both_databases

BAD = "error:PaymentError"


@pytest.fixture
def world(database: str):
    world = World(database)
    yield world
    world.close()


def counted(world: World) -> tuple[int, int]:
    with world.storage.read() as reader:
        rows = reader.counts(ENVIRONMENT, FLAG, 0)
    return sum(row.exposures for row in rows), sum(row.errors for row in rows)


def test_a_summary_is_durable_when_it_is_acknowledged(world: World) -> None:
    version = world.release()
    accepted = world.report(1, [cell("on", version, exposures=3, failing={BAD: [1]})])
    assert (accepted.accepted, accepted.duplicate, accepted.refused) == (1, False, ())
    assert counted(world) == (3, 1)


def test_a_summary_sent_again_is_counted_once(world: World) -> None:
    version = world.release()
    cells = [cell("on", version, exposures=3)]
    world.report(1, cells)
    again = world.report(1, cells)
    assert (again.accepted, again.duplicate) == (0, True)
    assert counted(world) == (3, 0)


def test_a_summary_sent_again_after_a_restart_is_counted_once(database: str) -> None:
    first = World(database)
    version = first.release()
    first.report(1, [cell("on", version, exposures=3)])
    first.close()
    second = World(database, first.clock)
    assert second.report(1, [cell("on", version, exposures=3)]).duplicate
    assert counted(second) == (3, 0)
    second.close()


def test_sequences_belong_to_their_instance(world: World) -> None:
    version = world.release()
    world.report(5, [cell("on", version, exposures=3)], instance="i-1")
    other = world.report(1, [cell("on", version, exposures=4)], instance="i-2")
    assert not other.duplicate
    assert counted(world) == (7, 0)


def test_a_number_from_far_ahead_shuts_out_nobody(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version, exposures=1)])
    forged = world.report(2**53 - 1, [cell("on", version, exposures=1)], token="tok-leaked")
    assert (forged.accepted, forged.duplicate) == (0, False)
    assert [fault.field for fault in forged.refused] == ["sequence"]
    assert (ENVIRONMENT, "telemetry_capped") in world.raised
    assert world.report(2, [cell("on", version, exposures=1)]).accepted == 1
    assert counted(world) == (2, 0)


def test_numbers_may_run_ahead_as_far_as_a_process_can_have_got(tmp_path: Path) -> None:
    first = World(tmp_path / "flagd.db")
    version = first.release()
    cells = [cell("on", version, exposures=1)]
    assert first.report(1, cells).accepted == 1
    assert first.report(1_000, cells).accepted == 1
    # A night without a server that answered: what was made in it was dropped.
    assert first.report(100_000, cells, after_s=40_000).accepted == 1
    first.close()
    second = World(tmp_path / "flagd.db", first.clock)
    assert second.report(10_000_000, cells).accepted == 1  # another server may have counted them
    assert second.report(20_000_000, cells).accepted == 0
    second.close()


def test_cells_that_name_the_unknown_are_refused_and_the_good_ones_kept(world: World) -> None:
    version = world.release()
    accepted = world.report(
        1,
        [
            cell("on", version, exposures=1),
            cell("on", version, flag="nobody-made-this"),
            cell("on", 999),
            cell("purple", version),
            cell("on", version, split="no-such-rule"),
            cell("off", version, exposures=2, split=None),
        ],
    )
    assert accepted.accepted == 2
    assert [fault.field for fault in accepted.refused] == [
        "cells[1].config_version",
        "cells[2].config_version",
        "cells[3].variant",
        "cells[4].split",
    ]
    assert counted(world) == (3, 0)


def test_a_variant_without_weight_cannot_have_been_served_by_the_split(world: World) -> None:
    version = world.release(share=0)
    accepted = world.report(1, [cell("on", version)])
    assert [fault.field for fault in accepted.refused] == ["cells[0].variant"]


def test_error_kinds_are_kept_for_flags_that_were_counted(world: World) -> None:
    version = world.release()
    kinds = (
        ErrorKind(FLAG, "on", BAD, "shop.checkout:pay:12", 2, "card declined"),
        ErrorKind("nobody-made-this", "on", BAD, "", 9, ""),
    )
    world.report(1, [cell("on", version)], error_kinds=kinds)
    with world.storage.read() as reader:
        (row,) = reader.error_kinds(ENVIRONMENT, FLAG)
        assert reader.error_kinds(ENVIRONMENT, "nobody-made-this") == []
    assert (row.kind, row.where, row.count) == (BAD, "shop.checkout:pay:12", 2)


@pytest.mark.parametrize(
    "said_at", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
)
def test_what_a_process_s_clock_says_changes_nothing(tmp_path: Path, said_at: datetime) -> None:
    def lived(name: str, **said: Any) -> tuple[Any, ...]:
        world = World(tmp_path / name)
        version = world.release()
        for sequence in range(1, 30):
            answer = world.report(
                sequence,
                [
                    cell("on", version, exposures=25, failing={BAD: [sequence]}),
                    cell("off", version, exposures=75, latency={150: 75}),
                ],
                after_s=61,
                **said,
            )
        with world.storage.read() as reader:
            counts = reader.counts(ENVIRONMENT, FLAG, 0)
            (evidence,) = reader.list_evidence(ENVIRONMENT, FLAG)
        is_killed = world.is_killed()
        world.close()
        return answer, counts, evidence.at, is_killed

    assert lived("odd.db", said_at=said_at) == lived("usual.db")


def test_what_client_tokens_report_is_counted_and_never_heard_by_the_guard(world: World) -> None:
    version = world.release()
    for sequence in range(1, 30):
        world.report(
            sequence,
            [
                cell("on", version, exposures=25, failing={BAD: [sequence]}),
                cell("off", version, exposures=75, latency={150: 75}),
            ],
            kind="client",
            after_s=61,
        )
    assert counted(world) == (2_900, 29)
    assert not world.is_killed()
    with world.storage.read() as reader:
        assert reader.running_lives() == []
        assert list(reader.control_latencies(ENVIRONMENT, 0)) == []
    assert world.report(1, [], instance="i-2").slow_over_s == {}


def test_the_guard_is_told_by_which_token(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version, failing={BAD: [1]})], token="tok-7")
    with world.storage.read() as reader:
        (life,) = reader.running_lives()
        (event,) = reader.guard_events_after(life.id, 0)
    assert '"token":"tok-7"' in event.document


def test_every_answer_says_which_units_are_sampled(world: World) -> None:
    world.release()
    assert world.report(1, []).exposed_below == SAMPLED_HASHES
    assert world.report(1, []).exposed_below == SAMPLED_HASHES


class TestThresholds:
    FAST, SLOW = 100, 150

    def serve(self, world: World, version: int, minutes: int, **more: Any) -> None:
        """Report a slow treatment and a fast control, each minute."""
        self.sequence = getattr(self, "sequence", 0)
        for _ in range(minutes):
            self.sequence += 1
            world.report(
                self.sequence,
                [
                    cell("on", version, exposures=500, latency={self.SLOW: 500}),
                    cell("off", version, exposures=500, latency={self.FAST: 500}),
                ],
                after_s=60,
                **more,
            )

    def asked(self, world: World, service: str = "shop") -> dict[str, float]:
        answer = world.report(1, [], instance="i-asks", service=service, after_s=0)
        return {name: round(value, 3) for name, value in answer.slow_over_s.items()}

    def test_are_of_the_control_and_come_after_ten_minutes(self, world: World) -> None:
        version = world.release()
        self.serve(world, version, 11)
        assert self.asked(world) == {}
        self.serve(world, version, 1)
        assert self.asked(world) == {"p90": 0.027, "p99": 0.027}

    def test_are_of_the_variant_that_the_guard_compares_with(self, world: World) -> None:
        version = world.release(guard={"control": "on"})
        self.serve(world, version, 12)
        assert self.asked(world) == {"p90": 1.966, "p99": 1.966}

    def test_are_of_the_service_that_asks(self, world: World) -> None:
        version = world.release()
        self.serve(world, version, 12)
        assert self.asked(world, "cart") == {}

    def test_do_not_heed_cells_without_a_split(self, world: World) -> None:
        version = world.release()
        for sequence in range(1, 13):
            cells = [cell("off", version, exposures=500, split=None, latency={self.SLOW: 500})]
            world.report(sequence, cells, after_s=60)
        assert self.asked(world) == {}

    def test_are_the_same_after_a_restart(self, database: str) -> None:
        first = World(database)
        version = first.release()
        self.serve(first, version, 200)
        before = self.asked(first)
        first.close()
        second = World(database, first.clock)
        assert self.asked(second) == before != {}
        second.close()

    def test_what_a_failed_transaction_added_is_not_kept(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version = world.release()
        self.serve(world, version, 5)

        def fail(*args: object) -> None:
            raise StorageUnavailableError("disk full")

        monkeypatch.setattr(world.guarding, "observe", fail)
        slow = [cell("off", version, exposures=10_000, latency={self.SLOW: 10_000})]
        with pytest.raises(StorageUnavailableError):
            world.report(6, slow)
        monkeypatch.undo()
        self.serve(world, version, 7)
        assert self.asked(world) == {"p90": 0.027, "p99": 0.027}

    def test_a_service_too_many_is_not_measured_and_told_of(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(thresholds, "SERVICES_OF_ENVIRONMENT", 1)
        version = world.release()
        self.serve(world, version, 12)
        self.serve(world, version, 12, service="cart")
        assert self.asked(world) != {}
        assert self.asked(world, "cart") == {}
        assert set(world.capped) == {(ENVIRONMENT, "services")}
        (alarm,) = world.alarms.list(ENVIRONMENT)
        assert "'cart'" in alarm.detail

    def test_old_rows_are_deleted(self, world: World) -> None:
        version = world.release()
        self.serve(world, version, 2)
        self.sequence += 1
        world.report(self.sequence, [], after_s=26 * 3_600)
        world.ingestion.close()
        with world.storage.read() as reader:
            assert list(reader.control_latencies(ENVIRONMENT, 0)) == []


def test_many_processes_at_once_are_all_counted(world: World) -> None:
    version = world.release()
    answers = []

    def send(instance: str) -> None:
        answers.extend(
            world.report(sequence, [cell("off", version, exposures=1)], instance=instance)
            for sequence in range(1, 21)
        )

    threads = [threading.Thread(target=send, args=(f"i-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 160
    assert counted(world) == (160, 0)


def test_a_summary_that_cannot_be_stored_fails_alone_and_may_come_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.release()
    world.report(1, [cell("on", version, exposures=1, failing={BAD: [1]})])
    observe = world.guarding.observe

    def fail(*args: object) -> None:
        observe(*args)  # type: ignore[arg-type]
        raise StorageUnavailableError("disk full")

    monkeypatch.setattr(world.guarding, "observe", fail)
    with pytest.raises(StorageUnavailableError, match="disk full"):
        world.report(2, [cell("on", version, exposures=1, failing={BAD: [2]})])
    monkeypatch.undo()
    assert counted(world) == (1, 1)
    assert world.report(2, [cell("on", version, exposures=1, failing={BAD: [2]})]).accepted == 1
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    assert running["comparisons"][0]["treatment"]["failing_units"] == 2


def test_what_waits_is_stored_before_the_thread_ends(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version, exposures=1)])
    world.ingestion.close()
    assert not world.ingestion.is_alive
    assert counted(world) == (1, 0)


def test_an_environment_made_again_has_nothing_of_the_one_before(world: World) -> None:
    version = world.release()
    world.report(7, [cell("on", version, exposures=3, failing={BAD: [1]})])
    world.environments.delete(ENVIRONMENT, actor="test")
    world.environments.create(ENVIRONMENT, "Production", actor="test")

    early = world.report(1, [cell("on", version, exposures=3)])
    assert not early.duplicate
    assert [fault.field for fault in early.refused] == ["cells[0].config_version"]
    assert world.guarding.running_evidence(ENVIRONMENT, FLAG) is None

    version = world.release()
    assert world.report(2, [cell("on", version, exposures=4)]).accepted == 1
    assert counted(world) == (4, 0)


def test_a_report_for_an_environment_that_is_gone_is_refused(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version)])
    world.environments.delete(ENVIRONMENT, actor="test")
    with pytest.raises(NotFoundError):
        world.report(2, [cell("on", version)])
