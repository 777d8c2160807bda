import threading

import pytest

from flagd_server.services.receipts import FORGET_AFTER_S, MAX_INSTANCES, Receipt, Receipts


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connected() -> dict[str, frozenset[str]]:
    return {"production": frozenset()}


@pytest.fixture
def receipts(connected, clock) -> Receipts:
    return Receipts(lambda environment: connected.get(environment, frozenset()), clock)


def test_nobody_there_is_told_at_once(receipts):
    assert receipts.wait("production", 5, 30.0) == Receipt()


def test_names_the_processes_that_have_not_confirmed(receipts, connected):
    connected["production"] = frozenset({"i-3", "i-1", "i-2"})
    receipts.applied("production", "i-1", 5)
    receipts.applied("production", "i-2", 4)
    receipts.applied("staging", "i-3", 9)
    assert receipts.wait("production", 5, 0.0) == Receipt(("i-2", "i-3"), (0.0,))


def test_a_later_sequence_confirms_as_well_and_an_older_report_takes_nothing_back(receipts):
    receipts.applied("production", "i-1", 7)
    receipts.applied("production", "i-1", 3)
    assert receipts.wait("production", 5, 0.0).confirmed == 1


def test_a_wait_ends_with_the_last_confirmation_and_says_how_long_it_took(
    receipts, connected, clock
):
    connected["production"] = frozenset({"i-1", "i-2"})
    results = []
    is_waiting = threading.Event()

    def look(environment: str) -> frozenset[str]:
        is_waiting.set()  # called with the lock held, which the wait then gives up
        return connected[environment]

    receipts._connected = look
    waiter = threading.Thread(
        target=lambda: results.append(receipts.wait("production", 5, 30.0)), daemon=True
    )
    waiter.start()
    assert is_waiting.wait(10.0)
    clock.now += 0.010
    receipts.applied("production", "i-1", 5)
    clock.now += 0.015
    receipts.applied("production", "i-2", 6)
    waiter.join(10.0)
    assert not waiter.is_alive()
    assert (results[0].processes, results[0].confirmed, results[0].unconfirmed) == (2, 2, ())
    assert results[0].last_confirmed_after_ms == pytest.approx(25.0)


def test_tells_when_half_and_all_of_the_processes_had_confirmed(receipts, connected, clock):
    connected["production"] = frozenset({"i-1", "i-2", "i-3"})
    for name in ("i-3", "i-1"):
        clock.now += 0.010
        receipts.applied("production", name, 5)
    clock.now += 0.010
    receipt = receipts.wait("production", 5, 0.0)
    assert receipt.reached_after_ms(50) == pytest.approx(-10.0)
    assert receipt.reached_after_ms(100) is None
    assert receipt.last_confirmed_after_ms == 0.0
    receipts.applied("production", "i-2", 5)
    assert receipts.wait("production", 5, 0.0).reached_after_ms(99) == pytest.approx(0.0)
    assert Receipt().reached_after_ms(100) is None


def test_close_releases_those_who_wait(receipts, connected):
    connected["production"] = frozenset({"i-1"})
    results = []
    waiter = threading.Thread(
        target=lambda: results.append(receipts.wait("production", 5, 30.0)), daemon=True
    )
    waiter.start()
    receipts.close()
    waiter.join(10.0)
    assert results == [Receipt(unconfirmed=("i-1",))]


def test_a_process_without_a_stream_counts_until_it_was_silent_for_a_minute(receipts, clock):
    receipts.applied("production", "i-1", 5)
    clock.now += FORGET_AFTER_S
    assert receipts.processes("production") == 1
    clock.now += 1
    assert receipts.processes("production") == 0


def test_processes_are_counted_once_a_second_at_most(receipts, connected, clock):
    assert receipts.processes("production") == 0
    connected["production"] = frozenset({"i-1"})
    assert receipts.processes("production") == 0
    clock.now += 1.0
    assert receipts.processes("production") == 1


def test_a_connected_process_is_never_forgotten(receipts, connected, clock):
    connected["production"] = frozenset({"i-1"})
    receipts.applied("production", "i-1", 5)
    receipts.applied("production", "i-2", 5)
    clock.now += 10 * FORGET_AFTER_S
    receipts.applied("staging", "i-9", 1)  # any word prunes
    assert receipts.wait("production", 5, 0.0).confirmed == 1
    assert set(receipts._environments["production"]) == {"i-1"}


def test_an_environment_of_which_nobody_is_left_is_forgotten(receipts, clock):
    receipts.applied("staging", "i-1", 5)
    clock.now += FORGET_AFTER_S + 1
    receipts.applied("production", "i-1", 5)
    assert set(receipts._environments) == {"production"}


def test_the_number_of_instances_is_bounded_and_the_most_silent_goes_first(receipts):
    for number in range(MAX_INSTANCES):
        receipts.applied("production", f"i-{number}", 1)
    receipts.applied("production", "i-0", 1)  # heard of again: i-1 is the most silent now
    receipts.applied("production", "one-more", 1)
    instances = receipts._environments["production"]
    assert len(instances) == MAX_INSTANCES
    assert "i-0" in instances
    assert "i-1" not in instances
