"""Deployments in the Postgres database, and which version of a service served a flag first."""

from collections.abc import Iterable
from datetime import datetime

from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage import release_rows as convert
from flagd_server.storage.postgres_rows import PostgresRows, PostgresTable, select
from flagd_server.storage.release_records import Deployment, FirstServed
from flagd_server.storage.rows import NO_BOUND, first

_DEPLOYMENTS = select(Deployment, "deployments", commit="git_commit")
_FIRST_SERVED = select(FirstServed, "first_served")
_PUT_DEPLOYMENT = """
    INSERT INTO deployments (
        id, environment, service, version, image, git_commit, url, registered_at, registered_by,
        first_seen_at
    ) VALUES (
        %(id)s, %(environment)s, %(service)s, %(version)s, %(image)s, %(git_commit)s, %(url)s,
        %(registered_at)s, %(registered_by)s, %(first_seen_at)s
    )
    ON CONFLICT (id) DO UPDATE SET
        image = excluded.image, git_commit = excluded.git_commit, url = excluded.url,
        registered_at = excluded.registered_at, registered_by = excluded.registered_by,
        first_seen_at = excluded.first_seen_at
"""
_PUT_FIRST_SERVED = """
    INSERT INTO first_served (environment, service, flag, version, version_seen_at, served_at)
    VALUES (
        %(environment)s, %(service)s, %(flag)s, %(version)s, %(version_seen_at)s, %(served_at)s
    )
    ON CONFLICT (environment, service, flag) DO UPDATE SET
        version = excluded.version, version_seen_at = excluded.version_seen_at
"""
_PRUNE = (
    "DELETE FROM deployments AS d WHERE registered_at IS NULL AND first_seen_at < %s"
    " AND NOT EXISTS (SELECT 1 FROM instances AS i WHERE i.environment = d.environment"
    " AND i.service = d.service AND i.service_version = d.version)",
    # As long as the service is there it is known what it has served, lest a later version pass
    # for the first.
    "DELETE FROM first_served AS f WHERE served_at < %s AND NOT EXISTS (SELECT 1"
    " FROM deployments AS d WHERE d.environment = f.environment AND d.service = f.service)",
)


class DeploymentsReader(PostgresRows):
    """See `storage.deployments`."""

    def deployments(
        self,
        limit: int,
        before: int | None = None,
        *,
        environment: str | None = None,
        service: str | None = None,
    ) -> list[Deployment]:
        where = ["number < %(before)s"]
        if environment is not None:
            where.append("environment = %(environment)s")
        if service is not None:
            where.append("service = %(service)s")
        rows = self._rows(
            f"{_DEPLOYMENTS} WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT %(limit)s",
            {
                "before": NO_BOUND if before is None else before,
                "environment": environment,
                "service": service,
                "limit": limit,
            },
        )
        return [convert.deployment(row) for row in rows]

    def deployment(self, deployment_id: str) -> Deployment | None:
        rows = self._rows(f"{_DEPLOYMENTS} WHERE id = %s", [deployment_id])
        return first(convert.deployment, rows)

    def deployment_of(self, environment: str, service: str, version: str) -> Deployment | None:
        rows = self._rows(
            f"{_DEPLOYMENTS} WHERE environment = %s AND service = %s AND version = %s",
            [environment, service, version],
        )
        return first(convert.deployment, rows)

    def deployments_of_artefact(self, service: str, version: str) -> list[Deployment]:
        rows = self._rows(
            f"{_DEPLOYMENTS} WHERE service = %s AND version = %s ORDER BY number",
            [service, version],
        )
        return [convert.deployment(row) for row in rows]

    def first_seen(self, environment: str, service: str) -> dict[str, datetime]:
        rows = self._rows(
            "SELECT version, first_seen_at FROM deployments"
            " WHERE environment = %s AND service = %s AND first_seen_at IS NOT NULL",
            [environment, service],
        )
        return {row["version"]: parse_time(row["first_seen_at"]) for row in rows}

    def first_served(self, environment: str, service: str | None = None) -> list[FirstServed]:
        rows = self._rows(
            f"{_FIRST_SERVED} WHERE environment = %(environment)s"
            " AND service = COALESCE(%(service)s, service) ORDER BY service, flag",
            {"environment": environment, "service": service},
        )
        return [convert.first_served(row) for row in rows]


class DeploymentsWriter(PostgresTable):
    """See `storage.deployments`."""

    def put_deployment(self, deployment: Deployment) -> None:
        self._run(_PUT_DEPLOYMENT, convert.deployment_row(deployment))

    def put_first_served(self, rows: Iterable[FirstServed]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_PUT_FIRST_SERVED, map(convert.first_served_row, rows))

    def prune_deployments(self, before: datetime) -> None:
        for statement in _PRUNE:
            self._run(statement, [format_time(before)])
