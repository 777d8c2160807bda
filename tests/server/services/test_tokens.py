"""Tokens."""

import re
from pathlib import Path
from threading import Event

import pytest

from flagd_server.errors import InvalidError, NotFoundError, StorageUnavailableError
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from tests.contract.storage_samples import run_together
from tests.server.services.admin_world import PRODUCTION, AdminWorld


def test_a_token_names_what_it_opens_and_is_nowhere_stored(
    world: AdminWorld, tmp_path: Path
) -> None:
    sdk = world.tokens.create("sdk", "shop", PRODUCTION, "client", actor="ann")
    admin = world.tokens.create("admin", "ops", actor="ann")
    assert re.fullmatch(r"fr_sdk_production_[A-Za-z0-9]{43}", sdk.text)
    assert re.fullmatch(r"fr_admin_[A-Za-z0-9]{43}", admin.text)
    assert (sdk.token.prefix, sdk.token.kind) == ("fr_sdk_production", "client")
    assert world.tokens.list()[-2:] == [sdk.token, admin.token]
    world.storage.close()
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert sdk.token.id.encode() in content
    for text in (sdk.text, admin.text):
        assert text.rpartition("_")[2].encode() not in content


def test_a_token_is_known_by_its_text_alone(world: AdminWorld) -> None:
    created = world.tokens.create("read", "ops", actor="ann")
    assert world.tokens.authenticate(created.text) == created.token
    for text in ("", created.token.prefix, created.text[:-1], created.text + "a", "\udcff\0ä"):
        assert world.tokens.authenticate(text) is None


def test_a_revoked_token_opens_nothing_from_the_next_request_on(world: AdminWorld) -> None:
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    assert world.tokens.authenticate(created.text) is not None
    revoked = world.tokens.revoke(created.token.id, actor="bob")
    assert revoked.revoked_at == world.clock.now()
    assert world.revoked == [created.token.id]
    assert world.tokens.authenticate(created.text) is None
    before = world.state()
    assert world.tokens.revoke(created.token.id, actor="bob") == revoked
    assert world.state() == before


def revoke_from_outside(world: AdminWorld, path: Path, token_id: str) -> None:
    storage = open_storage(str(path))
    Tokens(storage, world.clock).revoke(token_id, actor="command line")
    storage.close()


def test_what_another_process_revokes_is_noticed_at_the_next_look(
    world: AdminWorld, tmp_path: Path
) -> None:
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    revoke_from_outside(world, tmp_path / "flagd.db", created.token.id)
    assert world.tokens.authenticate(created.text) == created.token
    assert world.revoked == []
    world.tokens.refresh()
    assert world.tokens.authenticate(created.text) is None
    assert world.revoked == [created.token.id], "its streams have to be cut"


def test_what_another_process_creates_opens_at_once(world: AdminWorld, tmp_path: Path) -> None:
    world.tokens.refresh()
    storage = open_storage(str(tmp_path / "flagd.db"))
    other = Tokens(storage, world.clock).create("admin", "ops", actor="command line")
    storage.close()
    assert world.tokens.authenticate(other.text) == other.token


def test_who_watches_looks_without_being_asked_and_goes_on_after_a_failure(
    world: AdminWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    is_revoked, has_failed = Event(), Event()
    tokens = Tokens(world.storage, world.clock, lambda token_id: is_revoked.set())
    assert tokens.authenticate(created.text) is not None
    read = world.storage.token_generation

    def fail_once() -> int:
        if not has_failed.is_set():
            has_failed.set()
            raise StorageUnavailableError("the disk is away")
        return read()

    monkeypatch.setattr(world.storage, "token_generation", fail_once)
    tokens.watch()
    assert has_failed.wait(10)
    revoke_from_outside(world, tmp_path / "flagd.db", created.token.id)
    assert is_revoked.wait(10)
    assert tokens.authenticate(created.text) is None
    tokens.close()
    tokens.close()


def test_a_known_token_costs_no_read_and_an_unknown_one_a_look(
    world: AdminWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = world.tokens.create("read", "ops", actor="ann")

    def refuse() -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(world.storage, "read", refuse)
    assert world.tokens.authenticate("unknown") is None
    monkeypatch.setattr(world.storage, "token_generation", refuse)
    assert world.tokens.authenticate(created.text) is not None


def test_threads_that_check_while_tokens_change_never_see_a_wrong_one(world: AdminWorld) -> None:
    kept = world.tokens.create("read", "kept", actor="ann")
    gone = world.tokens.create("read", "gone", actor="ann")
    world.tokens.revoke(gone.token.id, actor="ann")

    def check() -> None:
        for n in range(20):
            assert world.tokens.authenticate(kept.text) == kept.token
            assert world.tokens.authenticate(gone.text) is None
            world.tokens.create("read", f"{n}", actor="ann")

    run_together(check, 3)


def test_creating_and_revoking_are_audited_without_the_secret(world: AdminWorld) -> None:
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    world.tokens.revoke(created.token.id, actor="bob")
    revoked, made = world.audit.list(2).items
    assert (made.action, made.actor, made.target) == (
        "token.create",
        "ann",
        f"tokens/{created.token.id}",
    )
    assert (revoked.action, revoked.actor, revoked.environment) == (
        "token.revoke",
        "bob",
        PRODUCTION,
    )
    assert made.detail == {"name": "shop", "scope": "sdk", "kind": "server"}


@pytest.mark.parametrize(
    ("scope", "environment", "kind", "fields"),
    [
        ("sdk", None, "server", ["environment"]),
        ("sdk", "nowhere", "server", ["environment"]),
        ("admin", PRODUCTION, "server", ["environment"]),
        ("root", None, "robot", ["scope", "kind"]),
        ("sdk", "nowhere", "robot", ["kind", "environment"]),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(
    world: AdminWorld, scope: str, environment: str | None, kind: str, fields: list[str]
) -> None:
    before = world.state()
    with pytest.raises(InvalidError) as caught:
        world.tokens.create(scope, "x", environment, kind, actor="ann")
    assert [fault.field for fault in caught.value.faults] == fields
    assert world.state() == before


def test_an_unknown_token_can_not_be_revoked(world: AdminWorld) -> None:
    with pytest.raises(NotFoundError, match="token 'tok-0'"):
        world.tokens.revoke("tok-0", actor="ann")
