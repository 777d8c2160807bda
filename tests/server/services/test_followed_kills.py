"""How far a kill has got is known whether or not somebody waited for it."""

import pytest

from flagd_server.services.followed_kills import NAMED
from flagd_server.services.receipts import Receipts
from tests.server.services.test_receipts import Clock

NAMES = [f"i-{number:03}" for number in range(1, 101)]


class Bench:
    def __init__(self, names: list[str]) -> None:
        self.clock = Clock()
        self.there = set(names)
        self.reached: list[tuple[int, float]] = []
        self.receipts = Receipts(
            lambda environment: (
                frozenset(self.there) if environment == "production" else frozenset()
            ),
            self.clock,
            lambda environment, percent, s: self.reached.append((percent, pytest.approx(s))),
        )

    def follow(self, sequence: int = 5, kill: str = "kill-1", decided_s_ago: float = 0.0) -> None:
        self.receipts.follow(kill, "production", sequence, decided_s_ago)

    def confirm(self, name: str, after_s: float = 0.01, sequence: int = 5) -> None:
        self.clock.now += after_s
        self.receipts.applied("production", name, sequence)


def test_each_share_is_told_once_when_it_is_reached() -> None:
    bench = Bench(NAMES)
    bench.follow(decided_s_ago=0.5)
    for name in NAMES:
        bench.confirm(name)
        bench.confirm(name, 0.0)
    assert bench.reached == [(50, 1.0), (99, 1.49), (100, 1.5)]
    way = bench.receipts.way_of("kill-1")
    assert way is not None
    assert way.sequence == 5
    assert way.reached_s == {
        50: pytest.approx(1.0),
        99: pytest.approx(1.49),
        100: pytest.approx(1.5),
    }
    assert [name for name, _ in way.slowest] == NAMES[-NAMED:]
    assert way.slowest[-1][1] == pytest.approx(1.5)


def test_one_process_is_all_of_them() -> None:
    bench = Bench(["i-1"])
    bench.follow()
    bench.confirm("i-1", 0.2)
    assert bench.reached == [(50, 0.2), (99, 0.2), (100, 0.2)]


def test_where_nobody_is_there_nothing_is_told() -> None:
    bench = Bench([])
    bench.follow()
    bench.confirm("i-1")
    assert bench.reached == []
    assert bench.receipts.missing() == {}


def test_who_was_faster_than_the_follower_counts() -> None:
    bench = Bench(["i-1", "i-2"])
    bench.confirm("i-1", 0.25)
    bench.follow(decided_s_ago=0.1)
    assert bench.reached == [(50, 0.1)]
    bench.confirm("i-2", 0.5)
    assert bench.reached[1:] == [(99, 0.6), (100, 0.6)]


def test_a_report_of_older_flags_confirms_nothing_and_a_newer_one_does() -> None:
    bench = Bench(["i-1"])
    bench.follow()
    bench.confirm("i-1", sequence=4)
    assert bench.reached == []
    assert bench.receipts.missing() == {"production": 1}
    bench.receipts.applied("staging", "i-1", 9)
    assert bench.receipts.missing() == {"production": 1}
    bench.confirm("i-1", sequence=9)
    assert len(bench.reached) == 3
    assert bench.receipts.missing() == {}


def test_a_process_that_is_gone_is_not_waited_for() -> None:
    bench = Bench(["i-1", "i-2"])
    bench.follow()
    bench.confirm("i-1", 0.1)
    assert bench.reached == [(50, 0.1)]
    bench.there.discard("i-2")
    way = bench.receipts.way_of("kill-1")
    assert way is not None
    assert bench.reached[1:] == [(99, 0.1), (100, 0.1)]
    assert bench.receipts.missing() == {}


def test_a_silent_process_is_one_whatever_the_number_of_kills() -> None:
    bench = Bench(["i-1", "i-2"])
    for number in range(3):
        bench.follow(5 + number, f"kill-{number}")
    bench.confirm("i-1", sequence=9)
    assert bench.receipts.missing() == {"production": 1}


def test_old_kills_are_forgotten() -> None:
    bench = Bench(["i-1"])
    for number in range(250):
        bench.follow(5 + number, f"kill-{number}")
    assert bench.receipts.way_of("kill-0") is None
    assert bench.receipts.way_of("kill-249") is not None
    bench.confirm("i-1", sequence=1_000)
    assert len(bench.reached) == 3 * 200
