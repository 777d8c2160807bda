"""Service level objectives: what each service of an environment is held to."""

from typing import Any

import pytest

from flagd_server.domain.faults import Fault
from flagd_server.domain.objectives import LatencyObjective, PrometheusSource
from flagd_server.errors import InvalidError, NotFoundError
from flagd_server.services.slos import Slos
from flagd_server.storage.records import Slo
from tests.server.services.admin_world import PRODUCTION, AdminWorld


def content(availability: float) -> dict[str, Any]:
    return {"availability": availability, "latency": None, "window_days": 30, "source": None}


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
    assert entry.detail == {"before": None, "after": content(0.999)}


def test_an_objective_is_replaced_and_keeps_its_past_in_the_audit(world: AdminWorld) -> None:
    put(world, 0.99)
    assert put(world, 0.999).version == 2
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.before_version, entry.after_version) == ("slo.update", 1, 2)
    assert entry.detail == {"before": content(0.99), "after": content(0.999)}


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
    assert entry.detail == {"before": content(0.99), "after": None}


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


def test_a_latency_objective_and_a_source_are_kept_until_left_out(world: AdminWorld) -> None:
    source = PrometheusSource("http://prometheus:9090", "failing[$window]", "slow[$window]")
    created = world.slos.put(
        PRODUCTION,
        "shop",
        0.99,
        latency=LatencyObjective(0.3, 0.95),
        window_days=7,
        source=source,
        actor="ann",
    )
    assert world.slos.get(PRODUCTION, "shop") == created
    assert (created.latency, created.source) == (LatencyObjective(0.3, 0.95), source)
    replaced = put(world, 0.99)
    assert (replaced.version, replaced.latency, replaced.window_days) == (2, None, 30)
    assert world.slos.get(PRODUCTION, "shop").source is None


def test_a_source_that_can_not_be_asked_is_refused(world: AdminWorld) -> None:
    asked = []

    def check(urls: Any) -> list[Fault]:
        asked.append(dict(urls))
        return [Fault("source.url", "is private")]

    slos = Slos(world.storage, world.publisher, check_urls=check)
    before = world.state()
    source = PrometheusSource("http://10.0.0.1", "failing[$window]")
    with pytest.raises(InvalidError, match=r"source.url: is private"):
        slos.put(PRODUCTION, "shop", 0.99, source=source, actor="ann")
    assert asked == [{"source.url": "http://10.0.0.1"}]
    assert world.state() == before
