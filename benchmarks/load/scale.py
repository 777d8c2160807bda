"""What a hundred thousand processes take, worked out from the figures of the same run.

Nothing here is measured. `docs/scaling.md` has the same arithmetic in words.
"""

from collections.abc import Sequence
from math import ceil

from benchmarks._harness import Row, informs
from benchmarks.load import answers, streams, telemetry

PROCESSES = 100_000
# Streams that one server is given: what a process may open by default is 14,000 or more.
_STREAMS_A_SERVER = 10_000
# Of an SDK: between its summaries, with news and by choice; between polls without a stream.
_REPORTS_EVERY_S = (1.0, 10.0)
_POLLS_EVERY_S = 10.0
# Over which a server that stops or dies has its streams come back.
_RETURN_S = 20.0


def rows_for(rows: Sequence[Row]) -> list[Row]:
    """Return what follows from the rows; none where they are of a small run."""
    figures = {row.name: row.figure for row in rows}
    if streams.kill_to_last(_STREAMS_A_SERVER) not in figures:
        return []
    name = f"{PROCESSES:,} processes"
    servers = ceil(PROCESSES / _STREAMS_A_SERVER)
    stream_mb = _STREAMS_A_SERVER * figures[streams.memory_of(_STREAMS_A_SERVER)] / 1024
    returns_per_s = _STREAMS_A_SERVER / _RETURN_S
    return_ms = figures[streams.return_of(_STREAMS_A_SERVER)]
    polls_per_s = PROCESSES / _POLLS_EVERY_S
    return [
        informs(f"{name}: servers for {_STREAMS_A_SERVER:,} streams each", servers, ""),
        informs(f"{name}: memory for the streams of each", stream_mb, "MB"),
        informs(
            f"{name}: processor of each while its streams return over {_RETURN_S:g} s",
            returns_per_s * return_ms / 10,
            "% of a core",
        ),
        *(
            informs(
                f"{name}: leaders, with a summary every {every_s:g} s",
                ceil(PROCESSES / every_s / figures[telemetry.SUMMARIES]),
                "",
            )
            for every_s in _REPORTS_EVERY_S
        ),
        informs(
            f"{name}: servers where all poll, every {_POLLS_EVERY_S:g} s",
            ceil(polls_per_s / figures[answers.answered("304")]),
            "",
        ),
    ]
