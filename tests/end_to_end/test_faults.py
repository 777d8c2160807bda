"""Faults of the database, the network, clocks and processes, under two servers that work.

Short ones. docs/faults.md names the commands that run each at its full length, and what they said.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end import cut_off_run, kill_run, namespaces, outage_run, pause_run
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.fleet_load import FleetLoad
from tests.postgres_cluster import PostgresCluster


def test_every_acknowledged_write_on_postgres_survives_kill_minus_9(
    start_server: Callable[..., FlagServer], postgres_database: str
) -> None:
    server = start_server(FLAGD_DATABASE_URL=postgres_database)
    figures = kill_run.run(server, times=1, writes=60)
    assert figures.kills == 1
    assert figures.writes >= 60


@pytest.fixture
def own_cluster() -> Iterator[PostgresCluster]:
    with closing(PostgresCluster()) as cluster:
        yield cluster


def test_while_postgres_is_away_all_goes_on_from_memory_and_nothing_acknowledged_is_lost(
    own_cluster: PostgresCluster, tmp_path: Path
) -> None:
    with closing(Fleet(tmp_path, own_cluster.create_database())) as fleet:
        fleet.start(2, **FleetLoad.SETTINGS)
        with FleetLoad(fleet) as load:
            figures = outage_run.run(fleet, own_cluster, load, times=1)
        load.check()
        print(f"{figures.shown()}; {load.shown()}")
        assert load.seen.refused_s, "nothing was refused: it was not away"


def test_a_leader_that_its_network_cuts_off_serves_on_and_another_one_leads(tmp_path: Path) -> None:
    namespaces.required()
    with cut_off_run.cut_off_fleet(tmp_path) as cut_off:
        with FleetLoad(cut_off.fleet) as load:
            print(cut_off_run.run(cut_off, load, cut_s=5.0, as_leader=True))
        load.check()
        print(load.shown())
        assert load.seen.refused_s


def test_no_clock_and_no_pause_kills_a_healthy_flag_or_saves_a_bad_one(
    postgres_database: str, tmp_path: Path
) -> None:
    with pause_run.staged(tmp_path, postgres_database) as stage:
        pause_run.run(stage, pause_run.server_clock, pause_s=1.5)
        # Long enough for another one to lead.
        pause_run.run(stage, pause_run.stopped_leader, pause_s=5.0)
        pause_run.run(stage, pause_run.stopped_app, pause_s=1.5)
