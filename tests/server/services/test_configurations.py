"""Changing a configuration, undoing changes, looking back."""

import threading

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.errors import ConflictError, InvalidError, NotFoundError, VersionConflictError
from flagd_server.services.configurations import Configurations
from flagd_server.storage.records import ConfigurationVersion
from tests.contract.storage_samples import run_together
from tests.server.services.admin_world import FLAG, IN_NL, PRODUCTION, AdminWorld, rule

SPLIT = {"split": {"weights": {"on": 25_000, "off": 75_000}}}


def versions(world: AdminWorld) -> list[ConfigurationVersion]:
    return list(world.configurations.history(PRODUCTION, FLAG, limit=200).items)


def test_a_change_is_a_version_an_audit_entry_a_sequence_and_an_event(world: AdminWorld) -> None:
    world.create()
    before = world.environments.get(PRODUCTION).sequence
    world.events()
    changed = world.patch(enabled=True, rules=[rule(IN_NL)], default_serve=SPLIT)

    assert (changed.version, changed.action, changed.actor) == (2, "update", "ann")
    assert world.configurations.get(PRODUCTION, FLAG) == changed
    assert versions(world)[0] == changed
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.target) == (
        "configuration.update",
        "flags/checkout/environments/production",
    )
    assert (entry.before_version, entry.after_version, entry.comment) == (1, 2, "because")
    sequence = world.environments.get(PRODUCTION).sequence
    assert sequence > before
    (event,) = world.events()
    flag = world.flag_set()["flags"][FLAG]
    assert event == ("flag", {"sequence": sequence, "key": FLAG, "flag": flag})
    assert flag["default_serve"]["split"]["allocation"] == [[25_000, "on"], [100_000, "off"]]
    assert flag["version"] == 2


def test_other_environments_stay_as_they_were(world: AdminWorld) -> None:
    world.create()
    before = world.flag_set("staging")
    world.events("staging")
    world.patch(enabled=True)
    assert world.flag_set("staging") == before
    assert world.events("staging") == []


def test_a_sequence_is_the_time_and_never_falls_back(world: AdminWorld) -> None:
    world.create()
    world.clock.forward(10)
    world.patch(enabled=True)
    first = world.environments.get(PRODUCTION).sequence
    assert first == world.clock.now_ms()
    world.clock.forward(-3600)
    world.patch(enabled=False)
    assert world.environments.get(PRODUCTION).sequence == first + 1


def test_what_changes_nothing_makes_no_version_and_is_announced_to_nobody(
    world: AdminWorld,
) -> None:
    world.create()
    world.patch(enabled=True, rules=[rule(IN_NL)], default_serve=SPLIT)
    before = world.state()
    again = world.patch(enabled=True, rules=[rule(IN_NL)], default_serve=SPLIT)
    assert again == world.configurations.get(PRODUCTION, FLAG)
    assert world.patch() == again
    assert world.state() == before


def test_a_stale_writer_is_told_the_current_version(world: AdminWorld) -> None:
    world.create()
    world.patch(enabled=True)
    before = world.state()
    for change in (
        lambda: world.configurations.patch(
            PRODUCTION, FLAG, {"enabled": False}, expected_version=1, actor="bob"
        ),
        lambda: world.configurations.rollback(PRODUCTION, FLAG, 1, expected_version=3, actor="bob"),
    ):
        with pytest.raises(VersionConflictError) as caught:
            change()
        assert caught.value.current_version == 2
    assert world.state() == before


def test_of_writers_with_the_same_version_exactly_one_wins(world: AdminWorld) -> None:
    world.create()
    writers, rounds = 6, 10
    won: list[int] = []
    lost: list[int] = []
    barrier = threading.Barrier(writers)

    def write() -> None:
        for seen in range(1, rounds + 1):
            barrier.wait(30)
            try:
                version = world.configurations.patch(
                    PRODUCTION,
                    FLAG,
                    {"enabled": bool(seen % 2)},
                    expected_version=seen,
                    actor=threading.current_thread().name,
                )
                won.append(version.version)
            except VersionConflictError as error:
                lost.append(error.current_version)

    run_together(write, writers)
    assert won == list(range(2, rounds + 2))
    assert len(lost) == (writers - 1) * rounds
    sequences = [sequence for env, sequence, _ in world.hub.events if env == PRODUCTION]
    assert sequences == sorted(set(sequences))
    assert world.flag_set()["sequence"] == sequences[-1]


def test_every_fault_is_named_and_nothing_is_changed(world: AdminWorld) -> None:
    world.create()
    before = world.state()
    with pytest.raises(InvalidError) as caught:
        world.patch(
            enabled=True,
            off_variant="gone",
            rules=[rule({"segment": "nobody"}), rule(IN_NL, "s", "lost")],
            default_serve={"split": {"weights": {"on": 1}}},
            guard={"control": "nothing"},
        )
    fields = {fault.field for fault in caught.value.faults}
    assert any(field.startswith("rules[0].condition") for field in fields)
    assert any(field.startswith("rules[1].serve") for field in fields)
    assert any(field.startswith("default_serve.split.weights") for field in fields)
    assert {"off_variant", "guard.control"} <= fields
    assert world.state() == before


def test_what_is_missing_is_named(world: AdminWorld) -> None:
    world.create()
    calls: list[tuple[str, str, str]] = [
        ("nowhere", FLAG, "environment"),
        (PRODUCTION, "x", "flag"),
    ]
    services: Configurations = world.configurations
    for environment, flag, kind in calls:
        for call in (
            lambda e=environment, f=flag: services.get(e, f),
            lambda e=environment, f=flag: services.patch(e, f, {}, expected_version=1, actor="a"),
            lambda e=environment, f=flag: services.history(e, f),
        ):
            with pytest.raises(NotFoundError) as caught:
                call()
            assert caught.value.kind == kind
    with pytest.raises(NotFoundError, match="version '9'"):
        services.history_version(PRODUCTION, FLAG, 9)
    with pytest.raises(NotFoundError, match="version '9'"):
        services.rollback(PRODUCTION, FLAG, 9, expected_version=1, actor="a")


def test_history_is_paged_newest_first(world: AdminWorld) -> None:
    world.create()
    for n in range(4):
        world.patch(enabled=n % 2 == 0)
    page = world.configurations.history(PRODUCTION, FLAG, limit=2)
    assert ([v.version for v in page.items], page.next) == ([5, 4], 4)
    page = world.configurations.history(PRODUCTION, FLAG, limit=2, before=4)
    assert ([v.version for v in page.items], page.next) == ([3, 2], 2)
    page = world.configurations.history(PRODUCTION, FLAG, limit=2, before=2)
    assert ([v.version for v in page.items], page.next) == ([1], None)
    assert world.configurations.history_version(PRODUCTION, FLAG, 1).action == "create"


def test_a_rollback_makes_a_new_version_of_the_old_content(world: AdminWorld) -> None:
    world.create()
    old = world.patch(enabled=True, rules=[rule(IN_NL)], default_serve=SPLIT)
    world.patch(rules=[], default_serve={"split": {"weights": {"on": 50_000, "off": 50_000}}})
    back = world.configurations.rollback(
        PRODUCTION, FLAG, old.version, expected_version=3, actor="bob", comment="back"
    )
    assert (back.version, back.action) == (4, "rollback")
    assert back.configuration == old.configuration
    assert world.audit.list(1).items[0].detail == {"to_version": 2}
    assert [version.version for version in versions(world)] == [4, 3, 2, 1]


def test_a_rollback_keeps_the_kill(world: AdminWorld) -> None:
    world.create()
    world.patch(enabled=True)
    killed = world.kills.kill(PRODUCTION, FLAG, source=KillSource.OPERATOR, reason="x", actor="ann")
    back = world.configurations.rollback(PRODUCTION, FLAG, 2, expected_version=3, actor="bob")
    assert back == world.configurations.get(PRODUCTION, FLAG)
    assert back.configuration.kill == killed.kill
    assert back.version == 3, "apart from the kill, version 2 is what there is"
    back = world.configurations.rollback(PRODUCTION, FLAG, 1, expected_version=3, actor="bob")
    assert (back.version, back.configuration.kill) == (4, killed.kill)


def test_a_rollback_is_held_to_what_there_is_today(world: AdminWorld) -> None:
    world.create()
    world.segments.put(PRODUCTION, "beta", IN_NL, actor="ann")
    world.patch(rules=[rule({"segment": "beta"})])
    world.patch(rules=[])
    world.segments.delete(PRODUCTION, "beta", actor="ann")
    before = world.state()
    with pytest.raises(InvalidError, match="beta"):
        world.configurations.rollback(PRODUCTION, FLAG, 2, expected_version=3, actor="bob")
    assert world.state() == before


def test_an_archived_flag_is_not_changed(world: AdminWorld) -> None:
    world.create()
    world.flags.update(FLAG, {"archived": True}, actor="ann")
    with pytest.raises(ConflictError, match="archived"):
        world.patch(enabled=True)


def test_a_prerequisite_cycle_is_refused(world: AdminWorld) -> None:
    for key in ("a", "b", "c"):
        world.create(key)
    world.require("a", "b")
    world.require("b", "c")
    before = world.state()
    with pytest.raises(InvalidError, match="leads back"):
        world.require("c", "a")
    assert world.state() == before
    # A cycle is one of an environment.
    world.require("c", "a", "staging")
