from collections.abc import Iterator

import pytest

from tests.server.services.admin_world import AdminWorld


@pytest.fixture
def world(database: str) -> Iterator[AdminWorld]:
    world = AdminWorld(database)
    yield world
    world.storage.close()
