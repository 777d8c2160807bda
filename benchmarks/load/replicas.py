"""Several servers on one Postgres: how far behind the last of them is, and what they take in.

All share the two cores with their clients and the database, so the rows tell what another server
costs here, not what one with cores of its own would bring.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks._crowd import Crowd
from benchmarks._harness import Row, informs
from benchmarks._loopback import request_bytes
from benchmarks._servers import FLAG, Flags, Program, serving
from benchmarks.load.fleet import Fleet, reporting

SERVERS = (1, 2, 3)
_STARTED = b"event: flags\n"


def kill_over(servers: int) -> str:
    return f"{servers} servers on Postgres: kill asked of the first, last stream of the last"


def summaries_over(servers: int) -> str:
    return f"{servers} servers on Postgres: summaries, sent to all of them"


def measure_all(
    servers: Sequence[int], streams: int, rounds: int, seconds: float, instances: int
) -> list[Row]:
    """Measure each number of servers on a cluster of its own making; no rows without Postgres."""
    try:
        from tests.postgres_cluster import PostgresCluster
    except ImportError:  # psycopg, or the tests, are not there
        return []
    try:
        cluster = PostgresCluster(fsync=True)
    except pytest.skip.Exception as error:
        print(f"no rows about replicas: {error}")
        return []
    try:
        return [
            row
            for number in servers
            for row in measure(
                cluster.create_database(), number, streams, rounds, seconds, instances
            )
        ]
    finally:
        cluster.close()


def measure(
    database_url: str, servers: int, streams: int, rounds: int, seconds: float, instances: int
) -> list[Row]:
    """Run so many servers on an empty database, with so many streams on the last of them."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        programs = [
            stack.enter_context(serving(folder, FLAGD_DATABASE_URL=database_url))
            for _ in range(servers)
        ]
        flags = Flags(folder, programs[0])
        stack.callback(flags.connection.close)
        crowd = Crowd(programs[-1].port, request_bytes("GET", "/sdk/v1/stream", flags.sdk), streams)
        stack.callback(crowd.close)
        crowd.gather(_STARTED)
        flags.time_kill(crowd)
        lasts = [flags.time_kill(crowd)[-1] for _ in range(rounds)]
        rate = _taken_in(
            flags, programs, version=2 * (rounds + 1) + 2, seconds=seconds, each=instances
        )
    return [
        informs(kill_over(servers), statistics.median(lasts), "ms"),
        informs(summaries_over(servers), rate, "a second"),
    ]


def _taken_in(
    flags: Flags, programs: list[Program], *, version: int, seconds: float, each: int
) -> float:
    """Report to all servers at once; return how many summaries a second were acknowledged."""
    with ExitStack() as stack:
        reports = [
            stack.enter_context(
                reporting(
                    Fleet(
                        program.port,
                        flags.sdk,
                        FLAG,
                        version,
                        instances=each,
                        per_s=None,
                        prefix=f"s{number}-",
                    )
                )
            )
            for number, program in enumerate(programs)
        ]
        time.sleep(seconds)
    return sum(done[0].total / done[0].seconds for done in reports)
