from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from flagd_server.domain.guard.records import Event, parse_event
from flagd_server.simulation.looks import EXPOSED, NEAR, SLOW
from flagd_server.simulation.scenario import (
    HOUR_S,
    KINDS,
    Fault,
    Renamed,
    Scenario,
    Trouble,
    outage,
)
from flagd_server.simulation.traffic import NEW_KIND, Traffic

PLAIN = Scenario("plain", duration_s=HOUR_S, units=5_000)
SHARE = 0.25


def drawn(scenario: Scenario, seed: int = 0) -> list[Event]:
    return list(Traffic(scenario, seed).events())


def total(events: Iterable[Event], field: str, variant: str | None = None) -> int:
    return sum(
        getattr(cell, field)
        for event in events
        for cell in event.cells
        if variant in (None, cell.variant)
    )


def units(events: Iterable[Event], variant: str | None = None) -> Counter[str]:
    """How many unit events there are of each kind."""
    found: Counter[str] = Counter()
    for event in events:
        for cell in event.cells:
            if variant in (None, cell.variant):
                for kind, hashes in cell.units.items():
                    found[kind] += len(hashes)
    return found


def test_a_life_is_a_function_of_its_scenario_and_seed() -> None:
    assert drawn(PLAIN, 1) == drawn(PLAIN, 1)
    assert drawn(PLAIN, 1) != drawn(PLAIN, 2)


def test_events_are_what_a_server_would_store_in_order() -> None:
    events = drawn(replace(PLAIN, duration_s=600.0, slow=0.01, sampled=0.5))
    assert all(before.t <= after.t for before, after in pairwise(events))
    for event in events:
        assert parse_event(event.to_document() | {"cells": _as_json(event)}) == event


def _as_json(event: Event) -> list[dict[str, object]]:
    cells = event.to_document()["cells"]
    return [cell | {"units": {k: list(v) for k, v in cell["units"].items()}} for cell in cells]


def test_requests_and_failures_come_at_their_rates() -> None:
    events = drawn(PLAIN)
    requests = PLAIN.requests_per_s * PLAIN.duration_s
    assert total(events, "exposures") == pytest.approx(requests, rel=0.02)
    assert total(events, "errors") == pytest.approx(PLAIN.base * requests, rel=0.1)
    assert total(events, "exposures", "on") == pytest.approx(SHARE * requests, rel=0.3)
    assert len(units(events)) == KINDS


def test_every_process_reports_each_second_at_first_and_at_its_heartbeat_later() -> None:
    events = drawn(replace(PLAIN, base=1e-9))
    moments = Counter(event.t for event in events)
    assert {moments[float(t)] for t in range(1, 601)} == {PLAIN.processes}
    assert [t for t in moments if t > 600.0] == [float(t) for t in range(610, 3_601, 10)]


def test_a_failure_is_reported_within_a_second() -> None:
    late = [event for event in drawn(PLAIN) if event.t > 600.0]
    with_units = [event.t % 10 for event in late if any(cell.units for cell in event.cells)]
    # Uniform over the ten seconds of a beat.
    assert set(with_units) == {float(s) for s in range(10)}


def test_a_fault_adds_failures_of_its_kind_to_the_treatment_only_once_it_has_begun() -> None:
    fault = Fault(3.0, has_new_kind=True, at_s=1_800.0, is_announced=True)
    events = drawn(replace(PLAIN, fault=fault))
    assert not units(event for event in events if event.t <= 1_800.0)[NEW_KIND]
    assert not units(events, "off")[NEW_KIND]
    added = units(events, "on")[NEW_KIND]
    usual = PLAIN.base * PLAIN.requests_per_s * 1_800.0 * SHARE
    assert added == pytest.approx(2.0 * usual, rel=0.4)
    assert [event.t for event in events if event.announced == "version"] == [1_800.0]


def test_a_fault_without_a_kind_of_its_own_raises_the_usual_ones() -> None:
    faulty = units(drawn(replace(PLAIN, fault=Fault(5.0))), "on")
    assert NEW_KIND not in faulty
    assert sum(faulty.values()) > 3 * sum(units(drawn(PLAIN), "on").values())


def test_harm_is_what_the_fault_has_done_so_far() -> None:
    traffic = Traffic(replace(PLAIN, fault=Fault(3.0, has_new_kind=True)), 0)
    events, met = [], set[str]()
    for event in traffic.events():
        events.append(event)
        for cell in event.cells:
            met |= set(cell.units.get(NEW_KIND, ()))
        assert len(traffic.harm.units) == len(met)
        if event.t > 300.0:
            break
    assert traffic.harm.exposures == total(events, "exposures", "on")
    assert traffic.harm.requests == units(events)[NEW_KIND]


def test_an_outage_fails_both_arms_by_their_shares() -> None:
    events = drawn(replace(PLAIN, base=0.001, failing=outage))
    during = [event for event in events if 1_800.0 < event.t <= 2_100.0]
    errors = total(during, "errors")
    assert errors == pytest.approx(0.05 * PLAIN.requests_per_s * 300.0, rel=0.15)
    assert total(during, "errors", "on") == pytest.approx(SHARE * errors, rel=0.3)


def test_a_retried_failure_is_one_unit_event_and_many_requests() -> None:
    events = drawn(replace(PLAIN, retries=20))
    assert total(events, "errors") == 21 * sum(units(events).values())


def test_a_sick_process_fails_whatever_it_serves() -> None:
    trouble = Trouble(1, 0.3, 600.0, HOUR_S, is_release=True)
    events = drawn(replace(PLAIN, base=1e-6, trouble=trouble))
    failing = {
        (cell.instance, cell.variant) for event in events for cell in event.cells if cell.errors
    }
    assert {("i0", "on"), ("i0", "off")} <= failing
    assert total(events, "errors") == pytest.approx(0.1 * PLAIN.requests_per_s * 3_000.0, rel=0.1)
    assert [event.t for event in events if event.announced == "version"] == [600.0]


def test_a_change_of_weights_is_announced_and_moves_the_traffic() -> None:
    events = drawn(replace(PLAIN, ramp=((0.0, 1.0), (1_800.0, 50.0))))
    change = next(event for event in events if event.announced == "weights")
    assert change.t == 1_800.0
    late = [event for event in events if event.t > change.t]
    assert total(late, "exposures", "on") == pytest.approx(0.5 * total(late, "exposures"), rel=0.15)
    assert {cell.config_version for event in late for cell in event.cells} == {2}


def test_users_who_ask_more_make_more_requests_and_as_many_of_them_fail() -> None:
    asking = drawn(replace(PLAIN, asks=3.0))
    requests = total(asking, "exposures", "on")
    assert requests == pytest.approx(3.0 * total(drawn(PLAIN), "exposures", "on"), rel=0.25)
    assert total(asking, "errors", "on") / requests == pytest.approx(PLAIN.base, rel=0.35)


def test_renamed_errors_are_no_more_often() -> None:
    plain = units(drawn(PLAIN), "on")
    kinds = units(drawn(replace(PLAIN, renamed=Renamed())), "on")
    assert kinds
    assert all(kind.startswith("error:New") for kind in kinds)
    assert sum(kinds.values()) == pytest.approx(sum(plain.values()), rel=0.35)


def test_half_of_one_kind_may_be_renamed() -> None:
    kinds = units(drawn(replace(PLAIN, base=0.05, renamed=Renamed(1, 0.5))), "on")
    assert {kind for kind in kinds if kind.startswith("error:New")} == {"error:New0"}
    assert kinds["error:New0"] == pytest.approx(kinds["error:K0"], rel=0.3)


def test_a_user_is_looked_at_once_an_hour_and_slow_by_the_threshold() -> None:
    scenario = replace(PLAIN, base=1e-9, slow=0.04, duration_s=2 * HOUR_S)
    events = drawn(scenario)
    # Few are not seen within an hour; each hour is drawn anew.
    looks = 2 * scenario.units
    assert units(events)[SLOW] + units(events)[NEAR] == pytest.approx(0.04 * looks, rel=0.25)
    for hour in range(2):
        of_hour = [
            unit
            for event in events
            if hour * HOUR_S < event.t <= (hour + 1) * HOUR_S
            for cell in event.cells
            for hashes in cell.units.values()
            for unit in hashes
        ]
        assert len(of_hour) - len(set(of_hour)) <= 0.2 * len(of_hour)


def test_a_fault_of_latency_slows_the_treatment_and_fails_nobody() -> None:
    fault = Fault(4.0, is_slowness=True)
    traffic = Traffic(replace(PLAIN, base=1e-9, slow=0.04, fault=fault), 0)
    events = list(traffic.events())
    assert total(events, "errors") == 0
    on, off = units(events, "on")[SLOW], units(events, "off")[SLOW]
    assert on / SHARE > 2.5 * off / (1.0 - SHARE)
    assert 0 < traffic.harm.requests <= on


@pytest.mark.parametrize(("lost", "share"), [(0.0, 0.25), (0.5, 1 / 7)])
def test_first_exposures_are_sampled_by_hash_and_once(lost: float, share: float) -> None:
    scenario = replace(
        PLAIN, base=1e-9, units=20_000, sampled=0.2, lost=lost, duration_s=2 * HOUR_S
    )
    events = drawn(scenario)
    hashes = [h for e in events for cell in e.cells for h in cell.units.get(EXPOSED, ())]
    assert len(hashes) == len(set(hashes))
    assert max(hashes) < f"{int(0.2 * 2**64):016x}"
    found = units(events, "on")[EXPOSED] / len(hashes)
    assert found == pytest.approx(share, abs=0.025)
