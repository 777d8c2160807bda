"""What several services look for first, and the validation that all changes of a flag share."""

from collections.abc import Iterator, Mapping
from typing import Any

from flagd_server.domain.configuration import Configuration, JsonObject, flag_document
from flagd_server.domain.faults import Fault
from flagd_server.domain.guard_policy import check_policy
from flagd_server.domain.validation import check_flag
from flagd_server.errors import ConflictError, NotFoundError, VersionConflictError
from flagd_server.storage.base import Reader
from flagd_server.storage.records import ConfigurationVersion, Environment, Flag


def anybody_may(environment: str) -> None:
    """Let a change reach users: in place of what asks for the caller's rights."""


def require_environment(reader: Reader, key: str) -> Environment:
    """Return the environment, or raise NotFoundError."""
    environment = reader.environment(key)
    if environment is None:
        raise NotFoundError("environment", key)
    return environment


def require_flag(reader: Reader, key: str) -> Flag:
    """Return the flag, archived or not, or raise NotFoundError."""
    flag = reader.flag(key)
    if flag is None:
        raise NotFoundError("flag", key)
    return flag


def require_configuration(reader: Reader, environment: str, flag: str) -> ConfigurationVersion:
    """Return the newest version, or raise NotFoundError for what of the two is missing."""
    version = reader.configuration(environment, flag)
    if version is None:
        require_environment(reader, environment)
        require_flag(reader, flag)
        raise NotFoundError("configuration", f"{flag} in {environment}")
    return version


def require_changeable(
    reader: Reader, environment: str, flag_key: str, expected_version: int
) -> tuple[Flag, ConfigurationVersion]:
    """Return the flag and its newest configuration, for a change by someone who has seen it.

    Raises:
        NotFoundError: there is no such flag or environment.
        VersionConflictError: the newest version is another one.
        ConflictError: the flag is archived.
    """
    present = require_configuration(reader, environment, flag_key)
    if present.version != expected_version:
        raise VersionConflictError(present.version)
    return _require_unarchived(reader, flag_key), present


def require_delivered(
    reader: Reader, environment: str, flag_key: str
) -> tuple[Flag, ConfigurationVersion]:
    """Return the flag and its newest configuration, for a change by whoever sees it now.

    Raises:
        NotFoundError: there is no such flag or environment.
        ConflictError: the flag is archived.
    """
    present = require_configuration(reader, environment, flag_key)
    return _require_unarchived(reader, flag_key), present


def _require_unarchived(reader: Reader, key: str) -> Flag:
    flag = require_flag(reader, key)
    if flag.archived:
        raise ConflictError(f"flag {key!r} is archived; bring it back first")
    return flag


def segment_conditions(reader: Reader, environment: str) -> dict[str, JsonObject]:
    """Return condition by key of the environment's segments."""
    return {segment.key: segment.condition for segment in reader.segments(environment)}


class DeliveredFlags(Mapping[str, Mapping[str, Any]]):
    """The flags of an environment as delivered, each read when it is looked up.

    A check of one flag follows its prerequisites only, which are few, where the environment may
    hold a thousand flags.
    """

    def __init__(self, reader: Reader, environment: str) -> None:
        self._reader = reader
        self._environment = environment
        self._found: dict[str, Mapping[str, Any] | None] = {}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        if key not in self._found:
            self._found[key] = self._read(key)
        document = self._found[key]
        if document is None:
            raise KeyError(key)
        return document

    def __iter__(self) -> Iterator[str]:
        return (flag.key for flag in self._reader.flags(archived=False))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self, key: str) -> Mapping[str, Any] | None:
        flag = self._reader.flag(key)
        version = self._reader.configuration(self._environment, key)
        if flag is None or flag.archived or version is None:
            return None
        return flag_document(key, flag.type, flag.variants, version.version, version.configuration)


def check_configuration(
    reader: Reader,
    environment: str,
    flag: Flag,
    configuration: Configuration,
    *,
    segments: Mapping[str, JsonObject] | None = None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Fault]:
    """Return all that keeps the configuration from being that of the flag in the environment.

    Args:
        segments: those to check against, where they are not yet what is stored.
        flags: likewise the other flags, as delivered.
    """
    if segments is None:
        segments = segment_conditions(reader, environment)
    if flags is None:
        flags = DeliveredFlags(reader, environment)
    document = flag_document(flag.key, flag.type, flag.variants, 0, configuration)
    return [
        *check_flag(document, flags, segments),
        *check_policy(configuration.guard, flag.variants.keys()),
    ]
