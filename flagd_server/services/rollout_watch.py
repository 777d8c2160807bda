"""Moves rollouts on: called about once a second, it makes whatever moves have become due."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from flagd_server.domain.release import weight_of
from flagd_server.domain.rollout import BAKING, RAISING, Move, Rollout, Waiting
from flagd_server.domain.rollout_rules import due_move, is_seeing, moved, waits_for
from flagd_server.errors import (
    ConflictError,
    InvalidError,
    NotLeadingError,
    StorageUnavailableError,
)
from flagd_server.services.rollout_moves import RolloutMoves, record_of, rollout_of
from flagd_server.storage.base import Ledger, Reader, Transaction
from flagd_server.storage.records import ConfigurationVersion
from flagd_server.storage.release_records import RolloutRecord

logger = logging.getLogger(__name__)

ACTOR = "rollout"
# Time in which nobody looked is not baked: the machine slept, or the server was away.
_LONGEST_LOOK_S = 5.0
# How far a stage has baked is stored so often; a crash costs no more than that.
_KEEP_EVERY_S = 5.0
# What a stage waits for is told again no sooner, however often it comes and goes.
_TELL_AGAIN_S = 3_600.0


class _Bake:
    """How long a stage has baked and what it was told to wait for, beside what the storage has."""

    __slots__ = ("_told", "baked_s", "kept_s", "looked_at", "stage")

    def __init__(self, rollout: Rollout, now_s: float) -> None:
        self.stage = _stage(rollout)
        self.baked_s = self.kept_s = rollout.baked_s
        self.looked_at = now_s
        self._told: dict[str, float] = {}

    def look(self, now_s: float, counts: bool) -> None:
        if counts:
            self.baked_s += min(max(0.0, now_s - self.looked_at), _LONGEST_LOOK_S)
        self.looked_at = now_s

    def is_news(self, waits: Sequence[Waiting]) -> bool:
        """Return whether one of these has not been told lately; they count as told then."""
        fresh = [
            wait.what
            for wait in waits
            if self.looked_at - self._told.get(wait.what, -_TELL_AGAIN_S) >= _TELL_AGAIN_S
        ]
        self._told.update(dict.fromkeys(fresh, self.looked_at))
        return bool(fresh)


class RolloutWatch:
    """Used by one thread."""

    def __init__(self, storage: Ledger, moves: RolloutMoves) -> None:
        self._storage = storage
        self._moves = moves
        self._bakes: dict[str, _Bake] = {}
        self._broken: set[str] = set()

    def forget(self) -> None:
        """Drop what is in memory; a stage goes on from what the storage has of it."""
        self._bakes.clear()

    def tick(self, now_s: float) -> None:
        """Make whatever moves are due.

        Args:
            now_s: monotonic; what has baked is measured by it, so that no jump of the wall clock
                bakes a stage.
        """
        with self._storage.read() as reader:
            records = reader.open_rollouts()
            due = []
            for record in records:
                with self._alone(record.id):
                    if self._has_work(reader, record, now_s):
                        due.append(record.id)
        for ended in self._bakes.keys() - {record.id for record in records}:
            del self._bakes[ended]
        for rollout_id in due:
            with self._alone(rollout_id), self._storage.transaction() as tx:
                self._move_on(tx, rollout_id)

    @contextmanager
    def _alone(self, rollout_id: str) -> Iterator[None]:
        """Keep what is wrong with one rollout from all others; it is logged once."""
        try:
            yield
            self._broken.discard(rollout_id)
        except (NotLeadingError, StorageUnavailableError):
            raise
        except Exception:
            if rollout_id not in self._broken:
                logger.exception("rollout %s can't go on; it is tried again", rollout_id)
            self._broken.add(rollout_id)

    def _has_work(self, reader: Reader, record: RolloutRecord, now_s: float) -> bool:
        """Look without a turn to write; return whether there is something to be written."""
        rollout = rollout_of(record)
        present = reader.configuration(rollout.environment, rollout.flag)
        if present is None:
            return False  # deleted in this moment
        sight = self._moves.sight(reader, rollout, present)
        bake = self._bakes.get(rollout.id)
        if bake is None or bake.stage != _stage(rollout):
            bake = self._bakes[rollout.id] = _Bake(rollout, now_s)
        is_baking = rollout.state in BAKING
        bake.look(now_s, is_baking and is_seeing(rollout, sight))
        rollout = replace(rollout, baked_s=bake.baked_s)
        now = self._moves.clock.now()
        if due_move(rollout, now, sight) is not None:
            return True
        if is_baking and bake.baked_s - bake.kept_s >= _KEEP_EVERY_S:
            return True
        return _what(rollout.waiting_for) != _what(waits_for(rollout, now, sight))

    def _move_on(self, tx: Transaction, rollout_id: str) -> None:
        """Read everything anew, and write what is due by that."""
        record = tx.rollout(rollout_id)
        present = None if record is None else tx.configuration(record.environment, record.flag)
        if record is None or present is None or not record.is_open:
            return
        rollout = rollout_of(record)
        bake = self._bakes[rollout_id]
        if bake.stage == _stage(rollout):
            rollout = replace(rollout, baked_s=max(rollout.baked_s, bake.baked_s))
            bake.kept_s = rollout.baked_s
        sight = self._moves.sight(tx, rollout, present)
        now = self._moves.clock.now()
        due = due_move(rollout, now, sight)
        if due is None:
            waits = waits_for(rollout, now, sight)
            kept = replace(rollout, waiting_for=waits, version=rollout.version + 1)
            tx.update_rollout(record_of(kept))
            return
        move, reason, waits = due
        if move in (Move.ADVANCE, Move.COMPLETE):
            self._moves.mark_passed(tx, rollout, present, sight)
        if move not in RAISING:
            is_by_others = move in (Move.KILL, Move.ROLL_BACK, Move.DISTURB)
            by = sight.changed_by if is_by_others else ACTOR
            self._make(tx, rollout, move, present, by, reason, waits)
            return
        stage = 0 if rollout.stage is None else rollout.stage + 1
        try:
            served = weight_of(present.configuration, rollout.split, rollout.to_variant)
            if served > rollout.stages[stage].weight:
                # Nothing but a person goes past a stage that has not baked.
                raise ConflictError("more is served already than it asks for")
            self._moves.serve_stage(tx, rollout, move, stage, ACTOR, reason)
        except (ConflictError, InvalidError, ValueError) as error:
            # Possible when it was planned, and no longer: a person has to look.
            why = f"the next stage can't be served: {error}"
            self._make(tx, rollout, Move.PAUSE, present, ACTOR, why, ())

    def _make(
        self,
        tx: Transaction,
        rollout: Rollout,
        move: Move,
        present: ConfigurationVersion,
        by: str,
        reason: str,
        waits: tuple[Waiting, ...],
    ) -> None:
        after = moved(
            rollout,
            move,
            at=self._moves.clock.now(),
            by=by,
            reason=reason,
            stage=rollout.stage,
            config_version=present.version,
            waiting_for=waits,
        )
        is_news = move is not Move.WAIT or self._bakes[rollout.id].is_news(waits)
        self._moves.store(tx, after, is_news=is_news)


def _stage(rollout: Rollout) -> tuple[object, ...]:
    """Return what tells one serving of a stage from another."""
    return rollout.stage, rollout.stage_version


def _what(waits: Sequence[Waiting]) -> set[str]:
    """Return what is worth storing anew; figures that change each second are not."""
    return {f"{w.what} {w.detail}" if w.what.startswith("gate:") else w.what for w in waits}
