"""Tells once of each time that the guard of a flag has been blind for a while."""

from collections.abc import Callable

from flagd_server.domain.guard.blindness import ARM_SILENT, NO_SUMMARIES, SAMPLE_RATIO_BLINDNESS
from flagd_server.services.guarding import WatchState
from flagd_server.services.happenings import Happening, Happenings
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Ledger

# A deployment is silent for a moment; what is to be told is a guard that stays blind.
TOLD_AFTER_S = 120.0
# The others are no fault: a young life has few events, a whole release no control.
_FAULTS = frozenset((NO_SUMMARIES, ARM_SILENT, SAMPLE_RATIO_BLINDNESS))


class BlindWatch:
    """A step of the conductor. What it has told is in the storage, so that it is told once."""

    def __init__(
        self,
        storage: Ledger,
        publisher: Publisher,
        states: Callable[[float], list[WatchState]],
        happenings: Happenings,
    ) -> None:
        self._storage = storage
        self._clock = publisher.clock
        self._states = states
        self._happenings = happenings
        # (environment, flag) → since when, in monotonic seconds.
        self._blind: dict[tuple[str, str], float] = {}
        # Those that were told; None: ask the storage.
        self._told: set[tuple[str, str]] | None = None

    def forget(self) -> None:
        """Drop what is in memory; what was told is told."""
        self._blind = {}
        self._told = None

    def tick(self, now_s: float) -> None:
        """Tell of each flag whose guard has been blind for long enough, once."""
        told = self._loaded()
        blind = {}
        for state in self._states(self._clock.now().timestamp()):
            found = [each for each in state.blind if each.reason in _FAULTS]
            if not found:
                continue
            key = (state.environment, state.flag)
            blind[key] = since_s = self._blind.get(key, now_s)
            if key not in told and now_s - since_s >= TOLD_AFTER_S:
                self._tell(state, found[0].detail)
                told.add(key)
        self._blind = blind
        seeing = told - blind.keys()
        if seeing:
            with self._storage.transaction() as tx:
                tx.delete_blind_told(seeing)
            told -= seeing

    def _loaded(self) -> set[tuple[str, str]]:
        if self._told is None:
            with self._storage.read() as reader:
                self._told = reader.blind_told()
        return self._told

    def _tell(self, state: WatchState, detail: str) -> None:
        happening = Happening(
            kind="blind",
            environment=state.environment,
            flag=state.flag,
            at=self._clock.now(),
            by="guard",
            text=f"The guard of {state.flag} can't see: {detail}",
            detail={"reasons": sorted({each.reason for each in state.blind})},
        )
        with self._storage.transaction() as tx:
            # Its environment may have been deleted.
            if tx.environment(state.environment) is not None:
                tx.put_blind_told(state.environment, state.flag)
                self._happenings.tell(tx, happening)
