import json
import math
from typing import Any

import pytest

from flagd_sdk.core.counts import MAX_PENDING_UNITS
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.failure import Failure, error_kind, one_line, unit_hash
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import (
    MAX_CELLS,
    MAX_ERROR_KINDS,
    MAX_KINDS_PER_FLAG,
    RESEND_AFTER_S,
    Tally,
)
from tests.sdk.fakes import UNIT_KEY, flag, flag_set

KEY = bytes.fromhex(UNIT_KEY)
FLAGS = parse_flag_set(
    flag_set(flag("a", on=50_000), flag("b", on=50_000), flag("all", on=100_000))
)
CRASH = Failure("error:KeyError", "shop:pay:7", "KeyError: 'cart'")


def work(
    tally: Tally,
    unit: str,
    *failures: Failure,
    keys: tuple[str, ...] = ("a",),
    now_s: float = 0.0,
    duration_us: int = 5,
    flags: FlagSet = FLAGS,
) -> bool:
    context = {"targetingKey": unit}
    served = {key: flags.resolve(key, context) for key in keys}
    return tally.record(served, context, KEY, duration_us, failures, now_s)


def drain(tally: Tally) -> dict[str, Any]:
    return tally.take().document()


def units_of(document: dict[str, Any]) -> set[str]:
    return {
        hashed
        for cell in document["cells"]
        for hashes in cell["units"].values()
        for hashed in hashes
    }


def test_a_unit_of_work_counts_once_for_each_flag_served() -> None:
    tally = Tally()
    work(tally, "u1", keys=("a", "all"), duration_us=5)
    work(tally, "u1", keys=("a", "all"), duration_us=1_000)
    variant = FLAGS.resolve("a", {"targetingKey": "u1"}).variant
    assert drain(tally) == {
        "cells": [
            {"flag": "a", "split": "default", "variant": variant, "config_version": 1,
             "exposures": 2, "errors": 0, "latency": {"5": 1, "63": 1}, "units": {}},
            {"flag": "all", "split": None, "variant": "on", "config_version": 1,
             "exposures": 2, "errors": 0, "latency": {"5": 1, "63": 1}, "units": {}},
        ],
        "unscoped": {},
        "error_kinds": [],
        "dropped": {},
    }  # fmt: skip


def test_a_failure_is_an_error_and_a_unit_event_of_each_flag_served() -> None:
    tally = Tally()
    work(tally, "u1", CRASH, keys=("a", "all"))
    document = drain(tally)
    by_flag = {cell["flag"]: cell for cell in document["cells"]}
    hashed = unit_hash("u1", KEY)
    assert by_flag["a"]["errors"] == by_flag["all"]["errors"] == 1
    assert by_flag["a"]["units"] == {"error:KeyError": [hashed]}
    assert by_flag["all"]["units"] == {}, "no split decided, so there is no coin"
    assert {entry["flag"] for entry in document["error_kinds"]} == {"a", "all"}
    assert document["error_kinds"][0] | {"flag": "", "variant": ""} == {
        "flag": "", "variant": "", "kind": "error:KeyError", "where": "shop:pay:7",
        "count": 1, "sample": "KeyError: 'cart'",
    }  # fmt: skip


def test_a_failure_linked_to_one_flag_leaves_the_others_untouched() -> None:
    tally = Tally()
    work(tally, "u1", CRASH._replace(flag="b"), keys=("a", "b"))
    assert {cell["flag"]: cell["errors"] for cell in drain(tally)["cells"]} == {"a": 0, "b": 1}


def test_two_kinds_in_one_unit_of_work_are_one_error_and_two_events() -> None:
    tally = Tally()
    work(tally, "u1", CRASH, Failure("error:503"))
    (cell,) = drain(tally)["cells"]
    assert cell["errors"] == 1
    assert set(cell["units"]) == {"error:KeyError", "error:503"}


def test_the_hash_of_a_unit_is_keyed_and_published() -> None:
    # blake2b(b"u1", key=000102…0f, digest_size=8), as every SDK must compute it.
    assert unit_hash("u1", KEY) == unit_hash("u1", KEY)
    assert len(unit_hash("u1", KEY)) == 16
    assert unit_hash("u1", KEY) != unit_hash("u1", bytes(16))


def test_without_a_unit_key_no_unit_leaves_the_process() -> None:
    tally = Tally()
    context = {"targetingKey": "u1"}
    tally.record({"a": FLAGS.resolve("a", context)}, context, b"", 5, (CRASH,), 0.0)
    (cell,) = drain(tally)["cells"]
    assert (cell["errors"], cell["units"]) == (1, {})


def test_a_unit_is_sent_again_only_after_a_minute() -> None:
    tally = Tally()
    sent = []
    for now_s in (0.0, 1.0, RESEND_AFTER_S - 1, RESEND_AFTER_S + 1):
        work(tally, "u1", CRASH, now_s=now_s)
        sent.append(len(units_of(drain(tally))))
    assert sent == [1, 0, 0, 1]


def test_a_kind_new_to_a_flag_is_worth_telling_whatever_its_side() -> None:
    units = [f"u{i}" for i in range(50)]
    on = next(u for u in units if FLAGS.resolve("a", {"targetingKey": u}).variant == "on")
    off = next(u for u in units if FLAGS.resolve("a", {"targetingKey": u}).variant == "off")
    for first, second in ((on, off), (off, on)):
        tally = Tally()
        assert [work(tally, unit, CRASH) for unit in (first, second)] == [True, False]
        assert work(tally, first, CRASH, keys=("b",)) is True
    assert work(Tally(), on) is False
    assert work(Tally(), on, CRASH, keys=("all",)) is False, "no split decided"


def test_kinds_beyond_the_limit_share_one_name() -> None:
    tally = Tally()
    told = [work(tally, f"u{i}", Failure(f"error:E{i}")) for i in range(MAX_KINDS_PER_FLAG + 10)]
    kinds = {kind for cell in drain(tally)["cells"] for kind in cell["units"]}
    assert len(kinds) == MAX_KINDS_PER_FLAG + 1
    assert "error:other" in kinds
    assert sum(told) == MAX_KINDS_PER_FLAG


def test_too_many_units_are_dropped_by_hash_not_by_arrival() -> None:
    tally = Tally()
    count = MAX_PENDING_UNITS * 3
    for i in range(count):
        work(tally, f"u{i}", CRASH)
    document = drain(tally)
    kept = units_of(document)
    everyone = sorted(unit_hash(f"u{i}", KEY) for i in range(count))
    assert kept == set(everyone[: len(kept)]), "exactly the lowest hashes, early or late"
    assert MAX_PENDING_UNITS / 3 < len(kept) <= MAX_PENDING_UNITS
    assert document["dropped"] == {"units": count - len(kept)}
    assert sum(cell["exposures"] for cell in document["cells"]) == count
    assert sum(cell["errors"] for cell in document["cells"]) == count


def test_units_that_were_dropped_may_come_with_the_next_summary() -> None:
    tally = Tally()
    for i in range(MAX_PENDING_UNITS * 2):
        work(tally, f"u{i}", CRASH)
    sent = units_of(drain(tally))
    dropped = next(f"u{i}" for i in range(10_000) if unit_hash(f"u{i}", KEY) not in sent)
    work(tally, dropped, CRASH)
    assert units_of(drain(tally)) == {unit_hash(dropped, KEY)}


def test_a_flag_has_all_its_variants_counted_or_none() -> None:
    many = [flag(f"f{i}", on=50_000) for i in range(MAX_CELLS)]
    flags = parse_flag_set(flag_set(*many))
    tally = Tally()
    for unit in ("u1", "u2", "u3", "u4", "u5"):
        work(tally, unit, keys=tuple(flags.flags), flags=flags)
    document = drain(tally)
    exposures: dict[str, int] = {}
    for cell in document["cells"]:
        exposures[cell["flag"]] = exposures.get(cell["flag"], 0) + cell["exposures"]
    assert len(document["cells"]) <= MAX_CELLS
    assert set(exposures.values()) == {5}, "a flag half counted would show one side"
    assert len(exposures) > 800
    assert document["dropped"]["exposures"] == 5 * MAX_CELLS - sum(exposures.values())


def test_a_flag_that_finds_no_room_at_its_first_exposure_is_left_out_whatever_its_side() -> None:
    # Of flags with two units each, those with both on one side need a single cell. Were room
    # asked for by the cell, a full summary would keep these, and show the larger side too often.
    many = [flag(f"f{i}", on=25_000) for i in range(6_000)]
    flags = parse_flag_set(flag_set(*many))
    tally = Tally()
    sides: dict[str, int] = {"on": 0, "off": 0}
    for unit in ("u1", "u2"):
        work(tally, unit, keys=tuple(flags.flags), flags=flags)
    document = drain(tally)
    for cell in document["cells"]:
        sides[cell["variant"]] += cell["exposures"]
    counted = sides["on"] + sides["off"]
    kept = {cell["flag"] for cell in document["cells"]}
    assert kept == {f"f{i}" for i in range(len(kept))}, "first come, whatever their sides"
    assert counted == 2 * len(kept)
    assert abs(sides["on"] - counted / 4) < 4 * math.sqrt(counted * 3 / 16)


def test_room_for_the_other_side_is_not_taken_by_what_has_no_side() -> None:
    flags = parse_flag_set(flag_set(flag("a", on=50_000)))
    sides = {flags.resolve("a", {"targetingKey": f"u{i}"}).variant: f"u{i}" for i in range(20)}
    tally = Tally()
    work(tally, sides["on"], flags=flags)
    for i in range(1_000):
        tally.unscoped("k" * 400 + str(i))
    work(tally, sides["off"], flags=flags)
    assert {cell["variant"] for cell in drain(tally)["cells"]} == {"on", "off"}


def test_a_summary_stays_small_whatever_the_application_does() -> None:
    many = [flag("k" * 110 + str(i), on=50_000) for i in range(3_000)]
    flags = parse_flag_set(flag_set(*many))
    tally = Tally()
    for i in range(12):
        failures = [Failure(f"error:{'E' * 50}{i}{j}", "w" * 500, "日" * 500) for j in range(10)]
        work(tally, f"u{i}", *failures, keys=tuple(flags.flags), duration_us=3**i, flags=flags)
        tally.unscoped(f"f{i}")
    text = json.dumps(drain(tally), ensure_ascii=False, separators=(",", ":"))
    assert len(text.encode()) < 512 * 1024


def test_error_kinds_and_unscoped_flags_are_bounded_and_counted() -> None:
    tally = Tally()
    for i in range(2_000):
        tally.unscoped(f"f{i}")
    document = drain(tally)
    assert len(document["unscoped"]) == 1_000
    assert document["dropped"] == {"unscoped": 1_000}
    keys = tuple(f"f{i}" for i in range(MAX_ERROR_KINDS + 100))
    flags = parse_flag_set(flag_set(*(flag(key, on=50_000) for key in keys)))
    work(tally, "u1", CRASH, keys=keys, flags=flags)
    document = drain(tally)
    assert len(document["error_kinds"]) == MAX_ERROR_KINDS
    assert document["dropped"] == {"error_kinds": 100}


def test_a_configuration_compiled_twice_is_one_cell() -> None:
    tally = Tally()
    again = parse_flag_set(flag_set(flag("a", on=50_000)))
    work(tally, "u1", CRASH)
    work(tally, "u1", CRASH, flags=again)
    (cell,) = drain(tally)["cells"]
    assert (cell["exposures"], cell["errors"]) == (2, 2)


def test_taking_leaves_nothing_behind() -> None:
    tally = Tally()
    assert not tally.has_news
    work(tally, "u1", CRASH)
    tally.unscoped("a")
    tally.drop("summaries")
    assert tally.has_news
    assert drain(tally)["dropped"] == {"summaries": 1}
    assert not tally.has_news
    assert drain(tally) == {"cells": [], "unscoped": {}, "error_kinds": [], "dropped": {}}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("KeyError", "error:KeyError"), ("503", "error:503"), ("Ünfit name!", "error:_nfit_name_"),
     ("E" * 100, "error:" + "E" * 58)],
)  # fmt: skip
def test_kinds_fit_the_wire(name: str, kind: str) -> None:
    assert error_kind(name) == kind


def test_samples_fit_the_wire() -> None:
    assert one_line("a\r\nb\x00c\u2028d\ud800", 200) == "a b c d?"
    assert one_line("x" * 500, 200) == "x" * 200
