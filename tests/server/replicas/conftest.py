"""Two servers on one database, the first of which leads."""

from collections.abc import Iterator

import pytest

from flagd_server.services.first_start import InitialTokens
from tests.server.api.conftest import database, initial_tokens, sqlite_after_start, started
from tests.server.replicas.replicas import Replicas

__all__ = ["database", "initial_tokens", "sqlite_after_start", "started"]


@pytest.fixture
def replicas(database: str, initial_tokens: InitialTokens) -> Iterator[Replicas]:
    replicas = Replicas(database, initial_tokens)
    yield replicas
    replicas.close()
