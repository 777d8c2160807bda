"""Flags: what is the same in every environment."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flagd_server.errors import ConflictError, InvalidError, NotFoundError, VersionConflictError
from flagd_server.services.flags import NewFlag
from tests.server.services.admin_world import (
    BOOLEAN,
    FLAG,
    IN_NL,
    PRODUCTION,
    AdminWorld,
    rule,
)

ENVIRONMENTS = ["development", "production", "staging"]


def update(world: AdminWorld, flag: str = FLAG, **changes: Any) -> Any:
    return world.flags.update(flag, changes, actor="bob", comment="because")


def test_a_new_flag_is_off_in_every_environment(world: AdminWorld) -> None:
    world.create(description="d", owner="o", tags=["t"])
    found = world.flags.get(FLAG)
    assert list(found.configurations) == ENVIRONMENTS
    for environment, version in found.configurations.items():
        assert (version.version, version.action) == (1, "create")
        assert version.configuration.enabled is False
        assert version.configuration.default_serve == {"variant": "off"}
        flag_set = world.flag_set(environment)
        (event,) = world.events(environment)
        assert event == (
            "flag",
            {
                "sequence": flag_set["sequence"],
                "key": FLAG,
                "flag": flag_set["flags"][FLAG],
            },
        )
    assert (found.flag.version, found.flag.tags, found.flag.lifetime) == (1, ("t",), "temporary")
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.flag, entry.actor) == ("flag.create", FLAG, "ann")
    assert world.flags.list() == [found.flag]


def test_the_off_variant_is_the_authors_choice(world: AdminWorld) -> None:
    world.create(type="string", variants={"a": "x", "b": "y"}, off_variant="a")
    assert world.configurations.get("staging", FLAG).configuration.off_variant == "a"


def test_a_key_is_taken_once_even_by_an_archived_flag(world: AdminWorld) -> None:
    world.create()
    with pytest.raises(ConflictError, match="there already"):
        world.create()
    update(world, archived=True)
    before = world.state()
    with pytest.raises(ConflictError, match="archived already"):
        world.create()
    assert world.state() == before


def test_every_fault_of_a_new_flag_is_named(world: AdminWorld) -> None:
    before = world.state()
    with pytest.raises(InvalidError) as caught:
        world.flags.create(
            NewFlag(
                key=FLAG,
                type="integer",
                variants={"one": "1", "two": 2},
                lifetime="permanent",
                expires_at=datetime(2027, 1, 1, tzinfo=UTC),
                off_variant="three",
            ),
            actor="ann",
        )
    fields = {fault.field.partition(".")[0] for fault in caught.value.faults}
    assert fields == {"variants", "expires_at", "off_variant"}
    assert world.state() == before


def test_describing_a_flag_is_no_change_that_sdks_see(world: AdminWorld) -> None:
    world.create()
    sets = [world.flag_set(environment) for environment in ENVIRONMENTS]
    world.hub.events.clear()
    changed = update(world, description="new", owner="bob", tags=["x", "y"])
    assert (changed.version, changed.description, changed.tags) == (2, "new", ("x", "y"))
    assert world.flags.get(FLAG).flag == changed
    assert [world.flag_set(environment) for environment in ENVIRONMENTS] == sets
    assert world.hub.events == []
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.before_version, entry.after_version) == ("flag.update", 1, 2)
    assert (entry.detail["before"]["owner"], entry.detail["after"]["owner"]) == ("", "bob")


def test_a_change_may_expect_a_version(world: AdminWorld) -> None:
    world.create()
    world.flags.update(FLAG, {"owner": "x"}, actor="bob", expected_version=1)
    with pytest.raises(VersionConflictError) as caught:
        world.flags.update(FLAG, {"owner": "y"}, actor="bob", expected_version=1)
    assert caught.value.current_version == 2


def test_what_changes_nothing_makes_no_version(world: AdminWorld) -> None:
    world.create(tags=["a"])
    before = world.state()
    update(world, tags=["a"], variants=dict(BOOLEAN), archived=False)
    assert world.state() == before


def test_key_and_type_are_for_life(world: AdminWorld) -> None:
    world.create()
    with pytest.raises(InvalidError) as caught:
        update(world, key="x", type="string", owner="y")
    assert [fault.field for fault in caught.value.faults] == ["key", "type"]


def test_a_permanent_flag_does_not_expire(world: AdminWorld) -> None:
    world.create(expires_at=datetime(2027, 1, 1, tzinfo=UTC))
    assert update(world, lifetime="permanent").expires_at is None
    with pytest.raises(InvalidError, match="expires_at"):
        update(world, expires_at=datetime(2027, 1, 1, tzinfo=UTC))


def test_new_variants_are_a_new_version_everywhere(world: AdminWorld) -> None:
    world.create()
    world.patch(enabled=True)
    for environment in ENVIRONMENTS:
        world.events(environment)
    variants = {**BOOLEAN, "also": True}
    update(world, variants=variants)
    for environment in ENVIRONMENTS:
        version = world.configurations.get(environment, FLAG)
        assert (version.action, version.variants) == ("variants", variants)
        assert version.version == (3 if environment == PRODUCTION else 2)
        (event,) = world.events(environment)
        assert event[1]["flag"]["variants"] == variants
        assert event[1]["flag"]["version"] == version.version
    assert world.configurations.history_version(PRODUCTION, FLAG, 2).variants == BOOLEAN


@pytest.mark.parametrize(
    "changes",
    [
        {"rules": [rule(IN_NL, variant="also")]},
        {"default_serve": {"split": {"weights": {"also": 0, "off": 100_000}}}},
        {"off_variant": "also"},
        {"guard": {"control": "also"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_variant_in_use_somewhere_is_not_removed(
    world: AdminWorld, changes: dict[str, Any]
) -> None:
    world.create(variants={**BOOLEAN, "also": True})
    world.patch(environment="staging", **changes)
    before = world.state()
    with pytest.raises(InvalidError, match="staging") as caught:
        update(world, variants=BOOLEAN)
    assert {fault.field for fault in caught.value.faults} == {"variants"}
    assert world.state() == before


def test_a_variant_that_another_flag_asks_for_is_not_removed(world: AdminWorld) -> None:
    world.create(variants={**BOOLEAN, "also": True})
    world.create("other")
    condition = {"flag": FLAG, "variants": ["also"]}
    world.patch("other", "development", rules=[rule(condition)])
    with pytest.raises(InvalidError, match="other"):
        update(world, variants=BOOLEAN)
    world.patch("other", "development", rules=[])
    assert update(world, variants=BOOLEAN).variants == BOOLEAN


def test_an_archived_flag_is_delivered_nowhere_and_comes_back_as_it_was(
    world: AdminWorld,
) -> None:
    world.create()
    world.patch(enabled=True)
    before = world.flag_set()["flags"]
    world.events()
    assert update(world, archived=True).archived
    assert world.flag_set()["flags"] == {}
    (event,) = world.events()
    assert (event[0], event[1]["key"], event[1]["flag"]) == ("flag", FLAG, None)
    assert world.audit.list(1).items[0].action == "flag.archive"

    update(world, archived=False)
    assert world.flag_set()["flags"] == before
    assert [event[1]["flag"] for event in world.events()] == [before[FLAG]]
    assert world.audit.list(1).items[0].action == "flag.bring_back"


def test_an_archived_flag_stays_undelivered_when_its_variants_change(world: AdminWorld) -> None:
    world.create()
    update(world, archived=True)
    world.events()
    update(world, variants={**BOOLEAN, "also": True})
    assert world.flag_set()["flags"] == {}
    assert [event[1]["flag"] for event in world.events()] == [None]


def test_a_prerequisite_is_not_archived(world: AdminWorld) -> None:
    world.create()
    world.create("other")
    world.require("other", FLAG, "staging")
    before = world.state()
    with pytest.raises(ConflictError, match=r"'staging' of other"):
        update(world, archived=True)
    assert world.state() == before
    update(world, "other", archived=True)
    assert update(world, archived=True).archived


def test_a_flag_that_no_longer_holds_does_not_come_back(world: AdminWorld) -> None:
    world.create(variants={**BOOLEAN, "also": True})
    world.create("other")
    world.patch("other", rules=[rule({"flag": FLAG, "variants": ["also"]})])
    update(world, "other", archived=True)
    update(world, variants=BOOLEAN)
    before = world.state()
    with pytest.raises(InvalidError) as caught:
        update(world, "other", archived=False)
    assert {fault.field for fault in caught.value.faults} == {"archived"}
    assert world.state() == before


def test_flags_are_listed_by_tag_and_state(world: AdminWorld) -> None:
    world.create("a", tags=["x"])
    world.create("b", tags=["x", "y"])
    update(world, "b", archived=True)
    assert [flag.key for flag in world.flags.list()] == ["a", "b"]
    assert [flag.key for flag in world.flags.list(tag="x", archived=False)] == ["a"]
    assert [flag.key for flag in world.flags.list(tag="y")] == ["b"]


def test_a_missing_flag_is_named(world: AdminWorld) -> None:
    with pytest.raises(NotFoundError, match="flag 'x'"):
        world.flags.get("x")
    with pytest.raises(NotFoundError, match="flag 'x'"):
        update(world, "x", owner="me")
