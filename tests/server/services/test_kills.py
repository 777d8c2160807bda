"""The kill switch: off is easy, on has ceremony."""

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.errors import ConflictError, NotFoundError
from flagd_server.services.kills import Killed
from flagd_server.storage.base import Transaction
from tests.contract.storage_samples import run_together
from tests.server.services.admin_world import BOOLEAN, FLAG, PRODUCTION, AdminWorld


def kill(world: AdminWorld, reason: str = "it burns") -> Killed:
    return world.kills.kill(
        PRODUCTION, FLAG, source=KillSource.OPERATOR, reason=reason, actor="ann"
    )


@pytest.fixture
def world(world: AdminWorld) -> AdminWorld:
    world.create()
    world.patch(enabled=True, default_serve={"variant": "on"})
    world.events()
    return world


def test_a_kill_is_a_version_an_audit_entry_and_an_event(world: AdminWorld) -> None:
    killed = kill(world)
    assert (killed.already, killed.version) == (False, 3)
    assert (killed.kill.by, killed.kill.reason, killed.kill.at) == (
        "ann",
        "it burns",
        world.clock.now(),
    )
    (event,) = world.events()
    assert event[0] == "flag"
    assert event[1]["sequence"] == killed.sequence == world.flag_set()["sequence"]
    delivered = event[1]["flag"]
    assert delivered == world.flag_set()["flags"][FLAG]
    assert delivered["kill"] == {
        "id": killed.kill.id,
        "at": "2026-11-23T12:00:00.000Z",
        "source": "operator",
        "reason": "it burns",
    }
    assert delivered["enabled"] is True, "the configuration is kept for the day it is restored"
    version = world.configurations.get(PRODUCTION, FLAG)
    assert (version.action, version.comment) == ("kill", "it burns")
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.actor, entry.after_version) == ("configuration.kill", "ann", 3)
    assert entry.detail["id"] == killed.kill.id


def test_a_second_kill_finds_the_first_and_changes_nothing(world: AdminWorld) -> None:
    first = kill(world)
    before = world.state()
    again = kill(world, "me too")
    assert again == Killed(first.kill, True, first.version, first.sequence)
    assert world.state() == before


def test_of_kills_at_once_one_is_the_kill(world: AdminWorld) -> None:
    found: list[Killed] = []
    run_together(lambda: found.append(kill(world)), 8)
    assert sum(not killed.already for killed in found) == 1
    assert len({killed.kill.id for killed in found}) == 1
    assert world.configurations.get(PRODUCTION, FLAG).version == 3


def test_a_kill_is_of_one_environment(world: AdminWorld) -> None:
    kill(world)
    assert world.configurations.get("staging", FLAG).configuration.kill is None


def test_a_kill_stays_through_changes_of_configuration_and_variants(world: AdminWorld) -> None:
    killed = kill(world)
    world.patch(enabled=True, default_serve={"variant": "off"}, rules=[])
    world.flags.update(FLAG, {"variants": {**BOOLEAN, "also": True}}, actor="bob")
    world.flags.update(FLAG, {"archived": True}, actor="bob")
    world.flags.update(FLAG, {"archived": False}, actor="bob")
    assert world.configurations.get(PRODUCTION, FLAG).configuration.kill == killed.kill
    assert world.flag_set()["flags"][FLAG]["kill"]["id"] == killed.kill.id


def test_restoring_names_the_kill_and_brings_back_the_configuration(world: AdminWorld) -> None:
    before = world.configurations.get(PRODUCTION, FLAG)
    killed = kill(world)
    world.events()
    restored = world.kills.restore(
        PRODUCTION, FLAG, kill_id=killed.kill.id, reason="fixed", actor="bob"
    )
    assert (restored.version, restored.action, restored.comment) == (4, "restore", "fixed")
    assert restored.configuration == before.configuration
    assert world.events()[0][1]["flag"]["kill"] is None
    assert world.audit.list(1).items[0].detail == {"kill": killed.kill.id}


def test_restoring_another_kill_or_none_is_refused(world: AdminWorld) -> None:
    with pytest.raises(ConflictError, match="is not killed"):
        world.kills.restore(PRODUCTION, FLAG, kill_id="kill-0", actor="bob")
    killed = kill(world)
    before = world.state()
    with pytest.raises(ConflictError, match=killed.kill.id):
        world.kills.restore(PRODUCTION, FLAG, kill_id="kill-0", actor="bob")
    assert world.state() == before


def test_what_is_not_delivered_can_not_be_killed(world: AdminWorld) -> None:
    with pytest.raises(NotFoundError) as caught:
        world.kills.kill("x", FLAG, source=KillSource.ALERT, reason="", actor="ann")
    assert caught.value.kind == "environment"
    world.flags.update(FLAG, {"archived": True}, actor="bob")
    with pytest.raises(NotFoundError) as caught:
        kill(world)
    assert caught.value.kind == "flag"


def test_a_kill_goes_with_the_transaction_in_which_it_was_decided(world: AdminWorld) -> None:
    def decide(tx: Transaction, evidence: str) -> Killed:
        tx.insert_evidence(evidence, PRODUCTION, FLAG, world.clock.now(), "{}")
        return world.kills.kill_in(
            tx,
            PRODUCTION,
            FLAG,
            source=KillSource.GUARD,
            reason="errors",
            actor="guard",
            evidence=evidence,
        )

    def decide_and_fail(tx: Transaction) -> None:
        decide(tx, "ev-1")
        raise OSError("disk full")

    before = world.state()
    with pytest.raises(OSError, match="disk full"), world.storage.transaction() as tx:
        decide_and_fail(tx)
    assert world.state() == before

    with world.storage.transaction() as tx:
        killed = decide(tx, "ev-2")
        assert world.hub.events == before["events"], "told before it is durable"
    assert killed.kill.evidence == "ev-2"
    with world.storage.read() as reader:
        assert [evidence.id for evidence in reader.list_evidence(PRODUCTION, FLAG)] == ["ev-2"]
    assert [event[1]["sequence"] for event in world.events()] == [killed.sequence]


def test_two_flags_killed_in_one_transaction_get_a_sequence_each(world: AdminWorld) -> None:
    world.create("other")
    world.events()
    with world.storage.transaction() as tx:
        killed = [
            world.kills.kill_in(
                tx, PRODUCTION, flag, source=KillSource.GUARD, reason="x", actor="guard"
            )
            for flag in (FLAG, "other")
        ]
    assert killed[1].sequence > killed[0].sequence
    events = world.events()
    assert [(data["key"], data["sequence"]) for _, data in events] == [
        (FLAG, killed[0].sequence),
        ("other", killed[1].sequence),
    ]
