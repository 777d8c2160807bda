"""One treatment against one control of a split: which units failed, and on which side.

What decides the order of tosses, what is kept and when to look never knows the side: units are
ordered and thinned by their hash, and a summary is multiplied in whole.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_server.domain.guard import streams
from flagd_server.domain.guard.records import Cell
from flagd_server.domain.guard.streams import Epoch, Stream
from flagd_server.domain.guard.tosses import Toss, TossLog
from flagd_server.domain.guard.window import WINDOW_S, RateWindow
from flagd_server.stats.coin import CoinBets, Tosses

ERROR_PREFIX = "error:"
UNITS_PER_STREAM = 100_000
TOSSES_KEPT = 400_000
_ALL_HASHES = 1 << 64
# Indices are 16-bit columns of the toss log; what comes later shares the last one.
_MOST_INSTANCES = 5_000
_MOST_KINDS = 1_000
OTHERS = "others"


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


class _BatchFactors:
    """What the bets are multiplied by in one batch. Most streams hear the same tosses, so each
    distinct set of them is worked out once."""

    __slots__ = ("_bets", "_known", "_rate_share")

    def __init__(self, bets: CoinBets, rate_share: float) -> None:
        self._bets = bets
        self._rate_share = rate_share
        self._known: dict[tuple[Tosses, ...], tuple[list[float], list[float]]] = {}

    def of(
        self, by_share: dict[float, list[int]]
    ) -> tuple[tuple[Tosses, ...], list[float], list[float]]:
        """Return (tosses, their multipliers, the same under the share of exposures)."""
        tosses = tuple((s, n[0], n[1]) for s, n in sorted(by_share.items()))
        known = self._known.get(tosses)
        if known is None:
            in_treatment = sum(n for _, n, _ in tosses)
            in_control = sum(n for _, _, n in tosses)
            known = (
                self._bets.multipliers(tosses),
                self._bets.multipliers([(self._rate_share, in_treatment, in_control)]),
            )
            self._known[tosses] = known
        return tosses, *known


@dataclass(slots=True)
class Counts:
    """Sums over requests, for people and for rates."""

    exposures: int = 0
    errors: int = 0

    def add(self, other: "Counts | Cell") -> None:
        self.exposures += other.exposures
        self.errors += other.errors


@dataclass(slots=True)
class Comparison:
    """The running state of one pair of arms. Fed in the order of commit; not thread-safe.

    Attributes:
        in_treatment, in_control: requests of either arm over the life.
        epochs: the life first, then at most the three newest.
        kinds: names of error kinds by index; `instances` likewise by name, in order of appearance.
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
    kinds: list[str] = field(default_factory=list)
    instances: dict[str, Instance] = field(default_factory=dict)
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

    def observe(self, t: float, cells: list[Cell]) -> bool:
        """Take in one summary's cells of the two arms; return whether a unit was tossed."""
        self._open_clock_epoch(t)
        treatment, control = Counts(), Counts()
        for cell in cells:
            is_treatment = cell.variant == self.treatment
            self._see_instance(t, cell, is_treatment)
            (treatment if is_treatment else control).add(cell)
        self.in_treatment.add(treatment)
        self.in_control.add(control)
        self.window.add(t, treatment.exposures, control.exposures)
        units = self._units(cells)
        return bool(units) and self._toss(t, units)

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

    def _see_instance(self, t: float, cell: Cell, is_treatment: bool) -> None:
        instance = self.instances.get(cell.instance)
        if instance is None:
            name = cell.instance if len(self.instances) < _MOST_INSTANCES else OTHERS
            since = t if cell.instance_since is None else min(t, cell.instance_since)
            instance = self.instances.setdefault(name, Instance(len(self.instances), since))
        if is_treatment and cell.exposures:
            instance.served_treatment = t

    def _units(self, cells: list[Cell]) -> list[tuple[int, int, str, bool, float, str]]:
        """Return (hash, config version, kind, in treatment, s, instance), in side-blind order.

        A unit that one configuration version shows on both sides contradicts the hash that
        assigned it: neither report is believed.
        """
        rows: list[tuple[int, int, str, bool, float, str]] = []
        for cell in cells:
            to_treatment = cell.weights[self.treatment]
            share = to_treatment / (to_treatment + cell.weights[self.control])
            is_treatment = cell.variant == self.treatment
            for kind, hashes in cell.units.items():
                if kind.startswith(ERROR_PREFIX):
                    for text in hashes:
                        unit = int(text, 16)
                        if unit < self.tau:
                            rows.append(
                                (
                                    unit,
                                    cell.config_version,
                                    kind,
                                    is_treatment,
                                    share,
                                    cell.instance,
                                )
                            )
        if len(rows) > 1:
            rows.sort(key=lambda row: row[:3])
            sides: dict[tuple[int, int], set[bool]] = {}
            for row in rows:
                sides.setdefault(row[:2], set()).add(row[3])
            rows = [row for row in rows if len(sides[row[:2]]) == 1]
        return rows

    def _toss(self, t: float, units: list[tuple[int, int, str, bool, float, str]]) -> bool:
        batch = len(self.log.times)
        counts: dict[int, dict[float, list[int]]] = {}
        touched: dict[int, Stream] = {}
        fresh: list[Toss] = []
        for unit, _, kind_name, in_treatment, share, instance in units:
            kind = self._kind_index(kind_name)
            is_new = False
            for epoch in self.epochs:
                for stream in (epoch.errors, epoch.stream_for(kind, self.bets, t, batch)):
                    if stream is None or unit in stream.memory:
                        continue
                    is_new = True
                    stream.memory.add(unit)
                    touched[id(stream)] = stream
                    by_share = counts.setdefault(id(stream), {})
                    by_share.setdefault(share, [0, 0])[not in_treatment] += 1
            if is_new:
                index = self._instance_index(instance)
                fresh.append(Toss(batch, unit, kind, int(in_treatment), share, index))
        if not fresh:
            return False
        rate_share = self.window.treatment_share()
        if rate_share is None:
            rate_share = fresh[0].share
        self.log.open_batch(t, rate_share)
        for toss in fresh:
            self.log.append(toss)
        batch_factors = _BatchFactors(self.bets, rate_share)
        for key, stream in touched.items():
            stream.toss(self.bets, t, *batch_factors.of(counts[key]))
        self._bound(touched.values())
        return True

    def _kind_index(self, name: str) -> int:
        if name in self.kinds:
            return self.kinds.index(name)
        if len(self.kinds) >= _MOST_KINDS:
            name = ERROR_PREFIX + OTHERS
            if name in self.kinds:
                return self.kinds.index(name)
        self.kinds.append(name)
        return len(self.kinds) - 1

    def _instance_index(self, name: str) -> int:
        known = self.instances.get(name)
        return (self.instances[OTHERS] if known is None else known).index

    def _bound(self, touched: Iterable[Stream]) -> None:
        while len(self.log) > TOSSES_KEPT or any(
            len(stream.memory) > UNITS_PER_STREAM for stream in touched
        ):
            self.tau //= 2
            self.log.thin(self.tau)
            for epoch in self.epochs:
                for stream in epoch.streams():
                    stream.memory = {unit for unit in stream.memory if unit < self.tau}

    def replay(self, stream: Stream, without: frozenset[int] = frozenset()) -> Stream:
        """Run a stream again from the log, without the tosses of some instances (by index)."""
        again = Stream.open(
            self.bets,
            kind=stream.kind,
            share=stream.share,
            at=stream.opened_s,
            batch=stream.first_batch,
        )
        for _ in self.replay_batches(again, without):
            pass
        return again

    def replay_batches(
        self, again: Stream, without: frozenset[int] = frozenset()
    ) -> Iterator[tuple[float, list[Toss]]]:
        """Feed `again` batch by batch; yield (t, tosses) after each that it heard."""
        batch: int | None = None
        counts: dict[float, list[int]] = {}
        heard: list[Toss] = []

        def flush() -> tuple[float, list[Toss]]:
            assert batch is not None
            t = self.log.times[batch]
            batch_factors = _BatchFactors(self.bets, self.log.rate_shares[batch])
            again.toss(self.bets, t, *batch_factors.of(counts))
            return t, heard

        for toss in self.log:
            if toss.batch < again.first_batch or toss.instance in without:
                continue
            if again.kind is not None and toss.kind != again.kind:
                continue
            if toss.unit in again.memory:
                continue
            if toss.batch != batch and heard:
                yield flush()
                counts, heard = {}, []
            batch = toss.batch
            again.memory.add(toss.unit)
            counts.setdefault(toss.share, [0, 0])[not toss.in_treatment] += 1
            heard.append(toss)
        if heard:
            yield flush()

    def serving_instances(self, t: float) -> int:
        """Return how many processes served the treatment in the last ten minutes."""
        return sum(
            1
            for instance in self.instances.values()
            if instance.served_treatment is not None and instance.served_treatment > t - WINDOW_S
        )

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
            "kinds": self.kinds,
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
        fields["instances"] = {
            name: Instance(index, since, served)
            for index, (name, since, served) in enumerate(fields["instances"])
        }
        comparison = cls(bets=bets, **fields)
        for epoch in comparison.epochs:
            for stream in epoch.streams():
                stream.memory = {
                    toss.unit
                    for toss in comparison.log
                    if toss.batch >= stream.first_batch
                    and (stream.kind is None or toss.kind == stream.kind)
                }
        return comparison
