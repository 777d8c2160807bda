"""Settings that hold for the whole suite."""

from hypothesis import settings

from tests.databases import (
    database,
    database_kind,
    emptied_postgres,
    patience_with_postgres,
    postgres_database,
    pytest_addoption,
    pytest_configure,
    pytest_generate_tests,
    sqlite_database,
)
from tests.postgres_cluster import postgres_cluster, postgres_url

__all__ = [
    "database",
    "database_kind",
    "emptied_postgres",
    "patience_with_postgres",
    "postgres_cluster",
    "postgres_database",
    "postgres_url",
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
    "sqlite_database",
]

# A busy machine is no fault of the code: what takes too long is ended by pytest's own timeout.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
