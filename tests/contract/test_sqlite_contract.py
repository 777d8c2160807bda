"""SQLite keeps to the contract of storages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flagd_server.storage import open_storage
from flagd_server.storage.base import Storage
from tests.contract.storage_contract import StorageContract


class TestSqlite(StorageContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], Storage]:
        return lambda: open_storage(str(tmp_path / "flagd.db"))
