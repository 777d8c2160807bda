"""The guard at work: feeds each flag's life with what is reported, and acts on its decision.

What a life knows is a function of its stored events, in the order of their commit. A decision,
its evidence and the kill are written in the transaction that stores the summary which decided,
so that neither a crash nor a restart can lose or repeat one.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flagd_server.domain.configuration import Configuration
from flagd_server.domain.guard.judgement import WITNESS_BAR
from flagd_server.domain.guard.lifecycle import (
    Effect,
    effect_of,
    is_guardable,
    kills_on_breach,
)
from flagd_server.domain.guard.records import Cell
from flagd_server.domain.guard.report import report
from flagd_server.services.acting import Acting, Action, Judged
from flagd_server.services.kills import Kills
from flagd_server.services.lives import SAMPLED_HASHES, Life, Lives, objectives_of
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion

OnDecision = Callable[[str, str, str, str], None]
RaiseAlarm = Callable[[Transaction, str, str, str, str, str | None], None]
"""(transaction, environment, kind, subject, detail, flag)"""


@dataclass(frozen=True, slots=True)
class WatchState:
    """Attributes:
    blind: the reasons why the guard of the flag cannot see; empty where it can.
    is_held: it has decided against the flag, or holds its rollout.
    """

    environment: str
    flag: str
    blind: tuple[str, ...]
    is_held: bool


class Guarding:
    """One thread feeds it, inside its transactions; any thread may ask for the running evidence.

    Args:
        on_decision: told (environment, flag, mode, evidence id) of each one once it is durable.
        raise_alarm: called inside the transaction with what a person has to look at.
    """

    def __init__(
        self,
        storage: Storage,
        kills: Kills,
        on_decision: OnDecision = lambda environment, flag, mode, evidence: None,
        raise_alarm: RaiseAlarm = lambda tx, environment, kind, subject, detail, flag: None,
    ) -> None:
        self._storage = storage
        self._acting = Acting(kills, on_decision)
        self._raise_alarm = raise_alarm
        # Guards the two below against readers of the running evidence; never held over I/O that
        # waits for another lock but the storage's own.
        self._lock = threading.RLock()
        self._lives: Lives | None = None
        self._sequences: dict[str, int] = {}

    def exposed_below(self, environment: str) -> int:
        """Return the hash below which SDKs are to report that a unit was exposed, at 64 bits."""
        with self._lock:
            return SAMPLED_HASHES if self._lives is None else self._lives.exposed_below(environment)

    def forget(self) -> None:
        """Drop what is in memory, after a transaction that failed; the storage still has it."""
        with self._lock:
            self._lives = None
            self._sequences = {}

    def note_objectives(self, environment: str) -> None:
        """Look at the environment's objectives again before the next summary."""
        with self._lock:
            self._sequences.pop(environment, None)

    def take_notice(self, tx: Transaction, environment: str, at: float) -> None:
        """Catch up with the changes that people and tools have made since the last transaction."""
        with self._lock:
            known = tx.environment(environment)
            if known is None or self._sequences.get(environment) == known.sequence:
                return
            objectives = objectives_of(tx, environment)
            lives = self._loaded(tx)
            archived = {flag.key for flag in tx.flags(archived=True)}
            killed: list[str] = []
            for newest in tx.configurations(environment):
                life = lives.get((environment, newest.flag))
                if newest.flag in archived:
                    if life is not None:
                        lives.end(tx, life, at, "archived")
                elif life is None:
                    if is_guardable(newest.configuration, objectives):
                        lives.start(tx, newest, at)
                elif life.guard.policy.slos != objectives:
                    lives.start_over(tx, life, at, "objectives")
                elif life.version != newest.version and self._catch_up(tx, lives, life, newest, at):
                    killed.append(newest.flag)
            self._announce_kills(tx, lives, environment, at, killed)
            self._sequences[environment] = known.sequence

    def is_guarded(self, environment: str, flag: str) -> bool:
        """Return whether a life of the flag runs; `take_notice` has to come first."""
        return self._lives is not None and (environment, flag) in self._lives

    def observe(
        self, tx: Transaction, environment: str, at: float, cells: Mapping[str, Sequence[Cell]]
    ) -> None:
        """Feed one summary to the lives of its flags and act where it decides.

        `take_notice` has to come first, in the same transaction.

        Args:
            at: time of commit, seconds since the Unix epoch.
            cells: the summary's believable cells by flag.
        """
        with self._lock:
            lives = self._loaded(tx)
            for flag, of_flag in cells.items():
                life = lives.get((environment, flag))
                if life is not None and life.guard.is_over(at):
                    life = lives.start_over(tx, life, at, "seven days")
                if life is not None:
                    own = tuple(c for c in of_flag if c.config_version >= life.first_version)
                    self._feed(tx, lives, life, at, own)

    def running_evidence(
        self, environment: str, flag: str, at: float | None = None
    ) -> dict[str, Any] | None:
        """Return how the flag's life stands, None where it is not guarded.

        Args:
            at: the present, for what silence means; None is the time of the last report.
        """
        with self._lock:
            life = self._present().get((environment, flag))
            if life is None:
                return None
            t = max(life.guard.last_t or life.guard.started_at, at or 0.0)
            return {"life": life.id, "configuration_version": life.version, **report(life.guard, t)}

    def states(self, at: float) -> list[WatchState]:
        """Return how each flag under guard stands at a time, for metrics."""
        with self._lock:
            return [
                WatchState(
                    life.environment,
                    life.flag,
                    tuple({blind.reason for blind in life.guard.blindness(at)}),
                    life.guard.standing_decision is not None,
                )
                for life in self._present().values()
            ]

    def _present(self) -> Lives:
        """Return the lives outside any transaction; the caller holds the lock."""
        if self._lives is None:
            with self._storage.read() as reader:
                return self._loaded(reader)
        return self._lives

    def _loaded(self, reader: Reader) -> Lives:
        if self._lives is None:
            self._lives = Lives.load(reader)
        return self._lives

    def _catch_up(
        self,
        tx: Transaction,
        lives: Lives,
        life: Life,
        newest: ConfigurationVersion,
        at: float,
    ) -> bool:
        """Take each version since the one the life knows in turn; return whether one was a kill."""
        before = tx.configuration_version(life.environment, life.flag, life.version)
        effects = []
        for number in range(life.version + 1, newest.version + 1):
            after = tx.configuration_version(life.environment, life.flag, number)
            if before is not None and after is not None:
                effects.append(
                    effect_of(
                        before.configuration, before.variants, after.configuration, after.variants
                    )
                )
            before = after
        life.version = newest.version
        ending = next(
            (
                what
                for effect, what in effects
                if effect is not Effect.NOTHING and effect is not Effect.ANNOUNCE
            ),
            None,
        )
        if ending is not None:
            lives.start_over(tx, life, at, ending)
        else:
            for effect, what in effects:
                if effect is Effect.ANNOUNCE:
                    self._feed(tx, lives, life, at, (), announced=what)
        return ending == "killed"

    def _announce_kills(
        self,
        tx: Transaction,
        lives: Lives,
        environment: str,
        at: float,
        killed: Sequence[str],
    ) -> None:
        """A kill changes what the users of other flags meet: each of their lives gets an epoch."""
        for flag in killed:
            for life in lives.of(environment):
                if life.flag != flag:
                    self._feed(tx, lives, life, at, (), announced=f"kill of {flag}")

    def _feed(
        self,
        tx: Transaction,
        lives: Lives,
        life: Life,
        at: float,
        cells: tuple[Cell, ...],
        announced: str | None = None,
    ) -> None:
        had_decided = life.guard.has_killed
        lives.take_in(tx, life, at, cells, announced)
        for alarm in life.guard.take_alarms():
            self._raise_alarm(
                tx, life.environment, alarm.kind, alarm.subject, alarm.detail, life.flag
            )
        if life.guard.has_killed and not had_decided:
            self._act(tx, lives, life, at)

    def _act(
        self,
        tx: Transaction,
        lives: Lives,
        life: Life,
        at: float,
        *,
        is_released: bool = False,
    ) -> None:
        newest = tx.configuration(life.environment, life.flag)
        assert newest is not None, "a life belongs to a configuration"
        sharing = self._sharing(tx, lives, life, newest.configuration)
        first = _goes_first(newest, sharing)
        judged = Judged(life.id, life.guard, newest, first, sorted(row.flag for row in sharing))
        action = self._acting.act(tx, judged, at, is_released=is_released)
        killed, restarted = life, judged.sharing
        if action is Action.DEFERRED and first is not None:
            killed = lives[life.environment, first]
            rival_newest = next(row for row in sharing if row.flag == first)
            restarted = sorted({row.flag for row in sharing if row.flag != first} | {life.flag})
            judged = Judged(
                life.id, life.guard, rival_newest, None, restarted, decided_on=life.flag
            )
            action = self._acting.act(tx, judged, at, is_released=is_released)
        if action is Action.KILL:
            self._after_kill(tx, lives, killed, at, restarted)
        elif action is Action.BRAKED:
            reason = life.guard.decision.reason
            self._raise_alarm(tx, life.environment, "brake", life.environment, reason, killed.flag)

    def _after_kill(
        self,
        tx: Transaction,
        lives: Lives,
        killed: Life,
        at: float,
        sharing: Sequence[str],
    ) -> None:
        """End the life; those whose coins were the same start anew, the others are told."""
        lives.end(tx, killed, at, "killed")
        for flag in sharing:
            life = lives.get((killed.environment, flag))
            if life is not None:
                why = f"kill of {killed.flag}, which shares its salt"
                lives.start_over(tx, life, at, why)
        self._announce_kills(tx, lives, killed.environment, at, [killed.flag])

    def _sharing(
        self,
        tx: Transaction,
        lives: Lives,
        life: Life,
        configuration: Configuration,
    ) -> list[ConfigurationVersion]:
        """Return the flags whose failing users can't be told from this one's, and who have some.

        Splits that share a salt place every unit alike: a fault of either shows in both.
        """
        own = {(split["salt"], split["bucket_by"]) for _, split in configuration.splits()}
        found = []
        for other in lives.values():
            if other.environment != life.environment or other.flag == life.flag:
                continue
            newest = tx.configuration(other.environment, other.flag)
            if newest is None:
                continue
            salts = {(s["salt"], s["bucket_by"]) for _, s in newest.configuration.splits()}
            if own & salts and other.guard.highest_e_value >= WITNESS_BAR:
                found.append(newest)
        return found

    def waiting(self, reader: Reader, environment: str) -> list[str]:
        """Return the flags that only a brake keeps on, by key.

        Where nothing holds it back, a decision to kill ends its life.
        """
        with self._lock:
            lives = self._loaded(reader).values()
            decided = [
                life for life in lives if life.environment == environment and life.guard.has_killed
            ]
        found = []
        for life in decided:
            newest, flag = reader.configuration(environment, life.flag), reader.flag(life.flag)
            # A person may have been faster.
            if (
                newest is not None
                and newest.configuration.kill is None
                and kills_on_breach(newest.configuration)
                and not (flag is not None and flag.archived)
            ):
                found.append(life.flag)
        return sorted(found)

    def act_on_waiting(self, tx: Transaction, environment: str, at: float) -> list[str]:
        """Act on the decisions that a brake has kept from being acted on; return their flags."""
        with self._lock:
            self.take_notice(tx, environment, at)
            waiting = self.waiting(tx, environment)
            lives = self._loaded(tx)
            for flag in waiting:
                life = lives.get((environment, flag))
                # The kill of one before may have begun its life anew.
                if life is not None and life.guard.has_killed:
                    self._act(tx, lives, life, at, is_released=True)
            return waiting


def _goes_first(
    newest: ConfigurationVersion, sharing: Sequence[ConfigurationVersion]
) -> str | None:
    """Return which flag was changed last, where it is not this one: it is the first suspect.

    One that is not to be killed can't go first, or the one at fault would stay on.
    """
    killable = (row for row in sharing if kills_on_breach(row.configuration))
    last = max(killable, key=lambda row: row.at, default=newest)
    return last.flag if last.at > newest.at else None
