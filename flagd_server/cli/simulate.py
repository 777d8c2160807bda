"""`flagd-server simulate`: what would a fault cost at each stage of a rollout, before any is begun?

A row per share: lives of a flag that is faulty from the start of the stage, and healthy ones.
"""

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import repeat
from math import isfinite
from multiprocessing import Pool
from typing import TYPE_CHECKING

from flagd_sdk.core.guard.coin import DEFAULT_MARGIN
from flagd_server.domain.guard.records import DEFAULT_ALPHA, Policy
from flagd_server.domain.guard.traffic import CONTROL
from flagd_server.domain.stages import DEFAULT_STAGES
from flagd_server.simulation.forecast import Forecast, Spread
from flagd_server.simulation.life import Ending, guard, live
from flagd_server.simulation.scenario import HOUR_S, Fault, Scenario

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "ask what a fault would cost before the guard turns it off, at each stage of a rollout"
_KINDS = {
    "new": "errors of a kind of its own",
    "old": "more of the errors there are",
    "slow": "slow requests",
}
# The threshold of latency is the control's p99: so many are slow without any fault.
_SLOW = 0.01
_DEFAULT_SHARE = 25.0
_COLUMNS = "{:>6}  {:>10}  {:>18}  {:>16}  {:>16}  {:>16}  {:>11}"

_Run = Callable[[Scenario, Iterable[int]], list[Ending]]


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("simulate", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--users", type=_whole(2), default=20_000, help="how many there are (20000)")
    add("--rps", type=_number(0, 1e5), default=50.0, help="their requests a second (50)")
    shares = parser.add_mutually_exclusive_group()
    shares.add_argument("--share", type=_percent, help="of the traffic, in percent (25)")
    shares.add_argument(
        "--stages",
        type=_percents,
        nargs="?",
        const=DEFAULT_STAGES,
        help="shares in percent, a row for each; without a value those of a rollout by default, "
        + ",".join(f"{share:g}" for share in DEFAULT_STAGES),
    )
    add("--base", type=_percent, default=1.0, help="requests that fail anyway, in percent (1)")
    add("--ratio", type=_number(1, 1e4), default=2.0, help="the fault multiplies them by this (2)")
    add("--kind", choices=_KINDS, default="new", help="what the fault shows as (new)")
    add("--alpha", type=_number(0, 1), default=DEFAULT_ALPHA, help="of the policy (0.001)")
    add("--margin", type=_number(1, 10), default=DEFAULT_MARGIN, help="of the policy (1.05)")
    add("--harm-budget", type=_whole(1), help="of the policy: excess failing requests (no limit)")
    add("--hours", type=_number(0, 168), default=4.0, help="how long a life is watched (4)")
    add("--lives", type=_whole(1), default=40, help="faulty lives a row (40)")
    add("--healthy-lives", type=_whole(0), default=10, help="lives a row without the fault (10)")
    add("--seed", type=_whole(0), default=1, help="the same seed, the same lives (1)")
    add("--workers", type=_whole(1), default=os.cpu_count() or 1, help="processes to use (all)")
    add("--json", action="store_true", help="print one JSON document in place of the table")


def run(options: argparse.Namespace) -> int:
    scenario = _scenario(options)
    stages = options.stages or (options.share or _DEFAULT_SHARE,)
    if not options.json:
        print(_introduction(options))
    forecasts = []
    with _running(_policy(options), options.workers) as run_lives:
        for share in stages:
            at_share = replace(scenario, ramp=((0.0, share),))
            forecast = Forecast.of(
                share,
                run_lives(at_share, range(options.seed, options.seed + options.lives)),
                run_lives(
                    replace(at_share, name="healthy", fault=None),
                    range(options.seed, options.seed + options.healthy_lives),
                ),
            )
            forecasts.append(forecast)
            if not options.json:
                print(_row(forecast), flush=True)
    if options.json:
        rows = [forecast.to_document() for forecast in forecasts]
        print(json.dumps({"scenario": _asked(options), "stages": rows}, allow_nan=False))
    else:
        print(_conclusion(options, forecasts))
    return 0


def _scenario(options: argparse.Namespace) -> Scenario:
    is_slowness = options.kind == "slow"
    return Scenario(
        "faulty",
        base=options.base / 100.0,
        duration_s=options.hours * HOUR_S,
        units=options.users,
        requests_per_s=options.rps,
        slow=_SLOW,
        fault=Fault(options.ratio, options.kind == "new", is_slowness=is_slowness),
    )


def _policy(options: argparse.Namespace) -> Policy:
    return Policy(
        alpha=options.alpha,
        margin=options.margin,
        off_variant=CONTROL,
        harm_budget=options.harm_budget,
    )


@contextmanager
def _running(policy: Policy, workers: int) -> Iterator[_Run]:
    """Yield what runs the lives of a scenario by seed, in so many processes."""
    one = partial(_live, policy)
    if workers == 1:
        yield lambda scenario, seeds: [one(scenario, seed) for seed in seeds]
        return
    # Ctrl-C is the main process's to answer.
    with Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield lambda scenario, seeds: pool.starmap(one, zip(repeat(scenario), seeds), chunksize=1)


def _live(policy: Policy, scenario: Scenario, seed: int) -> Ending:
    return live(scenario, seed, guard(policy))


def _asked(options: argparse.Namespace) -> dict[str, object]:
    names = ("users", "rps", "base", "ratio", "kind", "alpha", "margin", "harm_budget", "hours")
    return {name: getattr(options, name) for name in (*names, "seed")}


def _introduction(options: argparse.Namespace) -> str:
    is_slow = options.kind == "slow"
    usual = f"of {_SLOW:.0%} slow" if is_slow else f"of {options.base:g} % failing"
    return (
        f"{options.users:,} users, {options.rps:g} requests a second; {_KINDS[options.kind]}, "
        f"×{options.ratio:g} {usual}; alpha {options.alpha:g}, margin {options.margin:g}.\n"
        f"Median / 90 % of {options.lives} lives, each watched for {options.hours:g} h.\n\n"
        + _COLUMNS.format(
            "share",
            "not killed",
            "delay",
            "exposures",
            "slow requests" if is_slow else "failed requests",
            "users hit",
            "false kills",
        )
    )


def _row(forecast: Forecast) -> str:
    return _COLUMNS.format(
        f"{forecast.share:g} %",
        f"{forecast.lives - forecast.killed} of {forecast.lives}",
        " / ".join(_duration(value) for value in forecast.delay_s),
        _counts(forecast.exposures),
        _counts(forecast.failed),
        _counts(forecast.users),
        f"{forecast.false_kills} of {forecast.healthy_lives}",
    )


def _counts(spread: Spread) -> str:
    return " / ".join("–" if value is None else f"{value:,.0f}" for value in spread)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:.1f} h"


def _conclusion(options: argparse.Namespace, forecasts: list[Forecast]) -> str:
    lines = [""]
    for forecast in forecasts:
        found = f"at {forecast.share:g} % such a fault "
        if forecast.delay_s.median is None:
            found += f"mostly goes unseen for {options.hours:g} h"
            lines.append(f"{found}; by then {forecast.users.median:,.0f} users have met it.")
            continue
        users, failed = forecast.users.median, forecast.failed.median
        lines.append(
            f"{found}costs {users:,.0f} users {failed:,.0f} requests, in half of the lives no more."
        )
    lines.append(
        f"A healthy flag is killed with probability {options.alpha:g} at most, over a whole life."
    )
    return "\n".join(lines)


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text.replace(",", "").replace("_", ""))
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return value

    return parse


def _number(above: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = above - 1.0
        if not isfinite(value) or not above < value <= most:
            expected = f"expected a number above {above:g}, at most {most:g}"
            raise argparse.ArgumentTypeError(f"{expected}, got {text!r}")
        return value

    return parse


def _percent(text: str) -> float:
    return _number(0, 99.99)(text.strip().removesuffix("%"))


def _percents(text: str) -> tuple[float, ...]:
    return tuple(_percent(part) for part in text.split(","))
