from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.flag_server import FlagServer


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
def server(start_server: Callable[..., FlagServer]) -> FlagServer:
    """A server with the environments of a first start and their tokens."""
    return start_server()
