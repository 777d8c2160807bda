"""The way of a change from its transaction to the streams of the server that made it."""

import json
from contextlib import AbstractContextManager

import pytest

from flagd_server.services.notices import Notices, Topic
from flagd_server.services.own_changes import OwnChanges
from flagd_server.storage.base import Reader
from tests.server.services.admin_world import FLAG, PRODUCTION, AdminWorld


def test_a_change_that_was_made_here_is_sent_without_a_read(
    world: AdminWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create()
    world.flag_set()
    version = world.configurations.get(PRODUCTION, FLAG).version

    def read() -> AbstractContextManager[Reader]:
        raise AssertionError("it was read")

    monkeypatch.setattr(world.storage, "read", read)
    world.configurations.patch(
        PRODUCTION, FLAG, {"enabled": True}, expected_version=version, actor="ann"
    )
    name, data = world.events()[-1]
    assert (name, data["flag"]["enabled"]) == ("flag", True)
    assert world.flag_set()["flags"][FLAG] == data["flag"]


def test_a_change_that_another_server_made_is_read_by_its_version(world: AdminWorld) -> None:
    world.create()
    world.flag_set()
    version = world.patch(enabled=True)
    (_, expected) = world.events()[-1]
    sequence = world.flag_set()["sequence"]
    world.patch(enabled=False)
    world.events()
    document = {"environment": PRODUCTION, "key": FLAG, "version": version.version, "own": "x"}
    world.notices.hear("flag", {**document, "sequence": sequence + 1_000})
    (name, data) = world.events()[-1]
    assert (name, data["flag"]) == ("flag", expected["flag"])
    world.notices.hear("flag", {**document, "sequence": sequence})
    assert world.events() == [], "what is older than what was sent is sent no more"


def test_a_flag_that_is_gone_when_it_is_read_has_the_environment_sent_whole(
    world: AdminWorld,
) -> None:
    world.create()
    held = world.flag_set()["sequence"]
    with world.storage.transaction() as tx:
        tx.set_sequence(PRODUCTION, held + 5)
    world.events()
    world.notices.hear(
        "flag",
        {
            "environment": PRODUCTION,
            "sequence": held + 5,
            "key": "gone",
            "version": 3,
            "own": "x",
        },
    )
    assert world.events() == [("flags", world.flag_set())]


def test_what_came_to_nothing_is_never_taken_for_what_was_made_later() -> None:
    own = OwnChanges()
    lost = own.keep(b"lost")
    kept = own.keep(None)
    assert own.take(kept) == (None,)
    assert own.take(kept) is None
    assert own.take(lost) == (b"lost",)
    assert OwnChanges().take(kept) is None


def test_one_who_fails_to_hear_keeps_nobody_else_from_it_and_it_is_told() -> None:
    heard: list[str] = []

    def fail(environment: str) -> None:
        raise KeyError(environment)

    notices = Notices()
    notices.on(Topic.OBJECTIVES, fail)
    notices.on(Topic.OBJECTIVES, lambda environment: heard.append(environment))
    with pytest.raises(KeyError):
        notices.hear("objectives", {"environment": PRODUCTION})
    assert heard == [PRODUCTION]
    notices.hear("of a newer server", {"x": 1})
    assert json.dumps(heard) == f'["{PRODUCTION}"]'
