import pytest

from flagd_server.domain.allocation import reallocate


def test_it_begins_with_everyone_on_the_off_variant_and_the_treatment_lowest() -> None:
    first = reallocate(None, {"off": 75_000, "on": 25_000}, "off")
    assert first == [[25_000, "on"], [100_000, "off"]]


def test_without_an_off_variant_the_last_one_lies_on_top() -> None:
    assert reallocate(None, {"a": 40_000, "b": 60_000}, "none") == [[40_000, "a"], [100_000, "b"]]


def test_treatments_lie_in_the_order_they_are_written() -> None:
    weights = {"b": 10_000, "off": 80_000, "a": 10_000}
    assert reallocate(None, weights, "off") == [[10_000, "b"], [20_000, "a"], [100_000, "off"]]


def test_a_kill_and_a_new_release_meet_the_same_users() -> None:
    at_5 = reallocate(None, {"on": 5_000, "off": 95_000}, "off")
    at_0 = reallocate(at_5, {"on": 0, "off": 100_000}, "off")
    assert at_0 == [[100_000, "off"]]
    assert reallocate(at_0, {"on": 5_000, "off": 95_000}, "off") == at_5


def test_a_share_that_grew_beside_another_gives_back_what_it_took_last() -> None:
    first = reallocate(None, {"a": 10_000, "b": 10_000, "off": 80_000}, "off")
    grown = reallocate(first, {"a": 20_000, "b": 10_000, "off": 70_000}, "off")
    assert grown == [[10_000, "a"], [20_000, "b"], [30_000, "a"], [100_000, "off"]]
    assert reallocate(grown, {"a": 10_000, "b": 10_000, "off": 80_000}, "off") == first


def test_a_variant_that_is_no_longer_there_gives_up_everything() -> None:
    held = reallocate(None, {"old": 50_000, "off": 50_000}, "off")
    assert reallocate(held, {"new": 50_000, "off": 50_000}, "off") == [
        [50_000, "new"],
        [100_000, "off"],
    ]


def test_a_change_of_the_off_variant_moves_nobody_by_itself() -> None:
    weights = {"on": 25_000, "off": 75_000}
    held = reallocate(None, weights, "off")
    assert reallocate(held, weights, "on") == held


@pytest.mark.parametrize(
    "weights", [{}, {"on": 99_999}, {"on": 100_001}, {"on": -1, "off": 100_001}]
)
def test_weights_that_do_not_hold_are_refused(weights: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected a sum of 100000, none negative"):
        reallocate(None, weights, "off")
