"""How the tests of an application set its flags: `pytest examples/testing`."""

import pytest

from examples.testing.app import CHECKOUT, DISCOUNT, flags, order
from flagd_sdk.testing import Definition, Overridden, override


def test_without_any_flag_the_old_checkout_answers() -> None:
    assert order("ann", [100, 200, 300]) == "ann pays 600"


@pytest.mark.flagd({"new-checkout": True})
def test_the_new_checkout_gives_the_third_article_away() -> None:
    assert order("ann", [100, 200, 300]) == "ann pays 300"


@pytest.mark.flagd({CHECKOUT: True})
@pytest.mark.parametrize(("percent", "cents"), [(0, 300), (50, 150)])
def test_discounts(flagd_flags: Overridden, percent: int, cents: int) -> None:
    flagd_flags.set_flags({DISCOUNT: percent})
    assert order("ann", [100, 200]) == f"ann pays {cents}"
    assert [(e.flag, e.value) for e in flagd_flags.exposures] == [
        ("new-checkout", True),
        ("discount-percent", percent),
    ]


@pytest.mark.flagd({"new-checkout": True})
def test_a_checkout_that_breaks_is_held_against_the_flag(flagd_flags: Overridden) -> None:
    assert order("ann", []) == "ann pays 0"  # max() raised, and the old checkout answered
    (exposure,) = flagd_flags.exposures
    assert (exposure.flag, exposure.variant) == ("new-checkout", "on")
    assert exposure.failures == ("error:ValueError",)


def test_both_ways_cost_the_same_for_a_small_cart() -> None:
    answers = set()
    for is_on in (True, False):
        with override(CHECKOUT, is_on):
            answers.add(order("ann", [100, 200]))
    assert answers == {"ann pays 300"}


QUARTER = Definition(default_serve={"split": {"weights": {"on": 25_000, "off": 75_000}}})


@override(flags, {"new-checkout": QUARTER})
def test_a_customer_meets_the_same_checkout_again() -> None:
    customers = [f"customer-{number}" for number in range(200)]
    first = [order(customer, [100, 200, 300]) for customer in customers]
    assert first == [order(customer, [100, 200, 300]) for customer in customers]
    assert 25 <= sum("pays 300" in answer for answer in first) <= 75
