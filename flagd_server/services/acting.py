"""What follows a decision of the guard: a kill, a rollback or neither, and the report on it.

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
from flagd_server.domain.guard.lifecycle import Mode, acts_on_breach, mode_of, rolls_back
from flagd_server.domain.guard.report import report
from flagd_server.domain.times import format_time
from flagd_server.services.kills import Killed, Kills
from flagd_server.services.notices import Topic
from flagd_server.services.rollbacks import ACTOR, Rollbacks, RolledBack
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import Brake, ConfigurationVersion

# More automatic kills and rollbacks in a minute than this, and it is more likely that the telemetry
# is wrong, or everything is, than that so many flags went bad at once: a person has to look.
INTERVENTIONS_A_MINUTE = 5


class Action(StrEnum):
    """What followed a decision."""

    KILL = "kill"
    ROLLBACK = "rollback"
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

    def __init__(
        self,
        kills: Kills,
        rollbacks: Rollbacks,
        on_decision: Callable[[str, str, str, str], None],
    ) -> None:
        self._kills = kills
        self._rollbacks = rollbacks
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
        rolled_back = self._go_back(tx, judged, action, evidence_id)
        if isinstance(rolled_back, RolledBack):
            action = Action.ROLLBACK
        elif action is Action.KILL:
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
        document = _document(tx, judged, evidence_id, at, mode, action, killed, rolled_back)
        tx.insert_evidence(evidence_id, environment, flag, when, json.dumps(document))
        tx.after_commit(lambda: self._on_decision(environment, flag, mode.value, evidence_id))
        tx.announce(Topic.DECISION, {"environment": environment, "evidence": evidence_id})
        return action

    def _go_back(
        self, tx: Transaction, judged: Judged, action: Action, evidence: str
    ) -> RolledBack | str | None:
        """Roll back where that is asked for; return why not where it can't be, None without."""
        newest, decision = judged.newest, judged.guard.decision
        is_asked = action is Action.KILL and rolls_back(newest.configuration)
        if action is Action.DEFERRED:
            return None
        if judged.decided_on is not None:
            # They say nothing about this flag's shares.
            return "what hurts was seen in another flag's figures" if is_asked else None
        self._rollbacks.withdraw_marks(tx, newest, decision)
        if not is_asked:
            return None
        return self._rollbacks.roll_back_in(tx, newest, decision, evidence)

    def _action(
        self, tx: Transaction, judged: Judged, mode: Mode, when: datetime, is_released: bool
    ) -> Action:
        newest = judged.newest
        if not acts_on_breach(newest.configuration):
            return Action.HOLD if mode is Mode.ENFORCE else Action.NONE
        if judged.goes_first is not None:
            return Action.DEFERRED
        if is_released:
            return Action.KILL
        if tx.brake(newest.environment) is not None:
            return Action.BRAKED
        made = tx.interventions_since(newest.environment, ACTOR, when - timedelta(minutes=1))
        return Action.BRAKED if made >= INTERVENTIONS_A_MINUTE else Action.KILL


def _brake_reason(flag: str) -> str:
    return (
        f"the guard has acted on {INTERVENTIONS_A_MINUTE} flags within a minute and {flag!r} is"
        " next: a person has to look whether so many are at fault"
    )


def _document(
    tx: Transaction,
    judged: Judged,
    evidence_id: str,
    at: float,
    mode: Mode,
    action: Action,
    killed: Killed | None,
    rolled_back: RolledBack | str | None,
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
        "rollback": rolled_back.to_document() if isinstance(rolled_back, RolledBack) else None,
        "not_rolled_back": rolled_back if isinstance(rolled_back, str) else None,
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
