"""What an update of the guard costs, against its floor, and what a life weighs."""

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from statistics import median

from benchmarks._harness import Row, at_most, informs, interleaved, ratio
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Cell, Event, Policy

UPDATE_GOAL_US = 20.0
BEAT_LIVES = 10_000
_BEATS = 10
_WEIGHTS = {"on": 25_000, "off": 75_000}
_WARM_UP_S = 27 * 3_600.0
# A life, an announced epoch and the clock's two, each with all errors and one kind.
_STREAMS, _RATIOS = 8, 6


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


def costs(small: bool) -> list[Row]:
    """Time updates of a life 27 hours old."""
    rounds, batch = (15, 100) if small else (60, 200)
    lives = {"unit": FlagGuard(Policy(), 0.0), "none": FlagGuard(Policy(), 0.0)}
    waiting = {
        name: _events(_WARM_UP_S + (rounds + 2) * batch, 5.0, 1, has_unit=name == "unit")
        for name in lives
    }
    for name, life in lives.items():
        for event in islice(waiting[name], int(_WARM_UP_S / 5.0) - (rounds + 1) * batch):
            life.observe(event)
        life.observe(Event(event.t, announced="version"))

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


def beat(small: bool) -> list[Row]:
    """Time a beat of one second: every life takes a summary in, and one in ten a failing unit."""
    lives = [FlagGuard(Policy(), 0.0) for _ in range(1_000 if small else BEAT_LIVES)]
    quiet = list(_events(_BEATS, 1.0, 4, has_unit=False))
    failing = list(_events(_BEATS, 1.0, 5))
    taken: list[float] = []
    for second in range(_BEATS):
        gc.collect()
        started = time.perf_counter()
        for number, life in enumerate(lives):
            life.observe(failing[second] if number % 10 == second % 10 else quiet[second])
        taken.append((time.perf_counter() - started) * BEAT_LIVES / len(lives))
    # The first opens what the later ones find.
    return [at_most(f"a beat of {BEAT_LIVES:,} lives", median(taken[1:]), "s", 1.0)]


def _floor(batch: int) -> Callable[[], float]:
    """Return the least that an update is made of: set insertions, products and sums, bare."""
    random = Random(2)
    prior = (0.1, 0.2, 0.25, 0.2, 0.15, 0.1)
    factors = [1.0 + 1e-9 * k for k in range(_RATIOS)]

    def subject() -> float:
        memories: list[set[int]] = [set() for _ in range(_STREAMS)]
        processes = [[0.1] * _RATIOS for _ in range(_STREAMS)]
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


def sizes() -> list[Row]:
    """Weigh lives in memory."""
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
