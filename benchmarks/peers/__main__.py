"""Runs the contenders in turn and prints the table; see the package."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import peers
from benchmarks._harness import Row, at_least, informs, markdown_table, print_table, rewrite
from benchmarks.peers.contenders import CONTENDERS, FLOOR, OURS
from benchmarks.peers.workload import WORKLOADS

RECORDING, SILENT = "recording", "not recording"
_GOAL = 2.0  # times the fastest peer's speed, with recording on


class Worker:
    """The process of one contender, recording or not."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.package, self.records = self._answer()

    def tell(self, command: str) -> list[Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> list[Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended: {self._process.args!r}")
        words: list[Any] = json.loads(line)
        return words


@contextmanager
def _process(module: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", f"{peers.__name__}.{module}", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


Figures = dict[tuple[str, str, str], list[float]]
"""(contender, recording, workload) → seconds a user in each round."""


def main() -> int:
    """Check and time all contenders; return 1 where one fails the check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=peers.__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=0.3, metavar="SECONDS", help="a figure")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put it into a markdown report")
    options = parser.parse_args()
    with ExitStack() as stack:
        sink = stack.enter_context(_process("sink"))
        assert sink.stdout is not None
        address = sink.stdout.readline().strip()
        workers = {
            (name, recording): Worker(
                stack.enter_context(_process("worker", name, recording, address))
            )
            for name in CONTENDERS
            for recording in (RECORDING, SILENT)
        }
        wrong = {who: worker.tell("check") for who, worker in workers.items()}
        for (name, recording), found in wrong.items():
            print(f"{name}, {recording}: {'; '.join(found) or 'answers are right'}")
        if any(wrong.values()):
            return 1
        one = _measured(workers, "time", options.rounds, options.budget)
        two = _measured(workers, "two", options.rounds, options.budget)
    rows = [*_goals(one, two), *_all(one, two)]
    print_table("peers", rows)
    if options.write is not None:
        report = options.write.read_text("utf-8") if options.write.exists() else ""
        contenders = "\n".join(
            f"- {worker.package}, {recording}: {worker.records or 'nothing'}"
            for (_, recording), worker in workers.items()
        )
        section = f"{peers.__doc__}\nWhat each records:\n\n{contenders}\n\n{markdown_table(rows)}"
        options.write.write_text(rewrite(report, {"peers": section}), encoding="utf-8")
    return 0


def _measured(
    workers: dict[tuple[str, str], Worker], command: str, rounds: int, budget_s: float
) -> Figures:
    figures: Figures = {}
    for _ in range(rounds):
        for workload in WORKLOADS:
            for (name, recording), worker in workers.items():
                (seconds,) = worker.tell(f"{command} {budget_s} {workload}")
                figures.setdefault((name, recording, workload), []).append(seconds)
    return figures


def _goals(one: Figures, two: Figures) -> list[Row]:
    rows = []
    for workload in WORKLOADS:
        ours = one[OURS, RECORDING, workload]
        # Round by round, as noise that lasts longer than one slows both.
        fastest = min(
            median(theirs / our for theirs, our in zip(figures, ours, strict=True))
            for (name, recording, what), figures in one.items()
            if (recording, what) == (RECORDING, workload) and name not in (OURS, FLOOR)
        )
        rows.append(
            at_least(f"{workload}: speed over the fastest peer's, recording", fastest, "×", _GOAL)
        )
    for workload in WORKLOADS:
        us, floor = ((name, RECORDING, workload) for name in (OURS, FLOOR))
        # Two threads take turns at the interpreter, which costs the plainest loop a little too.
        rows.append(
            at_least(
                f"{workload}: two threads' speed over one's, as a share of the floor's",
                _two_over_one(one[us], two[us]) / _two_over_one(one[floor], two[floor]),
                "",
                1.0,
            )
        )
    return rows


def _two_over_one(one: list[float], two: list[float]) -> float:
    return median(alone / together for alone, together in zip(one, two, strict=True))


def _all(one: Figures, two: Figures) -> list[Row]:
    rows = []
    for recording in (RECORDING, SILENT):
        for workload in WORKLOADS:
            ours = one[OURS, recording, workload]
            for name in CONTENDERS:
                key = name, recording, workload
                times = median(t / our for t, our in zip(one[key], ours, strict=True))
                threads = _two_over_one(one[key], two[key])
                rows.append(
                    informs(
                        f"{workload}, {recording}: {name} ({times:.2f} × ours, two threads"
                        f" {threads:.2f} ×)",
                        median(one[key]) * 1e6,
                        "µs a user",
                    )
                )
    return rows


if __name__ == "__main__":
    sys.exit(main())
