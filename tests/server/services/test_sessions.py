"""Sessions, and who has to wait before the next attempt to log in."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flagd_server.errors import LoginError, StorageUnavailableError, TooManyRequestsError
from flagd_server.services import password_hashes
from flagd_server.services.login_throttle import LoginThrottle
from flagd_server.services.sessions import IDLE, LASTS, csrf_token
from flagd_server.storage import open_storage
from tests.server.services.identity_world import HOME, PASSWORD, IdentityWorld

WRONG = "not this one, or is it"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityWorld]:
    monkeypatch.setattr(password_hashes, "_MEMORY_KIB", 64)
    world = IdentityWorld(tmp_path / "flagd.db")
    world.person("ann")
    yield world
    world.storage.close()


def is_open(world: IdentityWorld, cookie: str) -> bool:
    return world.sessions.find(cookie) is not None


class TestLife:
    def test_each_login_has_an_id_of_its_own_and_ends_the_one_it_replaces(
        self, world: IdentityWorld
    ) -> None:
        first = world.log_in()
        second = world.sessions.log_in(" ANN ", PASSWORD, address=HOME, replaces=first.cookie)
        assert not is_open(world, first.cookie)
        found = world.sessions.find(second.cookie)
        assert found == (second.session, second.person)
        third = world.log_in()
        assert is_open(world, second.cookie), "another browser's stays"
        assert len({first.cookie, second.cookie, third.cookie}) == 3

    @pytest.mark.parametrize("cookie", ["", "x" * 43, "\udcff\0ä"])
    def test_what_is_no_cookie_of_ours_opens_nothing(
        self, world: IdentityWorld, cookie: str
    ) -> None:
        world.log_in()
        assert not is_open(world, cookie)

    def test_it_ends_when_it_is_not_used(self, world: IdentityWorld) -> None:
        cookie = world.log_in().cookie
        for _ in range(3):
            world.clock.at += IDLE - timedelta(seconds=1)
            assert is_open(world, cookie)
        world.clock.at += IDLE
        assert not is_open(world, cookie)

    def test_it_ends_after_a_day_of_work_however_much_it_is_used(
        self, world: IdentityWorld
    ) -> None:
        cookie = world.log_in().cookie
        end = world.clock.at + LASTS
        while world.clock.at < end:
            assert is_open(world, cookie)
            world.clock.at += timedelta(minutes=30)
        assert not is_open(world, cookie)

    def test_uses_are_written_once_a_minute_and_not_by_requests(
        self, world: IdentityWorld, tmp_path: Path
    ) -> None:
        login = world.log_in()
        world.clock.at += timedelta(minutes=20)
        before = world.storage.read
        assert is_open(world, login.cookie)
        with before() as reader:
            assert reader.session(login.session.digest) == login.session
        world.uses.write()
        with before() as reader:
            assert reader.session(login.session.digest) == replace(
                login.session, seen_at=world.clock.at
            )

    def test_who_logs_out_is_out(self, world: IdentityWorld) -> None:
        login = world.log_in()
        world.sessions.log_out(login.session, login.person)
        assert not is_open(world, login.cookie)
        actions = [entry.action for entry in world.audit.list(2).items]
        assert actions == ["session.end", "session.begin"]

    def test_what_another_process_ends_is_ended_here(
        self, world: IdentityWorld, tmp_path: Path
    ) -> None:
        cookie = world.log_in().cookie
        other = open_storage(str(tmp_path / "flagd.db"))
        with other.transaction() as tx:
            tx.delete_sessions_of("ann")
        other.close()
        assert not is_open(world, cookie)

    def test_a_password_that_is_changed_meanwhile_lets_nobody_in(
        self, world: IdentityWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check = world.hashes.is_right

        def reset_meanwhile(encoded: str | None, password: str) -> bool:
            is_right = check(encoded, password)
            world.people.reset_password("ann", actor="ops")
            return is_right

        monkeypatch.setattr(world.hashes, "is_right", reset_meanwhile)
        with pytest.raises(LoginError, match="changed meanwhile"):
            world.log_in()

    def test_the_token_against_forged_requests_is_of_the_session(
        self, world: IdentityWorld
    ) -> None:
        first, second = world.log_in().cookie, world.log_in().cookie
        assert csrf_token(first) == csrf_token(first)
        assert len({csrf_token(first), csrf_token(second), first, second}) == 4


def fail(world: IdentityWorld, times: int, **login: str) -> None:
    for _ in range(times):
        with pytest.raises(LoginError):
            world.log_in(password=WRONG, **login)


class TestThrottle:
    def test_failures_are_said_alike_and_audited(self, world: IdentityWorld) -> None:
        said = []
        for name in ("ann", "my-Password-by-mistake"):
            with pytest.raises(LoginError) as caught:
                world.log_in(name, WRONG)
            said.append(str(caught.value))
        assert said[0] == said[1]
        unknown, known = world.audit.list(2).items
        assert (known.action, known.target) == ("session.refuse", "people/ann")
        assert (unknown.action, unknown.target) == ("session.refuse", "people")
        assert known.detail == unknown.detail == {"address": HOME}

    @pytest.mark.parametrize("name", ["ann", "nobody"])
    def test_an_account_can_not_be_tried_out_from_everywhere(
        self, world: IdentityWorld, name: str
    ) -> None:
        for number in range(10):
            fail(world, 1, name=name, address=f"198.51.100.{number}")
        waits = []
        for number in range(10, 20):
            with pytest.raises(TooManyRequestsError) as caught:
                world.log_in(name, PASSWORD, address=f"198.51.100.{number}")
            waits.append(caught.value.retry_after_s)
            world.s += caught.value.retry_after_s
            fail(world, 1, name=name, address=f"198.51.100.{number}")
        assert waits[:4] == [1, 2, 4, 8]
        assert waits[-1] == 60

    def test_a_device_that_has_logged_in_is_not_locked_out_by_strangers(
        self, world: IdentityWorld
    ) -> None:
        device = world.log_in().device
        for number in range(10):
            fail(world, 1, address=f"198.51.100.{number}")
        fail(world, 0)
        with pytest.raises(TooManyRequestsError):
            world.log_in()
        assert world.log_in(device=device).person.name == "ann"

    def test_a_device_is_held_to_what_it_has_tried(self, world: IdentityWorld) -> None:
        device = world.log_in().device
        fail(world, 5, device=device)
        with pytest.raises(TooManyRequestsError):
            world.log_in(device=device)
        assert world.log_in().person.name == "ann", "others are not"

    @pytest.mark.parametrize("device", ["", "x" * 43, "ä"])
    def test_a_device_of_nobody_counts_for_nothing(self, world: IdentityWorld, device: str) -> None:
        fail(world, 10, device=device)
        with pytest.raises(TooManyRequestsError):
            world.log_in(device=device)

    def test_a_device_of_another_person_or_password_counts_for_nothing(
        self, world: IdentityWorld
    ) -> None:
        world.person("bob")
        of_bob = world.log_in("bob").device
        old = world.log_in().device
        world.people.choose_password("ann", PASSWORD, "four other words, again", address=HOME)
        for device in (of_bob, old):
            fail(world, 5, device=device)
        with pytest.raises(TooManyRequestsError):
            world.log_in(device=old)

    def test_an_address_can_not_try_all_accounts(self, world: IdentityWorld) -> None:
        for number in range(30):
            fail(world, 1, name=f"person-{number}")
        with pytest.raises(TooManyRequestsError):
            world.log_in()
        assert world.log_in(address="203.0.113.9").person.name == "ann"

    def test_logging_in_to_one_account_does_not_let_an_address_try_others(
        self, world: IdentityWorld
    ) -> None:
        for number in range(29):
            fail(world, 1, name=f"person-{number}")
        world.log_in()
        fail(world, 1, name="person-29")
        with pytest.raises(TooManyRequestsError):
            world.log_in()

    def test_an_ipv6_network_is_one_address(self, world: IdentityWorld) -> None:
        for number in range(30):
            fail(world, 1, name=f"person-{number}", address=f"2001:db8::{number:x}")
        with pytest.raises(TooManyRequestsError):
            world.log_in(address="2001:db8::ffff")
        world.log_in(address="2001:db8:0:1::1")

    def test_success_begins_anew(self, world: IdentityWorld) -> None:
        fail(world, 9)
        world.log_in()
        fail(world, 9)
        world.log_in()

    def test_attempts_under_way_count_as_failed(self, world: IdentityWorld) -> None:
        for _ in range(10):
            world.throttle.begin("ann", HOME, is_known_device=False)
        with pytest.raises(TooManyRequestsError):
            world.log_in()

    def test_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flagd_server.services.login_throttle._REMEMBERED", 10)
        throttle = LoginThrottle()
        for number in range(1_000):
            address = f"198.51.{number // 250}.{number % 250}"
            throttle.begin(f"{number}" * 1_000, address, is_known_device=number % 2 == 0)
        sizes = [len(each) for each in (throttle._accounts, throttle._devices, throttle._addresses)]
        assert sizes == [10, 10, 10]


def test_uses_stay_noted_while_the_database_is_away(
    world: IdentityWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = world.log_in()
    token = world.tokens.create("read", "ops", actor="ann").token
    world.clock.at += timedelta(minutes=5)
    world.sessions.find(login.cookie)
    world.uses.note_token(token.id)

    def fail_once() -> None:
        raise StorageUnavailableError("the disk is away")

    with monkeypatch.context() as away:
        away.setattr(world.storage, "transaction", fail_once)
        with pytest.raises(StorageUnavailableError):
            world.uses.write()
    at = world.clock.at
    world.clock.at += timedelta(minutes=5)
    world.uses.write()
    with world.storage.read() as reader:
        assert reader.tokens()[-1].last_used_at == at
    with monkeypatch.context() as away:
        away.setattr(world.storage, "transaction", fail_once)
        world.uses.write()  # nothing is left to write


def test_what_was_used_last_is_written_at_the_end(world: IdentityWorld) -> None:
    token = world.tokens.create("read", "ops", actor="ann").token
    world.uses.start()
    world.uses.note_token(token.id)
    world.uses.close()
    world.uses.close()
    with world.storage.read() as reader:
        assert reader.tokens()[-1].last_used_at == world.clock.at
