"""Clocks that jump by hours and processes that stop for a minute, while flags are judged.

`python -m tests.end_to_end.pause_run --pause-s 60` is the whole of it: two servers on Postgres, and
an application of which one in twenty units fails, with a flag that has nothing to do with it. In
each trial another flag turns bad. That one is to be killed, once, and the first one never.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import requests

from flagd_server.storage import open_reader
from tests.end_to_end import faketime
from tests.end_to_end.faketime import HOURS_S, FakeClock
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.fleet import ENVIRONMENT, Fleet, leads, stopped
from tests.end_to_end.processes import REPOSITORY
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually

HEALTHY = "healthy"
_KILLED_WITHIN_S = 30.0
_SETTLES_S = 1.0
_HALVES = {"split": {"weights": {"on": 50_000, "off": 50_000}}}


class Stage:
    """Two servers, of which the first leads, and the application; both clocks can be set."""

    def __init__(self, fleet: Fleet, app: "subprocess.Popen[str]", clocks: list[FakeClock]) -> None:
        self.fleet = fleet
        self.app = app
        self.server_clock, self.app_clock = clocks

    def tell(self, line: str) -> None:
        assert self.app.stdin is not None
        self.app.stdin.write(f"{line}\n")
        self.app.stdin.flush()


Trial = Callable[[Stage, float], None]


def server_clock(stage: Stage, pause_s: float) -> None:
    """Let the clock of the server that leads jump by hours, there and back."""
    _jump(stage.server_clock, pause_s)


def app_clock(stage: Stage, pause_s: float) -> None:
    """Let the application's clock jump by hours, there and back."""
    _jump(stage.app_clock, pause_s)


def stopped_leader(stage: Stage, pause_s: float) -> None:
    """Stop the server that leads; the other one is to lead when it goes on."""
    leader = stage.fleet.leader
    pids = (leader.pid, leader.worker_pid)
    with stopped(*pids):
        time.sleep(pause_s)
        other = next(each for each in stage.fleet.servers if each is not leader)
        eventually(lambda: leads(other))
    eventually(lambda: _follows(leader))


def stopped_app(stage: Stage, pause_s: float) -> None:
    """Stop the application's process."""
    with stopped(stage.app.pid):
        time.sleep(pause_s)


def resting_traffic(stage: Stage, pause_s: float) -> None:
    """Leave the application without traffic."""
    stage.tell("rest")
    time.sleep(pause_s)
    stage.tell("work")


TRIALS: dict[str, Trial] = {
    "the clock of the server that leads jumps": server_clock,
    "the application's clock jumps": app_clock,
    "the server that leads is stopped": stopped_leader,
    "the application is stopped": stopped_app,
    "the application's traffic rests": resting_traffic,
}


def run(stage: Stage, trial: Trial, *, pause_s: float) -> float:
    """Put the stage on trial, and let another flag turn bad as it begins.

    Returns:
        Seconds from the end of the trial until that was killed, 0 where it was killed before.
    """
    key = f"bad-{list(TRIALS.values()).index(trial)}"
    stage.fleet.leader.create_flag(key, default_serve=_HALVES)
    stage.tell(f"bad {key}")
    trial(stage, pause_s)
    ended_at = time.monotonic()
    killed_s = 0.0
    while not _decisions(stage.fleet, key):
        killed_s = time.monotonic() - ended_at
        assert killed_s < _KILLED_WITHIN_S, "a flag that is bad is not killed"
        time.sleep(0.05)
    stage.tell("good")
    time.sleep(_SETTLES_S)
    assert _decisions(stage.fleet, key) == ["kill"]
    _assert_healthy(stage.fleet)
    return killed_s


@contextmanager
def staged(folder: Path, database: str) -> Iterator[Stage]:
    """Start everything, and hold what was counted in the end to what was done."""
    clocks = []
    for name in ("server", "app"):
        (folder / name).mkdir()
        clocks.append(FakeClock(folder / name))
    with closing(Fleet(folder, database)) as fleet:
        fleet.start(1, faketime.SERVER, **clocks[0].settings)
        leader = fleet.leader
        fleet.start(1)
        fleet.leader.create_flag(HEALTHY, default_serve=_HALVES)
        with _application(leader, clocks[1]) as app:
            yield Stage(fleet, app, clocks)
            output, _ = app.communicate(timeout=60)
            assert app.returncode == 0
        done = int(output.split()[-1])
        eventually(lambda: _counted(database) == done)


@contextmanager
def _application(server: FlagServer, clock: FakeClock) -> Iterator["subprocess.Popen[str]"]:
    own = {"FLAGD_URL": server.url, "FLAGD_TOKEN": server.sdk_tokens[ENVIRONMENT]}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.traffic_app"],
        cwd=REPOSITORY,
        env={**os.environ, **own, **clock.settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def _follows(server: FlagServer) -> bool:
    """Return whether it answers, and leads no more."""
    try:
        return not leads(server)
    except requests.ConnectionError:  # its parent has replaced a worker that was silent for so long
        return False


def _jump(clock: FakeClock, pause_s: float) -> None:
    for offset_s in (HOURS_S, -HOURS_S, 0):
        clock.jump(offset_s)
        time.sleep(pause_s / 3)


def _assert_healthy(fleet: Fleet) -> None:
    assert _decisions(fleet, HEALTHY) == []
    with open_reader(fleet.database) as reader:
        configuration = reader.configuration(ENVIRONMENT, HEALTHY)
    assert configuration is not None
    assert configuration.configuration.kill is None, "a flag that is healthy was killed"


def _decisions(fleet: Fleet, flag: str) -> list[str]:
    with open_reader(fleet.database) as reader:
        rows = reader.list_evidence(ENVIRONMENT, flag)
    return [json.loads(row.document)["action"] for row in rows]


def _counted(database: str) -> int:
    with open_reader(database) as reader:
        if reader.inbox(1):
            return -1
        return sum(row.exposures for row in reader.counts(ENVIRONMENT, HEALTHY, 0))


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.pause_run", description=__doc__
    )
    parser.add_argument("--pause-s", type=float, default=60.0)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(closing(PostgresCluster()))
        stage = stack.enter_context(staged(folder, cluster.create_database()))
        for name, trial in TRIALS.items():
            killed_s = run(stage, trial, pause_s=arguments.pause_s)
            print(f"{name}: the bad flag off {killed_s:.2f} s after it was over, the other never")


if __name__ == "__main__":
    main()
