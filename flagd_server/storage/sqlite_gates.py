"""Gates in the SQLite database, and what they ask of the counts."""

from flagd_server.domain.gates import Approval
from flagd_server.storage import release_rows as convert
from flagd_server.storage.release_records import Gate
from flagd_server.storage.rows import first
from flagd_server.storage.sqlite_rows import SqliteRows

_GATES = (
    "SELECT g.*, a.by, a.at, a.expires_at, a.reason FROM gates AS g LEFT JOIN gate_approvals AS a"
    " ON a.environment = g.environment AND a.gate = g.key"
)


class GatesReader(SqliteRows):
    """See `storage.gates`."""

    def gates(self, environment: str) -> list[Gate]:
        rows = self._rows(f"{_GATES} WHERE g.environment = ? ORDER BY g.key", [environment])
        return [convert.gate(row) for row in rows]

    def gate(self, environment: str, key: str) -> Gate | None:
        rows = self._rows(f"{_GATES} WHERE g.environment = ? AND g.key = ?", [environment, key])
        return first(convert.gate, rows)

    def flags_served(
        self,
        environment: str,
        service: str,
        service_version: str,
        since_minute: int,
        until_minute: int,
    ) -> set[str]:
        # Some minutes of all flags are less to read than one flag's whole time.
        rows = self._db.execute(
            "SELECT DISTINCT flag FROM counts INDEXED BY counts_by_minute"
            " WHERE minute BETWEEN ? AND ?"
            " AND environment = ? AND service = ? AND service_version = ?",
            (since_minute, until_minute, environment, service, service_version),
        )
        return {row[0] for row in rows}

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
        row = self._db.execute(
            "SELECT TOTAL(exposures) FROM counts"
            " WHERE environment = ? AND flag = ? AND minute >= ? AND config_version = ?"
            " AND split = ifnull(?, split) AND variant = ifnull(?, variant)",
            (environment, flag, since_minute, config_version, split, variant),
        ).fetchone()
        return int(row[0])


class GatesWriter(SqliteRows):
    """See `storage.gates`."""

    def put_gate(self, gate: Gate) -> None:
        self._table("gates").upsert(convert.gate_row(gate), pk=("environment", "key"))
        self.set_gate_approval(gate.environment, gate.key, gate.approval)

    def delete_gate(self, environment: str, key: str) -> None:
        self._table("gates").delete((environment, key))

    def set_gate_approval(self, environment: str, key: str, approval: Approval | None) -> None:
        self._db.execute(
            "DELETE FROM gate_approvals WHERE environment = ? AND gate = ?", (environment, key)
        )
        if approval is not None:
            self._table("gate_approvals").insert(
                {"environment": environment, "gate": key, **approval.to_document()}
            )
