import pytest

from flagd_sdk.notices import Notices
from tests.sdk.fakes import FakeClock


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_cause_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flagd_sdk")
    notices = Notices(FakeClock())
    for _ in range(3):
        notices.tell("server:500", "the server is %s", "ill")
    for _ in range(3):
        notices.settle("server", "it is well")
    assert told(caplog) == ["the server is ill", "it is well"]


def test_a_server_that_comes_and_goes_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flagd_sdk")
    clock = FakeClock()
    notices = Notices(clock)
    for _ in range(50):
        notices.tell("server:500", "ill")
        notices.settle("server", "well")
        clock.advance(5.0)
    assert told(caplog) == ["ill", "well"]
    clock.advance(300.0)
    notices.tell("server:500", "ill")
    assert told(caplog) == ["ill", "well", "ill"]


def test_other_causes_are_told_though_one_was(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(FakeClock())
    notices.tell("server:500", "ill")
    notices.tell("server:401", "refused")
    assert told(caplog) == ["ill", "refused"]


def test_causes_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(FakeClock())
    for i in range(1_000):
        notices.tell(f"flag:{i}", "broken")
    assert len(told(caplog)) == 200
