"""The whole run of the guard's suite, by hand: hours, spread over the cores.

python -m benchmarks.guard --lives 10000 --write benchmarks/RESULTS.md
python -m benchmarks.guard --rows "after 27 h" fresh --delays 51 --results late.jsonl

A run that is stopped goes on from its results file when it is started again.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks._harness import rewrite
from benchmarks.guard.cases import CASES, Case, Group
from benchmarks.guard.lives import Job, Results, ResultsError, run_lives
from benchmarks.guard.table import lines, markdown

SECTION = "guard, whole run"
# Lives for a row of which the share is to be known only roughly.
_ENOUGH = 1_000
_INTRODUCTION = """\
False kills are of whole lives at the default alpha of 0.1 %, with the exact upper 95 % bound on
their share in brackets. Delays are medians. Each row's lives were judged by all four methods, event
by event; what the peers are is said in `benchmarks/guard/peers.py`. One that kills healthy flags is
soon with the others too: its delays are to be read beside its false kills.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables of all that is there."""
    options = _parser().parse_args(arguments)
    cases = [case for case in CASES if _is_asked_for(case, options.rows)]
    if not cases:
        print(f"no row's name contains any of {options.rows}", file=sys.stderr)
        return 2
    jobs = [Job(case.name, seed) for case in cases for seed in range(_count(case, options))]
    try:
        results = Results(options.results)
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    _run_missing(jobs, results, options.workers)
    asked_for = {case.name for case in cases}
    tables = markdown(lines(life for life in results.lives if life.case in asked_for))
    print(tables)
    if options.write is not None:
        date = datetime.now(UTC).date().isoformat()
        body = f"{date}.\n\n{_INTRODUCTION}\n{tables}"
        text = options.write.read_text("utf-8") if options.write.exists() else ""
        options.write.write_text(rewrite(text, {SECTION: body}), encoding="utf-8")
    return 0


def _run_missing(jobs: Sequence[Job], results: Results, workers: int) -> None:
    missing = results.missing(jobs)
    with _progress() as progress, suppress(KeyboardInterrupt):  # then tell of what there is
        task = progress.add_task("lives", total=len(jobs), completed=len(jobs) - len(missing))
        for life in run_lives(missing, workers):
            results.add(life)
            progress.advance(task)


def _is_asked_for(case: Case, parts: Sequence[str]) -> bool:
    return not parts or any(part in case.name or part in case.group.value for part in parts)


def _count(case: Case, options: argparse.Namespace) -> int:
    counts = {Group.FALSE_KILLS: options.lives, Group.DELAY: options.delays}
    return int(counts.get(case.group, min(options.lives, _ENOUGH)))


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--lives",
        type=int,
        default=1_000,
        help=f"for each row of false kills; the rows of less weight get {_ENOUGH:,} at most",
    )
    parser.add_argument("--delays", type=int, default=101, help="runs for each row of delays")
    parser.add_argument("--rows", nargs="+", default=[], help="parts of the names of rows")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        default=Path("guard-lives.jsonl"),
        help="keep each life here, and go on from those that are there (%(default)s)",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"put the tables into its section “{SECTION}”"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
