import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.flagctl_process import Flagctl
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.ofrep_flags import create_flags, create_token


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., FlagServer]]:
    """Start servers with settings of the test's own; each has a database of its own."""
    servers: list[FlagServer] = []

    def start(**settings: str) -> FlagServer:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(FlagServer(folder, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def start_fleet(tmp_path: Path, postgres_database: str) -> Iterator[Callable[..., Fleet]]:
    """Start so many servers on one Postgres database, as `Fleet.start` does."""
    fleet = Fleet(tmp_path, postgres_database)

    def start(count: int, *arguments: Any, **settings: str) -> Fleet:
        fleet.start(count, *arguments, **settings)
        return fleet

    yield start
    fleet.close()


@pytest.fixture(scope="module")
def ofrep_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagServer]:
    """A server with the flags of `ofrep_flags`, for tests that only evaluate them."""
    server = FlagServer(tmp_path_factory.mktemp("ofrep"))
    create_flags(server)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ofrep_token(ofrep_server: FlagServer) -> str:
    return create_token(ofrep_server)


@pytest.fixture
def server(start_server: Callable[..., FlagServer]) -> FlagServer:
    """A server with the environments of a first start and their tokens."""
    return start_server()


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagServer]:
    """One server for all tests of a module, each with flags of its own."""
    server = FlagServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagServer]:
    """One server for all tests of `flagctl` in a module; each has a flag of its own."""
    folder = tmp_path_factory.mktemp("flagctl")
    server = FlagServer(folder, FLAGD_OUTGOING_ALLOW="127.0.0.1")
    yield server
    server.stop()


@pytest.fixture
def ctl(shared: FlagServer, tmp_path: Path) -> Flagctl:
    return Flagctl(shared.url, shared.admin_token, tmp_path)


@pytest.fixture
def flag(shared: FlagServer, request: pytest.FixtureRequest) -> str:
    """A flag that is on for 5 %, as version 2."""
    key = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")
    weights = {"on": 5_000, "off": 95_000}
    shared.create_flag(key, default_serve={"split": {"weights": weights}})
    return key
