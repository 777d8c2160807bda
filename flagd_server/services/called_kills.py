"""Kills that tools call for: alerts, and whatever else may sign for an environment.

A call is an episode with a beginning. Whoever restores a flag after it began has seen it, and is
not overruled by the same episode told again: by an alert that still fires, or a message played
back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flagd_server.domain.configuration import KillSource
from flagd_server.services.deployments import brought_by
from flagd_server.services.kills import Kills
from flagd_server.services.lookups import require_environment
from flagd_server.storage.base import Reader, Storage, Transaction

_MAX_REASON_CHARS = 1_000
_VERSIONS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be off; the first of the three that is named counts."""

    flag: str | None = None
    tag: str | None = None
    service: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Attributes:
    began_at: when what calls for it began.
    environment: where it says that it is; None where it does not say.
    """

    target: Target
    reason: str
    began_at: datetime
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class FlagOutcome:
    """Attributes:
    did: "killed", "already" off, or "left": it was restored after the call's beginning.
    kill: id of the kill that stands; None where none does.
    """

    flag: str
    did: str
    kill: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call; `note` says why there are no flags, or why one was left."""

    flags: tuple[FlagOutcome, ...] = ()
    note: str | None = None


class CalledKills:
    def __init__(self, storage: Storage, kills: Kills) -> None:
        self._storage = storage
        self._kills = kills

    def answer(self, environment: str, calls: Sequence[Call], *, actor: str) -> list[Outcome]:
        """Kill what the calls name, all in one transaction; what nobody knows is no error.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            return [self._answer(tx, environment, call, actor) for call in calls]

    def _answer(self, tx: Transaction, environment: str, call: Call, actor: str) -> Outcome:
        if call.environment not in (None, environment) and _is_ours(tx, call.environment):
            return Outcome(note=f"is about {call.environment}, and this is {environment}")
        named = _named(tx, environment, call.target)
        if isinstance(named, str):
            return Outcome(note=named)
        flags = [self._press(tx, environment, flag, call, actor) for flag in named]
        left = [each.flag for each in flags if each.did == "left"]
        note = f"restored after this began, and left on: {', '.join(left)}" if left else None
        return Outcome(tuple(flags), note)

    def _press(
        self, tx: Transaction, environment: str, flag: str, call: Call, actor: str
    ) -> FlagOutcome:
        present = tx.configuration(environment, flag)
        is_off = present is not None and present.configuration.kill is not None
        if not is_off and _was_restored(tx, environment, flag, call.began_at):
            return FlagOutcome(flag, "left", None)
        killed = self._kills.kill_in(
            tx,
            environment,
            flag,
            source=KillSource.ALERT,
            reason=call.reason[:_MAX_REASON_CHARS],
            actor=actor,
        )
        return FlagOutcome(flag, "already" if killed.already else "killed", killed.kill.id)


def _named(tx: Transaction, environment: str, target: Target) -> list[str] | str:
    """Return the flags that are delivered and that the target names, or why there are none."""
    if target.flag is not None:
        named, what = [target.flag], f"flag {target.flag!r:.140}"
    elif target.tag is not None:
        named = [flag.key for flag in tx.flags(tag=target.tag, archived=False)]
        what = f"flag with the tag {target.tag!r:.140}"
    elif target.service is not None and target.version is not None:
        what = f"flag that version {target.version!r:.140} of {target.service!r:.140} brought"
        deployment = tx.deployment_of(environment, target.service, target.version)
        named = []
        if deployment is not None:
            named = brought_by(tx.first_served(environment), deployment)
    else:
        return "names no flag: expected flag, tag, or service and version"
    delivered = [key for key in named if _is_delivered(tx, environment, key)]
    return delivered or f"there is no {what} in {environment}"


def _is_ours(reader: Reader, environment: str | None) -> bool:
    # Others call their environments by names of their own: those say nothing here.
    return environment is not None and reader.environment(environment) is not None


def _is_delivered(reader: Reader, environment: str, key: str) -> bool:
    flag = reader.flag(key)
    if flag is None or flag.archived:
        return False
    return reader.configuration(environment, key) is not None


def _was_restored(reader: Reader, environment: str, flag: str, since: datetime) -> bool:
    before = None
    while versions := reader.history(environment, flag, _VERSIONS_AT_ONCE, before):
        for version in versions:
            if version.at <= since:
                return False
            if version.action == "restore":
                return True
        before = versions[-1].version
    return False
