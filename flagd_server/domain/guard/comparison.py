"""One treatment against one control of a split: which units failed, and on which side.

What decides the order of tosses, what is kept and when to look never knows the side: units are
ordered and thinned by their hash, and a summary is multiplied in whole.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_server.domain.guard import streams
from flagd_server.domain.guard.records import Cell
from flagd_server.domain.guard.streams import Batch, Epoch, Stream
from flagd_server.domain.guard.tosses import Toss, TossLog
from flagd_server.domain.guard.window import WINDOW_S, RateWindow
from flagd_server.stats.coin import CoinBets

ERROR_PREFIX = "error:"
# A stream hears no unit that the life has not seen, so a bound on the life's bounds them all.
UNITS_KEPT = 100_000
TOSSES_KEPT = 400_000
_ALL_HASHES = 1 << 64
# Indices are 16-bit columns of the toss log; what comes later shares the last one.
_MOST_INSTANCES = 5_000
_MOST_KINDS = 1_000
OTHERS = "others"
_NEVER = -1

_Unit = tuple[int, int, str, bool, float, str]
"""(hash, config version, kind, in treatment, s, instance): sorts without regard to the side as
long as no two share the first three, and such two are on one side."""


@dataclass(slots=True)
class Instance:
    """A process that reported.

    Attributes:
        index: its place in the order of appearance, as the toss log names it.
        since: when it was first known.
        served_treatment: when it last served the treatment.
    """

    index: int
    since: float
    served_treatment: float | None = None


@dataclass(slots=True)
class Counts:
    """Sums over requests, for people and for rates."""

    exposures: int = 0
    errors: int = 0


@dataclass(slots=True, eq=False)
class Comparison:
    """The running state of one pair of arms. Fed in the order of commit; not thread-safe.

    Attributes:
        in_treatment, in_control: requests of either arm over the life.
        epochs: the life first, then at most the three newest.
        kinds: error kind → index; `instances` likewise, in order of appearance.
        latest: unit → its latest batch in the log; `latest_of_kind` the same by kind index. Since
            each event is offered to every stream, one that opened with batch b has heard a unit
            exactly when that unit's latest batch is b or later: no stream needs its own memory.
        tau: units whose hash is not under it are ignored (thinning by hash keeps validity).
    """

    split: str
    treatment: str
    control: str
    bets: CoinBets
    started_at: float
    epochs: list[Epoch]
    announced: int = 0
    clock: int = 0
    in_treatment: Counts = field(default_factory=Counts)
    in_control: Counts = field(default_factory=Counts)
    window: RateWindow = field(default_factory=RateWindow)
    log: TossLog = field(default_factory=TossLog)
    kinds: dict[str, int] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    latest: dict[int, int] = field(default_factory=dict)
    latest_of_kind: list[dict[int, int]] = field(default_factory=list)
    tau: int = _ALL_HASHES

    @classmethod
    def start(
        cls, split: str, treatment: str, control: str, bets: CoinBets, at: float
    ) -> "Comparison":
        life = Epoch.open(
            bets,
            "life",
            errors_share=streams.ERRORS_SHARE,
            kinds_share=streams.KINDS_SHARE,
            at=at,
            batch=0,
        )
        return cls(split, treatment, control, bets, at, [life])

    def announce(self, t: float, what: str) -> None:
        """Open an epoch at a change that the server itself announced."""
        self.announced += 1
        part = streams.harmonic_share(self.announced)
        self._open_epoch(
            f"epoch {self.announced} ({what})",
            streams.ANNOUNCED_ERRORS_SHARE * part,
            streams.ANNOUNCED_KINDS_SHARE * part,
            t,
        )

    def _open_epoch(self, name: str, errors_share: float, kinds_share: float, at: float) -> None:
        epoch = Epoch.open(
            self.bets,
            name,
            errors_share=errors_share,
            kinds_share=kinds_share,
            at=at,
            batch=len(self.log.times),
        )
        life, *others = self.epochs
        self.epochs = [life, *[*others, epoch][-streams.EPOCHS_KEPT :]]

    def observe(self, t: float, cells: list[Cell]) -> float:
        """Take in one summary's cells of the two arms.

        Returns:
            The greatest score of a stream that heard something new, 0 where none did.
        """
        if t >= self.started_at + (self.clock + 1) * streams.CLOCK_EPOCH_S:
            self._open_clock_epoch(t)
        exposed_t = exposed_c = 0
        has_units = False
        for cell in cells:
            is_treatment = cell.variant == self.treatment
            instance = self.instances.get(cell.instance) or self._meet_instance(t, cell)
            if is_treatment:
                self.in_treatment.errors += cell.errors
                exposed_t += cell.exposures
                if cell.exposures:
                    instance.served_treatment = t
            else:
                self.in_control.errors += cell.errors
                exposed_c += cell.exposures
            if cell.units:
                has_units = True
        self.in_treatment.exposures += exposed_t
        self.in_control.exposures += exposed_c
        self.window.add(t, exposed_t, exposed_c)
        return self._toss(t, self._units(cells)) if has_units else 0.0

    def _open_clock_epoch(self, t: float) -> None:
        index = min(int((t - self.started_at) // streams.CLOCK_EPOCH_S), streams.CLOCK_EPOCHS - 1)
        if index > self.clock:
            self.clock = index
            self._open_epoch(
                f"six hours {index}",
                streams.CLOCK_ERRORS_SHARE / streams.CLOCK_EPOCHS,
                streams.CLOCK_KINDS_SHARE / streams.CLOCK_EPOCHS,
                self.started_at + index * streams.CLOCK_EPOCH_S,
            )

    def _meet_instance(self, t: float, cell: Cell) -> Instance:
        name = cell.instance if len(self.instances) < _MOST_INSTANCES else OTHERS
        since = t if cell.instance_since is None else min(t, cell.instance_since)
        return self.instances.setdefault(name, Instance(len(self.instances), since))

    def _units(self, cells: list[Cell]) -> list[_Unit]:
        """Return the error events of a summary in an order that is blind to the side.

        A unit that one configuration version shows on both sides contradicts the hash that
        assigned it: neither report is believed.
        """
        units: list[_Unit] = []
        for cell in cells:
            if not cell.units:
                continue
            to_treatment = cell.weights[self.treatment]
            share = to_treatment / (to_treatment + cell.weights[self.control])
            is_treatment = cell.variant == self.treatment
            units += [
                (unit, cell.config_version, kind, is_treatment, share, cell.instance)
                for kind, hashes in cell.units.items()
                if kind.startswith(ERROR_PREFIX)
                for unit in map(_unit_of, hashes)
                if unit < self.tau
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
        for unit, _, kind_name, in_treatment, share, instance in units:
            kind = self._kind_index(kind_name)
            hearing = self._hearing(unit, kind, t, batch)
            if hearing:
                for stream in hearing:
                    heard.setdefault(stream, []).append((share, in_treatment))
                index = self._instance_index(instance)
                fresh.append(Toss(batch, unit, kind, in_treatment, share, index))
                self._remember(unit, kind, batch)
        if not fresh:
            return 0.0
        rate_share = self.window.treatment_share()
        if rate_share is None:
            rate_share = fresh[0].share
        self.log.add_batch(t, rate_share, fresh)
        whole = Batch.of(self.bets, _sides(fresh), rate_share)
        best = 0.0
        for stream, sides in heard.items():
            # Most streams hear all of a batch: it is weighed once for them.
            is_whole = len(sides) == len(fresh)
            heard_batch = whole if is_whole else Batch.of(self.bets, sides, rate_share)
            score = stream.toss(self.bets, t, heard_batch)
            if score > best:
                best = score
        self._bound()
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

    def _instance_index(self, name: str) -> int:
        known = self.instances.get(name)
        return (self.instances[OTHERS] if known is None else known).index

    def _bound(self) -> None:
        while len(self.log) > TOSSES_KEPT or len(self.latest) > UNITS_KEPT:
            self.tau //= 2
            self.log.thin(self.tau)
            self._remember_log()

    def _remember_log(self) -> None:
        self.latest = {}
        self.latest_of_kind = [{} for _ in self.kinds]
        for toss in self.log:
            self._remember(toss.unit, toss.kind, toss.batch)

    def heard_by(
        self, stream: Stream, without: Container[int] = frozenset()
    ) -> Iterator[tuple[int, list[Toss]]]:
        """Yield (batch, tosses) as the stream heard them, or would have without some instances.

        After thinning the log holds a sample of the units only.
        """
        memory: set[int] = set()
        batch, tosses = _NEVER, list[Toss]()
        for toss in self.log.since(stream.first_batch):
            if (
                (stream.kind is not None and toss.kind != stream.kind)
                or toss.unit in memory
                or toss.instance in without
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
        self, again: Stream, without: Container[int] = frozenset()
    ) -> Iterator[tuple[float, list[Toss]]]:
        """Feed a restarted stream from the log; yield (t, tosses) after each batch it heard."""
        for batch, tosses in self.heard_by(again, without):
            t, rate_share = self.log.times[batch], self.log.rate_shares[batch]
            again.toss(self.bets, t, Batch.of(self.bets, _sides(tosses), rate_share))
            yield t, tosses

    def replay(self, stream: Stream, without: Container[int] = frozenset()) -> Stream:
        """Run a stream again from the log, without the tosses of some instances (by index)."""
        again = stream.restarted(self.bets)
        for _ in self.replay_batches(again, without):
            pass
        return again

    def serving_instances(self, t: float) -> int:
        """Return how many processes served the treatment in the last ten minutes."""
        return sum(
            instance.served_treatment is not None and instance.served_treatment > t - WINDOW_S
            for instance in self.instances.values()
        )

    def streams(self) -> Iterator[tuple[Epoch, Stream]]:
        """Yield every open stream with its epoch, the life's first."""
        for epoch in self.epochs:
            yield epoch, epoch.errors
            for stream in epoch.kinds.values():
                yield epoch, stream

    def name_of(self, epoch: Epoch, stream: Stream) -> str:
        return f"{self.kind_of(stream) or 'errors'}, {epoch.name}"

    def kind_of(self, stream: Stream) -> str | None:
        """Return the name of the kind that a stream listens to, None where it hears all."""
        return None if stream.kind is None else list(self.kinds)[stream.kind]

    def to_document(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "treatment": self.treatment,
            "control": self.control,
            "started_at": self.started_at,
            "epochs": [epoch.to_document() for epoch in self.epochs],
            "announced": self.announced,
            "clock": self.clock,
            "in_treatment": asdict(self.in_treatment),
            "in_control": asdict(self.in_control),
            "window": self.window.to_document(),
            "log": self.log.to_document(),
            "kinds": list(self.kinds),
            "instances": [
                [name, known.since, known.served_treatment]
                for name, known in self.instances.items()
            ],
            "tau": self.tau,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], bets: CoinBets) -> "Comparison":
        fields = dict(document)
        fields["epochs"] = [Epoch.from_document(row) for row in fields["epochs"]]
        fields["in_treatment"] = Counts(**fields["in_treatment"])
        fields["in_control"] = Counts(**fields["in_control"])
        fields["window"] = RateWindow.from_document(fields["window"])
        fields["log"] = TossLog.from_document(fields["log"])
        fields["kinds"] = {name: index for index, name in enumerate(fields["kinds"])}
        fields["instances"] = {
            name: Instance(index, since, served)
            for index, (name, since, served) in enumerate(fields["instances"])
        }
        comparison = cls(bets=bets, **fields)
        comparison._remember_log()
        return comparison


def _sides(tosses: Iterable[Toss]) -> list[tuple[float, bool]]:
    return [(toss.share, bool(toss.in_treatment)) for toss in tosses]


def _unit_of(text: str) -> int:
    return int(text, 16)
