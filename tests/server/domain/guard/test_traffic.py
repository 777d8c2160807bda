from random import Random

import pytest

from flagd_sdk.core.failure import Failure
from flagd_server.domain.guard.records import Event, RecordError
from flagd_server.domain.guard.traffic import (
    NEW_KIND,
    InjectedFault,
    Request,
    read_traffic,
    split_traffic,
)

HEADER = "time,visitor,status"
NOT_FOUND = Failure("error:404")
# One in ten fails, whoever it is.
TRAFFIC = [
    Request(1_000.0 + number // 4, f"visitor-{number}", NOT_FOUND if number % 10 == 0 else None)
    for number in range(4_000)
]


def split(
    fault: InjectedFault | None = None, *, seed: int = 1, buckets: int = 25_000
) -> list[Event]:
    return list(split_traffic(TRAFFIC, buckets, 3, Random(seed), fault))


def rates(events: list[Event]) -> dict[str, float]:
    """Return the share of failed requests by variant."""
    cells = [cell for event in events for cell in event.cells]
    return {
        variant: sum(c.errors for c in cells if c.variant == variant)
        / sum(c.exposures for c in cells if c.variant == variant)
        for variant in ("on", "off")
    }


def kinds(events: list[Event], variant: str) -> set[str]:
    cells = [cell for event in events for cell in event.cells if cell.variant == variant]
    return {kind for cell in cells for kind in cell.units}


def test_requests_are_read_with_their_failures() -> None:
    lines = [
        "method,time,status,visitor",
        "GET,2015-05-17T10:05:00Z,200,ann",
        "GET,2015-05-17T10:05:01.5Z,404,bob",
    ]
    assert read_traffic(lines) == [
        Request(1431857100.0, "ann", None),
        Request(1431857101.5, "bob", NOT_FOUND),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: expected a column 'time', got none"),
        (["time,visitor"], r"line 1: expected a column 'status', got \['time', 'visitor'\]"),
        ([HEADER], "expected requests, got none"),
        ([HEADER, "2015-05-17,ann,200"], "line 2: time: expected one as in RFC 3339, got '2015"),
        ([HEADER, "2015-05-17T10:05:00Z,,200"], "line 2: visitor: expected a text, got none"),
        ([HEADER, "2015-05-17T10:05:00Z,ann"], "line 2: status: expected three digits, got ''"),
        (
            [HEADER, "2015-05-17T10:05:01Z,ann,200", "2015-05-17T10:05:00Z,ann,200"],
            "line 3: time: expected none before the last, got '2015-05-17T10:05:00Z'",
        ),
    ],
)
def test_a_request_that_can_not_be_read_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_traffic(lines)


def test_every_request_is_exposed_once_and_fails_as_it_did() -> None:
    cells = [cell for event in split() for cell in event.cells]
    assert sum(cell.exposures for cell in cells) == len(TRAFFIC)
    assert sum(cell.errors for cell in cells) == len(TRAFFIC) // 10
    assert {cell.instance for cell in cells} == {"i0", "i1", "i2"}
    treated = sum(cell.exposures for cell in cells if cell.variant == "on")
    assert treated == pytest.approx(1_000, abs=120)


def test_events_are_in_order_and_the_seed_decides_them() -> None:
    events = split()
    assert [event.t for event in events] == sorted(event.t for event in events)
    assert split() == events
    assert split(seed=2) != events


def test_a_fault_multiplies_the_failures_of_the_treatment_only() -> None:
    found = rates(split(InjectedFault(4.0)))
    assert found["off"] == pytest.approx(0.1, abs=0.03)
    assert found["on"] == pytest.approx(0.4, abs=0.05)


def test_a_fault_is_of_a_kind_of_its_own_or_of_those_there_were() -> None:
    own, old = split(InjectedFault(4.0)), split(InjectedFault(4.0, has_new_kind=False))
    assert kinds(own, "on") == {"error:404", NEW_KIND}
    assert kinds(own, "off") == {"error:404"} == kinds(old, "on")
    assert rates(old)["on"] > 3 * rates(old)["off"]


def test_a_fault_begins_when_it_should() -> None:
    events = split(InjectedFault(4.0, after_s=500.0))
    first = min(event.t for event in events for cell in event.cells if NEW_KIND in cell.units)
    assert 1_500.0 <= first < 1_520.0
