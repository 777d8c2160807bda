"""A/A replays of real traffic: how often does the guard kill a flag that does nothing?

Ten thousand recorded requests go through the SDK's evaluation and counting and through the guard,
in recorded time, from several processes; visitors are the targeting keys and statuses of 400 and
above the failures. Each run draws a new salt and unit key, so that each is a new assignment of the
same visitors. No run should kill; at most `alpha` of them may.

    python -m benchmarks.real_traffic --runs 1000 --shares 5 25 50 --processes 3
"""

import argparse
import gzip
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from random import Random
from typing import NamedTuple

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import DEFAULT_ALPHA, Event, Policy
from flagd_server.domain.guard.traffic import BUCKETS, CONTROL, Request, read_traffic, split_traffic

TRAFFIC = Path(__file__).parent.parent / "examples" / "data" / "access_log.csv.gz"
_BUCKETS_PER_PERCENT = BUCKETS // 100


class Life(NamedTuple):
    """How one replay went.

    Attributes:
        held: whether it was held at its end.
        units: how many units it had seen fail.
        closest: the greatest e-value over its threshold at any time, over all streams.
    """

    share: int
    killed: bool
    held: bool
    units: int
    closest: float


def load_traffic(path: Path = TRAFFIC) -> list[Request]:
    """Read the recorded requests, in their order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return read_traffic(file)


def recorded_life(
    traffic: Sequence[Request], share: int, processes: int, run: int
) -> Iterator[Event]:
    """Yield one life of a flag that does nothing, at `share` percent, as the server takes it in."""
    random = Random(f"{share}/{processes}/{run}")
    return split_traffic(traffic, share * _BUCKETS_PER_PERCENT, processes, random)


def replay(traffic: Sequence[Request], share: int, processes: int, run: int) -> Life:
    """Run one life of a flag that does nothing, at `share` percent."""
    guard = FlagGuard(Policy(off_variant=CONTROL), traffic[0].t)
    closest = 0.0
    for event in recorded_life(traffic, share, processes, run):
        guard.observe(event)
        if any(cell.units for cell in event.cells):
            closest = max(closest, guard.decision.e_value / guard.decision.threshold)
    decision = guard.decision
    comparison = guard.comparisons[0]
    return Life(
        share=share,
        killed=decision.kill,
        held=decision.hold,
        units=len(comparison.latest),
        closest=closest,
    )


_traffic: list[Request] = []


def _load_in_worker() -> None:
    _traffic.extend(load_traffic())


def _replay_in_worker(processes: int, job: tuple[int, int]) -> Life:
    share, run = job
    return replay(_traffic, share, processes, run)


def replay_all(
    runs: int, shares: Sequence[int], processes: int, workers: int, report_every_s: float = 10.0
) -> list[Life]:
    """Run every life, spread over worker processes, with progress on standard error."""
    jobs = [(share, run) for run in range(runs) for share in shares]
    lives: list[Life] = []
    started = reported = time.monotonic()
    with Pool(workers, initializer=_load_in_worker) as pool:
        for life in pool.imap_unordered(partial(_replay_in_worker, processes), jobs, chunksize=4):
            lives.append(life)
            now = time.monotonic()
            if now - reported >= report_every_s:
                reported = now
                left_s = (now - started) * (len(jobs) - len(lives)) / len(lives)
                print(f"{len(lives)} of {len(jobs)} lives, {left_s:.0f} s left", file=sys.stderr)
    return lives


def print_table(lives: Sequence[Life], alpha: float) -> None:
    """Print one row per share, with what was expected beside what was seen."""
    print("| share | lives | failing units a life | kills | at most expected | held | closest |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for share in sorted({life.share for life in lives}):
        of_share = [life for life in lives if life.share == share]
        units = sum(life.units for life in of_share) / len(of_share)
        print(
            f"| {share} % | {len(of_share)} | {units:.0f} "
            f"| {sum(life.killed for life in of_share)} | {alpha * len(of_share):g} "
            f"| {sum(life.held for life in of_share)} "
            f"| {max(life.closest for life in of_share):.2g} of the threshold |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 where more lives were killed than chance allows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_traffic", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000, help="lives per share")
    parser.add_argument("--shares", type=int, nargs="+", default=[5, 25, 50], help="in percent")
    parser.add_argument("--processes", type=int, default=3, help="that serve the traffic")
    parser.add_argument("--workers", type=int, default=2, help="processes to run the lives in")
    options = parser.parse_args(arguments)
    lives = replay_all(options.runs, options.shares, options.processes, options.workers)
    print_table(lives, DEFAULT_ALPHA)
    return 0 if sum(life.killed for life in lives) <= DEFAULT_ALPHA * len(lives) else 1


if __name__ == "__main__":
    sys.exit(main())
