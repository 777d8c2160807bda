"""Who did what, newest first."""

from flagd_server.domain.audit_chain import Head
from flagd_server.services.paging import DEFAULT_LIMIT, Page, page
from flagd_server.storage.base import Storage
from flagd_server.storage.records import AuditEntry


class Audit:
    """Reads the audit; the services that change things write it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def head(self) -> Head:
        """Return id and hash of the newest entry, to be kept elsewhere."""
        with self._storage.read() as reader:
            return reader.audit_head()

    def list(
        self,
        limit: int = DEFAULT_LIMIT,
        before: int | None = None,
        *,
        flag: str | None = None,
        environment: str | None = None,
    ) -> Page[AuditEntry]:
        """Return entries with an id below `before`, of one flag or environment if asked for."""
        with self._storage.read() as reader:
            return page(
                lambda count: reader.audit(count, before, flag=flag, environment=environment),
                limit,
                lambda entry: entry.id,
            )
