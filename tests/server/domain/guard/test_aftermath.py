import pytest

from flagd_server.domain.guard.aftermath import (
    Outcome,
    Requests,
    first_failure,
    look_back,
    slow_from,
    slow_quantile,
)


def test_failures_that_end_with_the_feature_have_fallen() -> None:
    found = look_back(Requests(20_000, 1_000), Requests(4_000, 40), Requests(15_000, 150))
    assert found.outcome is Outcome.FELL
    assert found.expected_share == pytest.approx(0.01)
    assert found.low < 0.2 < found.high < 1.0


def test_failures_that_go_on_as_before_say_that_the_kill_did_not_help() -> None:
    found = look_back(Requests(20_000, 1_000), Requests(4_000, 200), Requests(15_000, 150))
    assert found.outcome is Outcome.DID_NOT_FALL


def test_failures_that_became_more_have_not_fallen() -> None:
    found = look_back(Requests(20_000, 200), Requests(4_000, 400), Requests(15_000, 150))
    assert found.outcome is Outcome.DID_NOT_FALL
    assert found.low > 1.0


def test_a_flag_that_few_had_could_hardly_have_changed_what_all_meet() -> None:
    """At 1 % the whole share was 1.0 % before and is 1.0 % now, and the kill did help."""
    found = look_back(Requests(20_000, 210), Requests(4_000, 40), Requests(19_800, 198))
    assert found.outcome is Outcome.CANNOT_TELL


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Requests(), Requests(100, 5)),
        (Requests(100, 5), Requests()),
        (Requests(100), Requests(100)),
        (Requests(100, 5), Requests(10)),
    ],
)
def test_with_next_to_nothing_to_go_by_nothing_is_claimed(
    before: Requests, after: Requests
) -> None:
    assert look_back(before, after, Requests(50)).outcome is Outcome.CANNOT_TELL


def test_without_a_control_a_fall_of_a_fifth_has_to_be_ruled_out() -> None:
    nobody = Requests()
    gone_on = look_back(Requests(20_000, 1_000), Requests(20_000, 1_000), nobody)
    assert (gone_on.outcome, gone_on.expected_share) == (Outcome.DID_NOT_FALL, None)
    unsure = look_back(Requests(20_000, 1_000), Requests(2_000, 90), nobody)
    assert unsure.outcome is Outcome.CANNOT_TELL


def test_no_share_is_unbounded_in_json() -> None:
    document = look_back(Requests(), Requests(), Requests()).to_document()
    assert document["ratio_interval"] == {"confidence": 0.99, "low": 0.0, "high": None}


def test_slow_is_what_lies_beyond_the_quantile_of_those_without_the_feature() -> None:
    assert slow_from([{10: 500, 20: 490}, {20: 5, 30: 5}], 0.99) == 21
    assert slow_from([{10: 9, 20: 1}], 0.90) == 11
    assert slow_from([], 0.99) == 0
    assert slow_quantile("slow:p90, epoch 2 (weights)") == 0.90
    assert slow_quantile("error:slow:p90, life") is None


def test_the_first_failure_is_that_of_the_comparison_that_decided() -> None:
    arms = {"split": "default", "treatment": {"variant": "on"}, "control": {"variant": "off"}}
    tosses = [
        {"t": 1.0, "variant": "off"},
        {"t": 3.0, "variant": "on"},
        {"t": 2.5, "variant": "on"},
    ]
    document = {
        "decision": {
            "split": "default",
            "treatment": "on",
            "control": "off",
            "stream": "errors, life",
        },
        "comparisons": [
            {**arms, "stream": "slow:p99, life", "tosses": [{"t": 0.5, "variant": "on"}]},
            {**arms, "stream": "errors, life", "tosses": tosses},
        ],
    }
    assert first_failure(document) == 2.5
    assert first_failure({"decision": {"stream": "errors, life"}}) is None
