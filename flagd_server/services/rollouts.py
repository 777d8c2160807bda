"""Staged rollouts, for the people who start and steer them."""

import secrets
from dataclasses import replace

from flagd_server.domain.faults import Fault
from flagd_server.domain.release import Plan, release_of, stages_of, weight_of
from flagd_server.domain.restart import Restore
from flagd_server.domain.rollout import RAISING, Move, Rollout
from flagd_server.domain.rollout_rules import moved, refusal, resuming, stage_from
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.kills import Kills
from flagd_server.services.lookups import require_configuration, require_delivered
from flagd_server.services.rollout_moves import (
    RolloutMoves,
    record_of,
    rollout_of,
)
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion, Flag


class Rollouts:
    """Any thread may call."""

    def __init__(self, storage: Storage, moves: RolloutMoves, kills: Kills) -> None:
        self._storage = storage
        self._moves = moves
        self._kills = kills

    def start(
        self,
        environment: str,
        flag: str,
        plan: Plan,
        *,
        actor: str,
        restore: Restore | None = None,
    ) -> Rollout:
        """Make a rollout; without a date its first stage is served at once.

        Args:
            restore: lifts the flag's kill first; both or neither are done.

        Raises:
            NotFoundError: there is no such flag or environment.
            ConflictError: another rollout of the flag has not ended, the flag is archived or
                killed, or the guard is against it.
            InvalidError: with every fault of the plan.
        """
        with self._storage.transaction() as tx:
            record, present = require_delivered(tx, environment, flag)
            for other in tx.rollouts(environment, flag):
                if other.is_open:
                    self._end_killed(tx, rollout_of(other), present)
            if restore is not None:
                lifted = _with_start(restore, plan)
                present = self._kills.restore_in(tx, environment, flag, lifted, actor=actor)
            place = "" if restore is None else "rollout."
            rollout = self._planned(tx, record, present, plan, actor, place)
            if present.configuration.kill is not None:
                raise ConflictError("a kill stands; restore the flag first")
            tx.insert_rollout(record_of(rollout))
            self._moves.audit(tx, rollout, "create", actor, "")
            if plan.starts_at is not None:
                return rollout
            return self._serve(tx, rollout, Move.START, present, actor, "")

    def get(self, environment: str, flag: str, rollout_id: str) -> Rollout:
        """Return a rollout, or raise NotFoundError."""
        with self._storage.read() as reader:
            return _require(reader, environment, flag, rollout_id)

    def list(self, environment: str, flag: str) -> list[Rollout]:
        """Return the flag's rollouts, newest first, or raise NotFoundError."""
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            return [rollout_of(record) for record in reader.rollouts(environment, flag)]

    def steer(
        self, environment: str, flag: str, rollout_id: str, move: Move, *, actor: str, reason: str
    ) -> Rollout:
        """Pause, resume, advance or abort.

        Resuming begins the stage anew; where someone has raised the share by hand meanwhile, the
        first stage that takes the variant from nobody. One that was paused before its date is
        scheduled again. An abort leaves what is served as it is.

        Raises:
            NotFoundError: there is no such rollout.
            ConflictError: the rollout's state, a kill or the guard does not allow it.
            InvalidError: the flag's configuration has no room for the stage.
        """
        with self._storage.transaction() as tx:
            rollout = _require(tx, environment, flag, rollout_id)
            present = require_configuration(tx, environment, flag)
            if move is Move.RESUME:
                move = resuming(rollout, self._moves.clock.now())
            if move in RAISING:
                return self._serve(tx, rollout, move, present, actor, reason)
            self._require_possible(tx, rollout, move, present)
            after = moved(
                rollout,
                move,
                at=self._moves.clock.now(),
                by=actor,
                reason=reason,
                stage=rollout.stage,
                config_version=rollout.config_version,
            )
            return self._moves.store(tx, after)

    def approve(
        self, environment: str, flag: str, rollout_id: str, *, actor: str, reason: str
    ) -> Rollout:
        """Approve the end of the present stage, which comes once all else allows it.

        Raises:
            NotFoundError: there is no such rollout.
            ConflictError: its present stage asks for no approval.
        """
        with self._storage.transaction() as tx:
            rollout = _require(tx, environment, flag, rollout_id)
            stage = rollout.present
            if not rollout.is_open or stage is None or not stage.approval:
                raise ConflictError("the rollout's present stage asks for no approval")
            if not rollout.approved:
                rollout = replace(rollout, approved=True, version=rollout.version + 1)
                tx.update_rollout(record_of(rollout))
                self._moves.audit(tx, rollout, "approve", actor, reason)
            return rollout

    def _end_killed(self, tx: Transaction, rollout: Rollout, present: ConfigurationVersion) -> None:
        """End a rollout whose flag is killed, which the watch has not seen yet.

        Raises:
            ConflictError: it is not, so that the rollout goes on.
        """
        kill = present.configuration.kill
        if kill is None:
            raise ConflictError(f"rollout {rollout.id!r} of flag {rollout.flag!r} has not ended")
        after = moved(
            rollout,
            Move.KILL,
            at=self._moves.clock.now(),
            by=kill.by,
            reason="the flag was killed",
            stage=rollout.stage,
            config_version=present.version,
        )
        self._moves.store(tx, after)

    def _serve(
        self,
        tx: Transaction,
        rollout: Rollout,
        move: Move,
        present: ConfigurationVersion,
        actor: str,
        reason: str,
    ) -> Rollout:
        self._require_possible(tx, rollout, move, present)
        stage: int | None = 0
        if move is Move.ADVANCE:
            stage = (rollout.stage or 0) + 1
        elif move is Move.RESUME:
            served = weight_of(present.configuration, rollout.split, rollout.to_variant)
            stage = stage_from(rollout, served)
        if stage is None:
            raise ConflictError("more is served already than the last stage asks for; abort it")
        try:
            return self._moves.serve_stage(tx, rollout, move, stage, actor, reason)
        except ValueError as error:
            raise InvalidError([Fault("stages", str(error))]) from error

    def _require_possible(
        self, tx: Transaction, rollout: Rollout, move: Move, present: ConfigurationVersion
    ) -> None:
        why_not = refusal(rollout, move, self._moves.sight(tx, rollout, present))
        if why_not is not None:
            raise ConflictError(why_not)

    def _planned(
        self,
        tx: Transaction,
        flag: Flag,
        present: ConfigurationVersion,
        plan: Plan,
        actor: str,
        place: str,
    ) -> Rollout:
        release, faults = release_of(plan, present.configuration, flag.variants, flag.key)
        faults += [
            Fault(f"stages[{index}].gates", f"there is no gate {gate!r}")
            for index, stage in enumerate(release.stages)
            for gate in stage.gates
            if not self._moves.gates.exists(tx, present.environment, gate)
        ]
        if faults:
            raise InvalidError([Fault(f"{place}{each.field}", each.message) for each in faults])
        return Rollout(
            id=f"ro-{secrets.token_hex(8)}",
            environment=present.environment,
            flag=flag.key,
            split=release.split,
            from_variant=release.from_variant,
            to_variant=release.to_variant,
            stages=release.stages,
            template=plan.template,
            created_at=self._moves.clock.now(),
            created_by=actor,
            starts_at=plan.starts_at,
        )


def _with_start(restore: Restore, plan: Plan) -> Restore:
    """Return the restore that starts with the first stage, where no other start is named."""
    stages, faults = stages_of(plan)
    if faults or restore.keep or restore.start_percent is not None:
        return restore  # what is wrong with the plan is named with the rest of it
    return replace(restore, start_percent=stages[0].percent)


def _require(reader: Reader, environment: str, flag: str, rollout_id: str) -> Rollout:
    record = reader.rollout(rollout_id)
    if record is None or (record.environment, record.flag) != (environment, flag):
        require_configuration(reader, environment, flag)
        raise NotFoundError("rollout", rollout_id)
    return rollout_of(record)
