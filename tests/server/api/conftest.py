"""A whole application on an SQLite file of its own, without a socket."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from flagd_server.app import create_app
from flagd_server.clock import SystemClock
from flagd_server.config import Settings
from flagd_server.services.environments import Environments
from flagd_server.services.first_start import InitialTokens, first_start
from flagd_server.services.publishing import Publisher
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from tests.server.api.client import Api

CHECKOUT = "/api/v1/flags/new-checkout"
PRODUCTION = f"{CHECKOUT}/environments/production"


class _Nobody:
    def publish(self, environment: str, sequence: int, event: bytes) -> None:
        pass


@pytest.fixture(scope="session")
def first_database(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, InitialTokens]:
    """A database after its first start; copied, since making one costs many commits."""
    path = tmp_path_factory.mktemp("first") / "first.db"
    with closing(open_storage(str(path))) as storage:
        publisher = Publisher(Snapshots(storage), _Nobody(), SystemClock())
        tokens = first_start(
            storage,
            Environments(storage, publisher),
            Tokens(storage, SystemClock()),
            deliver=lambda tokens: None,
        )
    assert tokens is not None
    return path, tokens


@pytest.fixture
def initial_tokens(first_database: tuple[Path, InitialTokens]) -> InitialTokens:
    return first_database[1]


@pytest.fixture
def database(tmp_path: Path, first_database: tuple[Path, InitialTokens]) -> Path:
    return Path(shutil.copy(first_database[0], tmp_path / "flagd.db"))


@pytest.fixture
def app(database: Path) -> Iterator[Flask]:
    app = create_app(Settings(database=str(database), git_sha="0123abc"))
    yield app
    app.extensions["flagd_server"].close()


@pytest.fixture
def admin(app: Flask, initial_tokens: InitialTokens) -> Api:
    return Api(app, initial_tokens.admin)


@pytest.fixture
def sdk(app: Flask, initial_tokens: InitialTokens) -> Api:
    """An SDK of production."""
    return Api(app, initial_tokens.sdk["production"])


@pytest.fixture
def with_scope(admin: Api) -> Callable[[str], Api]:
    """Return a client whose new token has the scope; SDK tokens are of production."""

    def make(scope: str) -> Api:
        body = {"scope": scope, "name": f"test {scope}"}
        if scope == "sdk":
            body["environment"] = "production"
        return admin.by(admin.post("/api/v1/tokens", body).json["text"])

    return make


@pytest.fixture
def checkout(admin: Api) -> str:
    """The flag new-checkout, at 25 % in production; return its key."""
    variants = {"on": True, "off": False}
    created = admin.post(
        "/api/v1/flags", {"key": "new-checkout", "type": "boolean", "variants": variants}
    )
    assert created.status_code == 201, created.json
    split = {"split": {"weights": {"on": 25_000, "off": 75_000}}}
    changed = admin.patch(PRODUCTION, {"enabled": True, "default_serve": split}, if_match=1)
    assert changed.status_code == 200, changed.json
    return "new-checkout"
