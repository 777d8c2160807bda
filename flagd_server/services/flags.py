"""Flags: what is the same in every environment.

A flag's key and type are for life. Its variants are delivered with every configuration, so a
change of them is held against each environment, and makes a new version in each.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flagd_server.domain.changes import first_configuration
from flagd_server.domain.configuration import default_off_variant
from flagd_server.domain.faults import Fault
from flagd_server.domain.validation import check_variants
from flagd_server.errors import ConflictError, InvalidError, VersionConflictError
from flagd_server.services.dependants import faults_of_dependants, flags_needing
from flagd_server.services.lookups import anybody_may, check_configuration, require_flag
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion, Flag

_CHANGEABLE = frozenset(
    {"description", "owner", "tags", "lifetime", "expires_at", "variants", "archived"}
)


@dataclass(frozen=True, slots=True)
class NewFlag:
    """A flag as it is asked for.

    Attributes:
        lifetime: "temporary", to be removed once released, by `expires_at` if given; or
            "permanent", which never expires.
        off_variant: what it serves when off, in every environment until changed there;
            see `default_off_variant` for the default.
    """

    key: str
    type: str
    variants: Mapping[str, Any]
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] | list[str] = ()
    lifetime: str = "temporary"
    expires_at: datetime | None = None
    off_variant: str | None = None


@dataclass(frozen=True, slots=True)
class FlagWithConfigurations:
    """A flag with its newest configuration by environment."""

    flag: Flag
    configurations: Mapping[str, ConfigurationVersion]


class Flags:
    """Lists, creates and changes flags."""

    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage = storage
        self._publisher = publisher

    def list(self, tag: str | None = None, archived: bool | None = None) -> list[Flag]:
        """Return flags by key; `archived` None means both kinds."""
        with self._storage.read() as reader:
            return reader.flags(tag=tag, archived=archived)

    def get(self, key: str) -> FlagWithConfigurations:
        """Return one, archived or not, or raise NotFoundError."""
        with self._storage.read() as reader:
            flag = require_flag(reader, key)
            found = {version.environment: version for version in reader.configurations_of(key)}
            return FlagWithConfigurations(flag, found)

    def create(self, new: NewFlag, *, actor: str) -> FlagWithConfigurations:
        """Create the flag, disabled in every environment.

        Raises:
            ConflictError: there is one of that key, perhaps archived.
            InvalidError: with every fault.
        """
        faults = [
            *check_variants(new.type, new.variants),
            *_lifetime_faults(new.lifetime, new.expires_at),
        ]
        if new.off_variant is not None and new.off_variant not in new.variants:
            faults.append(Fault("off_variant", f"{new.off_variant!r} is none of the variants"))
        if faults:
            raise InvalidError(faults)
        off_variant = new.off_variant or default_off_variant(new.type, new.variants)
        now = self._publisher.clock.now()
        flag = Flag(
            key=new.key,
            type=new.type,
            variants=new.variants,
            description=new.description,
            owner=new.owner,
            tags=tuple(new.tags),
            lifetime=new.lifetime,
            expires_at=new.expires_at,
            archived=False,
            version=1,
            created_at=now,
            updated_at=now,
        )
        with self._storage.transaction() as tx:
            standing = tx.flag(new.key)
            if standing is not None:
                state = "archived" if standing.archived else "there"
                raise ConflictError(f"flag {new.key!r} is {state} already")
            tx.insert_flag(flag)
            self._publisher.record(
                tx,
                actor=actor,
                action="flag.create",
                target=f"flags/{new.key}",
                flag=new.key,
                after_version=1,
            )
            configurations = {
                environment.key: self._publisher.start_configuration(
                    tx, flag, environment.key, first_configuration(off_variant), actor=actor
                ).version
                for environment in tx.environments()
            }
        return FlagWithConfigurations(flag, configurations)

    def update(
        self,
        key: str,
        changes: Mapping[str, Any],
        *,
        actor: str,
        comment: str = "",
        expected_version: int | None = None,
        require_release: Callable[[str], None] = anybody_may,
    ) -> Flag:
        """Replace each given field whole. What changes nothing makes no version.

        Archiving ends delivery everywhere at once; bringing back is `archived: false`.

        Args:
            require_release: called with each environment where the change would reach users;
                raises NotAllowedError.

        Raises:
            NotFoundError: there is no such flag.
            VersionConflictError: a version was expected, and is not the newest.
            ConflictError: it can't be archived while a rule of another flag needs it.
            InvalidError: with every fault; also where a configuration would no longer hold.
        """
        unknown = [Fault(name, "can't be changed") for name in changes if name not in _CHANGEABLE]
        if unknown:
            raise InvalidError(unknown)
        with self._storage.transaction() as tx:
            present = require_flag(tx, key)
            if expected_version is not None and expected_version != present.version:
                raise VersionConflictError(present.version)
            changed = _changed(present, changes)
            if _canonical(changed) == _canonical(present):
                return present
            flag = replace(
                changed, version=present.version + 1, updated_at=self._publisher.clock.now()
            )
            for environment in _reached(tx, present, flag):
                require_release(environment)
            tx.update_flag(flag)
            self._check(tx, present, flag)
            self._publisher.record(
                tx,
                actor=actor,
                action=_action(present, flag),
                target=f"flags/{key}",
                flag=key,
                before_version=present.version,
                after_version=flag.version,
                comment=comment,
                detail={"before": _descriptive(present), "after": _descriptive(flag)},
            )
            self._deliver(tx, present, flag, actor=actor, comment=comment)
            return flag

    def _check(self, tx: Transaction, present: Flag, flag: Flag) -> None:
        """Hold the changed flag, already in `tx`, to all that it touches there."""
        if flag.archived and not present.archived:
            _refuse_while_needed(tx, flag.key)
        # What it was archived with is checked when it comes back; but a variant that one of its
        # configurations names must stay even so, or it never could.
        if _has_same_variants(flag, present):
            if flag.archived or not present.archived:
                return
            field = "archived"
        else:
            field = "variants"
        faults = check_variants(flag.type, flag.variants)
        if faults:
            raise InvalidError(faults)
        for version in tx.configurations_of(flag.key):
            faults += [
                Fault(field, f"in {version.environment!r}, {fault.field}: {fault.message}")
                for fault in check_configuration(
                    tx, version.environment, flag, version.configuration
                )
            ]
            faults += [
                Fault(field, f"{fault.field}: {fault.message}")
                for fault in faults_of_dependants(tx, version.environment, flag=flag.key)
            ]
        if faults:
            raise InvalidError(faults)

    def _deliver(
        self, tx: Transaction, present: Flag, flag: Flag, *, actor: str, comment: str
    ) -> None:
        if not _has_same_variants(flag, present):
            for version in tx.configurations_of(flag.key):
                self._publisher.apply_config_change(
                    tx,
                    flag,
                    version,
                    version.configuration,
                    action="variants",
                    actor=actor,
                    comment=comment,
                )
        elif flag.archived != present.archived:
            for version in tx.configurations_of(flag.key):
                self._publisher.announce_flag(tx, flag, version)


def _changed(present: Flag, changes: Mapping[str, Any]) -> Flag:
    updates = dict(changes)
    if "tags" in updates:
        updates["tags"] = tuple(updates["tags"])
    lifetime = updates.get("lifetime", present.lifetime)
    faults = _lifetime_faults(lifetime, updates.get("expires_at"))
    if faults:
        raise InvalidError(faults)
    if lifetime == "permanent":
        updates["expires_at"] = None
    return replace(present, **updates)


def _reached(tx: Transaction, present: Flag, flag: Flag) -> list[str]:
    """Return the environments whose users may be served something else after the change."""
    if flag.archived == present.archived and _has_same_variants(flag, present):
        return []

    def is_reached(version: ConfigurationVersion) -> bool:
        off = version.configuration.off_variant
        return (
            flag.archived != present.archived
            or version.configuration.enabled
            or _json(flag.variants.get(off)) != _json(present.variants.get(off))
        )

    return [
        version.environment for version in tx.configurations_of(flag.key) if is_reached(version)
    ]


def _lifetime_faults(lifetime: str, expires_at: datetime | None) -> list[Fault]:
    if lifetime == "permanent" and expires_at is not None:
        return [Fault("expires_at", "a permanent flag does not expire")]
    return []


def _refuse_while_needed(tx: Transaction, key: str) -> None:
    for environment in tx.environments():
        needing = [flag.key for flag in flags_needing(tx, environment.key, key)]
        if needing:
            raise ConflictError(
                f"flag {key!r} is a prerequisite in {environment.key!r} of {', '.join(needing)}"
            )


def _action(present: Flag, flag: Flag) -> str:
    if flag.archived == present.archived:
        return "flag.update"
    return "flag.archive" if flag.archived else "flag.bring_back"


def _descriptive(flag: Flag) -> dict[str, Any]:
    return {
        "variants": flag.variants,
        "description": flag.description,
        "owner": flag.owner,
        "tags": flag.tags,
        "lifetime": flag.lifetime,
        "expires_at": None if flag.expires_at is None else flag.expires_at.isoformat(),
        "archived": flag.archived,
    }


def _has_same_variants(first: Flag, second: Flag) -> bool:
    return _json(first.variants) == _json(second.variants)


def _canonical(flag: Flag) -> str:
    return _json(_descriptive(flag))


def _json(value: object) -> str:
    # As text, where true is not 1, and in order: the last variant is the default for off.
    return json.dumps(value)
