import json

import pytest

from flagd_server.domain.guard.report import PATH_POINTS_SHOWN, TOSSES_SHOWN, report
from tests.server.domain.guard.recordings import BOOM, cell, feed, feed_each, guard, unit


def test_a_kill_can_be_checked_by_hand() -> None:
    life = guard()
    feed_each(life, "off", range(100, 103), start=1.0, kind="error:Old")
    end = feed_each(life, "on", range(12), start=10.0)
    document = report(life, end)
    json.dumps(document, allow_nan=False)
    assert document["decision"]["kill"] is True
    (found,) = document["comparisons"]
    assert found["stream"] == f"{BOOM}, life"
    assert found["e_value"] >= found["threshold"]
    assert found["held_back"] is None
    units = found["treatment"]["failing_units"]
    assert found["control"]["failing_units"] == 0
    assert found["chance"] == pytest.approx(0.25**units)
    assert found["expected_share"] == pytest.approx(0.25)
    assert found["ratio_interval"]["low"] > 1.0
    assert found["ratio_interval"]["high"] is None
    assert [toss["unit"] for toss in found["tosses"]] == [unit(n) for n in range(units)]
    assert {toss["variant"] for toss in found["tosses"]} == {"on"}
    assert {toss["kind"] for toss in found["tosses"]} == {BOOM}
    assert found["path"][-1]["e_value"] == pytest.approx(found["e_value"])


def test_requests_are_shown_by_arm() -> None:
    life = guard()
    feed(life, 1.0, cell("on", [1], exposures=50), cell("off", [2, 3], exposures=150))
    (found,) = report(life, 1.0)["comparisons"]
    assert found["treatment"]["error_rate"] == pytest.approx(0.02)
    assert (found["control"]["exposures"], found["control"]["errors"]) == (150, 2)


def test_every_open_stream_is_listed_with_what_it_needs() -> None:
    life = guard()
    feed_each(life, "off", range(3), start=1.0)
    feed(life, 10.0, announced="weights")
    feed_each(life, "off", range(3, 5), start=11.0)
    (found,) = report(life, 20.0)["comparisons"]
    assert [(row["name"], row["control_units"]) for row in found["streams"]] == [
        ("errors, life", 5),
        (f"{BOOM}, life", 5),
        ("errors, epoch 1 (weights)", 2),
        (f"{BOOM}, epoch 1 (weights)", 2),
    ]
    assert found["streams"][0]["threshold"] == pytest.approx(1 / (0.001 * 0.30))


def test_before_anything_failed_nothing_is_claimed() -> None:
    life = guard()
    feed(life, 1.0, cell("on", exposures=0), cell("off"))
    (found,) = report(life, 1.0)["comparisons"]
    assert (found["chance"], found["ratio"], found["tosses"]) == (1.0, 1.0, [])
    assert found["ratio_interval"] == {"confidence": 0.95, "low": 0.0, "high": None}
    assert found["treatment"]["error_rate"] == 0.0


def test_without_a_comparison_the_decision_says_why() -> None:
    document = report(guard(), 5.0)
    assert document["comparisons"] == []
    assert document["decision"]["reason"].startswith("no control")


def test_a_long_life_is_shown_by_its_latest_part() -> None:
    life = guard()
    for number in range(300):
        feed_each(life, "on" if number % 4 == 0 else "off", [number], start=float(number))
    (found,) = report(life, 400.0)["comparisons"]
    assert len(found["tosses"]) == TOSSES_SHOWN
    assert len(found["path"]) == PATH_POINTS_SHOWN
    assert found["tosses"][-1]["unit"] == unit(299)
