"""Deployments, and which version of a service served a flag first: rows and records."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage import release_rows as convert
from flagd_server.storage.release_records import Deployment, FirstServed
from flagd_server.storage.rows import NO_BOUND, Row, first
from flagd_server.storage.sqlite_rows import SqliteRows

_COLUMNS = (
    'number, id, environment, service, version, image, git_commit AS "commit", url,'
    " registered_at, registered_by, first_seen_at"
)
_PUT_DEPLOYMENT = """
    INSERT INTO deployments (
        id, environment, service, version, image, git_commit, url, registered_at, registered_by,
        first_seen_at
    ) VALUES (
        :id, :environment, :service, :version, :image, :git_commit, :url, :registered_at,
        :registered_by, :first_seen_at
    )
    ON CONFLICT (id) DO UPDATE SET
        image = excluded.image, git_commit = excluded.git_commit, url = excluded.url,
        registered_at = excluded.registered_at, registered_by = excluded.registered_by,
        first_seen_at = excluded.first_seen_at
"""
_PUT_FIRST_SERVED = """
    INSERT INTO first_served (environment, service, flag, version, version_seen_at, served_at)
    VALUES (:environment, :service, :flag, :version, :version_seen_at, :served_at)
    ON CONFLICT DO UPDATE SET version = excluded.version, version_seen_at = excluded.version_seen_at
"""
_PRUNE = (
    "DELETE FROM deployments WHERE registered_at IS NULL AND first_seen_at < ?"
    " AND (environment, service, version) NOT IN"
    " (SELECT environment, service, service_version FROM instances)",
    # As long as the service is there it is known what it has served, lest a later version pass
    # for the first.
    "DELETE FROM first_served WHERE served_at < ?"
    " AND (environment, service) NOT IN (SELECT environment, service FROM deployments)",
)


class DeploymentsReader(SqliteRows):
    """See `storage.deployments`."""

    def deployments(
        self,
        limit: int,
        before: int | None = None,
        *,
        environment: str | None = None,
        service: str | None = None,
    ) -> list[Deployment]:
        where = ["number < :before"]
        if environment is not None:
            where.append("environment = :environment")
        if service is not None:
            where.append("service = :service")
        found = self._found(
            f"{' AND '.join(where)} ORDER BY number DESC LIMIT :limit",
            {
                "before": NO_BOUND if before is None else before,
                "environment": environment,
                "service": service,
                "limit": limit,
            },
        )
        return [convert.deployment(row) for row in found]

    def deployment(self, deployment_id: str) -> Deployment | None:
        return first(convert.deployment, self._found("id = :id", {"id": deployment_id}))

    def deployment_of(self, environment: str, service: str, version: str) -> Deployment | None:
        found = self._found(
            "environment = :environment AND service = :service AND version = :version",
            {"environment": environment, "service": service, "version": version},
        )
        return first(convert.deployment, found)

    def deployments_of_artefact(self, service: str, version: str) -> list[Deployment]:
        found = self._found(
            "service = :service AND version = :version ORDER BY number",
            {"service": service, "version": version},
        )
        return [convert.deployment(row) for row in found]

    def first_seen(self, environment: str, service: str) -> dict[str, datetime]:
        rows = self._db.execute(
            "SELECT version, first_seen_at FROM deployments"
            " WHERE environment = ? AND service = ? AND first_seen_at IS NOT NULL",
            (environment, service),
        )
        return {version: parse_time(at) for version, at in rows}

    def first_served(self, environment: str, service: str | None = None) -> list[FirstServed]:
        rows = self._rows(
            "SELECT * FROM first_served WHERE environment = :environment"
            " AND (:service IS NULL OR service = :service) ORDER BY service, flag",
            {"environment": environment, "service": service},
        )
        return [convert.first_served(row) for row in rows]

    def _found(self, where: str, parameters: dict[str, Any]) -> list[Row]:
        # What is put in are this module's own words; values are parameters.
        sql = f"SELECT {_COLUMNS} FROM deployments WHERE {where}"  # noqa: S608
        return self._rows(sql, parameters)


class DeploymentsWriter(SqliteRows):
    """See `storage.deployments`."""

    def put_deployment(self, deployment: Deployment) -> None:
        self._db.execute(_PUT_DEPLOYMENT, convert.deployment_row(deployment))

    def put_first_served(self, rows: Iterable[FirstServed]) -> None:
        self._db.conn.executemany(_PUT_FIRST_SERVED, map(convert.first_served_row, rows))

    def prune_deployments(self, before: datetime) -> None:
        for statement in _PRUNE:
            self._db.execute(statement, (format_time(before),))
