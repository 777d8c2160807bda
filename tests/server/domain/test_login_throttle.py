"""Waits after failed logins."""

import pytest

from flagd_server.domain.login_throttle import OF_ACCOUNT, OF_ADDRESS, OF_DEVICE, Failures, Growth

GROWTH = Growth(free=2, first_s=1.0, max_s=10.0, forget_s=100.0)


def test_waits_double_up_to_the_most() -> None:
    failures = Failures(GROWTH)
    waits = []
    for _ in range(8):
        waits.append(failures.wait_s(1_000.0))
        failures.add(1_000.0)
    assert waits == [0, 0, 1, 2, 4, 8, 10, 10]
    assert failures.wait_s(1_004.0) == 6.0
    assert failures.wait_s(1_010.0) == 0.0


def test_all_is_forgotten_after_a_while() -> None:
    failures = Failures(GROWTH)
    for _ in range(9):
        failures.add(0.0)
    assert failures.wait_s(99.0) == 0.0
    failures.add(99.0)
    assert failures.wait_s(99.0) == 10.0
    assert failures.wait_s(199.0) == 0.0
    failures.add(199.0)
    assert failures.wait_s(199.0) == 0.0


def test_what_was_no_failure_is_taken_back() -> None:
    failures = Failures(GROWTH)
    failures.take_back()
    for _ in range(3):
        failures.add(0.0)
    failures.take_back()
    assert failures.wait_s(0.0) == 1.0
    failures.clear()
    assert failures.wait_s(0.0) == 0.0


@pytest.mark.parametrize("growth", [OF_ACCOUNT, OF_ADDRESS, OF_DEVICE])
def test_any_number_of_failures_is_borne(growth: Growth) -> None:
    failures = Failures(growth)
    for _ in range(5_000):
        failures.add(0.0)
    assert failures.wait_s(0.0) == growth.max_s
