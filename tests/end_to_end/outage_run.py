"""Postgres restarted again and again under two servers that work, and what is left in the end.

`python -m tests.end_to_end.outage_run --times 20` is the whole of it. The ways to end Postgres take
turns: by SIGKILL, in order, and without a word.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.bad_flag import BadFlag
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.fleet_load import CAUGHT_UP_WITHIN_S, FleetLoad
from tests.postgres_cluster import PostgresCluster

WAYS: dict[str, Callable[[PostgresCluster], None]] = {
    "kill -9": PostgresCluster.crash,
    "fast": PostgresCluster.stop,
    "immediate": PostgresCluster.abort,
}
# The guard stops itself after five kills in a minute in one of them.
ENVIRONMENTS = ("production", "staging", "development")
_AWAY_S = (0.0, 3.0)


@dataclass
class Figures:
    """What a run has shown; it ends with an AssertionError where anything was lost.

    Attributes:
        caught_up_s: seconds from when Postgres was back until each server had written, and the
            clients of all had that.
    """

    caught_up_s: list[float] = field(default_factory=list)

    def shown(self) -> str:
        return (
            f"Postgres restarted {len(self.caught_up_s)} times under two servers, with as many"
            f" decisions, each once: caught up after {statistics.median(self.caught_up_s):.2f} s"
            f" ({max(self.caught_up_s):.2f} s at most)"
        )


def run(
    fleet: Fleet,
    cluster: PostgresCluster,
    load: FleetLoad,
    *,
    times: int,
    seed: int = 9,
    on_restart: Callable[[str], None] = lambda line: None,
) -> Figures:
    """Restart Postgres so often under the load, which works; a flag turns bad each time."""
    figures = Figures()
    moments = random.Random(seed)
    for number in range(times):
        name, end = list(WAYS.items())[number % len(WAYS)]
        environment = ENVIRONMENTS[number % len(ENVIRONMENTS)]
        bad = BadFlag(fleet, f"bad-{number}", environment, 100 + number)
        before = load.acknowledged.writes
        with bad:
            time.sleep(moments.uniform(0.0, 0.3))
            end(cluster)
            time.sleep(moments.uniform(*_AWAY_S))
            cluster.start()
            back_at = time.monotonic()
            figures.caught_up_s.append(load.caught_up_s(back_at))
        assert load.seen.failures == []
        bad.check()
        assert load.acknowledged.writes > before, "nothing was being written"
        on_restart(f"{name}: caught up after {figures.caught_up_s[-1]:.2f} s")
    assert max(figures.caught_up_s) < CAUGHT_UP_WITHIN_S
    return figures


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.outage_run", description=__doc__
    )
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()

    def show(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with (
        tempfile.TemporaryDirectory() as folder,
        closing(PostgresCluster(fsync=True)) as cluster,
        closing(Fleet(Path(folder), cluster.create_database())) as fleet,
    ):
        fleet.start(2, **FleetLoad.SETTINGS)
        with FleetLoad(fleet) as load:
            figures = run(fleet, cluster, load, times=arguments.times, on_restart=show)
        unanswered = load.check()
        print(
            f"{figures.shown()}; {load.shown()}; {unanswered} more were durable without an answer"
        )


if __name__ == "__main__":
    main()
