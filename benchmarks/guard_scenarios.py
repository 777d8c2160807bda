"""Seeded lives of a guarded flag: traffic with its troubles, with and without a fault of the flag.

Units have Zipf volumes and gamma frailty (variance 1), so that a few make most requests and a few
most failures. Only what the guard reads is drawn: how many requests each arm made, and which
units failed with what. Each life is a function of its scenario and seed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import exp, inf, log, pi, sin
from random import Random
from typing import NamedTuple

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import DEFAULT_ALPHA, Cell, Event, Policy

REQUESTS_PER_S = 50.0
KINDS = 10
HOUR_S, DAY_S = 3_600.0, 86_400.0
_BUCKETS = 100_000
_KIND_WEIGHTS = tuple(accumulate(1.0 / (k + 1) for k in range(KINDS)))
# While nothing is awaited the processes' reports are drawn more coarsely, to save time only.
_IDLE_STEP_S, _STEP_S = 5.0, 1.0

Shape = Callable[[float], float]
"""A factor over time."""


def steady(t: float) -> float:
    """Change nothing."""
    return 1.0


class Fault(NamedTuple):
    """The feature multiplies its users' chance to fail from `at_s` on."""

    ratio: float
    has_new_kind: bool
    at_s: float = 0.0
    is_announced: bool = False


class Trouble(NamedTuple):
    """Some processes fail more, whatever variant they serve: a sick host or a bad version.

    Attributes:
        processes: how many of them, counted from the first.
        extra_rate: failing share of their requests, beyond the base.
        is_release: they run a new version from then on, and the server says so.
    """

    processes: int
    extra_rate: float
    from_s: float
    until_s: float
    is_release: bool = False


@dataclass(frozen=True)
class Scenario:
    """One kind of life.

    Attributes:
        base: failing share of requests without any trouble, over ten kinds.
        ramp: (s, share in percent) of each change of weights; the first is the start.
        asks: requests of a treatment's user, relative to the same user without the feature.
        is_renamed: errors of the treatment have other names, and are no more often.
        retries: a failed request is tried again so often, and fails again.
        failing: factor on everybody's failures over time; `load` the same on requests.
    """

    name: str
    base: float = 0.01
    duration_s: float = 4 * HOUR_S
    units: int = 20_000
    zipf: float = 0.8
    processes: int = 3
    ramp: tuple[tuple[float, float], ...] = ((0.0, 25.0),)
    asks: float = 1.0
    is_renamed: bool = False
    retries: int = 0
    fault: Fault | None = None
    trouble: Trouble | None = None
    failing: Shape = steady
    load: Shape = steady


@dataclass(slots=True)
class _Arm:
    """The units on one side: cumulative volumes, and cumulative volumes times frailty."""

    members: list[int] = field(default_factory=list)
    volumes: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)

    def close(self) -> None:
        self.volumes = list(accumulate(self.volumes))
        self.failures = list(accumulate(self.failures))

    @property
    def volume(self) -> float:
        return self.volumes[-1] if self.volumes else 0.0

    @property
    def frailty(self) -> float:
        return self.failures[-1] if self.failures else 0.0


class _Population:
    """Units with a volume, a frailty, a bucket and a hash each; volumes sum to 1."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        volumes = [(rank + 1) ** -scenario.zipf for rank in range(scenario.units)]
        total = sum(volumes)
        self._volumes = [volume / total for volume in volumes]
        frailties = [random.gammavariate(1.0, 1.0) for _ in volumes]
        # The base rate is that of requests, so frailty has mean 1 over requests.
        mean = sum(v * f for v, f in zip(self._volumes, frailties, strict=True))
        self._frailties = [frailty / mean for frailty in frailties]
        self._buckets = [random.randrange(_BUCKETS) for _ in volumes]
        self.hashes = [f"{random.getrandbits(64):016x}" for _ in volumes]

    def arms(self, on: int) -> tuple[_Arm, _Arm]:
        """Return (treatment, control) at this weight; a greater one moves nobody out."""
        arms = _Arm(), _Arm()
        for unit, bucket in enumerate(self._buckets):
            arm = arms[bucket >= on]
            arm.members.append(unit)
            arm.volumes.append(self._volumes[unit])
            arm.failures.append(self._volumes[unit] * self._frailties[unit])
        for arm in arms:
            arm.close()
        return arms


class _Report:
    """What one process has yet to report of one arm."""

    __slots__ = ("errors", "exposures", "units")

    def __init__(self) -> None:
        self.exposures = 0
        self.errors = 0
        self.units: dict[str, list[str]] = {}


class _Life:
    """Draws one life, step by step; see `events`."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._random = Random(f"{scenario.name}/{seed}")
        self._population = _Population(scenario, self._random)
        self._version = 0
        self._weights: dict[str, int] = {}
        self._arms: tuple[_Arm, _Arm] = (_Arm(), _Arm())
        self._reports: list[tuple[_Report, _Report]] = []
        self._has_released = False

    def events(self) -> Iterator[Event]:
        """Yield what the server would take in, in its order."""
        scenario, t = self._scenario, 0.0
        ramp = list(scenario.ramp)
        awaited = inf if scenario.fault is None else scenario.fault.at_s
        is_announced = scenario.fault is not None and scenario.fault.is_announced
        self._empty_reports()
        while t < scenario.duration_s:
            while ramp and t >= ramp[0][0]:
                if self._version:
                    yield from self._flush(t)
                    yield Event(t, announced="weights")
                self._set_share(ramp.pop(0)[1])
            if is_announced and t >= awaited:
                is_announced = False
                yield Event(t, announced="version")
            if self._releases(t):
                yield Event(t, announced="version")
            step = _STEP_S if t >= awaited - HOUR_S / 6 or t < HOUR_S / 6 else _IDLE_STEP_S
            self._draw(t, step)
            t += step
            yield from self._flush(t)

    def _set_share(self, percent: float) -> None:
        on = round(percent * _BUCKETS / 100)
        self._version += 1
        self._weights = {"on": on, "off": _BUCKETS - on}
        self._arms = self._population.arms(on)

    def _releases(self, t: float) -> bool:
        trouble = self._scenario.trouble
        if self._has_released or trouble is None or not trouble.is_release or t < trouble.from_s:
            return False
        self._has_released = True
        return True

    def _empty_reports(self) -> None:
        self._reports = [(_Report(), _Report()) for _ in range(self._scenario.processes)]

    def _draw(self, t: float, step: float) -> None:
        scenario = self._scenario
        load = REQUESTS_PER_S * scenario.load(t) * step
        failing = scenario.base * scenario.failing(t)
        for side, arm in enumerate(self._arms):
            is_treatment = side == 0
            requests = load * arm.volume * (scenario.asks if is_treatment else 1.0)
            self._expose(side, requests)
            failures = load * arm.frailty * failing * (scenario.asks if is_treatment else 1.0)
            prefix = "error:New" if scenario.is_renamed and is_treatment else "error:K"
            self._fail(side, arm.failures, failures, prefix)
            fault = scenario.fault
            if fault is not None and is_treatment and t >= fault.at_s:
                kind = "error:New" if fault.has_new_kind else "error:K"
                self._fail(side, arm.failures, failures * (fault.ratio - 1.0), kind)
            trouble = scenario.trouble
            if trouble is not None and trouble.from_s <= t < trouble.until_s:
                part = trouble.processes / scenario.processes
                sick = requests * part * trouble.extra_rate
                self._fail(side, arm.volumes, sick, "error:K", trouble.processes)

    def _expose(self, side: int, requests: float) -> None:
        """Deal the requests to the processes."""
        processes = len(self._reports)
        for reports in self._reports:
            reports[side].exposures += self._poisson(requests / processes)

    def _fail(
        self, side: int, weights: Sequence[float], mean: float, kind: str, among: int | None = None
    ) -> None:
        count = self._poisson(mean)
        if not count:
            return
        random, arm = self._random, self._arms[side]
        for unit in random.choices(arm.members, cum_weights=weights, k=count):
            suffix = "" if kind == "error:New" and not self._scenario.is_renamed else self._kind()
            report = self._reports[random.randrange(among or len(self._reports))][side]
            tries = 1 + self._scenario.retries
            report.errors += tries
            report.exposures += tries - 1
            report.units.setdefault(kind + suffix, []).append(self._population.hashes[unit])

    def _kind(self) -> str:
        return str(self._random.choices(range(KINDS), cum_weights=_KIND_WEIGHTS)[0])

    def _poisson(self, mean: float) -> int:
        if mean > 30.0:
            return max(0, round(self._random.gauss(mean, mean**0.5)))
        floor, count, product = exp(-mean), 0, self._random.random()
        while product > floor:
            count += 1
            product *= self._random.random()
        return count

    def _flush(self, t: float) -> Iterator[Event]:
        """Let each process with news report."""
        for number, reports in enumerate(self._reports):
            cells = tuple(
                Cell(
                    split="default",
                    variant=variant,
                    weights=self._weights,
                    config_version=self._version,
                    instance=f"i{number}",
                    exposures=max(report.exposures, report.errors),
                    errors=report.errors,
                    units={kind: tuple(hashes) for kind, hashes in report.units.items()},
                )
                for variant, report in zip(("on", "off"), reports, strict=True)
                if report.exposures or report.errors
            )
            if cells:
                yield Event(t, cells)
        self._empty_reports()


class Outcome(NamedTuple):
    """How a life ended: seconds from the fault (or the start) to the kill, None without one."""

    killed_after_s: float | None
    stream: str


def live(scenario: Scenario, seed: int, alpha: float = DEFAULT_ALPHA) -> Outcome:
    """Run one life through the guard."""
    guard = FlagGuard(Policy(alpha=alpha, off_variant="off"), 0.0)
    began = 0.0 if scenario.fault is None else scenario.fault.at_s
    for event in _Life(scenario, seed).events():
        guard.observe(event)
        if guard.has_killed:
            return Outcome(event.t - began, guard.decision.stream)
    return Outcome(None, guard.decision.stream)


def wald_bound_s(base: float, ratio: float, share: float = 0.25) -> float:
    """Return Wald's bound on the mean delay of any test that errs with probability alpha.

    For two samples of independent requests of unknown base rate, blind to kinds:
    log(1/alpha) / KL requests, KL being the mean information of one request against the nearest
    equal rate (Wald, "Sequential tests of statistical hypotheses", 1945).
    """
    pooled = base * (1.0 - share + ratio * share)
    information = _entropy(pooled) - share * _entropy(ratio * base) - (1 - share) * _entropy(base)
    return log(1.0 / DEFAULT_ALPHA) / information / REQUESTS_PER_S


def _entropy(p: float) -> float:
    return -(p * log(p) + (1.0 - p) * log(1.0 - p))


def outage(t: float) -> float:
    """Fail fifty times as much for five minutes of each hour."""
    return 50.0 if 1_800.0 <= t % HOUR_S < 2_100.0 else 1.0


def bursts(t: float) -> float:
    """Fail thirty times as much for ten seconds of every two minutes."""
    return 30.0 if t % 120.0 < 10.0 else 1.0


def diurnal(t: float) -> float:
    """Swing the load between a fifth and nearly twice its mean, a day in four hours."""
    return 1.0 + 0.8 * sin(2.0 * pi * t / (4 * HOUR_S))


HARMLESS = (
    Scenario("plain"),
    Scenario("outage in both arms", failing=outage),
    Scenario("bursts", failing=bursts),
    Scenario(
        "diurnal with ramp",
        load=diurnal,
        ramp=((0.0, 1.0), (HOUR_S, 5.0), (2 * HOUR_S, 25.0), (3 * HOUR_S, 50.0)),
    ),
    Scenario("retry storms", retries=20, failing=bursts),
    Scenario("48 processes", processes=48, duration_s=2 * HOUR_S),
    Scenario("sick instance", processes=8, trouble=Trouble(1, 0.3, HOUR_S, 3 * HOUR_S)),
    Scenario(
        "bad version",
        processes=8,
        trouble=Trouble(4, 0.1, HOUR_S, 4 * HOUR_S, is_release=True),
    ),
    Scenario("heavy users", zipf=1.2),
    Scenario(
        "five announced changes",
        ramp=tuple((0.7 * HOUR_S * step, 5.0 + 9.0 * step) for step in range(6)),
    ),
)
RENAMED = tuple(
    Scenario(f"renamed errors, base {base:.1%}", base=base, duration_s=2 * HOUR_S, is_renamed=True)
    for base in (0.001, 0.01, 0.05)
)
ASKING = tuple(
    Scenario(f"{times} the requests, base {base:.1%}", base=base, duration_s=2 * HOUR_S, asks=asks)
    for times, asks in (("three times", 3.0), ("a third of", 1 / 3))
    for base in (0.001, 0.01, 0.05)
)


class FaultGoal(NamedTuple):
    """A fault, and the delay to stay under as a multiple of Wald's bound."""

    scenario: Scenario
    fault: Fault
    goal: float


def _faulty(name: str, base: float, fault: Fault, goal: float) -> FaultGoal:
    # Far past the bound, so that a slow run counts as slow and not as blind.
    duration_s = fault.at_s + 40.0 * wald_bound_s(base, fault.ratio)
    scenario = Scenario(
        f"{name}, {base:.1%} ×{fault.ratio:g}", base=base, duration_s=duration_s, fault=fault
    )
    return FaultGoal(scenario, fault, goal)


FAULTS = (
    _faulty("fresh, new kind", 0.001, Fault(5.0, has_new_kind=True), 0.95),
    _faulty("fresh, new kind", 0.01, Fault(2.0, has_new_kind=True), 0.5),
    _faulty("fresh, new kind", 0.05, Fault(1.5, has_new_kind=True), 0.65),
    _faulty("fresh, old kinds", 0.001, Fault(5.0, has_new_kind=False), 1.6),
    _faulty("after 24 h, announced, new kind", 0.01, Fault(2.0, True, DAY_S, True), 0.8),
    _faulty("after 24 h, announced, old kinds", 0.001, Fault(5.0, False, DAY_S, True), 1.55),
    _faulty("after 24 h, announced, old kinds", 0.01, Fault(2.0, False, DAY_S, True), 2.6),
)
