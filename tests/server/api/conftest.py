"""A whole application on a database of its own, without a socket."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from flagd_server.app import create_app
from flagd_server.clock import SystemClock
from flagd_server.config import Settings
from flagd_server.domain.token_text import ENVIRONMENT_SCOPES
from flagd_server.services.environments import Environments
from flagd_server.services.first_start import InitialTokens, first_start
from flagd_server.services.publishing import Publisher
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from tests.databases import ReusedDatabase
from tests.postgres_cluster import PostgresCluster
from tests.server.api.client import Api
from tests.waiting import eventually

CHECKOUT = "/api/v1/flags/new-checkout"
PRODUCTION = f"{CHECKOUT}/environments/production"


def _start(database: str) -> InitialTokens:
    with closing(open_storage(database)) as storage:
        tokens = first_start(
            storage,
            Environments(storage, Publisher(SystemClock())),
            Tokens(storage, SystemClock()),
            deliver=lambda tokens: None,
        )
    assert tokens is not None
    return tokens


@pytest.fixture(scope="session")
def sqlite_after_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, InitialTokens]:
    """A database after its first start; copied, since making one costs many commits."""
    path = tmp_path_factory.mktemp("first") / "first.db"
    return path, _start(str(path))


@pytest.fixture(scope="session")
def postgres_after_start(
    postgres_cluster: PostgresCluster,
) -> Iterator[tuple[ReusedDatabase, InitialTokens]]:
    tokens = _start(postgres_cluster.create_database("started"))
    database = ReusedDatabase(postgres_cluster, "started")
    yield database, tokens
    database.close()


@pytest.fixture
def started(
    database_kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[str, InitialTokens]:
    """A database after its first start, as path or URL, and what was made in it."""
    first, tokens = request.getfixturevalue(f"{database_kind}_after_start")
    if isinstance(first, ReusedDatabase):
        first.restore()
        return first.url, tokens
    return str(shutil.copy(first, tmp_path / "flagd.db")), tokens


@pytest.fixture
def database(started: tuple[str, InitialTokens]) -> str:
    return started[0]


@pytest.fixture
def initial_tokens(started: tuple[str, InitialTokens]) -> InitialTokens:
    return started[1]


@pytest.fixture
def app(database: str) -> Iterator[Flask]:
    app = create_app(Settings(database=database, git_sha="0123abc"))
    # On Postgres it takes a moment, and telemetry that comes before is counted a little later.
    eventually(app.extensions["flagd_server"].readiness.is_leading)
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
    """Return a client whose new token has the scope; applications' tokens are of production."""

    def make(scope: str) -> Api:
        body = {"scope": scope, "name": f"test {scope}"}
        if scope in ENVIRONMENT_SCOPES:
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
