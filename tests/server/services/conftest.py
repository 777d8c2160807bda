from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.services.admin_world import AdminWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AdminWorld]:
    world = AdminWorld(tmp_path / "flagd.db")
    yield world
    world.storage.close()
