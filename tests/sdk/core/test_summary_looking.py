"""Unit events of units of work that did not fail: slow ones, and a sample of first exposures."""

import json
from collections import deque
from typing import Any

import pytest

from flagd_sdk.core.counts import MAX_PENDING_LOOKS
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.failure import Failure, unit_hash
from flagd_sdk.core.looking import NO_UNITS, Finished, Watch
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import MAX_CELLS, Tally
from tests.sdk.core.test_summary import CRASH, FLAGS, KEY, drain, units_of, work
from tests.sdk.fakes import flag, flag_set

SLOW = Watch({"p99": 1.0, "p90": 0.1})
EVERYBODY = Watch({}, "f" * 16)
HOUR_S = 3_600.0
SLOW_US, NEAR_US = 1_050_001, 1_050_000


def kinds(document: dict[str, Any]) -> dict[str, set[str]]:
    """Return kind → hashes, of all cells."""
    found: dict[str, set[str]] = {}
    for cell in document["cells"]:
        for kind, hashes in cell["units"].items():
            found.setdefault(kind, set()).update(hashes)
    return found


def ended(unit: str, duration_us: int, flags: FlagSet = FLAGS, key: bytes = KEY) -> Finished:
    served = {"a": flags.resolve("a", {"targetingKey": unit})}
    return served, duration_us, (unit, NO_UNITS, key, 0)


def test_the_wire_carries_slow_near_and_exposed_beside_the_errors() -> None:
    tally = Tally(Watch({"p99": 1.0, "p90": 0.1}, "f" * 16))
    work(tally, "u1", CRASH, duration_us=NEAR_US)
    (cell,) = drain(tally)["cells"]
    hashed = [unit_hash("u1", KEY)]
    assert (cell["exposures"], cell["errors"]) == (1, 1)
    assert cell["units"] == {
        "near:p99": hashed, "slow:p90": hashed, "exposed": hashed, "error:KeyError": hashed
    }  # fmt: skip


def test_only_the_first_exposure_of_the_hour_is_looked_at() -> None:
    tally = Tally(SLOW)
    looks = []
    for duration_us, now_s in [
        (SLOW_US, 0.0), (SLOW_US, 90.0), (5, HOUR_S), (SLOW_US, HOUR_S + 1), (NEAR_US, 2 * HOUR_S),
    ]:  # fmt: skip
        work(tally, "u1", duration_us=duration_us, now_s=now_s)
        looks.append(set(kinds(drain(tally))))
    assert looks == [
        {"slow:p99", "slow:p90"}, set(), set(), set(), {"near:p99", "slow:p90"},
    ]  # fmt: skip


def test_failed_units_of_work_are_looked_at_like_the_others_and_by_the_same_memory() -> None:
    tally = Tally(SLOW)
    work(tally, "u1", CRASH, duration_us=SLOW_US)
    work(tally, "u2", duration_us=5)
    work(tally, "u2", CRASH, duration_us=SLOW_US)
    work(tally, "u3", duration_us=SLOW_US)
    found = kinds(drain(tally))
    assert found["slow:p99"] == {unit_hash("u1", KEY), unit_hash("u3", KEY)}
    assert found["error:KeyError"] == {unit_hash("u1", KEY), unit_hash("u2", KEY)}


def test_exposure_outcome_and_unit_events_are_in_one_summary() -> None:
    tally = Tally(EVERYBODY)
    queue: deque[Finished] = deque()
    seen = 0
    for i in range(50):
        queue.append(ended(f"u{i}", 5))
        if i % 7 == 0:
            tally.count_all(queue)
            document = drain(tally)
            exposures = sum(cell["exposures"] for cell in document["cells"])
            assert exposures == len(units_of(document))
            seen += exposures
    assert seen + len(queue) == 50


def test_the_sample_is_exactly_the_units_below_the_threshold() -> None:
    tally = Tally(Watch({}, "4" + "0" * 15))
    for i in range(400):
        work(tally, f"u{i}")
        work(tally, f"u{i}")
    everyone = {unit_hash(f"u{i}", KEY) for i in range(400)}
    assert kinds(drain(tally)) == {"exposed": {each for each in everyone if each < "4"}}


def test_what_nobody_asked_for_is_not_looked_at() -> None:
    tally = Tally()
    assert tally.witnessed is None
    work(tally, "u1", duration_us=10**9)
    tally.count_all(deque([ended("u2", 10**9)]))
    assert kinds(drain(tally)) == {}
    tally.watch(SLOW)
    assert tally.witnessed == ()
    work(tally, "u3", duration_us=10**9)
    assert set(kinds(drain(tally))) == {"slow:p99", "slow:p90"}
    tally.watch(Watch())
    work(tally, "u4", duration_us=10**9)
    assert kinds(drain(tally)) == {}


def test_where_no_split_decided_or_no_key_is_known_there_is_no_event() -> None:
    tally = Tally(Watch({"p99": 1.0}, "f" * 16))
    work(tally, "u1", keys=("all",), duration_us=SLOW_US)
    tally.count_all(deque([ended("u2", SLOW_US, key=b"")]))
    context = {"targetingKey": "u3"}
    tally.record({"a": FLAGS.resolve("a", context)}, context, b"", SLOW_US, (), 0.0)
    document = drain(tally)
    assert kinds(document) == {}
    assert sum(cell["exposures"] for cell in document["cells"]) == 3


def test_a_key_that_changes_changes_the_hash() -> None:
    tally = Tally(EVERYBODY)
    other = bytes(16)
    tally.count_all(deque([ended("u1", 5), ended("u2", 5, key=other), ended("u3", 5)]))
    assert units_of(drain(tally)) == {
        unit_hash("u1", KEY), unit_hash("u2", other), unit_hash("u3", KEY)
    }  # fmt: skip


def test_slow_units_are_no_reason_to_send_at_once() -> None:
    # What wakes the reporter must not know the side, and within the tolerated slowdown the
    # treatment is beyond each threshold more often.
    tally = Tally(Watch({"p99": 1.0}, "f" * 16))
    assert work(tally, "u1", duration_us=SLOW_US) is False
    assert work(tally, "u2", CRASH, duration_us=SLOW_US) is True


@pytest.mark.parametrize("watch", [Watch({"p99": 1.0}), EVERYBODY])
def test_what_is_looked_at_never_pushes_errors_out(watch: Watch) -> None:
    tally = Tally(watch)
    count = MAX_PENDING_LOOKS * 3
    work(tally, "failing-early", CRASH)
    for i in range(count):
        work(tally, f"u{i}", duration_us=SLOW_US)
    work(tally, "failing-late", CRASH)
    document = drain(tally)
    found = kinds(document)
    errors = {unit_hash("failing-early", KEY), unit_hash("failing-late", KEY)}
    assert found.pop("error:KeyError") == errors
    (kept,) = found.values()
    everyone = sorted(unit_hash(f"u{i}", KEY) for i in range(count))
    if watch is EVERYBODY:
        everyone = sorted([*everyone, *errors])
    assert kept == set(everyone[: len(kept)]), "exactly the lowest hashes, early or late"
    assert MAX_PENDING_LOOKS / 3 < len(kept) <= MAX_PENDING_LOOKS
    assert document["dropped"] == {"units": len(everyone) - len(kept)}
    assert sum(cell["exposures"] for cell in document["cells"]) == count + 2


def test_what_could_not_be_remembered_is_told_with_the_next_summary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flagd_sdk.core.looking.MAX_REMEMBERED_UNITS", 16)
    tally = Tally(EVERYBODY)
    for i in range(400):
        work(tally, f"u{i}")
    document = drain(tally)
    assert document["dropped"]["looks"] == 400 - len(units_of(document))
    assert drain(tally)["dropped"] == {}


def test_a_flag_that_is_left_out_takes_what_was_looked_at_with_it() -> None:
    many = [flag(f"f{i}", on=50_000) for i in range(MAX_CELLS)]
    flags = parse_flag_set(flag_set(*many))
    tally = Tally(EVERYBODY)
    for unit in ("u1", "u2", "u3"):
        work(tally, unit, keys=tuple(flags.flags), flags=flags)
    for cell in drain(tally)["cells"]:
        assert len(cell["units"].get("exposed", ())) <= cell["exposures"]


@pytest.mark.parametrize(("count", "length"), [(1_000, 110), (980, 3), (600, 60), (20, 10)])
def test_a_summary_stays_small_whatever_is_looked_at(count: int, length: int) -> None:
    many = [flag("k" * length + str(i), on=50_000) for i in range(count)]
    flags = parse_flag_set(flag_set(*many))
    tally = Tally(Watch({"p99": 1e-6, "p90": 1e-6}, "f" * 16))
    for i in range(24):
        failures = [Failure(f"error:{'E' * 50}{i}{j}", "w" * 500, "日" * 500) for j in range(5)]
        work(
            tally,
            f"u{i}",
            *failures,
            keys=tuple(flags.flags),
            duration_us=3 ** (i % 14) + 2,
            flags=flags,
        )
    text = json.dumps(drain(tally), ensure_ascii=False, separators=(",", ":"))
    assert len(text.encode()) < 640 * 1024
