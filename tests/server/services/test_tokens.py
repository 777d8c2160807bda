"""Tokens."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest

from flagd_server.errors import InvalidError, NotFoundError, StorageUnavailableError
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from tests.contract.storage_samples import run_together
from tests.server.services.admin_world import PRODUCTION, AdminWorld


def test_a_token_names_what_it_opens_and_is_nowhere_stored(
    world: AdminWorld, database_kind: str, tmp_path: Path
) -> None:
    if database_kind != "sqlite":
        pytest.skip("looks into the bytes of an SQLite file")
    sdk = world.tokens.create("sdk", "shop", PRODUCTION, "client", actor="ann")
    admin = world.tokens.create("admin", "ops", actor="ann")
    assert re.fullmatch(r"fr_sdk_production_[A-Za-z0-9]{16}\.[A-Za-z0-9_-]{43}", sdk.text)
    assert re.fullmatch(r"fr_admin_[A-Za-z0-9]{16}\.[A-Za-z0-9_-]{43}", admin.text)
    assert (sdk.token.prefix, sdk.token.kind) == ("fr_sdk_production", "client")
    assert world.tokens.list()[-2:] == [sdk.token, admin.token]
    world.storage.close()
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert sdk.token.id.encode() in content
    for text in (sdk.text, admin.text):
        assert text.rpartition(".")[2].encode() not in content


def test_a_token_is_known_by_its_text_alone(world: AdminWorld) -> None:
    created = world.tokens.create("read", "ops", actor="ann")
    assert world.tokens.authenticate(created.text) == created.token
    for text in ("", created.token.prefix, created.text[:-1], created.text + "a", "\udcff\0ä"):
        assert world.tokens.authenticate(text) is None


def test_the_public_part_alone_or_with_another_secret_opens_nothing(world: AdminWorld) -> None:
    first = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    second = world.tokens.create("admin", "ops", actor="ann")
    public, _, secret = first.text.partition(".")
    of_second = second.text.partition(".")[2]
    for text in (
        public,
        f"{public}.",
        f"{public}.{of_second}",
        f"{public}.{secret}.",
        f"{public}.{secret}=",
        f"fr_admin_{public.rpartition('_')[2]}.{secret}",
        f"fr_sdk_staging_{public.rpartition('_')[2]}.{secret}",
        first.token.digest.hex(),
    ):
        assert world.tokens.authenticate(text) is None
    assert world.tokens.authenticate(first.text) == first.token


@pytest.mark.parametrize("secret", ["aB3" * 20, "s3cret" * 8])
def test_a_token_of_an_earlier_server_goes_on_working(
    world: AdminWorld, tmp_path: Path, secret: str
) -> None:
    text = f"fr_admin_{secret}"
    other = open_storage(str(tmp_path / "flagd.db"))
    with other.transaction() as tx:
        made = Tokens(other, world.clock).create_in(tx, "admin", "old", actor="ann", text=text)
    other.close()
    assert made.text == text
    assert made.token.selector is None
    assert made.token.digest == hashlib.sha256(text.encode()).digest()
    assert world.tokens.authenticate(text) == made.token
    assert world.tokens.authenticate(text[:-1]) is None
    assert world.tokens.authenticate(text + "a") is None
    world.tokens.revoke(made.token.id, actor="ann")
    assert world.tokens.authenticate(text) is None


def test_a_token_may_end_by_itself_and_its_streams_with_it(world: AdminWorld) -> None:
    at = world.clock.now() + timedelta(hours=1)
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann", expires_at=at)
    assert world.tokens.authenticate(created.text) == created.token
    assert world.tokens.expired_at(created.text) is None
    world.clock.forward(3_599)
    world.tokens.end_expired()
    assert world.tokens.alive(created.token.id) == created.token
    assert world.revoked == []
    world.clock.forward(1)
    assert world.tokens.authenticate(created.text) is None
    assert world.tokens.alive(created.token.id) is None
    assert world.tokens.expired_at(created.text) == at
    assert world.tokens.expired_at(created.text[:-1] + "_") is None, "only who knows it is told"
    world.tokens.end_expired()
    world.tokens.end_expired()
    assert world.revoked == [created.token.id]


def test_a_token_that_has_ended_already_is_refused(world: AdminWorld) -> None:
    with pytest.raises(InvalidError) as caught:
        world.tokens.create("read", "x", actor="ann", expires_at=world.clock.now())
    assert [fault.field for fault in caught.value.faults] == ["expires_at"]


def test_each_use_is_told_and_no_refusal(world: AdminWorld) -> None:
    used: list[str] = []
    tokens = Tokens(world.storage, world.clock, on_used=used.append)
    created = tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    tokens.authenticate(created.text)
    tokens.alive(created.token.id)
    tokens.authenticate(created.text + "x")
    tokens.expired_at(created.text)
    assert used == [created.token.id] * 2


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


def revoke_from_outside(world: AdminWorld, database: str, token_id: str) -> None:
    storage = open_storage(database)
    Tokens(storage, world.clock).revoke(token_id, actor="command line")
    storage.close()


def test_what_another_process_revokes_is_noticed_at_the_next_look(
    world: AdminWorld, database: str
) -> None:
    created = world.tokens.create("sdk", "shop", PRODUCTION, actor="ann")
    revoke_from_outside(world, database, created.token.id)
    assert world.tokens.authenticate(created.text) == created.token
    assert world.revoked == []
    world.tokens.refresh()
    assert world.tokens.authenticate(created.text) is None
    assert world.revoked == [created.token.id], "its streams have to be cut"


def test_what_another_process_creates_opens_at_once(world: AdminWorld, database: str) -> None:
    world.tokens.refresh()
    storage = open_storage(database)
    other = Tokens(storage, world.clock).create("admin", "ops", actor="command line")
    storage.close()
    assert world.tokens.authenticate(other.text) == other.token


def test_who_watches_looks_without_being_asked_and_goes_on_after_a_failure(
    world: AdminWorld, database: str, monkeypatch: pytest.MonkeyPatch
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
    revoke_from_outside(world, database, created.token.id)
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
