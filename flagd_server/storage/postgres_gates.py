"""Gates in the Postgres database, and what they ask of the counts."""

from flagd_server.domain.gates import Approval
from flagd_server.storage import release_rows as convert
from flagd_server.storage.postgres_rows import PostgresRows, PostgresTable
from flagd_server.storage.release_records import Gate
from flagd_server.storage.rows import first

_GATES = (
    "SELECT g.environment, g.key, g.definition, g.version, g.updated_at,"
    " a.by, a.at, a.expires_at, a.reason FROM gates AS g LEFT JOIN gate_approvals AS a"
    " ON a.environment = g.environment AND a.gate = g.key"
)


class GatesReader(PostgresRows):
    """See `storage.gates`."""

    def gates(self, environment: str) -> list[Gate]:
        rows = self._rows(f"{_GATES} WHERE g.environment = %s ORDER BY g.key", [environment])
        return [convert.gate(row) for row in rows]

    def gate(self, environment: str, key: str) -> Gate | None:
        rows = self._rows(f"{_GATES} WHERE g.environment = %s AND g.key = %s", [environment, key])
        return first(convert.gate, rows)

    def flags_served(
        self,
        environment: str,
        service: str,
        service_version: str,
        since_minute: int,
        until_minute: int,
    ) -> set[str]:
        rows = self._rows(
            "SELECT DISTINCT flag FROM counts WHERE minute BETWEEN %s AND %s"
            " AND environment = %s AND service = %s AND service_version = %s",
            [since_minute, until_minute, environment, service, service_version],
        )
        return {row["flag"] for row in rows}

    def exposures_since(
        self,
        environment: str,
        flag: str,
        config_version: int,
        since_minute: int,
        *,
        split: str | None = None,
        variant: str | None = None,
    ) -> int:
        (row,) = self._rows(
            "SELECT COALESCE(SUM(exposures), 0)::bigint AS exposures FROM counts"
            " WHERE environment = %s AND flag = %s AND minute >= %s AND config_version = %s"
            " AND split = COALESCE(%s, split) AND variant = COALESCE(%s, variant)",
            [environment, flag, since_minute, config_version, split, variant],
        )
        return int(row["exposures"])


class GatesWriter(PostgresTable):
    """See `storage.gates`."""

    def put_gate(self, gate: Gate) -> None:
        self._upsert("gates", convert.gate_row(gate), ("environment", "key"))
        self.set_gate_approval(gate.environment, gate.key, gate.approval)

    def delete_gate(self, environment: str, key: str) -> None:
        self._delete("gates", environment=environment, key=key)

    def set_gate_approval(self, environment: str, key: str, approval: Approval | None) -> None:
        self._delete("gate_approvals", environment=environment, gate=key)
        if approval is not None:
            self._insert(
                "gate_approvals",
                {"environment": environment, "gate": key, **approval.to_document()},
            )
