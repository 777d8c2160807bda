"""Segments: conditions that the flags of one environment share."""

import pytest

from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.storage.records import Segment
from tests.server.services.admin_world import FLAG, IN_NL, PRODUCTION, AdminWorld, rule

IN_BE = {"attribute": "country", "op": "in", "values": ["BE"]}


def put(
    world: AdminWorld, key: str, condition: dict[str, object], description: str = ""
) -> Segment:
    return world.segments.put(PRODUCTION, key, condition, description, actor="ann")


def test_a_segment_is_announced_with_the_whole_set(world: AdminWorld) -> None:
    world.create()
    world.events()
    created = put(world, "beta", IN_NL, "people")
    assert (created.version, created.description) == (1, "people")
    (event,) = world.events()
    assert event == ("flags", world.flag_set())
    assert event[1]["segments"] == {"beta": IN_NL}
    assert event[1]["flags"][FLAG]["version"] == 1
    assert world.segments.get(PRODUCTION, "beta") == created
    assert world.segments.list(PRODUCTION) == [created]
    assert world.segments.list("staging") == []
    entry = world.audit.list(1).items[0]
    assert (entry.action, entry.target) == (
        "segment.create",
        "environments/production/segments/beta",
    )


def test_a_segment_is_replaced_whole_and_keeps_its_past_in_the_audit(world: AdminWorld) -> None:
    put(world, "beta", IN_NL, "people")
    assert put(world, "beta", IN_BE).version == 2
    assert world.segments.get(PRODUCTION, "beta").description == ""
    entry = world.audit.list(1).items[0]
    assert (entry.before_version, entry.after_version) == (1, 2)
    assert entry.detail == {"before": IN_NL, "after": IN_BE}


def test_the_same_again_changes_nothing(world: AdminWorld) -> None:
    put(world, "beta", IN_NL)
    before = world.state()
    assert put(world, "beta", dict(IN_NL)).version == 1
    assert world.state() == before


def test_a_segment_that_does_not_hold_is_refused_with_every_fault(world: AdminWorld) -> None:
    put(world, "beta", IN_NL)
    before = world.state()
    with pytest.raises(InvalidError) as caught:
        put(world, "beta", {"all": [{"segment": "beta"}, {"segment": "nobody"}]})
    assert all(fault.field.startswith("condition") for fault in caught.value.faults)
    assert "nobody" in str(caught.value)
    assert world.state() == before


def test_a_segment_may_not_break_a_flag_that_uses_it(world: AdminWorld) -> None:
    world.create("a")
    world.create("b")
    put(world, "beta", IN_NL)
    world.patch("a", rules=[rule({"segment": "beta"})])
    world.require("b", "a")
    before = world.state()
    with pytest.raises(InvalidError) as caught:
        put(world, "beta", {"flag": "b", "variants": ["on"]})
    assert {fault.field.partition(":")[0].partition(".")[0] for fault in caught.value.faults} == {
        "condition"
    }
    assert world.state() == before


def test_a_segment_in_use_is_not_deleted(world: AdminWorld) -> None:
    world.create()
    put(world, "beta", IN_NL)
    put(world, "outer", {"not": {"segment": "beta"}})
    world.patch(rules=[rule({"segment": "outer"})])
    before = world.state()
    for key, user in (("beta", "segment 'outer'"), ("outer", f"flag '{FLAG}'")):
        with pytest.raises(ConflictError, match=user):
            world.segments.delete(PRODUCTION, key, actor="ann")
    world.flags.update(FLAG, {"archived": True}, actor="ann")
    with pytest.raises(ConflictError, match=f"flag '{FLAG}'"):
        world.segments.delete(PRODUCTION, "outer", actor="ann")
    world.flags.update(FLAG, {"archived": False}, actor="ann")
    assert world.state()["segments"] == before["segments"]


def test_a_deleted_segment_is_announced(world: AdminWorld) -> None:
    put(world, "beta", IN_NL)
    world.events()
    world.segments.delete(PRODUCTION, "beta", actor="ann")
    (event,) = world.events()
    assert event == ("flags", world.flag_set())
    assert event[1]["segments"] == {}
    assert world.audit.list(1).items[0].detail == {"before": IN_NL, "after": None}


def test_what_is_missing_is_named(world: AdminWorld) -> None:
    for call in (
        lambda: world.segments.list("x"),
        lambda: world.segments.get("x", "beta"),
        lambda: world.segments.put("x", "beta", IN_NL, actor="ann"),
        lambda: world.segments.delete("x", "beta", actor="ann"),
    ):
        with pytest.raises(NotFoundError, match="environment 'x'"):
            call()
    with pytest.raises(NotFoundError, match="segment 'beta'"):
        world.segments.get(PRODUCTION, "beta")
    with pytest.raises(NotFoundError, match="segment 'beta'"):
        world.segments.delete(PRODUCTION, "beta", actor="ann")
