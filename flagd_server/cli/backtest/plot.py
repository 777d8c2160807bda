"""The evidence of each policy over time, with the failing units that made it, as a picture."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flagd_server.cli.backtest.answers import duration, extent, source_of, verdict
from flagd_server.cli.backtest.sources import Recording
from flagd_server.domain.guard.policy_trials import Outcome, PolicyComparison
from flagd_server.errors import ServerError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Plotter = Callable[[Path, Recording, PolicyComparison], None]

# Okabe and Ito's colours, which most colour-blind people tell apart; the order is by contrast.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_TREATMENT_COLOUR, _CONTROL_COLOUR, _QUIET = "#C0392B", "#7F8C8D", "#555555"
_UNITS = (("s", 1.0, 600.0), ("min", 60.0, 3 * 3_600.0), ("h", 3_600.0, float("inf")))
"""(unit of time, its seconds, used for what lasts less than so many)."""
_ROOM_AFTER_THE_LAST_KILL = 1.08
# More lines than this become a density; and of an SVG they would make megabytes.
_LINES_TOLD_APART, _LINES_AS_VECTORS = 500, 2_000
# Keys are typed as literals there, and there are hundreds.
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _QUIET,
    "svg.fonttype": "none",  # text that can be searched
    "svg.hashsalt": "flagd",  # the same picture has the same bytes
}


def load_plotter() -> Plotter:
    """Return what draws a comparison into a file, whose suffix names its format.

    Raises:
        ServerError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ServerError(
            "the module 'matplotlib' is missing; a plot needs what its extra brings:"
            " pip install 'flagd-release[plots]'"
        )
    return _draw


def _draw(path: Path, recording: Recording, comparison: PolicyComparison) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    until = _until(comparison)
    unit, unit_s = _time_unit(until - comparison.started_at)

    def scaled(t: float) -> float:
        return (t - comparison.started_at) / unit_s

    with rc_context(_STYLE):
        # No pyplot: it would choose a window system, and keep the figure.
        figure = Figure(figsize=(10.0, 6.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
        heading = f"{recording.title}\n{extent(recording, comparison)}"
        figure.suptitle(heading, x=0.01, ha="left", fontsize=11)
        _draw_evidence(upper, comparison, scaled, until)
        _draw_falls(lower, comparison, scaled, until)
        if recording.fault_at is not None and recording.fault_at < until:
            _mark_fault((upper, lower), scaled(recording.fault_at))
        figure.legend(loc="outside lower left", frameon=False)
        lower.set_xlim(0.0, scaled(until))
        lower.set_xlabel(f"{unit} since the start")
        suffix = path.suffix.lower()
        # A date would make every picture another file.
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(path, dpi=150, format=suffix[1:], metadata=metadata)


def _until(comparison: PolicyComparison) -> float:
    """Return where to end: soon after the last kill, if every policy killed."""
    if not all(outcome.decision.kill for outcome in comparison.outcomes):
        return max(comparison.ended_at, comparison.started_at + 1.0)
    last_s = max(outcome.t for outcome in comparison.outcomes) - comparison.started_at
    return comparison.started_at + max(1.0, last_s * _ROOM_AFTER_THE_LAST_KILL)


def _time_unit(lasts_s: float) -> tuple[str, float]:
    return next((name, seconds) for name, seconds, below in _UNITS if lasts_s < below)


def _draw_evidence(
    axes: "Axes", comparison: PolicyComparison, scaled: Callable[[float], float], until: float
) -> None:
    axes.axhline(1.0, color=_TREATMENT_COLOUR, linewidth=1.2)
    for number, outcome in enumerate(comparison.outcomes):
        colour = _COLOURS[number % len(_COLOURS)]
        path = outcome.path
        if not outcome.decision.kill:
            path = (*path, path[-1]._replace(t=until))
        times = [scaled(point.t) for point in path]
        # What is held back is dotted: the solid line on top of it has a gap there.
        for style, values, label in (
            (":", [point.nearness for point in path], None),
            ("-", [nan if p.is_held else p.nearness for p in path], _label(comparison, outcome)),
        ):
            axes.step(times, values, style, where="post", color=colour, linewidth=1.8, label=label)
        if outcome.decision.kill:
            axes.plot(times[-1], path[-1].nearness, "o", color=colour)
    reached = [point.nearness for outcome in comparison.outcomes for point in outcome.path]
    top = max(*reached, 1.0) * 4.0
    axes.set_yscale("log")
    axes.set_ylim(min(reached) / 2.0, top)
    axes.axhspan(1.0, top, color=_TREATMENT_COLOUR, alpha=0.06, linewidth=0)
    axes.set_ylabel("evidence E over its threshold")
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.annotate(
        "threshold",
        (1.0, 1.0),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color=_TREATMENT_COLOUR,
    )


def _label(comparison: PolicyComparison, outcome: Outcome) -> str:
    if outcome.decision.kill:
        said = f"killed after {duration(outcome.t - comparison.started_at)}"
    else:
        said = f"{verdict(outcome)}, at most {outcome.nearness:.2g} of the threshold"
    if outcome.held_from is not None:
        said += ", dotted while held back"
    return f"{outcome.name}: {said} ({source_of(outcome.decision)})"


def _draw_falls(
    axes: "Axes", comparison: PolicyComparison, scaled: Callable[[float], float], until: float
) -> None:
    """Draw a line for each unit when it first failed, the treatment's above the control's."""
    decision = comparison.outcomes[0].decision
    split, treatment, control = decision.split, decision.treatment, decision.control
    arms = [] if split is None else [name for name in (control, treatment) if name is not None]
    for row, variant in enumerate(arms):
        arm = comparison.arms.get((split or "", variant))
        falls = [] if arm is None else [scaled(t) for t in arm.falls_of(decision) if t <= until]
        colour = _TREATMENT_COLOUR if variant == treatment else _CONTROL_COLOUR
        axes.eventplot(
            falls,
            lineoffsets=row,
            linelengths=0.8,
            linewidths=0.9,
            colors=colour,
            alpha=min(1.0, _LINES_TOLD_APART / max(1, len(falls))),
            rasterized=len(falls) > _LINES_AS_VECTORS,
        )
        axes.annotate(
            f"{len(falls):,} units",
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    axes.set_yticks(range(len(arms)), [f"“{variant}”" for variant in arms])
    axes.set_ylim(-0.6, 1.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    fell = "was slow" if decision.guard == "latency" else "failed"
    axes.set_title(f"when each unit first {fell}", loc="left", fontsize=10, color=_QUIET)


def _mark_fault(both: Sequence["Axes"], x: float) -> None:
    for axes in both:
        axes.axvline(x, color=_QUIET, linestyle=":", linewidth=1.2)
    both[0].annotate(
        "fault",
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=_QUIET,
    )
