"""A/A replays of real traffic: how often does the guard kill a flag that does nothing?

Ten thousand recorded requests go through the SDK's evaluation and counting and through the guard,
in recorded time, from several processes; visitors are the targeting keys and statuses of 400 and
above the failures. Each run draws a new salt and unit key, so that each is a new assignment of the
same visitors. No run should kill; at most `alpha` of them may.

    python -m benchmarks.real_traffic --runs 1000 --shares 5 25 50 --processes 3
"""

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.failure import Failure, error_kind
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import Tally
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import DEFAULT_ALPHA, Cell, Event, Policy

TRAFFIC = Path(__file__).parent.parent / "examples" / "data" / "access_log.csv.gz"
FLAG = "new-checkout"
FAILURE_FROM_STATUS = 400
_BUCKETS_PER_PERCENT = 1_000
# A process reports each second with news; the log tells no time of day finer than that either.
_REPORT_AFTER_S = 1.0
_DURATION_US = 20_000


class Request(NamedTuple):
    t: float
    visitor: str
    failure: Failure | None


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
        return [
            Request(
                datetime.fromisoformat(row["time"]).timestamp(),
                row["visitor"],
                Failure(error_kind(row["status"]))
                if int(row["status"]) >= FAILURE_FROM_STATUS
                else None,
            )
            for row in csv.DictReader(file)
        ]


def split_flag_set(salt: str, unit_key: str, weights: Mapping[str, int]) -> FlagSet:
    """Return a flag set of one boolean flag that splits everybody by these weights."""
    on = weights["on"]
    return parse_flag_set(
        {
            "environment": "production",
            "sequence": 1,
            "unit_key": unit_key,
            "segments": {},
            "flags": {
                FLAG: {
                    "key": FLAG,
                    "type": "boolean",
                    "version": 1,
                    "enabled": True,
                    "variants": {"on": True, "off": False},
                    "off_variant": "off",
                    "rules": [],
                    "default_serve": {
                        "split": {
                            "bucket_by": "targetingKey",
                            "salt": salt,
                            "weights": dict(weights),
                            "allocation": [[on, "on"], [on + weights["off"], "off"]],
                        }
                    },
                    "kill": None,
                }
            },
        }
    )


def summaries(
    traffic: Sequence[Request], flag_set: FlagSet, processes: int, deal: Random
) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Yield (t, process, summary) as the processes would report the traffic dealt to them.

    Each reports at the end of a second with news, and at once when a kind of error is new to it.
    """
    tallies = {f"i{number}": Tally() for number in range(processes)}
    names = list(tallies)
    second = traffic[0].t
    for request in traffic:
        if request.t > second:
            for name, tally in tallies.items():
                if tally.has_news:
                    yield second + _REPORT_AFTER_S, name, tally.take().document()
            second = request.t
        context = {"targetingKey": request.visitor}
        resolution = flag_set.resolve(FLAG, context)
        name = deal.choice(names)
        at_once = tallies[name].record(
            {FLAG: resolution},
            context,
            flag_set.unit_key,
            _DURATION_US,
            () if request.failure is None else (request.failure,),
            request.t,
        )
        if at_once:
            yield request.t, name, tallies[name].take().document()
    for name, tally in tallies.items():
        if tally.has_news:
            yield second + _REPORT_AFTER_S, name, tally.take().document()


def replay(traffic: Sequence[Request], share: int, processes: int, run: int) -> Life:
    """Run one life of a flag that does nothing, at `share` percent."""
    random = Random(f"{share}/{processes}/{run}")
    on = share * _BUCKETS_PER_PERCENT
    weights = {"on": on, "off": 100 * _BUCKETS_PER_PERCENT - on}
    flag_set = split_flag_set(
        f"salt-{random.getrandbits(64):x}", random.randbytes(16).hex(), weights
    )
    guard = FlagGuard(Policy(off_variant="off"), traffic[0].t)
    closest = 0.0
    for t, process, summary in summaries(traffic, flag_set, processes, random):
        cells = tuple(
            Cell(
                split=cell["split"],
                variant=cell["variant"],
                weights=weights,
                config_version=cell["config_version"],
                instance=process,
                exposures=cell["exposures"],
                errors=cell["errors"],
                units=cell["units"],
            )
            for cell in summary["cells"]
        )
        guard.observe(Event(t, cells))
        if any(cell.units for cell in cells):
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
