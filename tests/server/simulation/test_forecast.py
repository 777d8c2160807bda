import json

import pytest

from flagd_server.simulation.forecast import Forecast, Spread
from flagd_server.simulation.life import Ending


def test_a_spread_is_what_half_and_nine_tenths_stayed_within() -> None:
    assert Spread.of([10.0, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 7.0, 6.0, 5.0]) == (5.0, 9.0)
    assert Spread.of([7.0]) == (7.0, 7.0)


def test_what_did_not_end_is_longer_than_all_that_did() -> None:
    assert Spread.of([1.0, float("inf"), 2.0]) == (2.0, None)


def test_a_forecast_tells_the_delay_the_cost_and_the_false_kills() -> None:
    faulty = [Ending(60.0, 500, 8, 7), Ending(None, 9_000, 90, 40), Ending(30.0, 200, 4, 4)]
    healthy = [Ending(None), Ending(12.0), Ending(None), Ending(None)]
    forecast = Forecast.of(25.0, faulty, healthy)
    assert (forecast.lives, forecast.killed) == (3, 2)
    assert forecast.delay_s == (60.0, None)
    assert forecast.users == (7, 40)
    assert (forecast.false_kills, forecast.healthy_lives) == (1, 4)
    assert forecast.false_kills_at_most == pytest.approx(0.7514, abs=1e-4)


def test_a_forecast_is_json() -> None:
    document = Forecast.of(5.0, [Ending(None, 1, 0, 0)], []).to_document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["delay_s"] == {"median": None, "nine_tenths": None}
    assert document["false_kills_at_most"] == 1.0
