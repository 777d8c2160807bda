"""Who leads among processes on one real Postgres, whatever becomes of the leader."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import psycopg
import pytest

from flagd_server.storage import open_storage, postgres_leadership
from tests.end_to_end.fleet import TAKEN_OVER_WITHIN_S
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually
from tests.wire import Wire

# As a server has them: while tests run, this process has more patience (`tests.databases`).
LEASE_S, IDLE_TIMEOUT_S = postgres_leadership.LEASE_S, postgres_leadership.IDLE_TIMEOUT_S


class Candidate:
    """A process, and what it has said."""

    def __init__(self, url: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.leading_process", url, *options],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.terms: list[tuple[float, int]] = []
        self.ends: list[float] = []
        self.told: list[bool] = []
        self.wrote: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, at, *more = line.split()
            if what == "leads":
                self.terms.append((float(at), int(more[0])))
            elif what == "led":
                self.ends.append(float(at))
            elif what == "told":
                self.told.append(more == ["True"])
            else:
                self.wrote.append(what)

    @property
    def leads(self) -> bool:
        return len(self.terms) > len(self.ends)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def resign(self) -> None:
        """Let it end in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(DEADLINE_S) == 0
        self._reader.join()

    def end(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def url(postgres_url: str) -> str:
    open_storage(postgres_url).close()
    return postgres_url


@pytest.fixture
def stand(url: str) -> Iterator[Callable[..., Candidate]]:
    """Let processes stand for leadership."""
    candidates: list[Candidate] = []

    def start(*options: str, by: str = url) -> Candidate:
        candidates.append(Candidate(by, *options))
        return candidates[-1]

    yield start
    for candidate in candidates:
        candidate.end()


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def assert_taken_over(url: str, after: float, by: Candidate) -> None:
    """Assert that it leads in time, in the newest term."""
    eventually(lambda: by.leads)
    at, term = by.terms[-1]
    print(f"taken over after {at - after:.2f} s")
    assert at - after <= TAKEN_OVER_WITHIN_S
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT term FROM leadership").fetchone() == (term,)


def assert_one_at_a_time(*candidates: Candidate) -> None:
    """Assert that no two led at the same moment, and that their terms grew."""
    reigns = sorted(
        (begun_at, ended_at, term)
        for candidate in candidates
        for (begun_at, term), ended_at in zip(candidate.terms, candidate.ends, strict=True)
    )
    for (_, ended_at, term), (begun_at, _, next_term) in pairwise(reigns):
        assert ended_at < begun_at
        assert term < next_term


def stands(url: str, count: int) -> bool:
    """Return whether so many processes stand for leadership."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flagd leadership'"
        ).fetchone()
    return row == (count,)


def test_by_its_limits_another_leads_within_five_seconds() -> None:
    assert LEASE_S < IDLE_TIMEOUT_S
    assert IDLE_TIMEOUT_S + postgres_leadership._TRY_EVERY_S + postgres_leadership._SETTLE_S < 5.0


def test_one_of_several_leads_until_it_resigns_or_its_session_ends_or_it_dies(
    url: str, stand: Callable[[], Candidate], postgres_cluster: PostgresCluster
) -> None:
    candidates = [stand() for _ in range(3)]

    def leader() -> Candidate:
        eventually(lambda: any(candidate.leads for candidate in candidates), every_s=0.002)
        [leading] = [candidate for candidate in candidates if candidate.leads]
        return leading

    first = leader()
    at = now()
    first.resign()
    assert first.told == [True, False]
    assert_taken_over(url, at, second := leader())

    at = now()
    postgres_cluster.disconnect("flagd leadership")
    eventually(lambda: second.ends)
    assert_taken_over(url, at, third := leader())

    eventually(lambda: stands(url, 2))
    at = now()
    third.signal(signal.SIGKILL)
    [last] = [candidate for candidate in candidates if candidate not in (first, third)]
    eventually(lambda: last.leads)
    assert_taken_over(url, at, last)
    last.resign()
    third.ends.append(at)
    assert_one_at_a_time(*candidates)


def test_a_leader_that_was_stopped_while_it_wrote_is_replaced_and_what_it_wrote_is_undone(
    url: str, stand: Callable[..., Candidate]
) -> None:
    leader = stand("writing")
    eventually(lambda: leader.wrote == ["holds"])
    follower = stand()
    eventually(lambda: stands(url, 2))
    at = now()
    leader.signal(signal.SIGSTOP)
    assert_taken_over(url, at, follower)

    leader.signal(signal.SIGCONT)
    eventually(lambda: leader.wrote == ["holds", "undone"])
    eventually(lambda: leader.told == [True, False])
    for candidate in (follower, leader):
        candidate.resign()
    assert_one_at_a_time(leader, follower)


def test_a_leader_that_is_cut_off_stops_by_its_own_clock_before_another_leads(
    url: str, stand: Callable[..., Candidate], postgres_cluster: PostgresCluster
) -> None:
    with Wire(postgres_cluster.port) as wire:
        leader = stand(by=url.replace(f":{postgres_cluster.port}/", f":{wire.port}/"))
        eventually(lambda: leader.leads)
        follower = stand()
        eventually(lambda: stands(url, 2))
        at = now()
        wire.freeze()
        assert_taken_over(url, at, follower)
        assert not leader.leads
        wire.heal()
        for candidate in (follower, leader):
            candidate.resign()
        assert_one_at_a_time(leader, follower)
