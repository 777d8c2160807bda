import pytest

from flagd_server.domain.allowance import Allowance, NamesOfHour, Rate

RATE = Rate(per_s=10.0, burst=100.0)


def test_a_burst_is_there_at_once_and_then_the_rate() -> None:
    allowance = Allowance(RATE, 0.0)
    assert allowance.take(100, 0.0)
    assert not allowance.take(1, 0.0)
    assert allowance.take(10, 1.0)
    assert not allowance.take(1, 1.0)


def test_what_is_too_much_takes_nothing() -> None:
    allowance = Allowance(RATE, 0.0)
    assert not allowance.take(101, 0.0)
    assert allowance.take(100, 0.0)


def test_a_pause_fills_no_more_than_the_burst() -> None:
    allowance = Allowance(RATE, 0.0)
    allowance.take(50, 0.0)
    assert allowance.left(1e6) == 100


def test_a_clock_that_is_set_back_adds_nothing_and_takes_nothing() -> None:
    allowance = Allowance(RATE, 1_000.0)
    allowance.take(100, 1_000.0)
    assert allowance.left(0.0) == 0
    assert allowance.left(5.0) == pytest.approx(50)


def test_names_beyond_the_limit_wait_for_the_next_hour() -> None:
    names = NamesOfHour(2)
    assert [names.admit(name, 7) for name in ("a", "b", "c", "a")] == [True, True, False, True]
    assert names.admit("c", 8)
