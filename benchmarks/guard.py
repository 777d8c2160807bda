"""The guard: what an update costs, what a life weighs, whom it kills, and how soon.

Delays are medians, as multiples of Wald's bound for a test that reads every request as independent
and knows no kinds of error. False kills are counted over whole lives at the default alpha; the few
lives that fit into a benchmark can only show that nothing is badly wrong.
"""

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import inf
from multiprocessing import Pool
from random import Random
from statistics import median

from benchmarks._harness import Row, at_most, informs, interleaved, ratio
from benchmarks.guard_scenarios import (
    ASKING,
    FAULTS,
    HARMLESS,
    RENAMED,
    FaultGoal,
    Outcome,
    Scenario,
    live,
    wald_bound_s,
)
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import DEFAULT_ALPHA, Cell, Event, Policy

UPDATE_GOAL_US = 20.0
ROBUSTNESS_GOAL = 0.02
_WEIGHTS = {"on": 25_000, "off": 75_000}
_WARM_UP_S = 27 * 3_600.0
_WORKERS = 2
# A life and its three newest epochs, each with all errors and one kind; the former have a witness.
_STREAMS, _PROCESSES, _RATIOS = 8, 12, 6


def run(small: bool) -> list[Row]:
    """Measure everything; `small` runs fewer lives."""
    return [*_costs(small), *_sizes(), *_outcomes(small)]


def _events(seconds: float, step_s: float, seed: int, has_unit: bool = True) -> Iterator[Event]:
    """Yield one summary after another, each with one new failing unit of one of ten kinds."""
    random, t = Random(seed), 0.0
    while t < seconds:
        treated = has_unit and random.random() < 0.25
        kind = f"error:K{min(9, int(random.expovariate(0.5)))}"
        units = {kind: (f"{random.getrandbits(64):016x}",)} if has_unit else {}
        cells = (
            Cell("default", "on", _WEIGHTS, 1, "i1", 12, int(treated), units if treated else {}),
            Cell("default", "off", _WEIGHTS, 1, "i1", 38, 0, {} if treated else units),
        )
        yield Event(t, cells)
        t += step_s


def _costs(small: bool) -> list[Row]:
    rounds, batch = (15, 100) if small else (60, 200)
    lives = {"unit": FlagGuard(Policy(), 0.0), "none": FlagGuard(Policy(), 0.0)}
    waiting = {
        name: _events(_WARM_UP_S + (rounds + 2) * batch, 5.0, 1, has_unit=name == "unit")
        for name in lives
    }
    for name, life in lives.items():
        for event in islice(waiting[name], int(_WARM_UP_S / 5.0) - (rounds + 1) * batch):
            life.observe(event)

    def observing(name: str) -> Callable[[], float]:
        def subject() -> float:
            events = list(islice(waiting[name], batch))
            started = time.perf_counter()
            for event in events:
                lives[name].observe(event)
            return (time.perf_counter() - started) / len(events)

        return subject

    subjects = {"unit": observing("unit"), "none": observing("none"), "floor": _floor(batch)}
    gc.collect()
    times = interleaved(subjects, rounds)
    return [
        at_most(
            f"a summary with one unit event, {_STREAMS} streams open",
            1e6 * median(times["unit"]),
            "µs",
            UPDATE_GOAL_US,
        ),
        informs("the same against its floor", ratio(times["unit"], times["floor"]), "× floor"),
        informs("a summary without unit events", 1e6 * median(times["none"]), "µs"),
    ]


def _floor(batch: int) -> Callable[[], float]:
    """Return the least that an update is made of: set insertions, products and sums, bare."""
    random = Random(2)
    prior = (0.1, 0.2, 0.25, 0.2, 0.15, 0.1)
    factors = [1.0 + 1e-9 * k for k in range(_RATIOS)]

    def subject() -> float:
        memories: list[set[int]] = [set() for _ in range(_STREAMS)]
        processes = [[0.1] * _RATIOS for _ in range(_PROCESSES)]
        units = [random.getrandbits(64) for _ in range(batch)]
        started = time.perf_counter()
        for unit in units:
            for memory in memories:
                memory.add(unit)
            for number, bets in enumerate(processes):
                processes[number] = [
                    (bet + 1e-9 * share) * factor
                    for bet, share, factor in zip(bets, prior, factors)  # noqa: B905 (a floor)
                ]
                sum(bets)
        return (time.perf_counter() - started) / batch

    return subject


def _sizes() -> list[Row]:
    rows = []
    for name, tosses in (("an empty life", 0), ("a life with 1,000 failed units", 1_000)):
        events = list(_events(_WARM_UP_S, _WARM_UP_S / max(1, tosses), 3, has_unit=tosses > 0))
        gc.collect()
        tracemalloc.start()
        life = FlagGuard(Policy(), 0.0)
        for event in events:
            life.observe(event)
        del event
        gc.collect()
        rows.append(informs(name, tracemalloc.get_traced_memory()[0] / 1024, "KiB"))
        tracemalloc.stop()
        assert len(life.pairs) == 1
    return rows


def _outcomes(small: bool) -> list[Row]:
    harmless, robust, late, fresh = (2, 2, 1, 7) if small else (8, 20, 21, 41)
    jobs = [(scenario, seed) for scenario in HARMLESS for seed in range(harmless)]
    jobs += [(scenario, seed) for scenario in (*RENAMED, *ASKING) for seed in range(robust)]
    for of in FAULTS:
        runs = late if of.fault.at_s else fresh
        jobs += [(of.scenario, seed) for seed in range(runs)]
    # The long ones first, so that both cores end together.
    jobs.sort(key=lambda job: -job[0].duration_s)
    outcomes: dict[str, list[Outcome]] = {}
    with Pool(_WORKERS) as pool:
        for name, outcome in pool.imap_unordered(_live, jobs, chunksize=1):
            outcomes.setdefault(name, []).append(outcome)
            done = sum(map(len, outcomes.values()))
            if done % 50 == 0:
                print(f"guard: {done} of {len(jobs)} lives", file=sys.stderr)
    return [
        *(_false_kills(s.name, [outcomes[s.name]], DEFAULT_ALPHA) for s in HARMLESS),
        *(
            _false_kills(name, [outcomes[s.name] for s in scenarios], ROBUSTNESS_GOAL)
            for name, scenarios in (
                ("errors that only changed their name", RENAMED),
                ("users who ask three times or a third as often", ASKING),
            )
        ),
        *(_delay(of, outcomes[of.scenario.name]) for of in FAULTS),
    ]


def _live(job: tuple[Scenario, int]) -> tuple[str, Outcome]:
    scenario, seed = job
    return scenario.name, live(scenario, seed)


def _false_kills(name: str, lives: Sequence[Sequence[Outcome]], goal: float) -> Row:
    outcomes = [outcome for some in lives for outcome in some]
    killed = sum(outcome.killed_after_s is not None for outcome in outcomes)
    share = 100.0 * killed / len(outcomes)
    return at_most(f"false kills: {name}", share, f"% of {len(outcomes)}", 100.0 * goal)


def _delay(of: FaultGoal, outcomes: Sequence[Outcome]) -> Row:
    bound_s = wald_bound_s(of.scenario.base, of.fault.ratio)
    delays = [inf if o.killed_after_s is None else o.killed_after_s for o in outcomes]
    name = f"fault {of.scenario.name}: delay, {len(delays)} runs"
    return at_most(name, median(delays) / bound_s, "× bound", of.goal)
