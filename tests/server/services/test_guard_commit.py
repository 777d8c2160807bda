"""A decision and what follows from it are one transaction: both are there, once, or neither is."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from flagd_server.errors import StorageUnavailableError
from flagd_server.storage.base import Transaction
from flagd_server.storage.postgres_transaction import PostgresTransaction
from flagd_server.storage.sqlite_transaction import SqliteTransaction
from tests.server.services.guarded_world import ENVIRONMENT, World, cell

pytestmark = pytest.mark.both_databases

TRANSACTIONS = (SqliteTransaction, PostgresTransaction)
BAD = "error:PaymentError"
WRITES = ["append_guard_event", "insert_evidence", "write_configuration", "put_instances"]


def before_the_decision(world: World, version: int) -> None:
    for sequence in range(1, 4):
        on = cell("on", version, exposures=5, failing={BAD: [sequence]})
        world.report(sequence, [on, cell("off", version, exposures=15)])
    assert not world.is_killed()


def the_decisive_one(world: World, version: int) -> None:
    failing = {BAD: list(range(100, 120))}
    world.report(4, [cell("on", version, failing=failing), cell("off", version, exposures=60)])


def nothing_happened(world: World) -> None:
    assert not world.is_killed()
    assert world.evidence() == []
    assert world.decisions == []


def one_kill_and_one_report(world: World) -> None:
    (evidence,) = world.evidence()
    assert evidence["action"] == "kill"
    kill = world.configurations.get(ENVIRONMENT, "new-checkout").configuration.kill
    assert kill is not None
    assert kill.evidence == evidence["id"]
    with world.storage.read() as reader:
        history = [
            reader.configuration_version(ENVIRONMENT, "new-checkout", n) for n in range(1, 9)
        ]
    assert [row.action for row in history if row is not None].count("kill") == 1


def failing_before(name: str) -> Callable[..., object]:
    def fail(*arguments: object, **named: object) -> object:
        raise StorageUnavailableError(f"the disk went away before {name}")

    return fail


def failing_after(original: Callable[..., object]) -> Callable[..., object]:
    def fail(*arguments: object, **named: object) -> object:
        original(*arguments, **named)
        raise StorageUnavailableError("the disk went away just after")

    return fail


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_killed_between_decision_and_commit_it_decides_again_after_the_restart_and_once(
    database: str, monkeypatch: pytest.MonkeyPatch, write: str, is_after: bool
) -> None:
    first = World(database)
    version = first.release()
    before_the_decision(first, version)
    with monkeypatch.context() as broken:
        for transactions in TRANSACTIONS:
            original = getattr(transactions, write)
            fail = failing_after(original) if is_after else failing_before(write)
            broken.setattr(transactions, write, fail)
        with pytest.raises(StorageUnavailableError, match="the disk went away"):
            the_decisive_one(first, version)
        nothing_happened(first)
    first.close()
    with closing(World(database, first.clock)) as second:
        nothing_happened(second)
        the_decisive_one(second, version)
        one_kill_and_one_report(second)
        the_decisive_one(second, version)
        one_kill_and_one_report(second)


def test_a_commit_that_fails_leaves_nothing_and_the_same_server_decides_when_it_is_sent_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(World(database)) as world:
        version = world.release()
        before_the_decision(world, version)
        events = len(world.hub.events)
        transaction = world.storage.transaction

        @contextmanager
        def fails_at_its_end() -> Iterator[Transaction]:
            with transaction() as tx:
                yield tx
                raise StorageUnavailableError("the power went away at the commit")

        with monkeypatch.context() as broken:
            broken.setattr(world.storage, "transaction", fails_at_its_end)
            with pytest.raises(StorageUnavailableError, match="the power went away"):
                the_decisive_one(world, version)
        nothing_happened(world)
        assert len(world.hub.events) == events, "no process hears of a kill that is not durable"
        the_decisive_one(world, version)
        one_kill_and_one_report(world)


def test_committed_but_never_answered_it_is_not_decided_again(database: str) -> None:
    """Killed after the commit: the process sends its summary again to the server that restarts."""
    first = World(database)
    version = first.release()
    before_the_decision(first, version)
    the_decisive_one(first, version)
    first.close()
    with closing(World(database, first.clock)) as second:
        the_decisive_one(second, version)
        one_kill_and_one_report(second)
        late = cell("on", version, failing={BAD: list(range(500, 520))})
        second.report(5, [late, cell("off", version, exposures=60)])
        one_kill_and_one_report(second)


def test_a_brake_that_was_not_committed_is_not_engaged(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(World(database)) as world:
        version = world.release()
        before_the_decision(world, version)
        with monkeypatch.context() as broken:
            broken.setattr("flagd_server.services.acting.INTERVENTIONS_A_MINUTE", 0)
            for transactions in TRANSACTIONS:
                broken.setattr(transactions, "insert_evidence", failing_before("insert_evidence"))
            with pytest.raises(StorageUnavailableError):
                the_decisive_one(world, version)
        assert world.brakes.get(ENVIRONMENT) == (None, [])
        the_decisive_one(world, version)
        one_kill_and_one_report(world)
