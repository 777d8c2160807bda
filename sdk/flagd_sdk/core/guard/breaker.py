"""The guard of one process: the server's test of errors, on the failures that happen here.

A failing unit of work is what a summary is to the server: all its tosses are multiplied in, then it
is decided, on whichever side it fell. What is kept, and what there is room for, knows no side.

There is one memory of units, not several epochs: a process starts with each deployment, and a new
kind of error has a stream of its own that opens with it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from operator import mul

from flagd_sdk.core.counts import Durations, Failed
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.guard.coin import CoinBets
from flagd_sdk.core.guard.policy import Guarding, guarding_of
from flagd_sdk.core.guard.streams import LEAST_TREATMENT_UNITS, LIFE_S, Batch, Epoch, Stream
from flagd_sdk.core.guard.tosses import Toss, TossLog
from flagd_sdk.core.guard.window import RecentExposures
from flagd_sdk.core.local_kill import Evidence
from flagd_sdk.core.model import Resolution

# Of the flag's alpha, over all processes together: so much more careful is whoever sees less.
LOCAL_PART = 0.1
# What there is taken to be of them before the server has told: many.
UNKNOWN_PROCESSES = 100
# No epochs share alpha here, so the streams of the life have all of it.
ERRORS_SHARE, KINDS_SHARE = 0.5, 0.5

# By the exposures of the evidence's later half, so much must be left of it; see `Pair._is_current`.
CURRENT_BAR = 3.0
# What was under way when the evidence began has ended after the time that the slowest unit of work
# takes; nobody is made to wait longer than this for it.
MOST_PATIENCE_S = 1.0

MAX_LIVES = 256
MAX_TOSSES = 8_192  # of all lives together, some 2 MB
_MAX_VERSIONS = 16
_ALL_HASHES = 1 << 64
# As on the server: so many flags at once are no flag's fault.
MAX_KILLS, MAX_KILLS_WITHIN_S = 5, 60.0


@dataclass(slots=True, eq=False)
class Pair:
    """Two arms of a split.

    Attributes:
        kinds: kind → index, in order of appearance.
        exposed: how often both arms had been exposed at each batch of the log, since the start.
        units: those that have failed; `units_of_kind` the same by kind index.
    """

    bets: CoinBets
    epoch: Epoch
    log: TossLog = field(default_factory=TossLog)
    kinds: dict[str, int] = field(default_factory=dict)
    exposed: list[tuple[int, int]] = field(default_factory=list)
    units: set[int] = field(default_factory=set)
    units_of_kind: list[set[int]] = field(default_factory=list)

    @classmethod
    def start(cls, margin: float, at: float) -> "Pair":
        bets = CoinBets.for_margin(margin)
        epoch = Epoch.open(
            bets, "life", errors_share=ERRORS_SHARE, kinds_share=KINDS_SHARE, at=at, batch=0
        )
        return cls(bets, epoch)

    def hear(
        self, t: float, unit: int, kinds: Iterable[str], *, in_treatment: bool, share: float
    ) -> list[Toss]:
        """Multiply the first failures in that a unit of work brings; return them as tosses."""
        batch = len(self.log.times)
        hearing: list[Stream] = []
        tosses: list[Toss] = []
        for name in sorted(kinds):  # the order in which they failed may know the side
            kind = self._kind_index(name)
            streams = list(self._hearing(unit, kind, t, batch))
            if streams:
                hearing += streams
                tosses.append(Toss(batch, unit, kind, in_treatment, share, 0, 0))
            self.units.add(unit)
            self.units_of_kind[kind].add(unit)
        if hearing:
            weighed = Batch.of(self.bets, [(share, in_treatment)])
            for stream in hearing:
                stream.toss(self.bets, t, weighed)
        return tosses

    def _hearing(self, unit: int, kind: int, t: float, batch: int) -> Iterator[Stream]:
        if unit not in self.units:
            yield self.epoch.errors
        if unit not in self.units_of_kind[kind]:
            stream = self.epoch.stream_for(kind, self.bets, t, batch)
            if stream is not None:
                yield stream

    def _kind_index(self, name: str) -> int:
        index = self.kinds.setdefault(name, len(self.kinds))
        if index == len(self.units_of_kind):
            self.units_of_kind.append(set())
        return index

    def decisive(self, alpha: float, tau: int, began_by: float) -> Stream | None:
        """Return the stream that kills at this alpha, the strongest where there are several.

        Args:
            began_by: evidence that began later is too young.
        """
        bar = 1.0 / alpha
        beyond = [each for each in self.streams() if each.score >= bar]
        for stream in sorted(beyond, key=lambda each: -each.score):
            if (
                stream.in_treatment >= LEAST_TREATMENT_UNITS
                and stream.agreed(self.log, tau).objection is None
                and stream.began is not None
                and stream.began <= began_by
                and self._is_current(stream)
            ):
                return stream
        return None

    def _is_current(self, stream: Stream) -> bool:
        """Return whether both arms still end their units of work, and one of them fails.

        Where everything fails, but sooner on the new path (its timeout is shorter), only the
        treatment has failed in the first moments. But then only the treatment has *ended* anything:
        the control's units of work are under way, and are no exposures yet. So the later half of
        the evidence is weighed by the exposures of that time; it has to be long enough that what
        was under way before is over. It can only object.
        """
        assert stream.began is not None, "a decisive stream has risen"
        middle = (bisect_left(self.log.times, stream.began) + len(self.exposed)) // 2
        (treated_then, spared_then), (treated, spared) = self.exposed[middle - 1], self.exposed[-1]
        in_treatment, in_control = treated - treated_then, spared - spared_then
        if in_treatment + in_control <= 0:
            return False
        sides: dict[int, int] = {}
        for toss in self.log.since(middle):
            if stream.kind in (None, toss.kind):
                sides[toss.unit] = toss.in_treatment
        failed = sum(sides.values())
        share = in_treatment / (in_treatment + in_control)
        factors = self.bets.multipliers([(share, failed, len(sides) - failed)])
        value: float = sum(map(mul, self.bets.prior, factors))
        return value >= CURRENT_BAR

    def streams(self) -> Iterator[Stream]:
        yield self.epoch.errors
        yield from self.epoch.kinds.values()

    def thin(self, tau: int) -> None:
        """Forget the units whose hash is not under `tau`."""
        self.log.thin(tau)
        self.units = {unit for unit in self.units if unit < tau}
        self.units_of_kind = [{u for u in units if u < tau} for units in self.units_of_kind]


@dataclass(slots=True, eq=False)
class Life:
    """What is known of one flag while its failures mean the same.

    Attributes:
        since: the version with which it began; what was served by an older one is not heard.
        versions: version → how it is guarded.
        controls: split → what its arms are compared with.
        pairs: by (split, treatment, control).
    """

    meaning: object
    since: int
    started_at: float
    versions: dict[int, Guarding]
    controls: dict[str, str] = field(default_factory=dict)
    pairs: dict[tuple[str, str, str], Pair] = field(default_factory=dict)


class Breaker:
    """Hears failing units of work and says which flags to take off. Not thread-safe.

    Times are seconds of any clock that does not run backwards.

    Attributes:
        processes: how many there are, by the server's word.
        tau: units whose hash is not under it are ignored; thinning by hash keeps validity.
    """

    def __init__(self, processes: int = UNKNOWN_PROCESSES) -> None:
        self.processes = processes
        self.tau = _ALL_HASHES
        self.recent = RecentExposures()
        self._lives: dict[str, Life] = {}
        self._tosses = 0
        self._killed_at: list[float] = []

    def hear(
        self,
        flag_set: FlagSet,
        failed: Sequence[Failed],
        counted: Mapping[Resolution, Durations],
        t: float,
    ) -> list[Evidence]:
        """Take in one failed unit of work; return what is decided by it, mostly nothing.

        Args:
            flag_set: by which it was served.
            failed: each flag that was served by a split, with what failed.
            counted: exposures that `recent` does not have yet.
        """
        found = []
        for served, hashed, kinds in failed:
            unit = int(hashed, 16)
            if unit < self.tau:
                evidence = self._toss(flag_set, served, unit, kinds, counted, t)
                if evidence is not None:
                    found.append(evidence)
        return found

    def forget(self, flag: str) -> None:
        """End a flag's life: what fails from now on is the evidence of another."""
        life = self._lives.pop(flag, None)
        if life is not None:
            self._tosses -= sum(len(pair.log) for pair in life.pairs.values())

    def _toss(
        self,
        flag_set: FlagSet,
        served: Resolution,
        unit: int,
        kinds: Iterable[str],
        counted: Mapping[Resolution, Durations],
        t: float,
    ) -> Evidence | None:
        split, variant = served.split, served.variant
        life = self._life(flag_set, served, t)
        if life is None or split is None or variant is None:
            return None
        guarding = life.versions[served.version]
        control = guarding.control_of(split, life.controls.get(split))
        if control is None:
            return None
        life.controls[split] = control
        arms = guarding.splits[split]
        # Where the off variant is the treatment there is nothing to gain by serving it to all.
        treatments = [name for name in arms if name not in (control, guarding.off_variant)]
        for treatment in treatments if variant == control else {variant} & {*treatments}:
            pair = life.pairs.get((split, treatment, control))
            if pair is None:
                pair = life.pairs[split, treatment, control] = Pair.start(guarding.margin, t)
            share = arms[treatment] / (arms[treatment] + arms[control])
            tosses = pair.hear(t, unit, kinds, in_treatment=variant == treatment, share=share)
            if not tosses:
                continue
            key = served.flag, split
            cells = (*key, treatment), (*key, control)
            rate_share = self.recent.share(*cells, counted, t)
            pair.log.add_batch(t, share if rate_share is None else rate_share, tosses)
            pair.exposed.append(self.recent.total(*cells, counted))
            self._tosses += len(tosses)
            self._bound()
            alpha = guarding.alpha * LOCAL_PART / self.processes / guarding.pairs
            stream = pair.decisive(alpha, self.tau, t - self._patience_s(served.flag, counted))
            if stream is not None and self._may_kill(t):
                self.forget(served.flag)
                return _evidence(served, split, treatment, control, pair, stream, alpha)
        return None

    def _life(self, flag_set: FlagSet, served: Resolution, t: float) -> Life | None:
        """Return the flag's life, which a version that means something else begins anew."""
        key, version = served.flag, served.version
        life = self._lives.get(key)
        is_old = life is not None and t >= life.started_at + LIFE_S
        if life is not None and not is_old and version in life.versions:
            return life
        if life is not None and version < life.since:
            return None  # a unit of work that began before the change
        flag = flag_set.flags.get(key)
        guarding = None if flag is None else guarding_of(flag.document)
        if guarding is None:
            return None
        if life is None or is_old or guarding.meaning != life.meaning:
            self.forget(key)
            if len(self._lives) >= MAX_LIVES:
                return None
            life = self._lives[key] = Life(guarding.meaning, version, t, {})
        life.versions[version] = guarding
        if len(life.versions) > _MAX_VERSIONS:
            del life.versions[min(life.versions)]
            life.since = min(life.versions)
        return life

    def _patience_s(self, flag: str, counted: Mapping[Resolution, Durations]) -> float:
        """Return how long evidence must last: its later half is to be without what came before."""
        return 3.0 * min(self.recent.slowest_s(flag, counted), MOST_PATIENCE_S)

    def _bound(self) -> None:
        while self._tosses > MAX_TOSSES:
            self.tau //= 2
            self._tosses = 0
            for life in self._lives.values():
                for pair in life.pairs.values():
                    pair.thin(self.tau)
                    self._tosses += len(pair.log)

    def _may_kill(self, t: float) -> bool:
        self._killed_at = [at for at in self._killed_at if at > t - MAX_KILLS_WITHIN_S]
        if len(self._killed_at) >= MAX_KILLS:
            return False
        self._killed_at.append(t)
        return True


def _evidence(
    served: Resolution,
    split: str,
    treatment: str,
    control: str,
    pair: Pair,
    stream: Stream,
    alpha: float,
) -> Evidence:
    return Evidence(
        flag=served.flag,
        config_version=served.version,
        split=split,
        treatment=treatment,
        control=control,
        kind=next((name for name, k in pair.kinds.items() if k == stream.kind), None),
        log_e_value=round(log(stream.coin.value), 3),
        log_threshold=round(-log(alpha * stream.share), 3),
        in_treatment=stream.in_treatment,
        in_control=stream.in_control,
        expected_share=round(stream.expected_share, 5),
    )
