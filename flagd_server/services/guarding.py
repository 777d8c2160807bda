"""The guard at work: feeds each flag's life with what is reported, and acts on its decision.

One server does, the leader; the others follow what it stores, to show it.

What a life knows is a function of its stored events, in the order of their commit. A decision,
its evidence and the kill are written in the transaction that stores the summary which decided,
so that neither a crash nor a restart can lose or repeat one.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flagd_server.domain.guard.blindness import Blind
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.lifecycle import (
    Effect,
    acts_on_breach,
    is_guardable,
)
from flagd_server.domain.guard.records import Cell
from flagd_server.domain.guard.report import report
from flagd_server.services.acting import Acting, Action, Judged
from flagd_server.services.kills import Kills
from flagd_server.services.lives import SAMPLED_HASHES, Life, Lives, objectives_of
from flagd_server.services.rollbacks import Rollbacks
from flagd_server.services.shared_salts import flags_sharing, goes_first
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion

T = TypeVar("T")

# Gates look every two seconds, and a page that shows a guard asks for several of its flags.
_FRESH_S = 0.5

OnDecision = Callable[[str, str, str, str], None]
RaiseAlarm = Callable[[Transaction, str, str, str, str, str | None], None]
"""(transaction, environment, kind, subject, detail, flag)"""


@dataclass(frozen=True, slots=True)
class WatchState:
    """Attributes:
    blind: why the guard of the flag cannot see; empty where it can.
    is_held: it has decided against the flag, or holds its rollout.
    version: the configuration version that it has taken notice of.
    """

    environment: str
    flag: str
    blind: tuple[Blind, ...]
    is_held: bool
    version: int = 0


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
        rollbacks: Rollbacks,
        on_decision: OnDecision = lambda environment, flag, mode, evidence: None,
        raise_alarm: RaiseAlarm = lambda tx, environment, kind, subject, detail, flag: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._storage = storage
        self._acting = Acting(kills, rollbacks, on_decision)
        self._raise_alarm = raise_alarm
        # Guards those below against readers of the running evidence; never held over I/O that
        # waits for another lock but the storage's own.
        self._lock = threading.RLock()
        self._lives: Lives | None = None
        # Whether this process feeds them: then they are ahead of whatever the storage could tell.
        self._feeds = False
        self._refreshed_at = -_FRESH_S
        self._sequences: dict[str, int] = {}
        self._before_report: Callable[[], None] = lambda: None

    def exposed_below(self, environment: str) -> int:
        """Return the hash below which SDKs are to report that a unit was exposed, at 64 bits.

        Known to the one server that feeds the guard.
        """
        with self._lock:
            return SAMPLED_HASHES if self._lives is None else self._lives.exposed_below(environment)

    def forget(self) -> None:
        """Drop what is in memory; the storage still has it.

        After a transaction that failed, and where this server begins to lead or leads no more.
        """
        with self._lock:
            self._lives = None
            self._feeds = False
            self._sequences = {}

    def note_objectives(self, environment: str | None = None) -> None:
        """Look at the environment's objectives again before the next summary; None for all."""
        with self._lock:
            if environment is None:
                self._sequences.clear()
            else:
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
            for flag in killed:
                self._announce(tx, lives, environment, at, flag, Action.KILL)
            self._sequences[environment] = known.sequence

    def is_guarded(self, environment: str, flag: str) -> bool:
        """Return whether a life of the flag runs; `take_notice` has to come first."""
        return self._lives is not None and (environment, flag) in self._lives

    def observe(
        self,
        tx: Transaction,
        environment: str,
        at: float,
        cells: Mapping[str, Sequence[Cell]],
        before_report: Callable[[], None] = lambda: None,
    ) -> None:
        """Feed one summary to the lives of its flags and act where it decides.

        `take_notice` has to come first, in the same transaction.

        Args:
            at: time of commit, seconds since the Unix epoch.
            cells: the summary's believable cells by flag.
            before_report: writes what a report is to tell of this summary, and is not there yet.
        """
        with self._lock:
            self._before_report = before_report
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

    def examine(self, environment: str, flag: str, look: Callable[[FlagGuard], T]) -> T | None:
        """Return what `look` makes of a flag's guard, None where no life of it runs.

        It must change nothing, and be quick: the next summary waits.
        """
        with self._lock:
            life = self._present().get((environment, flag))
            return None if life is None else look(life.guard)

    def states(self, at: float) -> list[WatchState]:
        """Return how each flag under guard stands at a time, for metrics."""
        with self._lock:
            return [_watch_state(life, at) for life in self._present().values()]

    def state_of(self, environment: str, flag: str, at: float) -> WatchState | None:
        """Return how a flag stands at a time; None where no life of it runs."""
        with self._lock:
            life = self._present().get((environment, flag))
            return None if life is None else _watch_state(life, at)

    def _present(self) -> Lives:
        """Return the lives outside any transaction; the caller holds the lock.

        Where another server feeds them, they are as it has stored them half a second ago at most.
        """
        if self._lives is not None and (
            self._feeds or self._monotonic() < self._refreshed_at + _FRESH_S
        ):
            return self._lives
        with self._storage.read() as reader:
            return self._followed(reader)

    def _followed(self, reader: Reader) -> Lives:
        """Return the lives as of a view; the caller holds the lock."""
        if self._lives is None:
            self._lives = Lives.load(reader)
        elif not self._feeds:
            try:
                self._lives.refresh(reader)
            except BaseException:
                self._lives = None
                raise
        self._refreshed_at = self._monotonic()
        return self._lives

    def _loaded(self, tx: Transaction) -> Lives:
        """Return the lives to feed them in a transaction; the caller holds the lock."""
        if self._lives is None or not self._feeds:
            self._lives = Lives.load(tx)
            self._feeds = True
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
        effects = life.effects_up_to(tx, newest)
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

    def _announce(
        self,
        tx: Transaction,
        lives: Lives,
        environment: str,
        at: float,
        flag: str,
        action: Action,
    ) -> None:
        """A kill changes what the users of other flags meet: each of their lives gets an epoch.

        So does a rollback.
        """
        for life in lives.of(environment):
            if life.flag != flag:
                self._feed(tx, lives, life, at, (), announced=f"{action.value} of {flag}")

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
        self._before_report()
        newest = tx.configuration(life.environment, life.flag)
        assert newest is not None, "a life belongs to a configuration"
        sharing = flags_sharing(tx, lives, life, newest.configuration)
        first = goes_first(newest, sharing)
        judged = Judged(life.id, life.guard, newest, first, sorted(row.flag for row in sharing))
        action = self._acting.act(tx, judged, at, is_released=is_released)
        acted_on, restarted = life, judged.sharing
        if action is Action.DEFERRED and first is not None:
            acted_on = lives[life.environment, first]
            rival_newest = next(row for row in sharing if row.flag == first)
            restarted = sorted({row.flag for row in sharing if row.flag != first} | {life.flag})
            judged = Judged(
                life.id, life.guard, rival_newest, None, restarted, decided_on=life.flag
            )
            action = self._acting.act(tx, judged, at, is_released=is_released)
        if action in (Action.KILL, Action.ROLLBACK):
            self._after_acting(tx, lives, acted_on, at, restarted, action)
        elif action is Action.BRAKED:
            reason = life.guard.decision.reason
            self._raise_alarm(
                tx, life.environment, "brake", life.environment, reason, acted_on.flag
            )

    def _after_acting(
        self,
        tx: Transaction,
        lives: Lives,
        acted_on: Life,
        at: float,
        sharing: Sequence[str],
        action: Action,
    ) -> None:
        """End the life; after a rollback the next one watches what is served now.

        Those whose coins were the same start anew, the others are told.
        """
        if action is Action.ROLLBACK:
            lives.start_over(tx, acted_on, at, "rolled back")
        else:
            lives.end(tx, acted_on, at, "killed")
        for flag in sharing:
            life = lives.get((acted_on.environment, flag))
            if life is not None:
                why = f"{action.value} of {acted_on.flag}, which shares its salt"
                lives.start_over(tx, life, at, why)
        self._announce(tx, lives, acted_on.environment, at, acted_on.flag, action)

    def waiting(self, reader: Reader, environment: str) -> list[str]:
        """Return the flags that only a brake keeps on, by key.

        Where nothing holds it back, a decision to kill ends its life.
        """
        with self._lock:
            lives = self._followed(reader).values()
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
                and acts_on_breach(newest.configuration)
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


def _watch_state(life: Life, at: float) -> WatchState:
    return WatchState(
        life.environment,
        life.flag,
        tuple(life.guard.blindness(at)),
        life.guard.standing_decision is not None,
        life.version,
    )
