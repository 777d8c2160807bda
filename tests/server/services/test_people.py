"""People and their passwords."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from flagd_server.domain.roles import Role
from flagd_server.errors import (
    ConflictError,
    InvalidError,
    LoginError,
    NotFoundError,
    TooManyRequestsError,
)
from flagd_server.services import password_hashes
from flagd_server.services.password_hashes import PasswordHashes
from flagd_server.services.people import ONE_TIME_PASSWORD_LASTS
from tests.server.services.identity_world import HOME, PASSWORD, IdentityWorld

OTHER = "seven other words then"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityWorld]:
    monkeypatch.setattr(password_hashes, "_MEMORY_KIB", 64)
    world = IdentityWorld(tmp_path / "flagd.db")
    yield world
    world.storage.close()


def test_a_one_time_password_lets_its_holder_choose_one_and_lasts_three_days(
    world: IdentityWorld,
) -> None:
    made = world.people.add("ann", {"staging": Role.EDITOR}, actor="ops")
    assert made.person == world.people.get("ann")
    assert world.log_in(password=made.password).person.password_expires_at is not None
    world.clock.at += ONE_TIME_PASSWORD_LASTS
    with pytest.raises(LoginError):
        world.log_in(password=made.password)
    again = world.people.reset_password("ann", actor="ops")
    chosen = world.people.choose_password("ann", again.password, PASSWORD, address=HOME)
    assert chosen.password_expires_at is None
    world.clock.at += timedelta(days=1_000)
    assert world.log_in().person.roles == {"staging": Role.EDITOR}


def test_a_password_is_nowhere_stored_or_told(world: IdentityWorld, tmp_path: Path) -> None:
    made = world.people.add("ann", {}, actor="ops")
    world.people.choose_password("ann", made.password, PASSWORD, address=HOME)
    with pytest.raises(LoginError):
        world.log_in(password=OTHER)
    login = world.log_in()
    secrets = (made.password, PASSWORD, OTHER, login.cookie, login.device)
    audit = str(world.audit.list(50).items)
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for secret in secrets:
        assert secret not in audit
        assert secret.encode() not in content
        assert secret not in repr((made.person, login))
    assert "argon2" not in repr(login.person)


def test_what_makes_no_sense_is_refused_and_changes_nothing(world: IdentityWorld) -> None:
    world.person("ann")
    before = world.people.list(), world.state()
    for name, roles, fields in [
        ("Ann", {}, ["name"]),
        ("", {"nowhere": Role.ADMIN}, ["roles", "name"]),
        ("x" * 129, {}, ["name"]),
        ("ann\n", {}, ["name"]),
    ]:
        with pytest.raises(InvalidError) as caught:
            world.people.add(name, roles, actor="ops")  # type: ignore[arg-type]
        assert [fault.field for fault in caught.value.faults] == fields
    with pytest.raises(ConflictError, match="a person 'ann' already"):
        world.people.add("ann", {}, actor="ops")
    with pytest.raises(InvalidError):
        world.people.change("ann", roles={"nowhere": Role.VIEWER}, actor="ops")
    for missing in (
        lambda: world.people.get("eve"),
        lambda: world.people.change("eve", disabled=True, actor="ops"),
        lambda: world.people.reset_password("eve", actor="ops"),
    ):
        with pytest.raises(NotFoundError, match="person 'eve'"):
            missing()
    assert (world.people.list(), world.state()) == before


def test_a_password_is_chosen_by_who_knows_the_present_one(world: IdentityWorld) -> None:
    world.person("ann")
    for current, new, field in [
        (OTHER, OTHER, "current_password"),
        (PASSWORD, "short", "new_password"),
        (PASSWORD, "ann-password-2026", "new_password"),
        (PASSWORD, PASSWORD, "new_password"),
    ]:
        with pytest.raises(InvalidError) as caught:
            world.people.choose_password("ann", current, new, address=HOME)
        assert {fault.field for fault in caught.value.faults} == {field}
    assert world.log_in().person.name == "ann"


def test_the_present_password_can_not_be_tried_out_in_an_open_session(
    world: IdentityWorld,
) -> None:
    world.person("ann")
    for _ in range(5):
        with pytest.raises(InvalidError):
            world.people.choose_password("ann", OTHER, "new words, never used", address=HOME)
    with pytest.raises(TooManyRequestsError):
        world.people.choose_password("ann", PASSWORD, "new words, never used", address=HOME)


@pytest.mark.parametrize("end", ["disable", "reset", "choose"])
def test_sessions_end_with_what_they_rest_on(world: IdentityWorld, end: str) -> None:
    world.person("ann")
    world.person("bob")
    gone, other = world.log_in(), world.log_in("bob")
    if end == "disable":
        world.people.change("ann", disabled=True, actor="ops")
        with pytest.raises(LoginError):
            world.log_in()
    elif end == "reset":
        world.people.reset_password("ann", actor="ops")
        with pytest.raises(LoginError):
            world.log_in()
    else:
        world.people.choose_password("ann", PASSWORD, OTHER, address=HOME)
    assert world.sessions.find(gone.cookie) is None
    assert world.sessions.find(other.cookie) is not None


def test_other_roles_hold_in_sessions_that_are_open(world: IdentityWorld) -> None:
    world.person("ann", {None: Role.ADMIN})
    cookie = world.log_in().cookie
    world.people.change("ann", roles={"staging": Role.VIEWER}, actor="ops")
    found = world.sessions.find(cookie)
    assert found is not None
    assert found[1].roles == {"staging": Role.VIEWER}


def test_changes_are_audited_and_what_changes_nothing_is_not(world: IdentityWorld) -> None:
    world.person("ann")
    world.people.change("ann", roles={None: Role.VIEWER}, actor="ops")
    world.people.change("ann", disabled=True, actor="ops")
    world.people.change("ann", disabled=True, actor="ops")
    world.people.change("ann", disabled=False, actor="ops")
    told = [(entry.action, entry.actor, entry.target) for entry in world.audit.list(5).items]
    assert told == [
        *[("person.change", "ops", "people/ann")] * 3,
        ("person.choose_password", "people/ann", "people/ann"),
        ("person.add", "ops", "people/ann"),
    ]


def test_nobody_else_is_called_as_a_person_is(world: IdentityWorld) -> None:
    with pytest.raises(InvalidError) as caught:
        world.tokens.create("admin", "people/ann", actor="ops")
    assert [fault.field for fault in caught.value.faults] == ["name"]


class TestHashes:
    def test_have_the_parameters_that_owasp_asks_for(self) -> None:
        hashes = PasswordHashes()
        encoded = hashes.make(PASSWORD)
        assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert hashes.is_right(encoded, PASSWORD)
        assert not hashes.is_right(encoded, OTHER)
        assert encoded != hashes.make(PASSWORD)
        assert not hashes.is_outdated(encoded)
        # Nobody's has the same form, so that looking at it is the same work.
        assert (
            hashes._of_nobody.rpartition("$")[0].rpartition("$")[0]
            == (encoded.rpartition("$")[0].rpartition("$")[0])
        )
        assert len(hashes._of_nobody) == len(encoded)

    def test_of_nobody_is_of_no_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(password_hashes, "_MEMORY_KIB", 64)
        hashes = PasswordHashes()
        checked: list[str] = []
        verify = hashes._hasher.verify
        monkeypatch.setattr(
            type(hashes._hasher),
            "verify",
            lambda self, encoded, password: (checked.append(encoded), verify(encoded, password)),
        )
        assert not hashes.is_right(None, PASSWORD)
        assert checked == [hashes._of_nobody], "the work is done all the same"

    def test_that_are_outdated_are_made_anew_at_the_next_login(
        self, world: IdentityWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = world.person("ann").password
        monkeypatch.setattr(password_hashes, "_MEMORY_KIB", 128)
        world.sessions._hashes = PasswordHashes()
        login = world.log_in()
        stored = world.people.get("ann").password
        assert before.startswith("$argon2id$v=19$m=64,")
        assert stored.startswith("$argon2id$v=19$m=128,")
        assert world.sessions.find(login.cookie) is not None
        world.log_in()
        assert world.people.get("ann").password == stored

    def test_are_made_by_few_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(password_hashes, "_TURN_WITHIN_S", 0.0)
        hashes = PasswordHashes()
        with hashes._turn(), hashes._turn(), pytest.raises(TooManyRequestsError):
            hashes.make(PASSWORD)
