import pytest

from flagd_sdk.backoff import Backoff

BACKOFF = Backoff(first_s=1.0, cap_s=20.0, floor_s=0.25)


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("failures", [0, 1, 2, 5, 1_000])
def test_delays_stay_between_floor_and_cap(failures: int, random: float) -> None:
    assert 0.25 <= BACKOFF.delay_s(failures, random) <= 20.0


def test_delays_grow_until_the_cap() -> None:
    delays = [BACKOFF.delay_s(failures, 0.5) for failures in range(1, 8)]
    assert delays == [0.5, 1.5, 3.0, 6.0, 12.0, 15.0, 15.0]


def test_the_first_return_is_spread_over_what_the_server_asks_for() -> None:
    assert BACKOFF.delay_s(1, 0.5, asked_s=8.0) == 4.0
    assert BACKOFF.delay_s(1, 0.1, asked_s=8.0) == pytest.approx(0.8)


def test_a_server_cannot_ask_for_more_than_the_cap() -> None:
    assert BACKOFF.delay_s(1, 1.0, asked_s=86_400.0) == 20.0


def test_where_only_a_human_can_help_the_wait_is_long_at_once() -> None:
    assert BACKOFF.long_delay_s(0.0) == 10.0
    assert BACKOFF.long_delay_s(1.0) == 20.0
