"""What a process is asked to look at, and whose exposures it looks at."""

from math import inf, nan, sqrt
from typing import Any

import pytest

from flagd_sdk.core.bucketing import bucket
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.looking import (
    HOUR_NS,
    MAX_ATTRIBUTES,
    MAX_REMEMBERED_SPLITS,
    MAX_REMEMBERED_UNITS,
    NO_UNITS,
    NOBODY,
    Finished,
    FirstExposures,
    Watch,
    units_by,
)
from flagd_sdk.core.parsing import parse_flag_set
from tests.sdk.fakes import flag, flag_set

FLAGS = parse_flag_set(flag_set(flag("a", on=50_000), flag("b", on=50_000), flag("all", 100_000)))
BEFORE = Watch({"p99": 1.5}, "0fffffffffffffff")


def by_attribute(key: str, attribute: str) -> dict[str, Any]:
    document = flag(key, on=50_000)
    document["default_serve"]["split"]["bucket_by"] = attribute
    return document


def finished(
    unit: str | None,
    keys: tuple[str, ...] = ("a",),
    ended_ns: int = 0,
    flags: FlagSet = FLAGS,
    units: dict[str, str | None] | None = None,
) -> Finished:
    context = {"targetingKey": unit, **(units or {})}
    served = {key: flags.resolve(key, context) for key in keys}
    return served, 5, (unit, NO_UNITS if units is None else units, b"k", ended_ns)


def looked_at(first: FirstExposures, *work: Finished) -> list[tuple[str, str]]:
    """Return (unit, flag) of everything looked at."""
    return [
        (unit, resolution.flag)
        for served, new, unit, _, _ in first.among(work, -1.0)
        for resolution in first.met(served, new)
    ]


# --- what the server asks for --------------------------------------------------------------------


def test_a_reply_says_what_to_look_at() -> None:
    reply = {"slow_over_s": {"p99": 0.25, "p90": 1}, "exposed_below": "00ff000000000000"}
    watch = Watch().after(reply)
    assert watch == Watch({"p99": 0.25, "p90": 1.0}, "00ff000000000000")
    assert not watch.is_idle
    assert watch.after({"slow_over_s": {}, "exposed_below": NOBODY}).is_idle
    assert watch.after({"slow_over_s": {"p99": 2.0}}).slow_over_s == {"p99": 2.0}


@pytest.mark.parametrize("reply", [{}, {"accepted": 1}, {"slow_over_s": None}, {"slow_over_s": 3},
    {"slow_over_s": ["p99"]}, {"exposed_below": {}}])  # fmt: skip
def test_a_reply_that_does_not_say_changes_nothing(reply: dict[str, Any]) -> None:
    assert BEFORE.after(reply) == BEFORE


@pytest.mark.parametrize(
    "seconds", ["1", None, True, [], {}, nan, inf, -inf, 0, -0.0, -1.0, 86_401, 10**400]
)
def test_an_absurd_threshold_leaves_what_was(seconds: object) -> None:
    assert BEFORE.after({"slow_over_s": {"p99": seconds}}) == BEFORE
    assert Watch().after({"slow_over_s": {"p99": seconds}}) == Watch()
    mixed = BEFORE.after({"slow_over_s": {"p99": seconds, "p90": 0.5, "p12": 0.1, 7: 1.0}})
    assert mixed.slow_over_s == {"p99": 1.5, "p90": 0.5}


@pytest.mark.parametrize(
    "below", [None, 7, 0.5, "", "0", "f" * 15, "f" * 17, "F" * 16, "0x" + "f" * 14, "f" * 15 + "\n",
              "٣" * 16, ["f" * 16]]
)  # fmt: skip
def test_an_absurd_sample_leaves_what_was(below: object) -> None:
    assert BEFORE.after({"exposed_below": below}) == BEFORE


def test_an_exposure_is_near_beyond_the_threshold_and_slow_beyond_what_is_tolerated() -> None:
    p99, p90 = Watch({"p99": 1.0, "p90": 0.1}).thresholds()
    assert [p99.kind_of(us) for us in (0, 1_000_000, 1_000_001, 1_050_000, 1_050_001)] == [
        None, None, "near:p99", "near:p99", "slow:p99",
    ]  # fmt: skip
    assert p90.kind_of(200_000) == "slow:p90"


# --- whose exposures are looked at ---------------------------------------------------------------


def test_a_unit_is_looked_at_once_for_each_split_that_it_met() -> None:
    first = FirstExposures()
    assert looked_at(first, finished("u1"), finished("u1")) == [("u1", "a")]
    assert looked_at(first, finished("u1", ("a", "b")), finished("u2")) == [
        ("u1", "b"),
        ("u2", "a"),
    ]
    assert looked_at(first, finished("u1", ("b", "a"))) == []


def test_where_no_split_decided_there_is_nothing_to_look_at() -> None:
    first = FirstExposures()
    assert looked_at(first, finished("u1", ("all",)), finished(None, ("a", "all"))) == []
    assert first._met == {}


def test_a_new_hour_looks_at_everybody_again() -> None:
    first = FirstExposures()
    begin = 7 * HOUR_NS + 5
    times = [begin, begin + HOUR_NS - 1, begin + HOUR_NS, begin + HOUR_NS + 1, begin + 3 * HOUR_NS]
    assert [len(looked_at(first, finished("u1", ended_ns=t))) for t in times] == [1, 0, 1, 0, 1]


def test_a_unit_of_work_that_ended_before_the_hour_began_is_one_of_it() -> None:
    first = FirstExposures()
    looked_at(first, finished("u1", ended_ns=2 * HOUR_NS))
    assert looked_at(first, finished("u1", ended_ns=2 * HOUR_NS - 1)) == []
    assert looked_at(first, finished("u2", ended_ns=2 * HOUR_NS - 1)) == [("u2", "a")]


def test_an_hour_may_turn_between_units_of_work_that_are_counted_together() -> None:
    first = FirstExposures()
    looked_at(first, finished("u0", ("b",)))
    work = [
        finished("u1", ("a",)),
        finished("u1", ("b",), HOUR_NS),
        finished("u2", ("a",), HOUR_NS),
    ]
    assert looked_at(first, *work) == [("u1", "a"), ("u1", "b"), ("u2", "a")]


def test_another_configuration_is_met_anew_but_the_same_one_compiled_again_is_not() -> None:
    first = FirstExposures()
    again = parse_flag_set(flag_set(flag("a", on=50_000)))
    ramped = parse_flag_set(flag_set(flag("a", on=60_000, version=2)))
    looks = [looked_at(first, finished("u1", flags=flags)) for flags in (FLAGS, again, ramped)]
    assert [len(look) for look in looks] == [1, 0, 1]


def test_only_those_that_lasted_longer_are_returned_but_all_are_remembered() -> None:
    first = FirstExposures()
    assert list(first.among([finished("u1")], 5.0)) == []
    assert looked_at(first, finished("u1")) == []


def test_splits_by_another_attribute_look_at_its_units() -> None:
    flags = parse_flag_set(flag_set(flag("a", on=50_000), by_attribute("firm", "account")))
    first = FirstExposures()

    def work(user: str, account: str | None) -> Finished:
        return finished(user, ("a", "firm"), flags=flags, units={"account": account})

    assert first.attributes == ()
    assert sorted(looked_at(first, work("u1", "x"))) == [("u1", "a"), ("x", "firm")]
    assert first.attributes == ("account",)
    assert looked_at(first, work("u2", "x"), work("u1", "y")) == [("u2", "a"), ("y", "firm")]
    assert looked_at(first, work("y", None)) == [("y", "a")], "a user who is called as a firm is"


def test_units_can_not_be_read_from_everything() -> None:
    class Hostile(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            if key == "account":
                raise RuntimeError("boo")
            return super().get(key, default)

    context = Hostile(user=7, flag=True)
    assert units_by(("account", "user", "flag", "absent"), context) == {
        "account": None, "user": "7", "flag": None, "absent": None,
    }  # fmt: skip


# --- bounds --------------------------------------------------------------------------------------


def test_too_many_units_are_left_out_by_their_marks_not_by_arrival_or_side() -> None:
    first = FirstExposures()
    count = MAX_REMEMBERED_UNITS * 3
    units = [f"u{i}" for i in range(count)]
    looked_at(first, *map(finished, units))
    assert MAX_REMEMBERED_UNITS / 3 < len(first._met) <= MAX_REMEMBERED_UNITS
    lowest = sorted(map(hash, units))[: len(first._met)]
    assert set(first._met) == set(lowest), "exactly the lowest, early or late"
    wave = [f"w{i}" for i in range(20_000)]
    seen = {unit for unit, _ in looked_at(first, *map(finished, wave))}
    assert seen >= {unit for unit in wave if hash(unit) < first._limit}
    # Marks are salted anew in each process, so this may fail once in 500 million runs.
    on = sum(bucket("a", unit) < 50_000 for unit in seen)
    assert abs(on - len(seen) / 2) < 6 * sqrt(len(seen) / 4)


def test_what_was_left_out_is_counted_and_the_next_hour_looks_at_it() -> None:
    first = FirstExposures()
    units = [f"u{i}" for i in range(MAX_REMEMBERED_UNITS + 1)]
    looked_at(first, *map(finished, units))
    high = next(unit for unit in units if hash(unit) >= first._limit)
    assert first.left_out <= 1
    first.left_out = 0
    assert looked_at(first, finished(high), finished(high)) == []
    assert first.left_out == 2
    assert looked_at(first, finished(high, ended_ns=2 * HOUR_NS)) == [(high, "a")]


def test_splits_and_attributes_are_bounded_and_counted() -> None:
    many = [flag(f"f{i}", on=50_000) for i in range(MAX_REMEMBERED_SPLITS + 5)]
    flags = parse_flag_set(flag_set(*many))
    first = FirstExposures()
    looks = looked_at(first, finished("u1", tuple(flags.flags), flags=flags))
    assert (len(looks), first.left_out) == (MAX_REMEMBERED_SPLITS, 5)
    odd = parse_flag_set(flag_set(*(by_attribute(f"f{i}", f"k{i}") for i in range(20))))
    units: dict[str, str | None] = {f"k{i}": "x" for i in range(20)}
    first = FirstExposures()
    looks = looked_at(first, finished("u1", tuple(odd.flags), flags=odd, units=units))
    assert (len(looks), len(first.attributes), first.left_out) == (
        MAX_ATTRIBUTES,
        MAX_ATTRIBUTES,
        12,
    )


def test_flag_sets_of_the_past_are_not_kept_alive() -> None:
    first = FirstExposures()
    for _ in range(60):
        flags = parse_flag_set(flag_set(*(flag(f"f{i}", on=50_000) for i in range(500))))
        looked_at(first, finished("u1", tuple(flags.flags), flags=flags))
    assert len(first._bits) <= 16_384 + 500
    assert looked_at(first, finished("u1", tuple(flags.flags), flags=flags)) == []
