"""How a flag behaves in one environment: changing it, undoing changes, and looking back.

A PATCH that changes nothing succeeds and makes no version: a tool that sends what it wants again
and again does not fill the history.
"""

from collections.abc import Callable

from flagd_server.domain.changes import changed, is_same, reaches_users, rolled_back
from flagd_server.domain.configuration import Configuration, JsonObject
from flagd_server.errors import InvalidError, NotFoundError
from flagd_server.services.lookups import (
    anybody_may,
    check_configuration,
    require_changeable,
    require_configuration,
)
from flagd_server.services.paging import DEFAULT_LIMIT, Page, page
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion, Flag


class Configurations:
    """Reads and changes configurations. Every change takes the version that its author has seen."""

    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage = storage
        self._publisher = publisher

    def get(self, environment: str, flag: str) -> ConfigurationVersion:
        """Return the newest version, or raise NotFoundError."""
        with self._storage.read() as reader:
            return require_configuration(reader, environment, flag)

    def patch(
        self,
        environment: str,
        flag: str,
        changes: JsonObject,
        *,
        expected_version: int,
        actor: str,
        comment: str = "",
        require_release: Callable[[str], None] = anybody_may,
    ) -> ConfigurationVersion:
        """Replace each given field whole; see `domain.changes.changed`.

        Args:
            require_release: called with the environment where the change would reach users;
                raises NotAllowedError.

        Returns:
            The newest version, which is the present one where nothing differs.

        Raises:
            NotFoundError: there is no such flag or environment.
            VersionConflictError: someone else changed it first.
            ConflictError: the flag is archived.
            InvalidError: with every fault.
        """
        with self._storage.transaction() as tx:
            record, present = require_changeable(tx, environment, flag, expected_version)
            configuration = changed(present.configuration, changes, flag, present.version + 1)
            if reaches_users(present.configuration, configuration):
                require_release(environment)
            return self._apply(
                tx, record, present, configuration, "update", actor=actor, comment=comment
            )

    def rollback(
        self,
        environment: str,
        flag: str,
        version: int,
        *,
        expected_version: int,
        actor: str,
        comment: str = "",
    ) -> ConfigurationVersion:
        """Make a new version with the content of an old one; see `domain.changes.rolled_back`.

        The old content is held to today's variants, segments and flags.

        Raises:
            NotFoundError: there is no such flag, environment or version.
            VersionConflictError, ConflictError, InvalidError: as with `patch`.
        """
        with self._storage.transaction() as tx:
            record, present = require_changeable(tx, environment, flag, expected_version)
            old = tx.configuration_version(environment, flag, version)
            if old is None:
                raise NotFoundError("version", str(version))
            configuration = rolled_back(present.configuration, old.configuration)
            return self._apply(
                tx,
                record,
                present,
                configuration,
                "rollback",
                actor=actor,
                comment=comment,
                detail={"to_version": version},
            )

    def history(
        self, environment: str, flag: str, limit: int = DEFAULT_LIMIT, before: int | None = None
    ) -> Page[ConfigurationVersion]:
        """Return versions below `before`, newest first."""
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            return page(
                lambda count: reader.history(environment, flag, count, before),
                limit,
                lambda version: version.version,
            )

    def history_version(self, environment: str, flag: str, version: int) -> ConfigurationVersion:
        """Return one version whole, or raise NotFoundError."""
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            found = reader.configuration_version(environment, flag, version)
        if found is None:
            raise NotFoundError("version", str(version))
        return found

    def _apply(
        self,
        tx: Transaction,
        flag: Flag,
        present: ConfigurationVersion,
        configuration: Configuration,
        action: str,
        *,
        actor: str,
        comment: str,
        detail: JsonObject | None = None,
    ) -> ConfigurationVersion:
        faults = check_configuration(tx, present.environment, flag, configuration)
        if faults:
            raise InvalidError(faults)
        if is_same(configuration, present.configuration):
            return present
        published = self._publisher.apply_config_change(
            tx,
            flag,
            present,
            configuration,
            action=action,
            actor=actor,
            comment=comment,
            detail=detail,
        )
        return published.version
