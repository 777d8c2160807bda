"""Thresholds: from the control's last 24 hours, on the hour, the same after a rebuild."""

import random
from collections.abc import Iterable, Mapping

import pytest

from flagd_sdk.core.latency import bucket_bounds_us, latency_bucket
from flagd_server.domain.latency_hours import HOURS_KEPT, LatencyHours, measured_variant

NOON = 29_000_040 // 60 * 60  # a full hour, in minutes
FAST, SLOW = latency_bucket(20_000), latency_bucket(400_000)
FAST_S, SLOW_S = (bucket_bounds_us(bucket)[1] / 1e6 for bucket in (FAST, SLOW))
USUAL = {FAST: 98, SLOW: 2}


def measured(minutes: Iterable[int], latency: Mapping[int, int] = USUAL) -> LatencyHours:
    hours = LatencyHours()
    for minute in minutes:
        hours.add(minute, latency)
    return hours


def test_a_threshold_is_the_upper_bound_of_the_quantile_s_bucket() -> None:
    hours = measured(range(NOON, NOON + 60))
    assert hours.slow_over_s(NOON + 60) == {"p90": FAST_S, "p99": SLOW_S}


def test_exactly_the_share_below_it_is_enough() -> None:
    hours = measured(range(NOON, NOON + 60), {FAST: 99, SLOW: 1})
    assert hours.slow_over_s(NOON + 60)["p99"] == FAST_S


def test_a_new_service_is_measured_for_ten_full_minutes() -> None:
    hours = measured(range(NOON + 5, NOON + 16))
    assert hours.slow_over_s(NOON + 15) == {}
    assert hours.slow_over_s(NOON + 16) == {"p90": FAST_S, "p99": SLOW_S}


def test_and_for_a_thousand_exposures() -> None:
    hours = measured(range(NOON, NOON + 19), {FAST: 49, SLOW: 1})
    assert hours.slow_over_s(NOON + 19) == {}
    hours.add(NOON + 19, {FAST: 50})
    assert hours.slow_over_s(NOON + 19) == {}, "the minute is not full"
    assert hours.slow_over_s(NOON + 20) != {}


def test_an_hour_that_ends_before_ten_minutes_sets_nothing() -> None:
    hours = measured(range(NOON + 55, NOON + 60), {FAST: 1_000})
    assert hours.slow_over_s(NOON + 60) == {}
    assert hours.slow_over_s(NOON + 65) == {}
    assert hours.slow_over_s(NOON + 66) == {"p90": FAST_S, "p99": FAST_S}


def test_a_threshold_changes_on_the_hour_only() -> None:
    hours = measured(range(NOON, NOON + 11))
    first = hours.slow_over_s(NOON + 11)
    for minute in range(NOON + 11, NOON + 60):
        hours.add(minute, {SLOW: 1_000})
        assert hours.slow_over_s(minute) == first
    assert hours.slow_over_s(NOON + 60) == {"p90": SLOW_S, "p99": SLOW_S}


def test_what_is_older_than_a_day_is_forgotten() -> None:
    hours = measured(range(NOON, NOON + 60), {SLOW: 100})
    for minute in range(NOON + 60, NOON + 120):
        hours.add(minute, {FAST: 100})
    last = NOON + HOURS_KEPT * 60
    assert hours.slow_over_s(last)["p99"] == SLOW_S
    assert hours.slow_over_s(last + 60)["p99"] == FAST_S
    assert hours.slow_over_s(last + 120) == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_rebuild_from_the_last_day_gives_the_same(seed: int) -> None:
    """Whatever the traffic was: what is older than a day has no part in it."""
    drawn = random.Random(seed)
    rows = [
        (NOON + minute, {drawn.choice((FAST, SLOW)): drawn.randrange(1, drawn.choice((5, 500)))})
        for minute in range(HOURS_KEPT * 60 * 2)
        if drawn.random() < drawn.choice((0.001, 0.2))
    ]
    lived = LatencyHours()
    for minute, latency in rows:
        lived.add(minute, latency)
        lived.slow_over_s(minute)
    now = rows[-1][0]
    oldest = (now // 60 - HOURS_KEPT) * 60
    rebuilt = LatencyHours()
    for minute, latency in rows:
        if minute >= oldest:
            rebuilt.add(minute, latency)
    for minute in range(now, now + 180):
        assert rebuilt.slow_over_s(minute) == lived.slow_over_s(minute)


@pytest.mark.parametrize(
    ("weights", "control", "expected"),
    [
        ({"on": 25, "off": 75}, "on", "on"),
        ({"on": 25, "off": 75}, None, "off"),
        ({"on": 99, "off": 1}, None, "off"),
        ({"on": 100, "off": 0}, None, "on"),
        ({"on": 25, "off": 75}, "gone", "off"),
        ({"a": 30, "b": 50, "off": 0}, "off", "b"),
        ({"b": 50, "a": 50}, None, "a"),
    ],
)
def test_the_norm_is_the_control_s_else_the_off_variant_s_else_the_heaviest_s(
    weights: Mapping[str, int], control: str | None, expected: str
) -> None:
    assert measured_variant(weights, control, "off") == expected
