"""What is claimed beyond a limit is refused or pooled, counted, and told."""

import json
from collections.abc import Iterator

import pytest

from flagd_server.domain import allowance
from flagd_server.services import claims
from flagd_server.services.claims import OTHER
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"


@pytest.fixture
def world(database: str) -> Iterator[World]:
    world = World(database)
    yield world
    world.close()


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can meet."""
    monkeypatch.setattr(claims, "RELEASES_OF_FLAG_AN_HOUR", 3)
    monkeypatch.setattr(claims, "KINDS_OF_FLAG_AN_HOUR", 3)


def exposures(world: World) -> int:
    with world.storage.read() as reader:
        return sum(row.exposures for row in reader.counts(ENVIRONMENT, FLAG, 0))


def alarms(world: World) -> list[str]:
    return sorted(alarm.subject for alarm in world.alarms.list(ENVIRONMENT))


def units_heard(world: World) -> list[dict[str, list[str]]]:
    """Return the unit events of each cell that the guard was given."""
    with world.storage.read() as reader:
        (life,) = reader.running_lives()
        events = [json.loads(event.document) for event in reader.guard_events_after(life.id, 0)]
    return [heard["units"] for event in events for heard in event["cells"]]


class TestExposures:
    MOST = int(allowance.EXPOSURES_OF_INSTANCE.burst)
    PER_S = int(allowance.EXPOSURES_OF_INSTANCE.per_s)

    def test_more_than_a_process_can_have_are_refused_on_either_side(self, world: World) -> None:
        version = world.release()
        world.release(flag="other")
        answer = world.report(
            1,
            [
                cell("on", version, exposures=1),
                cell("off", version, exposures=self.MOST),
                cell("on", world.version("other"), exposures=5, flag="other"),
            ],
        )
        assert answer.accepted == 1
        assert [fault.field for fault in answer.refused] == [
            "cells[0].exposures",
            "cells[1].exposures",
        ]
        assert exposures(world) == 0
        assert alarms(world) == ["tok-1: exposures"]
        assert world.capped == [(ENVIRONMENT, "exposures")]

    def test_time_brings_more(self, world: World) -> None:
        version = world.release()
        assert world.report(1, [cell("on", version, exposures=self.MOST)]).accepted == 1
        much = [cell("on", version, exposures=10 * self.PER_S)]
        assert world.report(2, much, after_s=9).accepted == 0
        assert world.report(3, much, after_s=1).accepted == 1

    def test_an_hour_s_outage_of_a_busy_process_is_reported_at_once(self, world: World) -> None:
        version = world.release()
        hour = [cell("off", version, exposures=3_600 * 5_000)]
        assert world.report(1, hour).accepted == 1

    def test_each_flag_of_a_unit_of_work_is_one_of_its_exposures(self, world: World) -> None:
        versions = {flag: world.release(flag=flag) for flag in ("a", "b", "c")}
        cells = [
            cell("on", version, exposures=self.MOST, flag=flag)
            for flag, version in versions.items()
        ]
        assert world.report(1, cells).accepted == 3

    def test_what_is_sent_twice_is_taken_off_once(self, world: World) -> None:
        version = world.release()
        cells = [cell("on", version, exposures=self.MOST)]
        world.report(1, cells)
        assert world.report(1, cells).duplicate
        assert world.capped == []


@pytest.mark.usefixtures("low")
class TestPools:
    def test_releases_beyond_the_limit_are_counted_as_one(self, world: World) -> None:
        version = world.release()
        for number in range(5):
            cells = [cell("off", version, exposures=1)]
            world.report(number + 1, cells, service_version=f"v{number}")
        world.report(6, [cell("off", version, exposures=1)], service_version="v0")
        with world.storage.read() as reader:
            rows = reader.counts(ENVIRONMENT, FLAG, 0)
        counted = {(row.service, row.service_version): row.exposures for row in rows}
        assert counted == {
            ("shop", "v0"): 2,
            ("shop", "v1"): 1,
            ("shop", "v2"): 1,
            (OTHER, OTHER): 2,
        }
        assert alarms(world) == [f"{FLAG}: releases"]
        assert world.capped == [(ENVIRONMENT, "releases of a flag")] * 2

    def test_releases_belong_to_their_flag(self, world: World) -> None:
        version = world.release()
        world.release(flag="other")
        for number in range(3):
            world.report(number + 1, [cell("off", version)], service_version=f"v{number}")
        cells = [cell("off", world.version("other"), flag="other")]
        world.report(4, cells, service_version="v9")
        assert world.capped == []

    def test_client_tokens_take_no_names_from_servers(self, world: World) -> None:
        version = world.release()
        for number in range(4):
            cells = [cell("on", version, failing={f"error:E{number}": [number]})]
            name = f"v{number}"
            world.report(1, cells, instance=name, service_version=name, kind="client")
        assert len(world.capped) == 1
        failing = [cell("on", version, failing={BAD: [7]})]
        world.report(1, failing, instance="i-server", service_version="v9")
        assert len(world.capped) == 1
        assert units_heard(world) == [{BAD: [f"{7:016x}"]}]

    def test_kinds_of_errors_beyond_the_limit_are_one_kind(self, world: World) -> None:
        version = world.release()
        known = {f"error:E{number}": [number] for number in range(3)}
        world.report(1, [cell("on", version, failing=known)])
        beyond = {"error:X": [7, 8], "error:Y": [8, 9], "error:E0": [1], "odd": [5]}
        assert world.report(2, [cell("off", version, failing=beyond)]).accepted == 1
        assert units_heard(world)[-1] == {
            "error:E0": [f"{1:016x}"],
            "error:other": [f"{number:016x}" for number in (7, 8, 9)],
        }
        assert alarms(world) == [f"{FLAG}: kinds"]

    def test_an_hour_later_there_is_room_again(self, world: World) -> None:
        version = world.release()
        known = {f"error:E{number}": [number] for number in range(3)}
        world.report(1, [cell("on", version, failing=known)])
        world.report(2, [cell("on", version, failing={BAD: [7]})], after_s=3_600)
        assert units_heard(world)[-1] == {BAD: [f"{7:016x}"]}
        assert world.capped == []
