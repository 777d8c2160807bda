import json

from flagd_sdk.core.guard.window import WINDOW_S, RateWindow


def test_without_exposures_there_is_no_share() -> None:
    assert RateWindow().treatment_share() is None


def test_the_share_is_that_of_the_last_ten_minutes() -> None:
    window = RateWindow()
    window.add(0.0, 90, 10)
    window.add(300.0, 10, 90)
    assert window.treatment_share() == 0.5
    window.add(WINDOW_S, 0, 0)
    assert window.treatment_share() == 0.1


def test_a_long_silence_leaves_nothing() -> None:
    window = RateWindow()
    window.add(0.0, 5, 5)
    window.add(1e9, 0, 0)
    assert window.treatment_share() is None


def test_its_size_is_bounded_whatever_comes() -> None:
    window = RateWindow()
    for step in range(20_000):
        window.add(step * 0.1, 1, 1)
    assert len(window.bins) <= WINDOW_S / 10.0 + 1


def test_it_survives_the_way_to_json_and_back() -> None:
    window = RateWindow()
    for step in range(100):
        window.add(step * 9.0, step, 1)
    again = RateWindow.from_document(json.loads(json.dumps(window.to_document())))
    assert again == window
