"""How cost grows, drawn from the very rows that the tables show."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks._harness import Row
from benchmarks.load import answers, streams, telemetry

_NameOf = Callable[[int], str]


def draw(
    rows: Sequence[Row],
    path: Path,
    stream_counts: Sequence[int],
    flag_counts: Sequence[int],
    rates: Sequence[int],
) -> None:
    """Write a picture of four panels; what was not measured is not in it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figures = {row.name: row.figure for row in rows}
    panels: list[tuple[str, str, Sequence[int], list[tuple[str, _NameOf]]]] = [
        (
            "open streams",
            "kill to the last, ms",
            stream_counts,
            [("server", streams.kill_to_last), ("bare epoll loop", streams.floor_of)],
        ),
        ("flags", "memory, MB", flag_counts, [("server", answers.memory_with)]),
        ("flags", "sets a second", flag_counts, [("server", answers.answers_with)]),
        (
            "summaries a second",
            "processor, % of a core",
            rates,
            [("server", telemetry.processor_of)],
        ),
    ]
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    for axes, (across, up, counts, curves) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for label, name_of in curves:
            points = [
                (count, figures[name_of(count)]) for count in counts if name_of(count) in figures
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        if len(curves) > 1:
            axes.legend(frameon=False)
    # Without a date and a random salt, the same figures make the same file.
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
