"""The peers decide as their sources say."""

from math import log, sqrt

import pytest

from benchmarks.guard.peers import FixedThreshold, RepeatedZTest, SequentialInterval
from flagd_server.domain.guard.records import Cell, Event
from flagd_server.simulation.life import Judge

HALF = {"on": 50_000, "off": 50_000}


def event(t: float, on: tuple[int, int], off: tuple[int, int] = (0, 0)) -> Event:
    """An event of (requests, failed) in either arm."""
    return Event(
        t,
        tuple(
            Cell("default", variant, HALF, 1, "i1", requests, failed)
            for variant, (requests, failed) in (("on", on), ("off", off))
        ),
    )


def minutes_until_killed(judge: Judge, each_minute: list[Event]) -> int | None:
    for minute, one in enumerate(each_minute):
        judge.observe(one)
        if judge.has_killed:
            return minute
    return None


def test_the_fixed_threshold_rolls_back_after_ten_failed_checks() -> None:
    failing = [event(60.0 * minute, (1_000, 11)) for minute in range(20)]
    assert minutes_until_killed(FixedThreshold(), failing) == 10


def test_the_fixed_threshold_is_content_with_99_percent_and_with_silence() -> None:
    content = [event(60.0 * minute, (1_000, 10)) for minute in range(40)]
    silent = [event(60.0 * minute, (0, 0), (100, 100)) for minute in range(40)]
    assert minutes_until_killed(FixedThreshold(), content) is None
    assert minutes_until_killed(FixedThreshold(), silent) is None


def test_the_fixed_threshold_counts_failed_checks_that_do_not_follow_each_other() -> None:
    every_other = [event(60.0 * n, (1_000, 50 if n % 2 else 0)) for n in range(40)]
    assert minutes_until_killed(FixedThreshold(), every_other) == 20


def test_the_z_test_is_the_textbook_one() -> None:
    judge = RepeatedZTest()
    judge.observe(event(0.0, (200, 30), (250, 20)))
    # Pooled: 50 of 450; z = (0.15 - 0.08) / sqrt(p (1 - p) (1/200 + 1/250)).
    assert judge.score() == pytest.approx(0.07 / sqrt(50 / 450 * 400 / 450 * 0.009))


def test_the_z_test_looks_each_minute_and_kills_at_alpha() -> None:
    just_under = [event(0.0, (1_000, 30), (1_000, 12)), event(60.0, (0, 0))]
    assert minutes_until_killed(RepeatedZTest(), just_under) is None
    just_over = [event(0.0, (1_000, 36), (1_000, 12)), event(59.0, (0, 0)), event(60.0, (0, 0))]
    assert minutes_until_killed(RepeatedZTest(), just_over) == 2


def test_the_sequential_interval_has_the_published_width() -> None:
    judge = SequentialInterval(alpha=0.05)
    judge.observe(event(0.0, (5_000, 100), (5_000, 50)))
    # Waudby-Smith et al., eq. 161 and 9, written out.
    rho = sqrt((-2 * log(0.05) + log(-2 * log(0.05) + 1)) / 5_000)
    n, error = 10_000, sqrt(0.02 * 0.98 / 5_000 + 0.01 * 0.99 / 5_000)
    scale = n * rho**2 + 1
    half_width = error * sqrt(n) * sqrt(2 * scale * log(sqrt(scale) / 0.05) / (n * rho) ** 2)
    assert judge.lower_end() == pytest.approx(0.01 - half_width)
    assert judge.has_killed == (half_width < 0.01)


def test_the_sequential_interval_needs_both_arms_and_a_worse_treatment() -> None:
    judge = SequentialInterval()
    judge.observe(event(0.0, (100, 100)))
    assert not judge.has_killed
    judge.observe(event(1.0, (0, 0), (10_000, 10_000)))
    assert not judge.has_killed
