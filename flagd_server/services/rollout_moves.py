"""What steering a rollout and its moving on by itself have in common, within one transaction.

A move that serves a stage changes the flag's configuration and the rollout together: after a crash
at any point it has been made whole or not at all.
"""

import json
from collections.abc import Mapping
from typing import Protocol

from flagd_server.domain.configuration import Configuration
from flagd_server.domain.guard.blindness import LEAST_EXPOSURES, NO_CONTROL, NO_SUMMARIES, Blind
from flagd_server.domain.guard.lifecycle import Mode, has_two_arms, mode_of
from flagd_server.domain.release import with_share
from flagd_server.domain.rollout import Move, Rollout, Sight
from flagd_server.domain.rollout_rules import is_seeing, moved
from flagd_server.errors import InvalidError
from flagd_server.services.guarding import WatchState
from flagd_server.services.happenings import Happening, Happenings
from flagd_server.services.lookups import check_configuration, require_delivered
from flagd_server.services.publishing import Publisher
from flagd_server.services.rollbacks import ACTION as ROLLBACK
from flagd_server.services.rollbacks import ACTOR as GUARD
from flagd_server.storage.base import Reader, Transaction
from flagd_server.storage.records import ConfigurationVersion
from flagd_server.storage.release_records import HealthyVersion, RolloutRecord

_TOLD: Mapping[Move, str] = {
    Move.START: "stage",
    Move.ADVANCE: "stage",
    Move.RESUME: "stage",
    Move.WAIT: "waiting",
    Move.PAUSE: "paused",
    Move.DISTURB: "paused",
    Move.COMPLETE: "completed",
    Move.ABORT: "aborted",
}
"""Move → the kind of happening that it is; the others are told by whoever took the feature off."""

# Changes of one flag between two looks.
_LOOKED_BACK = 10

_UNSEEN = Blind(NO_SUMMARIES, "nobody has reported since the guard was to watch")
_UNCOMPARED = Blind(NO_CONTROL, "no split has two variants of weight")


class GateVerdicts(Protocol):
    """What gates say."""

    def exists(self, reader: Reader, environment: str, gate: str) -> bool: ...

    def is_green(self, environment: str, gate: str) -> tuple[bool, str]:
        """Return whether a gate is healthy, and why not where it is not. From memory."""
        ...


class GuardStates(Protocol):
    """How the guard stands to a flag."""

    def state_of(self, environment: str, flag: str, at: float) -> WatchState | None: ...


class HeldOff(Protocol):
    """In which processes a flag is off by their own evidence."""

    def standing_in(self, reader: Reader, environment: str, flag: str) -> int: ...


class RolloutMoves:
    """Used within the transactions of others."""

    def __init__(
        self,
        publisher: Publisher,
        guard: GuardStates,
        gates: GateVerdicts,
        held_off: HeldOff,
        happenings: Happenings,
    ) -> None:
        self.clock = publisher.clock
        self.gates = gates
        self._publisher = publisher
        self._guard = guard
        self._held_off = held_off
        self._happenings = happenings

    def sight(self, reader: Reader, rollout: Rollout, present: ConfigurationVersion) -> Sight:
        """Return what the rollout has to know before it moves."""
        watched = self._guard.state_of(
            rollout.environment, rollout.flag, self.clock.now().timestamp()
        )
        flag = reader.flag(rollout.flag)
        taken = _taken_away(reader, rollout, present)
        stage = rollout.present
        gates = () if stage is None else stage.gates
        return Sight(
            config_version=present.version,
            changed_by=(taken or present).actor,
            is_killed=present.configuration.kill is not None
            or (taken is not None and taken.action == "kill"),
            is_rolled_back=taken is not None and taken.action == ROLLBACK,
            red=_red(
                watched,
                self._held_off.standing_in(reader, rollout.environment, rollout.flag),
                is_archived=flag is not None and flag.archived,
            ),
            blind=_blind(watched, present.configuration),
            exposures=_exposures(reader, rollout),
            gates={gate: self.gates.is_green(rollout.environment, gate) for gate in gates},
        )

    def serve_stage(
        self, tx: Transaction, rollout: Rollout, move: Move, stage: int, actor: str, reason: str
    ) -> Rollout:
        """Make a move that raises exposure: to a stage, which begins.

        Raises:
            ConflictError: the flag is archived.
            InvalidError, ValueError: its configuration has no room for the stage.
        """
        record, present = require_delivered(tx, rollout.environment, rollout.flag)
        share = rollout.stages[stage]
        configuration = with_share(
            present.configuration, rollout.flag, rollout.release, share.weight
        )
        faults = check_configuration(tx, rollout.environment, record, configuration)
        if faults:
            raise InvalidError(faults)
        published = self._publisher.apply_config_change(
            tx,
            record,
            present,
            configuration,
            action="rollout",
            actor=actor,
            comment=reason,
            detail={"rollout": rollout.id, "stage": stage, "percent": share.percent},
        )
        after = moved(
            rollout,
            move,
            at=self.clock.now(),
            by=actor,
            reason=reason,
            stage=stage,
            config_version=published.version.version,
        )
        return self.store(tx, after)

    def mark_passed(
        self, tx: Transaction, rollout: Rollout, present: ConfigurationVersion, sight: Sight
    ) -> None:
        """Mark what a stage has served as healthy, where a guard has watched it.

        A stage that is not guarded, or too short for a fault to have shown, has proved nothing.
        """
        at = self.clock.now()
        watched = self._guard.state_of(rollout.environment, rollout.flag, at.timestamp())
        if watched is None or not is_seeing(rollout, sight):
            return
        if not has_two_arms(present.configuration) or _served(tx, rollout) < LEAST_EXPOSURES:
            return
        stage = rollout.present
        assert stage is not None, "a stage has passed"
        why = f"it stood its stage of {stage.percent:g} % in rollout {rollout.id}"
        tx.mark_healthy(HealthyVersion(rollout.environment, rollout.flag, present.version, at, why))

    def store(self, tx: Transaction, after: Rollout, *, is_news: bool = True) -> Rollout:
        """Store a rollout that has just moved, with its audit entry, and have it told.

        Args:
            is_news: whether it is worth telling.
        """
        tx.update_rollout(record_of(after))
        last = after.moves[-1]
        self.audit(tx, after, last.move.value, last.by, last.reason)
        kind = _TOLD.get(last.move)
        if kind is not None and is_news:
            share = "" if after.present is None else f" at {after.present.percent:g} %"
            why = f": {last.reason}" if last.reason else ""
            self._happenings.tell(
                tx,
                Happening(
                    kind=kind,
                    environment=after.environment,
                    flag=after.flag,
                    at=last.at,
                    by=last.by,
                    text=f"The rollout of {after.flag} is {after.state.value}{share}{why}",
                    detail={"rollout": after.id, **last.to_document()},
                ),
            )
        return after

    def audit(self, tx: Transaction, rollout: Rollout, what: str, actor: str, reason: str) -> None:
        """Write the entry of what happened to a rollout."""
        place = f"flags/{rollout.flag}/environments/{rollout.environment}"
        self._publisher.record(
            tx,
            actor=actor,
            action=f"rollout.{what}",
            target=f"{place}/rollouts/{rollout.id}",
            environment=rollout.environment,
            flag=rollout.flag,
            after_version=rollout.config_version,
            comment=reason,
            detail={"state": rollout.state.value, "stage": rollout.stage},
        )


def rollout_of(record: RolloutRecord) -> Rollout:
    return Rollout.from_document(json.loads(record.document))


def record_of(rollout: Rollout) -> RolloutRecord:
    return RolloutRecord(
        id=rollout.id,
        environment=rollout.environment,
        flag=rollout.flag,
        is_open=rollout.is_open,
        version=rollout.version,
        document=json.dumps(rollout.to_document(), ensure_ascii=False, separators=(",", ":")),
    )


def _taken_away(
    reader: Reader, rollout: Rollout, present: ConfigurationVersion
) -> ConfigurationVersion | None:
    """Return the newest version by which the feature was taken off or back, unknown to the rollout.

    Whatever was done to the flag after it within the same second: that is no reason to go on.
    """
    known = rollout.config_version
    if known is None or known >= present.version:
        return None  # what was before it began is nothing to it
    unknown = [present]
    if known < present.version - 1:
        unknown += reader.history(present.environment, present.flag, _LOOKED_BACK, present.version)
    for each in unknown:
        is_by_guard = each.action == ROLLBACK and each.actor == GUARD
        if each.version > known and (is_by_guard or each.action == "kill"):
            return each
    return None


def _red(watched: WatchState | None, held_off_in: int, *, is_archived: bool) -> str:
    if is_archived:
        return "the flag is archived, and served to nobody; bring it back, or abort the rollout"
    if watched is not None and watched.is_held:
        return "the guard has decided against the flag, or holds it"
    if held_off_in:
        # The next stage would switch it on there again.
        return f"{held_off_in} of the processes hold the flag off by their own evidence"
    return ""


def _blind(watched: WatchState | None, configuration: Configuration) -> tuple[Blind, ...]:
    if watched is not None:
        return watched.blind
    if mode_of(configuration) is Mode.OFF:
        return ()  # nobody is to watch, by the flag's own policy
    # The guard looks at a flag again with the next report of whatever process.
    return (_UNSEEN if has_two_arms(configuration) else _UNCOMPARED,)


def _exposures(reader: Reader, rollout: Rollout) -> int:
    """Count how often the new variant was served since its stage began, where that matters."""
    stage = rollout.present
    return 0 if stage is None or not stage.min_exposures else _served(reader, rollout)


def _served(reader: Reader, rollout: Rollout) -> int:
    began = rollout.stage_started_at
    if began is None or rollout.stage_version is None:
        return 0
    return reader.exposures_since(
        rollout.environment,
        rollout.flag,
        rollout.stage_version,
        int(began.timestamp()) // 60,
        split=rollout.split,
        variant=rollout.to_variant,
    )
