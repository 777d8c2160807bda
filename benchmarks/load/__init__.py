"""The server under load: streams, telemetry, answers, and how each grows.

A real server on one core, its clients on the other; loopback only. Where a figure is held to a
floor, the two are measured in turn by the same client, so that what a busy machine costs is in
both. What these figures mean for a hundred thousand processes is in `docs/scaling.md`.
"""

import os
from pathlib import Path

from benchmarks._harness import Row
from benchmarks._process import raise_descriptor_limit
from benchmarks._servers import pin
from benchmarks.load import answers, replicas, streams, telemetry
from benchmarks.load.plot import draw
from benchmarks.load.scale import rows_for

STREAMS = (1_000, 5_000, 10_000)
FLAGS = (100, 1_000, 5_000)
SUMMARIES_PER_S = (250, 500, 1_000)


def run(small: bool) -> list[Row]:
    """Measure; `small` takes seconds."""
    raise_descriptor_limit()
    before = os.sched_getaffinity(0)
    pin(os.getpid(), 1)
    try:
        rows = _small() if small else _whole()
    finally:
        os.sched_setaffinity(0, before)
    return [*rows, *rows_for(rows)]


def plot(rows: list[Row], path: Path) -> None:
    """Draw how cost grows."""
    draw(rows, path, STREAMS, FLAGS, SUMMARIES_PER_S)


def _whole() -> list[Row]:
    return [
        *(row for number in STREAMS for row in streams.measure(number, rounds=12)),
        *streams.measure_stuck(5_000, stuck=1_000, rounds=8),
        *streams.measure_return(10_000, times=3),
        *telemetry.measure(60.0, instances=2_000, bad_flags=4),
        *(
            row
            for per_s in SUMMARIES_PER_S
            for row in telemetry.measure_steady(per_s, 8.0, instances=2_000)
        ),
        *answers.measure(slices=6, slice_s=0.4),
        *answers.measure_growth(list(FLAGS), slices=4, slice_s=0.4),
        *replicas.measure_all(
            replicas.SERVERS, streams=1_000, rounds=8, seconds=5.0, instances=500
        ),
    ]


def _small() -> list[Row]:
    return [
        *streams.measure(100, rounds=3),
        *streams.measure_stuck(60, stuck=20, rounds=2),
        *streams.measure_return(100, times=2),
        *telemetry.measure(2.0, instances=100, bad_flags=1),
        *telemetry.measure_steady(100, 1.0, instances=50),
        *answers.measure(slices=1, slice_s=0.2),
        *answers.measure_growth([20, 40], slices=1, slice_s=0.2),
        *replicas.measure_all((1, 2), streams=20, rounds=2, seconds=1.0, instances=50),
    ]
