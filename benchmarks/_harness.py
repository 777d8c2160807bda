"""What the benchmarks share: rows with their goals, tables, and timing on a noisy machine."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and the goal it is held to.

    Attributes:
        goal: as a person reads it; "" where the figure only informs.
        ok: whether the goal is met; True where there is none.
    """

    name: str
    figure: float
    unit: str
    goal: str
    ok: bool


def at_most(name: str, figure: float, unit: str, goal: float) -> Row:
    """Return a row that is to stay at or under a goal."""
    return Row(name, figure, unit, f"≤ {goal:g}", figure <= goal)


def at_least(name: str, figure: float, unit: str, goal: float) -> Row:
    """Return a row that is to reach a goal."""
    return Row(name, figure, unit, f"≥ {goal:g}", figure >= goal)


def informs(name: str, figure: float, unit: str) -> Row:
    """Return a row without a goal."""
    return Row(name, figure, unit, "", True)


# Does some work and returns the seconds that one operation of it took.
Subject: TypeAlias = Callable[[], float]


def interleaved(subjects: Mapping[str, Subject], rounds: int) -> dict[str, list[float]]:
    """Time subjects in turn, round after round, so that a slow minute slows them all.

    Returns:
        Of each subject, the seconds an operation took in each round.
    """
    for subject in subjects.values():
        subject()  # the first time fills caches and lets the interpreter specialise
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            times[name].append(subject())
    return times


def ratio(times: Sequence[float], floor: Sequence[float]) -> float:
    """Return the median of what a subject took as a multiple of its floor in the same round.

    Both of a round ran within milliseconds of each other, so noise that lasts longer cancels. The
    half of the rounds in which the floor itself was slowed are left out: others were busy then.
    """
    usual = median(floor)
    pairs = zip(times, floor, strict=True)
    return median(time / base for time, base in pairs if base <= usual)


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print rows with the goal beside each figure."""
    cells = [("", "figure", "goal", ""), *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    print(f"\n{title}")
    for name, figure, goal, verdict in cells:
        line = f"  {name:<{widths[0]}}  {figure:>{widths[1]}}  {goal:<{widths[2]}}  {verdict}"
        print(line.rstrip())


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the same table as markdown."""
    lines = ["| | figure | goal | |", "| --- | ---: | --- | --- |"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def rows_as_json(rows: Sequence[Row]) -> str:
    """Return rows as one JSON array of {name, figure, unit, goal, ok}."""
    return json.dumps([asdict(row) for row in rows], ensure_ascii=False)


def rewrite(report: str, sections: Mapping[str, str], head: str | None = None) -> str:
    """Return a markdown report with sections (title → body) made anew, and the others as they were.

    A new section goes to the end; what stands above the first becomes `head` where one is given.
    """
    old_head, *old = f"\n{report}".split("\n## ")
    bodies = {title.strip(): body.strip() for title, _, body in (s.partition("\n") for s in old)}
    bodies |= {title: body.strip() for title, body in sections.items()}
    parts = [(old_head if head is None else head).strip()]
    parts += [f"## {title}\n\n{body}" for title, body in bodies.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(row: Row) -> tuple[str, str, str, str]:
    figure = f"{row.figure:,.0f}" if abs(row.figure) >= 1000 else f"{row.figure:.3g}"
    verdict = "" if not row.goal else "ok" if row.ok else "MISSED"
    return row.name, f"{figure} {row.unit}".rstrip(), row.goal, verdict
