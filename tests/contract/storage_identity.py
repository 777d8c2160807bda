"""What every storage keeps to with tokens, people and sessions; see `storage_contract`."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from flagd_server.domain.roles import Role
from flagd_server.errors import StorageError
from flagd_server.storage.base import Storage
from flagd_server.storage.identity_records import Person, Session
from tests.contract.storage_samples import AT, PRODUCTION, TOKEN

ANN = Person(
    name="ann",
    password="$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA",
    password_expires_at=AT,
    created_at=AT,
    created_by="ops",
    roles={None: Role.VIEWER, "production": Role.RELEASER},
)
BOB = replace(ANN, name="bob", password_expires_at=None, disabled_at=AT, roles={})
SESSION = Session(
    digest=b"\x07" * 32,
    person="ann",
    created_at=AT,
    seen_at=AT,
    expires_at=AT + timedelta(hours=12),
)
MINUTE = timedelta(minutes=1)


class IdentityContract:
    """Inherit it, override nothing but the fixtures."""

    def test_tokens_and_their_generation(
        self, storage: Storage, reopen: Callable[[], Storage]
    ) -> None:
        admin = replace(TOKEN, id="tok-0", environment=None, digest=b"\x02" * 32)
        generations = [storage.token_generation()]
        with storage.transaction() as tx:
            tx.insert_token(TOKEN)
            tx.insert_token(admin)
        generations.append(storage.token_generation())
        other_process = reopen()
        with other_process.transaction() as tx:
            tx.revoke_token("tok-1", AT)
        other_process.close()
        generations.append(storage.token_generation())
        assert generations == sorted(set(generations))
        with storage.read() as reader:
            assert reader.tokens() == [replace(TOKEN, revoked_at=AT), admin]
            assert reader.token("tok-0") == admin
            assert reader.token("tok-2") is None
        assert storage.token_generation() == generations[-1]

    def test_two_tokens_never_share_a_digest_or_a_selector(self, storage: Storage) -> None:
        first = replace(TOKEN, selector="aB3", expires_at=AT)
        second = replace(first, id="tok-2", digest=b"\x02" * 32)
        with storage.transaction() as tx:
            tx.insert_token(first)
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.insert_token(replace(second, digest=first.digest, selector="other"))
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.insert_token(second)
        with storage.transaction() as tx:
            for number in (3, 4):  # any number of them have none
                digest = bytes([number]) * 32
                tx.insert_token(replace(TOKEN, id=f"tok-{number}", digest=digest))
            assert tx.token("tok-1") == first

    def test_a_use_of_a_token_is_noted_and_changes_no_generation(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_token(TOKEN)
        generation = storage.token_generation()
        with storage.transaction() as tx:
            tx.note_token_uses({"tok-1": AT + MINUTE, "tok-gone": AT})
        with storage.transaction() as tx:
            tx.note_token_uses({"tok-1": AT})  # of another process, which was late
            assert tx.token("tok-1") == replace(TOKEN, last_used_at=AT + MINUTE)
        assert storage.token_generation() == generation

    def test_people_with_their_roles(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.put_person(BOB)
            tx.put_person(ANN)
            tx.insert_session(SESSION)
            assert tx.people() == [ANN, BOB]
        changed = replace(ANN, password="other", last_login_at=AT, roles={"production": Role.ADMIN})
        with storage.transaction() as tx:
            tx.put_person(changed)
        with storage.read() as reader:
            assert reader.person("ann") == changed
            assert reader.person("eve") is None
            assert reader.session(SESSION.digest) == SESSION, "it survives a change of its person"

    def test_a_role_for_no_environment_is_refused(self, storage: Storage) -> None:
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.put_person(ANN)
        with storage.read() as reader:
            assert reader.people() == []

    def test_with_an_environment_go_the_roles_in_it(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.put_person(ANN)
            tx.delete_environment("production")
            tx.insert_environment(PRODUCTION)
            assert tx.person("ann") == replace(ANN, roles={None: Role.VIEWER})

    def test_sessions_from_the_first_use_to_the_end(self, storage: Storage) -> None:
        other = replace(SESSION, digest=b"\x08" * 32, seen_at=AT + MINUTE)
        of_bob = replace(other, digest=b"\x09" * 32, person="bob")
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.put_person(ANN)
            tx.put_person(BOB)
            for session in (SESSION, other, of_bob):
                tx.insert_session(session)
            tx.note_session_uses({other.digest: AT, SESSION.digest: AT + MINUTE, b"gone": AT})
            seen = replace(SESSION, seen_at=AT + MINUTE)
            assert tx.session(SESSION.digest) == seen
            assert tx.session(other.digest) == other
            tx.delete_session(other.digest)
            assert tx.session(other.digest) is None
            tx.delete_sessions_of("bob")
            assert tx.session(of_bob.digest) is None
            assert tx.session(SESSION.digest) == seen
            assert tx.session(b"gone") is None

    def test_dead_sessions_are_swept_out(self, storage: Storage) -> None:
        idle = replace(SESSION, digest=b"\x08" * 32)
        expired = replace(
            SESSION, digest=b"\x09" * 32, seen_at=AT + 2 * MINUTE, expires_at=AT + 2 * MINUTE
        )
        used = replace(SESSION, digest=b"\x0a" * 32, seen_at=AT + MINUTE)
        with storage.transaction() as tx:
            tx.put_person(replace(ANN, roles={}))
            for session in (idle, expired, used):
                tx.insert_session(session)
            tx.delete_dead_sessions(now=AT + 2 * MINUTE, unused_since=AT + MINUTE)
            kept = [tx.session(each.digest) for each in (idle, expired, used)]
        assert kept == [None, None, used]
