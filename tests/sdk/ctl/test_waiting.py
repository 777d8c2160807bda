from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.waiting import looks
from tests.sdk.fakes import FakeClock

GONE = CommandError("gone", Exit.UNREACHABLE)


def looking(*found: dict[str, int] | CommandError) -> Callable[[], dict[str, int]]:
    """Return a look that finds these one after the other, then the last again and again."""
    left: Iterator[dict[str, int] | CommandError] = iter([*found, *[found[-1]] * 1_000])

    def look() -> dict[str, int]:
        each = next(left)
        if isinstance(each, CommandError):
            raise each
        return each

    return look


@pytest.fixture(autouse=True)
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass only by sleeping."""
    clock = FakeClock()
    own = SimpleNamespace(monotonic=clock, sleep=clock.advance)
    monkeypatch.setattr("flagd_sdk.ctl.waiting.time", own)


def test_it_looks_once_at_least_and_until_the_time_is_up() -> None:
    assert list(looks(looking({"n": 1}), 0.001, 0, print)) == [{"n": 1}]
    assert len(list(looks(looking({"n": 1}), 0.001, 0.05, print))) > 2


def test_a_server_that_comes_back_is_looked_at_again() -> None:
    missed: list[CommandError] = []
    seen = looks(looking(GONE, GONE, {"n": 1}), 0.001, 5, missed.append)
    assert next(seen) == {"n": 1}
    assert missed == [GONE, GONE]


def test_a_server_that_stays_away_is_no_answer() -> None:
    with pytest.raises(CommandError, match="gone"):
        list(looks(looking({"n": 1}, GONE), 0.001, 0.02, lambda _: None))


def test_a_refusal_is_not_waited_out() -> None:
    with pytest.raises(CommandError, match="no"):
        next(looks(looking(CommandError("no")), 0.001, 5, print))
