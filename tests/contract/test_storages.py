"""Both storages keep to the contract, with nothing of it overridden."""

from collections.abc import Callable

import pytest

from flagd_server.storage import open_storage
from flagd_server.storage.base import Storage
from tests.contract.storage_contract import StorageContract


class TestSqlite(StorageContract):
    @pytest.fixture
    def reopen(self, sqlite_database: str) -> Callable[[], Storage]:
        return lambda: open_storage(sqlite_database)


class TestPostgres(StorageContract):
    @pytest.fixture
    def reopen(self, postgres_database: str) -> Callable[[], Storage]:
        return lambda: open_storage(postgres_database)
