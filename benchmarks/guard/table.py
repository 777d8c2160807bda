"""From lives to the table: the guard against its goals, and its peers on the same events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from benchmarks._harness import Row, at_most, informs
from benchmarks.guard.cases import CASES, Case, Group
from benchmarks.guard.lives import GUARD, PEERS, Life
from flagd_server.simulation.bounds import upper_bound


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table: one case and its lives."""

    case: Case
    lives: Sequence[Life]

    def killed(self, judge: str, *, before_fault: bool = False) -> int:
        """Return how many lives the judge ended, or only those ended before their fault."""
        ends = (life.killed_after_s[judge] for life in self.lives)
        return sum(end is not None and (end < 0.0 or not before_fault) for end in ends)

    def delay(self, judge: str) -> float:
        """Return the median delay in multiples of the bound, of lives not killed before."""
        ends = (life.killed_after_s[judge] for life in self.lives)
        delays = [inf if end is None else end for end in ends if end is None or end >= 0.0]
        return median(delays) / self.case.bound_s if delays else inf

    @property
    def figure(self) -> float:
        """The guard's share of kills, or its delay."""
        if self.case.group is Group.DELAY:
            return self.delay(GUARD)
        return self.killed(GUARD) / len(self.lives)

    def spoken(self, judge: str) -> str:
        """Return what is said of one judge."""
        if judge not in self.lives[0].killed_after_s:
            return ""
        if self.case.group is not Group.DELAY:
            killed = self.killed(judge)
            most = 100.0 * upper_bound(killed, len(self.lives))
            return (
                f"{killed:,} (≤ {most:.0f} %)" if most >= 10.0 else f"{killed:,} (≤ {most:.2g} %)"
            )
        delay, before = self.delay(judge), self.killed(judge, before_fault=True)
        if before == len(self.lives):
            return "all killed before"
        said = "not found" if delay == inf else f"{delay:.2f} ×"
        return said + (f", {before / len(self.lives):.0%} killed before" if before else "")

    @property
    def goal(self) -> str:
        goal = self.case.goal
        if goal is None:
            return ""
        return f"≤ {goal:g} ×" if self.case.group is Group.DELAY else f"≤ {100 * goal:g} %"

    @property
    def verdict(self) -> str:
        """Whether the figure that was seen meets the goal."""
        if self.case.goal is None:
            return ""
        return "ok" if self.figure <= self.case.goal else "MISSED"


def lines(lives: Iterable[Life]) -> list[Line]:
    """Sort lives into the rows they belong to; rows without lives are left out."""
    by_case: dict[str, list[Life]] = {}
    for life in lives:
        by_case.setdefault(life.case, []).append(life)
    return [Line(case, by_case[case.name]) for case in CASES if case.name in by_case]


def markdown(found: Sequence[Line]) -> str:
    """Return one table for each group."""
    parts = []
    for group in Group:
        of_group = [line for line in found if line.case.group is group]
        if not of_group:
            continue
        head = ("", "lives", "guard", "goal", "", *PEERS)
        rows = [head, ("---", "---:", "---:", "---", "---", *("---:" for _ in PEERS))]
        rows += [
            (
                line.case.name,
                f"{len(line.lives):,}",
                line.spoken(GUARD),
                line.goal,
                line.verdict,
                *(line.spoken(peer) for peer in PEERS),
            )
            for line in of_group
        ]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"### {group.value[0].upper()}{group.value[1:]}\n\n{table}\n")
    return "\n".join(parts)


def as_rows(found: Sequence[Line]) -> list[Row]:
    """Return the guard's figures alone, as the benchmarks print theirs."""
    return [_as_row(line) for line in found]


def _as_row(line: Line) -> Row:
    case, runs = line.case, len(line.lives)
    if case.group is Group.DELAY:
        name = f"fault {case.name}: delay, {runs} runs"
        if case.goal is None:
            return informs(name, line.figure, "× bound")
        return at_most(name, line.figure, "× bound", case.goal)
    assert case.goal is not None, "every row of false kills has a goal"
    name = f"false kills: {case.name}"
    return at_most(name, 100.0 * line.figure, f"% of {runs}", 100.0 * case.goal)
