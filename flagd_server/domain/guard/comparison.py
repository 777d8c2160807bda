"""One metric of one pair of arms: which units failed (or were slow), and on which side.

What decides the order of tosses, what is kept and when to look never knows the side: units are
ordered and thinned by their hash, and a summary is multiplied in whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flagd_sdk.core.guard.coin import AT_A_CHANGE, CoinBets
from flagd_sdk.core.guard.streams import Batch, Epoch, Stream, harmonic_share
from flagd_sdk.core.guard.tosses import Toss, TossLog
from flagd_server.domain.guard import epochs
from flagd_server.domain.guard.arms import Arms, Instance
from flagd_server.domain.guard.metrics import ERROR_PREFIX, METRICS, Metric
from flagd_server.domain.guard.records import Cell

TOSSES_KEPT = 400_000
_ALL_HASHES = 1 << 64
# Indices are 16-bit columns of the toss log; what comes later shares the last one.
_MOST_KINDS = 1_000
OTHERS = "others"
_NEVER = -1

_Unit = tuple[int, int, str, bool, float, int, int]
"""(hash, config version, kind, in treatment, s, instance, release): sorts without regard to the
side as long as no two share the first three, and such two are on one side."""

Chosen = Callable[[Toss], bool]
"""Which tosses a stream is run again with."""


def everything(_toss: Toss) -> bool:
    return True


@dataclass(slots=True, eq=False)
class Comparison:
    """The running state of one metric of one pair. Fed in the order of commit; not thread-safe.

    Attributes:
        epochs: the life first, then the newest of either sort (`epochs.kept`).
        kinds: kind → index, in order of appearance.
        latest: unit → its latest batch in the log; `latest_of_kind` the same by kind index. Since
            each event is offered to every stream, one that opened with batch b has heard a unit
            exactly when that unit's latest batch is b or later: no stream needs its own memory.
        heard_from: instance index → its tosses.
        tau: units whose hash is not under it are ignored (thinning by hash keeps validity).
    """

    arms: Arms
    metric: Metric
    bets: CoinBets
    started_at: float
    epochs: list[Epoch]
    announced: int = 0
    clock: int = 0
    log: TossLog = field(default_factory=TossLog)
    kinds: dict[str, int] = field(default_factory=dict)
    latest: dict[int, int] = field(default_factory=dict)
    latest_of_kind: list[dict[int, int]] = field(default_factory=list)
    heard_from: dict[int, int] = field(default_factory=dict)
    tau: int = _ALL_HASHES

    @classmethod
    def start(cls, arms: Arms, metric: Metric, margin: float, at: float) -> "Comparison":
        bets = metric.bets(margin)
        errors, kinds = epochs.ERRORS_SHARE, epochs.KINDS_SHARE
        if not metric.has_epochs:
            errors, kinds = 1.0, 0.0
        life = _open_epoch(metric, bets, "life", errors, kinds, at, 0)
        return cls(arms, metric, bets, at, [life])

    def announce(self, t: float, what: str) -> None:
        """Open an epoch at a change that the server itself announced."""
        if not self.metric.has_epochs:
            return
        self.announced += 1
        part = harmonic_share(self.announced)
        self._begin_epoch(
            f"epoch {self.announced} ({what})",
            epochs.ANNOUNCED_ERRORS_SHARE * part,
            epochs.ANNOUNCED_KINDS_SHARE * part,
            t,
        )

    def _begin_epoch(
        self, name: str, errors: float, kinds: float, at: float, *, is_clock: bool = False
    ) -> None:
        epoch = _open_epoch(
            self.metric, self.bets, name, errors, kinds, at, len(self.log.times), is_clock=is_clock
        )
        self.epochs = epochs.kept([*self.epochs, epoch])

    def observe(self, t: float, cells: list[Cell]) -> float:
        """Take in one summary's cells of the two arms, those that `Arms.observe` believed.

        Returns:
            The greatest score of a stream that heard something new, 0 where none did.
        """
        if (
            t >= self.started_at + (self.clock + 1) * epochs.CLOCK_EPOCH_S
            and self.metric.has_epochs
        ):
            self._begin_clock_epoch(t)
        # Most summaries have nothing for most metrics.
        hears = self.metric.hears
        for cell in cells:
            if cell.units and any(map(hears, cell.units)):
                units = self._units(cells)
                return self._toss(t, units) if units else 0.0
        return 0.0

    def _begin_clock_epoch(self, t: float) -> None:
        index = min(int((t - self.started_at) // epochs.CLOCK_EPOCH_S), epochs.CLOCK_EPOCHS - 1)
        if index > self.clock:
            self.clock = index
            self._begin_epoch(
                f"hour {index}",
                epochs.CLOCK_ERRORS_SHARE / epochs.CLOCK_EPOCHS,
                epochs.CLOCK_KINDS_SHARE / epochs.CLOCK_EPOCHS,
                self.started_at + index * epochs.CLOCK_EPOCH_S,
                is_clock=True,
            )

    def _units(self, cells: list[Cell]) -> list[_Unit]:
        """Return this metric's events of a summary in an order that is blind to the side.

        A unit that one configuration version shows on both sides contradicts the hash that
        assigned it: neither report is believed.
        """
        units: list[_Unit] = []
        arms, heard, tau = self.arms, self.metric.heard, self.tau
        for cell in cells:
            is_treatment = cell.variant == arms.treatment
            for reported, hashes in cell.units.items():
                kind = heard(reported, in_treatment=is_treatment)
                if kind is None:
                    continue
                to_treatment = cell.weights[arms.treatment]
                share = to_treatment / (to_treatment + cell.weights[arms.control])
                instance, release = arms.instance_index(cell), arms.release_index(cell)
                units += [
                    (unit, cell.config_version, kind, is_treatment, share, instance, release)
                    for unit in map(_unit_of, hashes)
                    if unit < tau
                ]
        if len(units) > 1:
            units.sort(key=lambda unit: unit[:3])
            sides: dict[tuple[int, int], set[bool]] = {}
            for unit in units:
                sides.setdefault(unit[:2], set()).add(unit[3])
            units = [unit for unit in units if len(sides[unit[:2]]) == 1]
        return units

    def _toss(self, t: float, units: list[_Unit]) -> float:
        batch = len(self.log.times)
        heard: dict[Stream, list[tuple[float, bool]]] = {}
        fresh: list[Toss] = []
        for unit, _, kind_name, in_treatment, share, instance, release in units:
            kind = self._kind_index(kind_name)
            hearing = self._hearing(unit, kind, t, batch)
            if hearing:
                for stream in hearing:
                    heard.setdefault(stream, []).append((share, in_treatment))
                fresh.append(Toss(batch, unit, kind, in_treatment, share, instance, release))
                self.heard_from[instance] = self.heard_from.get(instance, 0) + 1
                self._remember(unit, kind, batch)
        if not fresh:
            return 0.0
        rate_share = self.arms.window.treatment_share()
        if rate_share is None:
            rate_share = fresh[0].share
        self.log.add_batch(t, rate_share, fresh)
        whole = Batch.of(self.bets, _sides(fresh))
        best = 0.0
        for stream, sides in heard.items():
            # Most streams hear all of a batch: it is weighed once for them.
            is_whole = len(sides) == len(fresh)
            heard_batch = whole if is_whole else Batch.of(self.bets, sides)
            score = stream.toss(self.bets, t, heard_batch)
            if score > best:
                best = score
        return best

    def _hearing(self, unit: int, kind: int, t: float, batch: int) -> list[Stream]:
        """Return the streams to which the unit is new."""
        latest = self.latest.get(unit, _NEVER)
        latest_of_kind = self.latest_of_kind[kind].get(unit, _NEVER)
        hearing = []
        for epoch in self.epochs:
            first = epoch.errors.first_batch
            if latest < first:
                hearing.append(epoch.errors)
            if latest_of_kind < first:
                stream = epoch.stream_for(kind, self.bets, t, batch)
                if stream is not None:
                    hearing.append(stream)
        return hearing

    def _remember(self, unit: int, kind: int, batch: int) -> None:
        self.latest[unit] = batch
        self.latest_of_kind[kind][unit] = batch

    def _kind_index(self, name: str) -> int:
        index = self.kinds.get(name)
        if index is None:
            if len(self.kinds) >= _MOST_KINDS:
                name = ERROR_PREFIX + OTHERS
            index = self.kinds.setdefault(name, len(self.kinds))
            if index == len(self.latest_of_kind):
                self.latest_of_kind.append({})
        return index

    def bound(self) -> None:
        """Thin by hash until the log and the memory are within their bounds."""
        while len(self.log) > TOSSES_KEPT or len(self.latest) > self.metric.units_kept:
            self.tau //= 2
            self.log.thin(self.tau)
            self._remember_log()

    def _remember_log(self) -> None:
        self.latest = {}
        self.latest_of_kind = [{} for _ in self.kinds]
        self.heard_from = {}
        for toss in self.log:
            self._remember(toss.unit, toss.kind, toss.batch)
            self.heard_from[toss.instance] = self.heard_from.get(toss.instance, 0) + 1

    def forget(self, set_aside: list[Instance]) -> None:
        """Judge anew without what some processes have reported, as if they had never spoken.

        What was dropped by hash on their account stays dropped; hashes are kept from now on as in
        the beginning. The shares of exposures at the time of old tosses may be theirs as well, so
        the coin stands in for them.
        """
        gone = {instance.index for instance in set_aside}
        if not gone.intersection(self.heard_from):
            return
        self.log.keep(lambda toss: toss.instance not in gone)
        self.log.replace_rate_shares()
        names = list(self.kinds)
        self.kinds = {names[old]: new for new, old in enumerate(self.log.renumber_kinds())}
        self.tau = _ALL_HASHES
        self._remember_log()
        self.epochs = [self._again(epoch) for epoch in self.epochs]

    def _again(self, epoch: Epoch) -> Epoch:
        """Return the epoch as it would stand, had the log always been what it is now."""
        again = epoch.restarted(self.bets)
        for toss in self.log.since(again.errors.first_batch):
            if toss.kind not in again.kinds:
                again.stream_for(toss.kind, self.bets, self.log.times[toss.batch], toss.batch)
        again.errors = self.replay(again.errors)
        again.kinds = {kind: self.replay(stream) for kind, stream in again.kinds.items()}
        return again

    def heard_by(
        self, stream: Stream, chosen: Chosen = everything
    ) -> Iterator[tuple[int, list[Toss]]]:
        """Yield (batch, tosses) as the stream heard them, or would have of the chosen tosses only.

        After thinning the log holds a sample of the units only.
        """
        memory: set[int] = set()
        batch, tosses = _NEVER, list[Toss]()
        for toss in self.log.since(stream.first_batch):
            if (
                (stream.kind is not None and toss.kind != stream.kind)
                or toss.unit in memory
                or not chosen(toss)
            ):
                continue
            memory.add(toss.unit)
            if toss.batch != batch and tosses:
                yield batch, tosses
                tosses = []
            batch = toss.batch
            tosses.append(toss)
        if tosses:
            yield batch, tosses

    def replay_batches(
        self, again: Stream, chosen: Chosen = everything
    ) -> Iterator[tuple[float, list[Toss]]]:
        """Feed a restarted stream from the log; yield (t, tosses) after each batch it heard."""
        for batch, tosses in self.heard_by(again, chosen):
            t = self.log.times[batch]
            again.toss(self.bets, t, Batch.of(self.bets, _sides(tosses)))
            yield t, tosses

    def replay(self, stream: Stream, chosen: Chosen = everything) -> Stream:
        """Run a stream again from the log, with the chosen tosses only."""
        again = stream.restarted(self.bets)
        for _ in self.replay_batches(again, chosen):
            pass
        return again

    def streams(self) -> Iterator[tuple[Epoch, Stream]]:
        """Yield every open stream with its epoch, the life's first."""
        for epoch in self.epochs:
            yield epoch, epoch.errors
            for stream in epoch.kinds.values():
                yield epoch, stream

    def name_of(self, epoch: Epoch, stream: Stream) -> str:
        return f"{self.kind_of(stream) or self.metric.name}, {epoch.name}"

    def kind_of(self, stream: Stream) -> str | None:
        """Return the name of the kind that a stream listens to, None where it hears all."""
        return None if stream.kind is None else list(self.kinds)[stream.kind]

    def to_document(self) -> dict[str, Any]:
        return {
            "metric": self.metric.name,
            "margin": self.bets.margin,
            "started_at": self.started_at,
            "epochs": [epoch.to_document() for epoch in self.epochs],
            "announced": self.announced,
            "clock": self.clock,
            "log": self.log.to_document(),
            "kinds": list(self.kinds),
            "tau": self.tau,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], arms: Arms) -> "Comparison":
        metric = METRICS[document["metric"]]
        comparison = cls(
            arms,
            metric,
            metric.bets(document["margin"]),
            document["started_at"],
            [Epoch.from_document(row) for row in document["epochs"]],
            document["announced"],
            document["clock"],
            TossLog.from_document(document["log"]),
            {name: index for index, name in enumerate(document["kinds"])},
            tau=document["tau"],
        )
        comparison._remember_log()
        return comparison


def _open_epoch(
    metric: Metric,
    bets: CoinBets,
    name: str,
    errors: float,
    kinds: float,
    at: float,
    batch: int,
    *,
    is_clock: bool = False,
) -> Epoch:
    """Open one with these shares of alpha; where kinds have no streams, all have theirs."""
    if not metric.has_kinds:
        errors, kinds = errors + kinds, 0.0
    return Epoch.open(
        bets,
        name,
        errors_share=errors,
        kinds_share=kinds,
        at=at,
        batch=batch,
        onset=epochs.AT_ANY_TIME if is_clock else AT_A_CHANGE,
        is_clock=is_clock,
    )


def _sides(tosses: list[Toss]) -> list[tuple[float, bool]]:
    return [(toss.share, bool(toss.in_treatment)) for toss in tosses]


def _unit_of(text: str) -> int:
    return int(text, 16)
