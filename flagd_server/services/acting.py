"""What follows a decision of the guard: a kill, or why there is none, and the report on it.

Everything is written in the transaction of the summary that decided.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.lifecycle import Mode, kills_on_breach, mode_of
from flagd_server.domain.guard.report import report
from flagd_server.domain.times import format_time
from flagd_server.services.kills import Killed, Kills
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import Brake, ConfigurationVersion

ACTOR = "guard"
# More automatic kills in a minute than this, and it is more likely that the telemetry is wrong, or
# everything is, than that so many flags went bad at once: a person has to look.
KILLS_A_MINUTE = 5


class Action(StrEnum):
    """What followed a decision."""

    KILL = "kill"
    NONE = "none"
    HOLD = "hold"
    BRAKED = "braked"
    DEFERRED = "deferred"


@dataclass(frozen=True, slots=True)
class Judged:
    """A flag that the guard has decided against.

    Attributes:
        life: the id of its life.
        guard: whose decision it is.
        newest: the configuration that stands.
        goes_first: another flag that shares the split's salt and was changed later, if any.
        sharing: all flags that share it.
        decided_on: the flag whose comparison it was, where this one goes first in its place.
    """

    life: int
    guard: FlagGuard
    newest: ConfigurationVersion
    goes_first: str | None = None
    sharing: Sequence[str] = ()
    decided_on: str | None = None


class Acting:
    """Used by the guard, within its transactions.

    Args:
        on_decision: told (environment, flag, mode, evidence id) of each one once it is durable.
    """

    def __init__(self, kills: Kills, on_decision: Callable[[str, str, str, str], None]) -> None:
        self._kills = kills
        self._on_decision = on_decision

    def act(
        self, tx: Transaction, judged: Judged, at: float, *, is_released: bool = False
    ) -> Action:
        """Do what the flag's policy says, and write the report; return what was done.

        Args:
            is_released: a person has looked at what the brake held up, and released it.
        """
        newest = judged.newest
        environment, flag, mode = newest.environment, newest.flag, mode_of(newest.configuration)
        when = datetime.fromtimestamp(at, UTC)
        evidence_id = f"ev-{secrets.token_hex(8)}"
        action = self._action(tx, judged, mode, when, is_released)
        killed = None
        if action is Action.KILL:
            killed = self._kills.kill_in(
                tx,
                environment,
                flag,
                source=KillSource.GUARD,
                reason=judged.guard.decision.reason,
                actor=ACTOR,
                evidence=evidence_id,
            )
        elif action is Action.BRAKED:
            tx.engage_brake(Brake(environment, when, _brake_reason(flag)))
        document = _document(tx, judged, evidence_id, at, mode, action, killed)
        tx.insert_evidence(evidence_id, environment, flag, when, json.dumps(document))
        tx.after_commit(lambda: self._on_decision(environment, flag, mode.value, evidence_id))
        return action

    def _action(
        self, tx: Transaction, judged: Judged, mode: Mode, when: datetime, is_released: bool
    ) -> Action:
        newest = judged.newest
        if not kills_on_breach(newest.configuration):
            return Action.HOLD if mode is Mode.ENFORCE else Action.NONE
        if judged.goes_first is not None:
            return Action.DEFERRED
        if is_released:
            return Action.KILL
        if tx.brake(newest.environment) is not None:
            return Action.BRAKED
        kills = tx.kills_since(newest.environment, ACTOR, when - timedelta(minutes=1))
        return Action.BRAKED if kills >= KILLS_A_MINUTE else Action.KILL


def _brake_reason(flag: str) -> str:
    return (
        f"the guard has killed {KILLS_A_MINUTE} flags within a minute and would kill {flag!r} next:"
        " a person has to look whether so many are at fault"
    )


def _document(
    tx: Transaction,
    judged: Judged,
    evidence_id: str,
    at: float,
    mode: Mode,
    action: Action,
    killed: Killed | None,
) -> dict[str, Any]:
    newest = judged.newest
    return {
        "id": evidence_id,
        "environment": newest.environment,
        "flag": newest.flag,
        "at": format_time(datetime.fromtimestamp(at, UTC)),
        "mode": mode.value,
        "action": action.value,
        "kill": None if killed is None else killed.kill.to_document(),
        "life": judged.life,
        "configuration": {
            "version": newest.version,
            "at": format_time(newest.at),
            "actor": newest.actor,
            "action": newest.action,
        },
        "shared_salt": {
            "flags": list(judged.sharing),
            "goes_first": judged.goes_first,
            "decided_on": judged.decided_on,
        },
        **report(judged.guard, at),
        "error_kinds": [
            {
                "variant": row.variant,
                "kind": row.kind,
                "where": row.where,
                "count": row.count,
                "sample": row.sample,
            }
            for row in tx.error_kinds(newest.environment, newest.flag)
        ],
    }
