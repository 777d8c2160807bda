"""Environments."""

import pytest

from flagd_server.errors import ConflictError, NotFoundError
from tests.server.services.admin_world import FLAG, IN_NL, AdminWorld


def test_a_new_environment_has_every_flag_disabled(world: AdminWorld) -> None:
    world.create()
    world.create("old")
    world.flags.update("old", {"archived": True}, actor="ann")
    created = world.environments.create("qa", "Quality", actor="bob")
    assert (created.key, created.name, len(created.unit_key)) == ("qa", "Quality", 16)
    assert created == world.environments.get("qa")
    flag_set = world.flag_set("qa")
    assert list(flag_set["flags"]) == [FLAG]
    assert flag_set["flags"][FLAG]["enabled"] is False
    assert flag_set["unit_key"] == created.unit_key.hex()
    assert flag_set["sequence"] == created.sequence >= world.clock.now_ms()
    assert world.configurations.get("qa", "old").version == 1
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.environment, entry.actor) == ("environment.create", "qa", "bob")


def test_who_comes_back_to_an_environment_made_anew_gets_all_of_it(world: AdminWorld) -> None:
    """The hub may still hold events of the old one, and would replay those since."""
    world.create()
    world.environments.create("qa", actor="bob")
    world.segments.put("qa", "beta", IN_NL, actor="ann")
    world.environments.delete("qa", actor="ann")
    world.events("qa")
    world.environments.create("qa", actor="bob")
    assert world.events("qa")[-1] == ("flags", world.flag_set("qa"))


def test_unit_keys_are_of_one_environment_each(world: AdminWorld) -> None:
    keys = {environment.unit_key for environment in world.environments.list()}
    assert len(keys) == 3


def test_a_key_is_taken_once(world: AdminWorld) -> None:
    before = world.state()
    with pytest.raises(ConflictError, match="production"):
        world.environments.create("production", actor="ann")
    assert world.state() == before


def test_renaming_is_for_people_only(world: AdminWorld) -> None:
    before = world.flag_set()
    assert world.environments.rename("production", "Live", actor="ann").name == "Live"
    assert world.flag_set() == before
    detail = world.audit.list(1).items[0].detail
    assert detail == {"before": "Production", "after": "Live"}
    state = world.state()
    world.environments.rename("production", "Live", actor="ann")
    assert world.state() == state


def test_an_environment_that_an_application_may_use_is_not_deleted(world: AdminWorld) -> None:
    before = world.state()
    with pytest.raises(ConflictError, match="tok-"):
        world.environments.delete("staging", actor="ann")
    assert world.state() == before


def test_a_deleted_environment_is_gone_and_its_key_free(world: AdminWorld) -> None:
    world.create()
    world.segments.put("staging", "beta", IN_NL, actor="ann")
    for token in world.tokens.list():
        if token.environment == "staging":
            world.tokens.revoke(token.id, actor="ann")
    old = world.flag_set("staging")
    world.environments.delete("staging", actor="ann")
    assert [environment.key for environment in world.environments.list()] == [
        "development",
        "production",
    ]
    with pytest.raises(NotFoundError):
        world.snapshots.current("staging")
    with pytest.raises(NotFoundError):
        world.environments.delete("staging", actor="ann")
    assert list(world.flags.get(FLAG).configurations) == ["development", "production"]

    world.environments.create("staging", actor="ann")
    new = world.flag_set("staging")
    assert new["unit_key"] != old["unit_key"]
    assert (new["segments"], list(new["flags"])) == ({}, [FLAG])
