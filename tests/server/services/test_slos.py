"""Service level objectives: what each service of an environment is held to."""

import pytest

from flagd_server.errors import NotFoundError
from flagd_server.storage.records import Slo
from tests.server.services.admin_world import PRODUCTION, AdminWorld


def put(world: AdminWorld, availability: float, service: str = "shop") -> Slo:
    return world.slos.put(PRODUCTION, service, availability, actor="ann")


def test_an_objective_is_kept_audited_and_not_announced(world: AdminWorld) -> None:
    created = put(world, 0.999)
    assert (created.version, created.availability) == (1, 0.999)
    assert world.slos.get(PRODUCTION, "shop") == created
    assert world.slos.list(PRODUCTION) == [created]
    assert world.slos.list("staging") == []
    assert world.events() == []
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.target, entry.actor) == (
        "slo.create",
        "environments/production/slos/shop",
        "ann",
    )
    assert entry.environment == PRODUCTION
    assert entry.detail == {"before": None, "after": {"availability": 0.999}}


def test_an_objective_is_replaced_and_keeps_its_past_in_the_audit(world: AdminWorld) -> None:
    put(world, 0.99)
    assert put(world, 0.999).version == 2
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.before_version, entry.after_version) == ("slo.update", 1, 2)
    assert entry.detail == {"before": {"availability": 0.99}, "after": {"availability": 0.999}}


def test_the_same_again_changes_nothing(world: AdminWorld) -> None:
    put(world, 0.99)
    before = world.state()
    assert put(world, 0.99).version == 1
    assert world.state() == before


def test_an_objective_is_deleted_with_an_audit_entry(world: AdminWorld) -> None:
    put(world, 0.99)
    other = put(world, 0.9, "till")
    world.slos.delete(PRODUCTION, "shop", actor="bob")
    assert world.slos.list(PRODUCTION) == [other]
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.actor, entry.before_version) == ("slo.delete", "bob", 1)
    assert entry.detail == {"before": {"availability": 0.99}, "after": None}


def test_what_is_not_there_is_named_and_nothing_changes(world: AdminWorld) -> None:
    before = world.state()
    with pytest.raises(NotFoundError, match="shop"):
        world.slos.get(PRODUCTION, "shop")
    with pytest.raises(NotFoundError, match="shop"):
        world.slos.delete(PRODUCTION, "shop", actor="ann")
    for act in (
        lambda: world.slos.list("nowhere"),
        lambda: world.slos.get("nowhere", "shop"),
        lambda: world.slos.put("nowhere", "shop", 0.9, actor="ann"),
    ):
        with pytest.raises(NotFoundError, match="nowhere"):
            act()
    assert world.state() == before
