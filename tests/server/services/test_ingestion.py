import threading
from pathlib import Path

import pytest

from flagd_server.domain.telemetry import ErrorKind
from flagd_server.errors import NotFoundError, StorageUnavailableError
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path / "flagd.db")
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


def test_a_summary_sent_again_after_a_restart_is_counted_once(tmp_path: Path) -> None:
    first = World(tmp_path / "flagd.db")
    version = first.release()
    first.report(1, [cell("on", version, exposures=3)])
    first.close()
    second = World(tmp_path / "flagd.db", first.clock)
    assert second.report(1, [cell("on", version, exposures=3)]).duplicate
    assert counted(second) == (3, 0)
    second.close()


def test_sequences_belong_to_their_instance(world: World) -> None:
    version = world.release()
    world.report(5, [cell("on", version, exposures=3)], instance="i-1")
    other = world.report(1, [cell("on", version, exposures=4)], instance="i-2")
    assert not other.duplicate
    assert counted(world) == (7, 0)


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
