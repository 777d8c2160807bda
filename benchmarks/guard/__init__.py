"""The guard: what an update costs, what a life weighs, whom it kills, and how soon.

Delays are medians, as multiples of Wald's bound for a test that reads every request as independent
and knows no kinds of error. False kills are counted over whole lives at the default alpha; the few
lives that fit into a benchmark can only show that nothing is badly wrong. The whole run, with its
peers on the same events, is `python -m benchmarks.guard`.
"""

from benchmarks._harness import Row
from benchmarks.guard.cases import CASES, Case, Group
from benchmarks.guard.costs import beat, costs, sizes
from benchmarks.guard.lives import Job, run_lives
from benchmarks.guard.table import as_rows, lines

_WORKERS = 2


def run(small: bool) -> list[Row]:
    """Measure everything; `small` runs fewer lives."""
    jobs = [
        Job(case.name, seed, with_peers=False)
        for case in CASES
        for seed in range(_runs(case, small))
    ]
    return [*costs(small), *beat(small), *sizes(), *as_rows(lines(run_lives(jobs, _WORKERS)))]


def _runs(case: Case, small: bool) -> int:
    if case.group is Group.DELAY:
        assert case.scenario is not None, "a fault is simulated"
        if case.scenario.began_s:
            return 1 if small else 11
        return 3 if small else 41
    return 2 if small else 20
