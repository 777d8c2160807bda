"""Recorded events in few words, for the tests of the guard."""

from collections.abc import Iterable, Mapping

from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.metrics import ERRORS, Metric
from flagd_server.domain.guard.records import Cell, Event, Policy

QUARTER = {"on": 25_000, "off": 75_000}
HALF = {"on": 50_000, "off": 50_000}
BOOM = "error:Boom"


def unit(number: int) -> str:
    """Return a unit's hash; consecutive numbers are spread over the whole range."""
    return f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}"


def units(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(unit(number) for number in numbers)


def cell(
    variant: str,
    failing: Mapping[str, Iterable[int]] | Iterable[int] = (),
    *,
    exposures: int | None = None,
    weights: Mapping[str, int] = QUARTER,
    version: int = 1,
    instance: str = "i1",
    split: str | None = "default",
    since: float | None = None,
    token: str = "",
) -> Cell:
    """Return a cell in which units (by number; by kind, or all of one kind) have failed."""
    by_kind = failing if isinstance(failing, Mapping) else {BOOM: failing}
    hashes = {kind: units(numbers) for kind, numbers in by_kind.items()}
    hashes = {kind: found for kind, found in hashes.items() if found}
    errors = sum(map(len, hashes.values()))
    if exposures is None:
        exposures = max(errors, weights.get(variant, 0) // 1_000)
    return Cell(
        split=split,
        variant=variant,
        weights=weights,
        config_version=version,
        instance=instance,
        exposures=exposures,
        errors=min(errors, exposures),
        units=hashes,
        instance_since=since,
        token=token,
    )


def comparison(started_at: float = 0.0, metric: Metric = ERRORS) -> Comparison:
    return Comparison.start(Arms("default", "on", "off"), metric, 1.05, started_at)


def see(comparison: Comparison, t: float, cells: list[Cell]) -> float:
    """Show one summary to a comparison that stands alone, through its arms."""
    score = comparison.observe(t, comparison.arms.observe(t, cells))
    comparison.bound()
    return score


def guard(**policy: object) -> FlagGuard:
    """Return a life that watches error rates only, unless the policy says otherwise."""
    fields = {"control": "off", "guards": ("error_rate",), **policy}
    return FlagGuard(Policy(**fields), 0.0)  # type: ignore[arg-type]


def feed(guard: FlagGuard, t: float, *cells: Cell, announced: str | None = None) -> None:
    guard.observe(Event(t, cells, announced))


def feed_each(
    guard: FlagGuard,
    variant: str,
    numbers: Iterable[int],
    *,
    start: float,
    kind: str = BOOM,
    instances: tuple[str, ...] = ("i1",),
    weights: Mapping[str, int] = QUARTER,
    version: int = 1,
) -> float:
    """Let one unit fail each second, on processes in turn; return the time after the last."""
    t = start
    for position, number in enumerate(numbers):
        arms = [name for name in weights if weights[name]]
        instance = instances[position % len(instances)]
        feed(
            guard,
            t,
            *(
                cell(
                    arm,
                    {kind: [number] if arm == variant else []},
                    weights=weights,
                    version=version,
                    instance=instance,
                )
                for arm in arms
            ),
        )
        t += 1.0
    return t
