"""Tokens."""

import re
from pathlib import Path

import pytest

from flagd_server.errors import InvalidError, NotFoundError
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


def test_what_another_process_does_is_seen_at_the_next_request(
    world: AdminWorld, tmp_path: Path
) -> None:
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    assert world.tokens.authenticate(created.text) is not None
    storage = open_storage(str(tmp_path / "flagd.db"))
    command_line = Tokens(storage, world.clock)
    other = command_line.create("admin", "ops", actor="command line")
    assert world.tokens.authenticate(other.text) == other.token
    command_line.revoke(created.token.id, actor="command line")
    storage.close()
    assert world.revoked == []
    assert world.tokens.authenticate(created.text) is None
    assert world.revoked == [created.token.id], "its streams have to be cut"


def test_a_check_reads_tokens_only_after_one_changed(
    world: AdminWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = world.tokens.create("read", "ops", actor="ann")
    world.tokens.authenticate(created.text)

    def refuse() -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(world.storage, "read", refuse)
    assert world.tokens.authenticate(created.text) is not None
    assert world.tokens.authenticate("unknown") is None


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
