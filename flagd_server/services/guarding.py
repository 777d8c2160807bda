"""The guard at work: feeds each flag's life with what is reported, and acts on its decision.

What a life knows is a function of its stored events, in the order of their commit. A decision,
its evidence and the kill are written in the transaction that stores the summary which decided,
so that neither a crash nor a restart can lose or repeat one.
"""

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.lifecycle import (
    Effect,
    Mode,
    effect_of,
    is_guardable,
    mode_of,
    policy_of,
)
from flagd_server.domain.guard.records import Cell, Event, parse_event
from flagd_server.domain.guard.report import report
from flagd_server.domain.times import format_time
from flagd_server.services.kills import Kills
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion

ACTOR = "guard"
# How many events a restart runs again at the most; a saved state covers the ones before.
EVENTS_PER_STATE = 1_000


@dataclass(slots=True)
class Life:
    """One flag under guard, as it stands in memory.

    Attributes:
        first_version: the configuration version it started with; reports of older ones belong
            to a life before it.
        version: the configuration version it has taken notice of.
        releases: (service, version) pairs it has heard from.
        unsaved: events since the state was saved.
    """

    id: int
    environment: str
    flag: str
    first_version: int
    version: int
    guard: FlagGuard
    releases: dict[str, list[str]] = field(default_factory=dict)
    unsaved: int = 0

    def to_document(self) -> dict[str, Any]:
        return {
            "first_version": self.first_version,
            "version": self.version,
            "guard": self.guard.to_document(),
            "releases": self.releases,
        }


class Guarding:
    """One thread feeds it, inside its transactions; any thread may ask for the running evidence.

    Args:
        on_decision: told (environment, flag, mode) of every decision once it is durable.
    """

    def __init__(
        self,
        storage: Storage,
        kills: Kills,
        on_decision: Callable[[str, str, str], None] = lambda environment, flag, mode: None,
    ) -> None:
        self._storage = storage
        self._kills = kills
        self._on_decision = on_decision
        # Guards the two below against readers of the running evidence; never held over I/O that
        # waits for another lock but the storage's own.
        self._lock = threading.RLock()
        self._lives: dict[tuple[str, str], Life] | None = None
        self._sequences: dict[str, int] = {}

    def forget(self) -> None:
        """Drop what is in memory, after a transaction that failed; the storage still has it."""
        with self._lock:
            self._lives = None
            self._sequences = {}

    def take_notice(self, tx: Transaction, environment: str, at: float) -> None:
        """Catch up with the changes that people and tools have made since the last transaction."""
        with self._lock:
            known = tx.environment(environment)
            if known is None or self._sequences.get(environment) == known.sequence:
                return
            lives = self._loaded(tx)
            archived = {flag.key for flag in tx.flags(archived=True)}
            killed: list[str] = []
            for newest in tx.configurations(environment):
                life = lives.get((environment, newest.flag))
                if newest.flag in archived:
                    if life is not None:
                        self._end(tx, lives, life, at, "archived")
                elif life is None:
                    if is_guardable(newest.configuration):
                        self._start(tx, lives, newest, at)
                elif life.version != newest.version and self._catch_up(tx, lives, life, newest, at):
                    killed.append(newest.flag)
            self._announce_kills(tx, lives, environment, at, killed)
            self._sequences[environment] = known.sequence

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
                    life = self._renew(tx, lives, life, at)
                if life is not None:
                    own = tuple(c for c in of_flag if c.config_version >= life.first_version)
                    self._feed(tx, lives, life, at, own)

    def running_evidence(self, environment: str, flag: str) -> dict[str, Any] | None:
        """Return how the flag's life stands now, None where it is not guarded."""
        with self._lock:
            if self._lives is None:
                with self._storage.read() as reader:
                    lives = self._loaded(reader)
            else:
                lives = self._lives
            life = lives.get((environment, flag))
            if life is None:
                return None
            t = life.guard.last_t or life.guard.started_at
            return {"life": life.id, "configuration_version": life.version, **report(life.guard, t)}

    def _loaded(self, reader: Reader) -> dict[tuple[str, str], Life]:
        if self._lives is None:
            self._lives = {
                (row.environment, row.flag): self._load(reader, row.id, row.environment, row.flag)
                for row in reader.running_lives()
            }
        return self._lives

    @staticmethod
    def _load(reader: Reader, life_id: int, environment: str, flag: str) -> Life:
        state = reader.load_guard_state(life_id)
        assert state is not None, "a life is inserted together with its first state"
        document = json.loads(state.document)
        life = Life(
            life_id,
            environment,
            flag,
            document["first_version"],
            document["version"],
            FlagGuard.from_document(document["guard"]),
            document["releases"],
        )
        for event in reader.guard_events_after(life_id, state.event_id):
            row = json.loads(event.document)
            life.version = row.pop("version")
            parsed = parse_event(row)
            _note_releases(life, parsed.cells)
            life.guard.observe(parsed)
            life.unsaved += 1
        return life

    def _catch_up(
        self,
        tx: Transaction,
        lives: dict[tuple[str, str], Life],
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
            self._end(tx, lives, life, at, ending)
            if is_guardable(newest.configuration):
                self._start(tx, lives, newest, at, life.guard)
        else:
            for effect, what in effects:
                if effect is Effect.ANNOUNCE:
                    self._feed(tx, lives, life, at, (), announced=what)
        return ending == "killed"

    def _announce_kills(
        self,
        tx: Transaction,
        lives: dict[tuple[str, str], Life],
        environment: str,
        at: float,
        killed: Sequence[str],
    ) -> None:
        """A kill changes what the users of other flags meet: each of their lives gets an epoch."""
        for flag in killed:
            for life in [row for row in lives.values() if row.environment == environment]:
                if life.flag != flag:
                    self._feed(tx, lives, life, at, (), announced=f"kill of {flag}")

    def _start(
        self,
        tx: Transaction,
        lives: dict[tuple[str, str], Life],
        newest: ConfigurationVersion,
        at: float,
        before: FlagGuard | None = None,
    ) -> Life:
        """Start a life; one that follows another knows which variants were served before."""
        policy = policy_of(newest.configuration)
        guard = FlagGuard(policy, at) if before is None else before.renewed(at, policy)
        document = json.dumps({"started_at": at, "version": newest.version})
        life_id = tx.insert_guard_life(newest.environment, newest.flag, document)
        life = Life(life_id, newest.environment, newest.flag, newest.version, newest.version, guard)
        tx.save_guard_state(life_id, 0, json.dumps(life.to_document()))
        lives[newest.environment, newest.flag] = life
        return life

    def _end(
        self,
        tx: Transaction,
        lives: dict[tuple[str, str], Life],
        life: Life,
        at: float,
        outcome: str,
    ) -> None:
        tx.end_guard_life(life.id, datetime.fromtimestamp(at, UTC), outcome)
        del lives[life.environment, life.flag]

    def _renew(
        self, tx: Transaction, lives: dict[tuple[str, str], Life], life: Life, at: float
    ) -> Life | None:
        self._end(tx, lives, life, at, "seven days")
        newest = tx.configuration(life.environment, life.flag)
        if newest is None or not is_guardable(newest.configuration):
            return None
        return self._start(tx, lives, newest, at, life.guard)

    def _feed(
        self,
        tx: Transaction,
        lives: dict[tuple[str, str], Life],
        life: Life,
        at: float,
        cells: tuple[Cell, ...],
        announced: str | None = None,
    ) -> None:
        at = max(at, life.guard.last_t or life.guard.started_at)
        announced = _note_releases(life, cells) or announced
        event = Event(at, cells, announced)
        had_decided = life.guard.has_killed
        life.guard.observe(event)
        row = {**event.to_document(), "version": life.version}
        document = json.dumps(row, separators=(",", ":"))
        has_units = any(cell.units for cell in cells)
        event_id = tx.append_guard_event(life.id, at, document, has_units=has_units)
        life.unsaved += 1
        if life.unsaved >= EVENTS_PER_STATE:
            tx.save_guard_state(life.id, event_id, json.dumps(life.to_document()))
            life.unsaved = 0
        if life.guard.has_killed and not had_decided:
            self._act(tx, lives, life, at)

    def _act(
        self, tx: Transaction, lives: dict[tuple[str, str], Life], life: Life, at: float
    ) -> None:
        newest = tx.configuration(life.environment, life.flag)
        assert newest is not None, "a life belongs to a configuration"
        decision = life.guard.decision
        mode = mode_of(newest.configuration)
        evidence_id = f"ev-{secrets.token_hex(8)}"
        killed = None
        if mode is Mode.ENFORCE:
            killed = self._kills.kill_in(
                tx,
                life.environment,
                life.flag,
                source=KillSource.GUARD,
                reason=decision.reason,
                actor=ACTOR,
                evidence=evidence_id,
            )
        when = datetime.fromtimestamp(at, UTC)
        document = {
            "id": evidence_id,
            "environment": life.environment,
            "flag": life.flag,
            "at": format_time(when),
            "mode": mode.value,
            "action": "none" if killed is None else "kill",
            "kill": None if killed is None else killed.kill.to_document(),
            "life": life.id,
            "configuration": {
                "version": newest.version,
                "at": format_time(newest.at),
                "actor": newest.actor,
                "action": newest.action,
            },
            **report(life.guard, at),
            "error_kinds": [
                {
                    "variant": row.variant,
                    "kind": row.kind,
                    "where": row.where,
                    "count": row.count,
                    "sample": row.sample,
                }
                for row in tx.error_kinds(life.environment, life.flag)
            ],
        }
        tx.insert_evidence(evidence_id, life.environment, life.flag, when, json.dumps(document))
        tx.after_commit(lambda: self._on_decision(life.environment, life.flag, mode.value))
        if killed is not None:
            self._end(tx, lives, life, at, "killed")
            self._announce_kills(tx, lives, life.environment, at, [life.flag])


def _note_releases(life: Life, cells: Sequence[Cell]) -> str | None:
    """Remember the services' versions; return what to announce where one is new to the life.

    The first version heard of a service is no change.
    """
    announced = None
    for cell in cells:
        known = life.releases.setdefault(cell.service, [])
        if cell.service_version not in known:
            if known:
                announced = f"version {cell.service_version} of {cell.service}"
            known.append(cell.service_version)
            # A flood of versions must not grow a life without bound; nor may it open epochs.
            del known[:-_RELEASES_KEPT]
    return announced


_RELEASES_KEPT = 100
