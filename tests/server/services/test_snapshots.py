"""Flag sets in memory."""

import json
import threading

import pytest

from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.sse import Decoder
from flagd_server.errors import NotFoundError
from flagd_server.services.snapshots import Snapshots
from tests.contract.storage_samples import run_together
from tests.server.services.admin_world import FLAG, IN_NL, PRODUCTION, AdminWorld, rule


def test_a_snapshot_is_what_an_sdk_reads(world: AdminWorld) -> None:
    world.create()
    world.create("text", type="string", variants={"b": "Zürich\u2028\n", "a": ""})
    world.segments.put(PRODUCTION, "dutch", IN_NL, actor="ann")
    world.patch(enabled=True, rules=[rule({"segment": "dutch"})])
    snapshot = world.snapshots.current(PRODUCTION)
    flag_set = parse_flag_set(json.loads(snapshot.body))
    assert flag_set.faults == {}
    assert (flag_set.environment, flag_set.sequence) == (PRODUCTION, snapshot.sequence)
    assert flag_set.resolve(FLAG, {"country": "NL"}).value is True
    assert flag_set.resolve("text", {}).value == ""
    assert json.loads(snapshot.body)["flags"]["text"]["variants"]["b"] == "Zürich\u2028\n"
    assert snapshot.etag == f'"production-{snapshot.sequence}"'
    (event,) = Decoder(max_event_bytes=1 << 20).feed(snapshot.event)
    assert (event.event, event.id) == ("flags", str(snapshot.sequence))
    assert event.data.encode() == snapshot.body


def test_a_snapshot_is_joined_once_a_sequence(world: AdminWorld) -> None:
    world.create()
    first = world.snapshots.current(PRODUCTION)
    assert world.snapshots.current(PRODUCTION) is first
    world.patch(environment="staging", enabled=True)
    assert world.snapshots.current(PRODUCTION) is first
    world.patch(enabled=True)
    second = world.snapshots.current(PRODUCTION)
    assert second.sequence > first.sequence
    assert json.loads(first.body)["flags"][FLAG]["enabled"] is False


def test_what_is_kept_up_to_date_is_what_would_be_loaded(world: AdminWorld) -> None:
    for key in ("a", "b", "c"):
        world.create(key)
    assert world.flag_set()["segments"] == {}  # loaded now, and changed from here on
    world.patch("a", enabled=True)
    world.segments.put(PRODUCTION, "dutch", IN_NL, actor="ann")
    world.patch("b", rules=[rule({"segment": "dutch"})])
    world.flags.update("c", {"archived": True}, actor="ann")
    world.create("d")
    fresh = Snapshots(world.storage).current(PRODUCTION)
    assert world.flag_set() == json.loads(fresh.body)
    assert world.snapshots.current(PRODUCTION).etag == fresh.etag


def test_an_unknown_environment_is_named(world: AdminWorld) -> None:
    with pytest.raises(NotFoundError, match="environment 'x'"):
        world.snapshots.current("x")


def test_an_older_change_never_replaces_a_newer_one(world: AdminWorld) -> None:
    world.create()
    newest = world.snapshots.current(PRODUCTION)
    for sequence in (newest.sequence, newest.sequence - 1):
        world.snapshots.apply_flag(PRODUCTION, sequence, FLAG, None)
        world.snapshots.apply_segments(PRODUCTION, sequence, b'{"x":1}')
        assert world.snapshots.current(PRODUCTION) == newest
    world.snapshots.apply_segments(PRODUCTION, newest.sequence + 1, b'{"x":1}')
    changed = json.loads(world.snapshots.current(PRODUCTION).body)
    assert (list(changed["flags"]), changed["segments"]) == ([FLAG], {"x": 1})


def test_readers_see_sequences_rise_while_writers_write(world: AdminWorld) -> None:
    world.create()
    done = threading.Event()

    def write() -> None:
        try:
            for n in range(20):
                world.patch(enabled=n % 2 == 0)
                if n % 5 == 0:
                    world.snapshots.forget(PRODUCTION)  # as if nobody had asked yet
        finally:
            done.set()

    def read() -> None:
        last = 0
        while not done.is_set():
            snapshot = world.snapshots.current(PRODUCTION)
            document = json.loads(snapshot.body)
            assert document["sequence"] == snapshot.sequence >= last
            last = snapshot.sequence

    work = iter([write, read])
    run_together(lambda: next(work)(), 2)
    fresh = Snapshots(world.storage).current(PRODUCTION)
    assert world.snapshots.current(PRODUCTION) == fresh
