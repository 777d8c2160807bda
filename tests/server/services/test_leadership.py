"""Who acts: the leader, in the term in which it has learnt what it knows."""

from pathlib import Path

import pytest

from flagd_server.clock import SystemClock
from flagd_server.errors import NotLeadingError, StorageUnavailableError
from flagd_server.services.conductor import Conductor
from flagd_server.services.leader_requests import LeaderRequests
from flagd_server.services.leadership import LeadersStorage
from tests.joined_storage import Joined


def test_what_was_learnt_in_another_term_is_forgotten_before_acting(tmp_path: Path) -> None:
    joined = Joined(tmp_path / "flagd.db")
    first, second = joined.open(), joined.open()
    forgotten: list[int] = []
    acting = LeadersStorage(first, lambda: forgotten.append(1))
    first.lead(lambda leads: None)
    assert acting.take_up()
    assert acting.take_up()
    assert len(forgotten) == 1
    joined.elect(second)
    assert not acting.take_up()
    joined.elect(first)
    assert acting.take_up()
    assert len(forgotten) == 3
    for storage in (first, second):
        storage.close()


def test_a_leader_that_was_away_meanwhile_does_not_write_what_it_had_thought(
    tmp_path: Path,
) -> None:
    joined = Joined(tmp_path / "flagd.db")
    first, second = joined.open(), joined.open()
    acting = LeadersStorage(first, lambda: None)
    first.lead(lambda leads: None)
    acting.take_up()
    with acting.transaction():
        pass
    joined.elect(second)
    with pytest.raises(NotLeadingError), acting.transaction():
        raise AssertionError("it was let in")
    joined.elect(first)
    with pytest.raises(NotLeadingError), acting.transaction():
        raise AssertionError("it was let in though another has led since")
    acting.take_up()
    with acting.transaction():
        pass
    for storage in (first, second):
        storage.close()


def test_the_conductor_rests_while_another_leads_and_when_it_hears_so_on_the_way() -> None:
    made: list[str] = []
    leads = False

    def lost(now_s: float) -> None:
        made.append("lost")
        raise NotLeadingError("another does")

    conductor = Conductor([lost, lambda now_s: made.append("never")], leads=lambda: leads)
    conductor.tick()
    assert made == []
    leads = True
    conductor.tick()
    assert made == ["lost"]


def test_a_request_that_no_leader_takes_up_is_withdrawn(tmp_path: Path) -> None:
    joined = Joined(tmp_path / "flagd.db")
    storage = joined.open()
    requests = LeaderRequests(storage, SystemClock(), answer_within_s=0.05)
    with pytest.raises(StorageUnavailableError):
        requests.ask("brake.release", {"environment": "production"})
    with storage.read() as reader:
        assert reader.inbox(10) == []
    storage.close()
