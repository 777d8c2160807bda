"""The kill switch: off is easy, on has ceremony."""

from typing import Any

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.restart import FixedIn, Restore
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
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
    restored = world.kills.restore(PRODUCTION, FLAG, Restore(killed.kill.id, "fixed"), actor="bob")
    assert (restored.version, restored.action, restored.comment) == (4, "restore", "fixed")
    assert restored.configuration == before.configuration
    assert world.events()[0][1]["flag"]["kill"] is None
    assert world.audit.list(1).items[0].detail == {
        "kill": killed.kill.id,
        "fixed_in": None,
        "keep": False,
        "percent": 1.0,
        "leave_out_exposed": False,
    }


def test_restoring_another_kill_or_none_is_refused(world: AdminWorld) -> None:
    with pytest.raises(ConflictError, match="is not killed"):
        world.kills.restore(PRODUCTION, FLAG, Restore("kill-0", "fixed"), actor="bob")
    killed = kill(world)
    before = world.state()
    with pytest.raises(ConflictError, match=killed.kill.id):
        world.kills.restore(PRODUCTION, FLAG, Restore("kill-0", "fixed"), actor="bob")
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


def test_lifting_a_kill_asks_why_and_names_all_that_is_wrong(world: AdminWorld) -> None:
    killed = kill(world)
    before = world.state()
    wrong = Restore(killed.kill.id, " ", start_percent=5.0, keep=True)
    with pytest.raises(InvalidError) as caught:
        world.kills.restore(PRODUCTION, FLAG, wrong, actor="bob")
    assert [fault.field for fault in caught.value.faults] == ["reason", "start_percent"]
    assert world.state() == before
    fixed = Restore(killed.kill.id, fixed_in=FixedIn("shop", "v42"))
    restored = world.kills.restore(PRODUCTION, FLAG, fixed, actor="bob")
    assert restored.comment == "fixed in version v42 of shop"
    assert world.audit.list(1).items[0].detail["fixed_in"] == {"service": "shop", "version": "v42"}


def test_a_kill_and_its_restore_are_told_once_they_are_durable(world: AdminWorld) -> None:
    told = world.told
    killed = kill(world)
    kill(world)
    world.kills.restore(PRODUCTION, FLAG, Restore(killed.kill.id, "fixed"), actor="bob")
    assert [(each.kind, each.by) for each in told] == [("kill", "ann"), ("restore", "bob")]

    def kill_and_fail() -> None:
        with world.storage.transaction() as tx:
            alert = KillSource.ALERT
            world.kills.kill_in(tx, PRODUCTION, FLAG, source=alert, reason="x", actor="alert")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        kill_and_fail()
    assert len(told) == 2


def split(world: AdminWorld) -> dict[str, Any]:
    found: dict[str, Any] = world.configurations.get(PRODUCTION, FLAG).configuration.default_serve[
        "split"
    ]
    return found


def ramp(world: AdminWorld, share: int) -> None:
    weights = {"on": share, "off": 100_000 - share}
    world.patch(default_serve={"split": {"weights": weights}})


def lift(world: AdminWorld, **how: Any) -> None:
    standing = world.configurations.get(PRODUCTION, FLAG).configuration.kill
    assert standing is not None
    world.kills.restore(PRODUCTION, FLAG, Restore(standing.id, "fixed", **how), actor="bob")


@pytest.mark.parametrize(
    ("had", "how", "expected"),
    [
        (25_000, {}, 1_000),
        (500, {}, 500),
        (25_000, {"start_percent": 5.0}, 5_000),
        (2_000, {"start_percent": 5.0}, 2_000),
        (25_000, {"keep": True}, 25_000),
    ],
    ids=str,
)
def test_it_starts_small_with_the_same_users(
    world: AdminWorld, had: int, how: dict[str, Any], expected: int
) -> None:
    ramp(world, had)
    kill(world)
    lift(world, **how)
    assert split(world)["allocation"] == [[expected, "on"], [100_000, "off"]]
    ramp(world, had)
    assert split(world)["allocation"] == [[had, "on"], [100_000, "off"]]


def test_those_who_met_the_fault_come_last(world: AdminWorld) -> None:
    ramp(world, 25_000)
    kill(world)
    world.patch(comment="edited while it is off")
    lift(world, leave_out_exposed=True)
    assert split(world)["rested"] == [[0, 25_000]]
    off = [25_000, "off"]
    assert split(world)["allocation"] == [off, [26_000, "on"], [100_000, "off"]]
    ramp(world, 50_000)
    assert split(world)["allocation"] == [off, [75_000, "on"], [100_000, "off"]]
    ramp(world, 80_000)
    assert split(world)["allocation"] == [[5_000, "on"], off, [100_000, "on"]]


def test_a_second_fault_adds_those_who_met_it(world: AdminWorld) -> None:
    ramp(world, 10_000)
    kill(world)
    lift(world, leave_out_exposed=True)
    ramp(world, 5_000)
    kill(world)
    lift(world, leave_out_exposed=True)
    assert split(world)["rested"] == [[0, 15_000]]
    assert split(world)["allocation"] == [[15_000, "off"], [16_000, "on"], [100_000, "off"]]


def test_a_flag_that_everybody_had_becomes_a_split_where_a_start_is_named(
    world: AdminWorld,
) -> None:
    kill(world)
    lift(world, start_percent=5.0)
    assert split(world)["allocation"] == [[5_000, "on"], [100_000, "off"]]
