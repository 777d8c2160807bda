import json
from itertools import product
from random import Random

import pytest

from flagd_server.domain.guard import versions
from flagd_server.domain.guard.records import Cell
from flagd_server.domain.guard.versions import (
    REPEAT_S,
    SERVICES_KEPT,
    SILENT_S,
    UNITS_KEPT,
    VERSIONS_KEPT,
    WINDOW_S,
    WINDOWS_KEPT,
    VersionBook,
)
from flagd_server.stats.two_sample import Window


def cell(
    version: str,
    exposures: int = 10,
    units: tuple[int, ...] = (),
    *,
    variant: str = "on",
    service: str = "shop",
    kind: str = "error:KeyError",
    split: str | None = "default",
) -> Cell:
    return Cell(
        split=split,
        variant=variant,
        weights={"on": 50_000, "off": 50_000},
        config_version=1,
        instance="i1",
        exposures=exposures,
        errors=len(units),
        units={kind: tuple(f"{unit:016x}" for unit in units)} if units else {},
        service=service,
        service_version=version,
    )


def restarted(book: VersionBook) -> VersionBook:
    return VersionBook.from_document(json.loads(json.dumps(book.to_document())))


def test_windows_hold_what_both_versions_did_in_each_minute_by_variant() -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", 10, (1, 2)), cell("1", 20, (3,), variant="off")])
    book.observe(30.0, [cell("2", 5, (4,)), cell("2", 7, variant="off")])
    book.observe(70.0, [cell("1", 11), cell("2", 12, (5,))])
    book.observe(130.0, [cell("2", 1)])
    shop = book.services["shop"]
    assert shop.compared("2", "1") == [
        Window(0.0, ((7, 0, 20, 1), (5, 1, 10, 2))),
        Window(60.0, ((12, 1, 11, 0),)),
    ]
    assert shop.compared("2", "1", ["off"]) == [Window(0.0, ((7, 0, 20, 1),))]
    assert shop.compared("1", "2", ["on"])[1] == Window(60.0, ((11, 0, 12, 1),))


def test_a_minute_is_compared_when_it_is_over() -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1"), cell("2")])
    assert book.services["shop"].compared("2", "1") == []
    book.observe(WINDOW_S, [cell("1")])
    assert len(book.services["shop"].compared("2", "1")) == 1


def test_minutes_in_which_nothing_can_be_compared_are_not_kept() -> None:
    book = VersionBook()
    for minute in range(5):
        book.observe(WINDOW_S * minute, [cell("1"), cell("2", variant="off")])
    assert not book.services["shop"].minutes


def test_cells_that_no_split_decided_are_counted_too() -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", split=None), cell("2", split=None)])
    book.observe(WINDOW_S, [cell("2")])
    assert len(book.services["shop"].compared("2", "1")) == 1


@pytest.mark.parametrize(("again_after_s", "counted"), [(REPEAT_S - 1.0, 1), (REPEAT_S, 2)])
def test_a_unit_is_counted_once_an_hour(again_after_s: float, counted: int) -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", units=(7,))])
    book.observe(again_after_s, [cell("1", units=(7,))])
    assert book.services["shop"].versions["1"].failing_units == counted


def test_a_unit_with_two_kinds_is_counted_once() -> None:
    book = VersionBook()
    two_kinds = {"error:A": ("0" * 16,), "error:B": ("0" * 16,)}
    book.observe(0.0, [cell("1", units=(7,))._replace(units=two_kinds)])
    assert book.services["shop"].versions["1"].failing_units == 1


@pytest.mark.parametrize("kind", ["slow:p99", "near:p99", "exposed"])
def test_units_that_did_not_fail_are_not_counted(kind: str) -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", units=(7,), kind=kind)])
    assert book.services["shop"].versions["1"].failing_units == 0


def test_a_unit_that_fails_everywhere_falls_on_a_version_with_its_share_of_exposures() -> None:
    # Every order in which a version with one part in four and one with three serve a unit that
    # always fails: counted once, it is the first's exactly where the first served it first.
    share, chance_of_first = 0.25, 0.0
    for order in product([True, False], repeat=4):
        book, chance = VersionBook(), 1.0
        for second, is_first in enumerate(order):
            chance *= share if is_first else 1 - share
            book.observe(float(second), [cell("1" if is_first else "2", units=(7,))])
        counts = book.services["shop"].versions
        found = counts["1"].failing_units if "1" in counts else 0
        assert sum(version.failing_units for version in counts.values()) == 1
        chance_of_first += chance * found
    assert chance_of_first == pytest.approx(share)


def test_a_cell_says_of_no_more_units_than_it_exposed() -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", 3, tuple(range(1_000)))])
    assert book.services["shop"].versions["1"].failing_units == 3


def test_a_cell_without_exposures_is_nothing() -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", 0, (1,))])
    assert book == VersionBook()


def test_a_flood_of_versions_is_pooled_and_counted() -> None:
    book = VersionBook()
    for k in range(1_000):
        book.observe(k * 0.01, [cell(f"v{k}", 2)])
    shop = book.services["shop"]
    assert list(shop.versions) == [f"v{k}" for k in range(VERSIONS_KEPT)]
    assert shop.pooled_exposures == 2 * (1_000 - VERSIONS_KEPT)
    book.observe(WINDOW_S, [cell("v0")])
    assert all(len(minute.counts) <= VERSIONS_KEPT for minute in shop.minutes)


def test_a_new_version_takes_the_place_of_one_long_silent() -> None:
    book = VersionBook()
    for k in range(VERSIONS_KEPT):
        book.observe(float(k), [cell(f"v{k}", 3)])
    book.observe(SILENT_S - 1.0, [cell("new")])
    book.observe(SILENT_S, [cell("new"), cell("newer")])
    shop = book.services["shop"]
    assert "v0" not in shop.versions
    assert list(shop.versions)[-1] == "new"
    # The first report of "new", that of "newer", and all that v0 did.
    assert shop.pooled_exposures == 10 + 10 + 3


def test_services_are_kept_apart_and_a_flood_of_them_is_counted() -> None:
    book = VersionBook()
    book.observe(0.0, [cell("1", units=(7,)), cell("1", units=(7,), service="till")])
    assert book.services["till"].versions["1"].failing_units == 1
    book.observe(1.0, [cell("1", 3, service=f"s{k}") for k in range(100)])
    assert len(book.services) == SERVICES_KEPT
    assert book.dropped_exposures == 3 * (102 - SERVICES_KEPT)


def test_the_windows_kept_are_the_newest() -> None:
    book = VersionBook()
    for minute in range(WINDOWS_KEPT + 11):
        book.observe(WINDOW_S * minute, [cell("1"), cell("2")])
    windows = book.services["shop"].compared("2", "1")
    assert [windows[0].t, windows[-1].t] == [WINDOW_S * 10, WINDOW_S * (WINDOWS_KEPT + 9)]


def test_memory_of_units_is_thinned_by_hash_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "UNITS_KEPT", 50)
    random, book = Random("thin"), VersionBook()
    for second in range(200):
        units = tuple(random.getrandbits(64) for _ in range(4))
        book.observe(float(second), [cell(str(second % 2), 10, units)])
    shop = book.services["shop"]
    assert 10 < len(shop.counted) <= 50
    assert shop.tau <= 1 << 60
    assert all(unit < shop.tau for unit in shop.counted)
    before = shop.versions["0"].failing_units
    book.observe(300.0, [cell("0", 10, (shop.tau, shop.tau + 1))])
    assert shop.versions["0"].failing_units == before


def test_units_are_forgotten_after_their_hour() -> None:
    book = VersionBook()
    for hour in range(4):
        base = hour * 1_000_000
        for second in range(100):
            units = tuple(base + second * 90 + k for k in range(90))
            book.observe(hour * REPEAT_S + second, [cell("1", 90, units)])
    shop = book.services["shop"]
    assert len(shop.counted) <= UNITS_KEPT
    assert shop.tau == 1 << 64
    assert shop.versions["1"].failing_units == 4 * 9_000


def test_a_restart_continues_with_the_same_bits() -> None:
    random, whole, halves = Random("restart"), VersionBook(), VersionBook()
    assert restarted(halves) == whole
    for k in range(400):
        t = 7.0 * k
        cells = [
            cell(
                random.choice(["1", "2", "", "3"]),
                random.randrange(30),
                tuple(random.getrandbits(64) for _ in range(random.randrange(3))),
                variant=random.choice(["on", "off"]),
                service=random.choice(["shop", "till"]),
            )
        ]
        whole.observe(t, cells)
        halves.observe(t, cells)
        if k % 40 == 0:
            halves = restarted(halves)
    assert restarted(halves) == whole
    assert halves.to_document() == whole.to_document()
