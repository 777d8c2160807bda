from flagd_server.domain.guard.records import Event
from flagd_server.simulation.life import Judge, guard, kills, live, race
from flagd_server.simulation.scenario import Fault, Scenario

FAULTY = Scenario("faulty", duration_s=1_200.0, units=2_000, fault=Fault(5.0, has_new_kind=True))


class After:
    """Kills at its n-th event."""

    def __init__(self, events: int) -> None:
        self.has_killed = False
        self.left = events

    def observe(self, event: Event) -> None:
        assert not self.has_killed, "a judge that has killed sees no more"
        self.left -= 1
        self.has_killed = self.left == 0


def test_each_judge_sees_a_life_until_it_kills() -> None:
    events = [Event(float(t)) for t in range(5)]
    judges: dict[str, Judge] = {"second": After(2), "never": After(9), "first": After(1)}
    assert list(kills(events, judges)) == [("first", 0.0), ("second", 1.0)]


def test_no_event_is_drawn_once_all_have_killed() -> None:
    events = iter([Event(0.0), Event(1.0)])
    assert list(kills(events, {"first": After(1)})) == [("first", 0.0)]
    assert next(events) == Event(1.0)


def test_judges_of_one_life_do_not_disturb_each_other() -> None:
    alone = live(FAULTY, 3)
    together = race(FAULTY, 3, {"never": After(0), "soon": After(100), "guard": guard()})
    assert together["guard"] == alone
    assert together["never"].killed_after_s is None
    assert together["never"].failed > alone.failed


def test_an_ending_says_what_the_fault_cost_until_the_kill() -> None:
    ending = live(FAULTY, 3)
    assert ending.killed_after_s is not None
    assert 0 < ending.users <= ending.failed < ending.exposures


def test_a_kill_before_the_fault_counts_from_it() -> None:
    late = Scenario("late", duration_s=1_200.0, units=2_000, fault=Fault(5.0, at_s=900.0))
    ending = race(late, 1, {"soon": After(10)})["soon"]
    assert ending.killed_after_s is not None
    assert -900.0 < ending.killed_after_s < -890.0
    assert (ending.exposures, ending.failed, ending.users) == (0, 0, 0)
