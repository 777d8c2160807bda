"""The benchmarks of load and soak, with tiny numbers: what does not depend on the machine."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks._harness import Row, informs
from benchmarks._servers import Flags, flag_server
from benchmarks.load import answers, fleet, replicas, streams, telemetry
from benchmarks.load.plot import draw
from benchmarks.load.scale import rows_for


@pytest.fixture(scope="module")
def server() -> Iterator[Flags]:
    with flag_server() as flags:
        flags.warm_up()
        yield flags


@pytest.fixture(autouse=True)
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm no server up again: that is for the figures, of which none is looked at here."""
    monkeypatch.setattr(Flags, "warm_up", lambda _: None)


@pytest.fixture
def one_server(server: Flags, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let benchmarks that start a server of their own share one."""

    @contextmanager
    def shared() -> Iterator[Flags]:
        yield server

    for module in (streams, answers, telemetry):
        monkeypatch.setattr(module, "flag_server", shared)


def figures(rows: list[Row]) -> dict[str, float]:
    found = {row.name: row.figure for row in rows}
    assert len(found) == len(rows), "two rows have one name"
    return found


@pytest.mark.usefixtures("one_server")
def test_every_stream_hears_of_every_kill() -> None:
    found = figures(streams.measure(20, rounds=2))
    assert found["kill to 20 streams: missed"] == 0
    assert found[streams.floor_of(20)] > 0
    assert found[streams.kill_to_last(20)] > 0


@pytest.mark.usefixtures("one_server")
def test_stuck_readers_are_cut_and_the_others_miss_nothing() -> None:
    found = figures(streams.measure_stuck(8, stuck=3, rounds=1))
    assert found["3 of 8 stuck: cut at their backlog"] == 3
    assert found["3 of 8 stuck: missed by the others"] == 0


@pytest.mark.usefixtures("one_server")
def test_all_that_return_at_once_are_let_in() -> None:
    found = figures(streams.measure_return(50, times=2))
    assert found["50 streams return at once: 5xx and other errors"] == 0
    assert found["50 streams return at once: refused, reset or never answered"] == 0


def test_nothing_acknowledged_is_lost_and_the_guard_decides_meanwhile() -> None:
    found = figures(telemetry.measure(0.2, instances=20, bad_flags=1))
    assert found["telemetry: acknowledged"] > 0
    assert found["telemetry: acknowledged and not in the database after SIGKILL"] == 0
    assert found["guard: the same, worst of 1"] > 0


def test_a_report_that_is_missing_in_the_database_is_found(tmp_path: Path) -> None:
    database = tmp_path / "flags.db"
    with closing(sqlite3.connect(database)) as db:
        db.execute("CREATE TABLE instances (instance, sequence)")
        db.execute("CREATE TABLE counts (flag, exposures)")
        db.executemany("INSERT INTO instances VALUES (?, ?)", [("i-0", 3), ("i-1", 2)])
        db.execute("INSERT INTO counts VALUES ('new-checkout', ?)", (5 * fleet.EXPOSURES,))
        db.commit()
    assert telemetry.lost(database, fleet.Reported([3, 2], 1.0, []))[0] == 0
    assert telemetry.lost(database, fleet.Reported([3, 3], 1.0, []))[0] == 1


@pytest.mark.usefixtures("one_server")
def test_answers_are_what_was_asked_for() -> None:
    found = figures(answers.measure(slices=1, slice_s=0.02, set_bytes=2_000))
    assert min(found.values()) > 0


def test_a_set_is_answered_without_reading_the_database() -> None:
    found = figures(answers.measure_growth([3, 6], slices=1, slice_s=0.02))
    assert found["6 flags: reads of the database in 200 answers"] == 0
    assert found["6 flags: a set"] > found["3 flags: a set"]


@pytest.mark.usefixtures("postgres_cluster")
def test_all_servers_on_one_database_hear_of_a_kill_and_take_summaries_in(
    postgres_url: str,
) -> None:
    found = figures(
        replicas.measure(postgres_url, 2, streams=3, rounds=1, seconds=0.2, instances=5)
    )
    assert found[replicas.kill_over(2)] > 0
    assert found[replicas.summaries_over(2)] > 0


def test_a_soak_leaves_its_figures(tmp_path: Path) -> None:
    rows = soak.run(minutes=2.5 / 60, every_s=0.25, streams=5, output=tmp_path)
    found = figures(rows)
    assert found["5xx"] == found["connections that broke"] == 0
    assert len((tmp_path / "samples.csv").read_text().splitlines()) > 5
    assert (tmp_path / "soak.json").exists()
    assert (tmp_path / "soak.svg").exists()


def test_a_slope_is_in_percent_of_the_mean_per_ten_minutes() -> None:
    times_s = [0.0, 600.0, 1_200.0]
    assert soak.slope_percent(times_s, [100.0, 100.0, 100.0]) == 0.0
    assert soak.slope_percent(times_s, [99.0, 100.0, 101.0]) == pytest.approx(1.0)


def test_the_picture_shows_what_was_measured(tmp_path: Path) -> None:
    rows = [informs(streams.kill_to_last(count), count / 100, "ms") for count in (1_000, 5_000)]
    picture = tmp_path / "load.svg"
    draw(rows, picture, (1_000, 5_000, 10_000), (), ())
    first = picture.read_text()
    draw(rows, picture, (1_000, 5_000, 10_000), (), ())
    assert "<svg" in first
    assert picture.read_text() == first


def test_what_a_hundred_thousand_take_follows_from_the_figures() -> None:
    measured = [
        informs(streams.kill_to_last(10_000), 100.0, "ms"),
        informs(streams.memory_of(10_000), 1.5, "kB a stream"),
        informs(streams.return_of(10_000), 0.4, "ms a stream"),
        informs(telemetry.SUMMARIES, 2_500.0, "a second"),
        informs(answers.answered("304"), 6_000.0, "a second"),
    ]
    assert [round(row.figure, 1) for row in rows_for(measured)] == [10, 14.6, 20.0, 40, 4, 2]
    assert rows_for(measured[1:]) == []
