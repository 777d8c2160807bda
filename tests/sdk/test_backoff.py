from itertools import pairwise

import pytest

from flagd_sdk.backoff import Backoff
from flagd_sdk.errors import StatusError

BACKOFF = Backoff(first_s=1.0, cap_s=20.0, floor_s=0.25)


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("failures", [0, 1, 2, 5, 1_000])
def test_delays_stay_between_floor_and_cap(failures: int, random: float) -> None:
    assert 0.25 <= BACKOFF.delay_s(failures, random) <= 20.0


def test_delays_grow_until_the_cap() -> None:
    delays = [BACKOFF.delay_s(failures, 0.5) for failures in range(1, 8)]
    assert delays == [0.625, 1.5, 3.0, 6.0, 12.0, 15.0, 15.0]


def test_the_first_return_is_spread_over_what_the_server_asks_for() -> None:
    delays = [BACKOFF.delay_s(1, random / 100, asked_s=8.0) for random in range(100)]
    assert delays[0] == 0.25
    steps = [after - before for before, after in pairwise(delays)]
    assert steps == pytest.approx([7.75 / 100] * 99), "evenly, none of them in one moment"


def test_those_who_come_too_early_after_a_restart_do_not_crowd_together() -> None:
    assert BACKOFF.delay_s(2, 0.0, asked_s=8.0) == 4.0
    assert BACKOFF.delay_s(2, 1.0, asked_s=8.0) == 8.0
    assert BACKOFF.delay_s(6, 0.5, asked_s=8.0) == 15.0, "by then it is the longer wait"


def test_a_server_cannot_ask_for_more_than_the_cap() -> None:
    assert BACKOFF.delay_s(1, 1.0, asked_s=86_400.0) == 20.0


def test_where_only_a_human_can_help_the_wait_is_long_at_once() -> None:
    assert BACKOFF.delay_after_s(StatusError(401), 1, 0.0) == 10.0
    assert BACKOFF.delay_after_s(StatusError(403), 1, 1.0) == 20.0


def test_what_retry_after_names_is_waited_for_and_spread() -> None:
    error = StatusError(429, retry_after_s=10.0)
    assert BACKOFF.delay_after_s(error, 1, 0.0) == 10.0
    assert BACKOFF.delay_after_s(error, 1, 1.0) == 15.0
    assert BACKOFF.delay_after_s(error, 6, 1.0) == 20.0, "no less than without it"


@pytest.mark.parametrize("status", [401, 429, 503])
@pytest.mark.parametrize("failures", [1, 300])
def test_nothing_makes_it_wait_longer_than_half_a_minute(status: int, failures: int) -> None:
    error = StatusError(status, retry_after_s=86_400.0)
    assert BACKOFF.delay_after_s(error, failures, 1.0, asked_s=1e9) == 30.0
