"""The guarded lives of flags: in memory, and in the storage from which they can be read back.

What a life knows is a function of its stored events, in the order of their commit; a saved state
covers all but the last of them, so that a restart runs few again.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.lifecycle import Effect, effect_of, is_guardable, policy_of
from flagd_server.domain.guard.records import Cell, Event, parse_event
from flagd_server.storage.base import Reader, Transaction
from flagd_server.storage.records import ConfigurationVersion, GuardLife

# How many events a restart runs again at the most; a saved state covers the ones before.
EVENTS_PER_STATE = 1_000
# Of a quarter of the units it is asked which arm they are in, until a life has enough of them.
SAMPLED_HASHES = (1 << 64) // 4
_RELEASES_KEPT = 100


@dataclass(slots=True)
class Life:
    """One flag under guard, as it stands in memory.

    Attributes:
        first_version: the configuration version it started with; reports of older ones belong
            to a life before it.
        version: the configuration version it has taken notice of.
        releases: (service, version) pairs it has heard from.
        unsaved: events since the state was saved.
        last_event: id of the last event that it has observed; 0 before the first.
    """

    id: int
    environment: str
    flag: str
    first_version: int
    version: int
    guard: FlagGuard
    releases: dict[str, list[str]] = field(default_factory=dict)
    unsaved: int = 0
    last_event: int = 0

    def to_document(self) -> dict[str, Any]:
        return {
            "first_version": self.first_version,
            "version": self.version,
            "guard": self.guard.to_document(),
            "releases": self.releases,
        }

    @classmethod
    def load(cls, reader: Reader, row: GuardLife) -> "Life":
        """Read a running life back: its state, then the events since."""
        state = reader.load_guard_state(row.id)
        assert state is not None, "a life is inserted together with its first state"
        document = json.loads(state.document)
        life = cls(
            row.id,
            row.environment,
            row.flag,
            document["first_version"],
            document["version"],
            FlagGuard.from_document(document["guard"]),
            document["releases"],
            last_event=state.event_id,
        )
        life.replay(reader)
        return life

    def replay(self, reader: Reader) -> None:
        """Observe the stored events since the last one."""
        for stored in reader.guard_events_after(self.id, self.last_event):
            event = json.loads(stored.document)
            self.version = event.pop("version")
            parsed = parse_event(event)
            self.note_releases(parsed.cells)
            self.guard.observe(parsed)
            self.unsaved += 1
            self.last_event = stored.id
        self.guard.take_alarms()  # raised when it happened

    def effects_up_to(
        self, reader: Reader, newest: ConfigurationVersion
    ) -> list[tuple[Effect, str]]:
        """Return what each version since the one it knows means to it, in order."""
        before = reader.configuration_version(self.environment, self.flag, self.version)
        effects = []
        for number in range(self.version + 1, newest.version + 1):
            after = reader.configuration_version(self.environment, self.flag, number)
            if before is not None and after is not None:
                effects.append(
                    effect_of(
                        before.configuration, before.variants, after.configuration, after.variants
                    )
                )
            before = after
        return effects

    def note_releases(self, cells: Sequence[Cell]) -> str | None:
        """Remember the services' versions; return what to announce where one is new to the life.

        The first version heard of a service is no change.
        """
        announced = None
        for cell in cells:
            known = self.releases.setdefault(cell.service, [])
            if cell.service_version not in known:
                if known:
                    announced = f"version {cell.service_version} of {cell.service}"
                known.append(cell.service_version)
                # A flood of versions must not grow a life without bound; nor may it open epochs.
                del known[:-_RELEASES_KEPT]
        return announced


class Lives(dict[tuple[str, str], Life]):
    """The running lives by (environment, flag). The caller holds the lock and the transaction."""

    def __init__(self, lives: Iterable[Life] = ()) -> None:
        super().__init__({(life.environment, life.flag): life for life in lives})
        self._exposed_below: dict[str, int] = {}

    @classmethod
    def load(cls, reader: Reader) -> "Lives":
        return cls(Life.load(reader, row) for row in reader.running_lives())

    def refresh(self, reader: Reader) -> None:
        """Follow what another server has made of the lives, by what it has stored."""
        progress = {each.life_id: each for each in reader.guard_progress()}
        for key, life in tuple(self.items()):
            if life.id not in progress:
                del self[key]
        known = {life.id: life for life in self.values()}
        anew = set()
        for life_id, stored in progress.items():
            followed = known.get(life_id)
            # Events that a saved state covers may be gone.
            if followed is None or followed.last_event < stored.state_event:
                anew.add(life_id)
            elif followed.last_event < stored.last_event:
                followed.replay(reader)
        for row in reader.running_lives() if anew else ():
            if row.id in anew:
                self[row.environment, row.flag] = Life.load(reader, row)
        self._exposed_below.clear()

    def of(self, environment: str) -> list[Life]:
        return [life for life in self.values() if life.environment == environment]

    def start(
        self,
        tx: Transaction,
        newest: ConfigurationVersion,
        at: float,
        before: FlagGuard | None = None,
    ) -> Life:
        """Start a life; one that follows another knows which variants were served before."""
        policy = policy_of(newest.configuration, objectives_of(tx, newest.environment))
        guard = FlagGuard(policy, at) if before is None else before.renewed(at, policy)
        document = json.dumps({"started_at": at, "version": newest.version})
        life_id = tx.insert_guard_life(newest.environment, newest.flag, document)
        life = Life(life_id, newest.environment, newest.flag, newest.version, newest.version, guard)
        tx.save_guard_state(life_id, 0, _encode(life.to_document()))
        self[newest.environment, newest.flag] = life
        self._exposed_below.pop(newest.environment, None)
        return life

    def end(self, tx: Transaction, life: Life, at: float, outcome: str) -> None:
        tx.end_guard_life(life.id, datetime.fromtimestamp(at, UTC), outcome)
        del self[life.environment, life.flag]
        self._exposed_below.pop(life.environment, None)

    def start_over(self, tx: Transaction, life: Life, at: float, why: str) -> Life | None:
        """End a life, and start the one that follows where the flag can still be guarded."""
        self.end(tx, life, at, why)
        newest = tx.configuration(life.environment, life.flag)
        objectives = objectives_of(tx, life.environment)
        if newest is None or not is_guardable(newest.configuration, objectives):
            return None
        return self.start(tx, newest, at, life.guard)

    def take_in(
        self,
        tx: Transaction,
        life: Life,
        at: float,
        cells: tuple[Cell, ...],
        announced: str | None = None,
    ) -> None:
        """Let a life's guard observe an event, and store it."""
        at = max(at, life.guard.last_t or life.guard.started_at)
        event = Event(at, cells, life.note_releases(cells) or announced)
        has_units = any(cell.units for cell in cells)
        sample_below = life.guard.sample_below if has_units else None
        life.guard.observe(event)
        # Only units can make a sample too large.
        if has_units and life.guard.sample_below != sample_below:
            self._exposed_below.pop(life.environment, None)
        document = _encode({**event.to_document(), "version": life.version})
        event_id = tx.append_guard_event(life.id, at, document, has_units=has_units)
        life.unsaved += 1
        life.last_event = event_id
        if life.unsaved >= EVENTS_PER_STATE:
            tx.save_guard_state(life.id, event_id, _encode(life.to_document()))
            life.unsaved = 0

    def exposed_below(self, environment: str) -> int:
        """Return what the hungriest life needs: the others thin what they don't."""
        below = self._exposed_below.get(environment)
        if below is None:
            wanted = (life.guard.sample_below for life in self.of(environment))
            below = min(SAMPLED_HASHES, max(wanted, default=SAMPLED_HASHES))
            self._exposed_below[environment] = below
        return below


def _encode(document: dict[str, Any]) -> str:
    # In a third of the time that `json` takes, which would be a tenth of all that a summary costs.
    return to_json(document, inf_nan_mode="constants").decode()


def objectives_of(reader: Reader, environment: str) -> dict[str, float]:
    """Return service → availability objective."""
    return {slo.service: slo.availability for slo in reader.slos(environment)}
