"""People, sessions and tokens on a real SQLite file, with a clock that stands still."""

from collections.abc import Mapping
from pathlib import Path

from flagd_server.domain.roles import Role
from flagd_server.services.last_uses import LastUses
from flagd_server.services.login_throttle import LoginThrottle
from flagd_server.services.password_hashes import PasswordHashes
from flagd_server.services.people import People
from flagd_server.services.sessions import Login, Sessions
from flagd_server.storage.identity_records import Person
from tests.server.services.admin_world import AdminWorld

PASSWORD = "four words by chance"
HOME = "192.0.2.1"


class IdentityWorld(AdminWorld):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.s = 1_000.0
        self.hashes = PasswordHashes()
        self.throttle = LoginThrottle(clock=lambda: self.s, random=lambda: 0.0)
        self.people = People(self.storage, self.publisher, self.hashes, self.throttle)
        self.uses = LastUses(self.storage, self.clock)
        self.sessions = Sessions(
            self.storage, self.publisher, self.hashes, self.throttle, self.uses
        )

    def person(self, name: str = "ann", roles: Mapping[str | None, Role] | None = None) -> Person:
        """Add a person who has chosen `PASSWORD`."""
        made = self.people.add(name, roles or {}, actor="ops")
        return self.people.choose_password(name, made.password, PASSWORD, address=HOME)

    def log_in(
        self,
        name: str = "ann",
        password: str = PASSWORD,
        address: str = HOME,
        device: str | None = None,
    ) -> Login:
        return self.sessions.log_in(name, password, address=address, device=device)
