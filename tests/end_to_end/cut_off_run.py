"""A server cut off from Postgres by its network, first while it leads and then while it follows.

`python -m tests.end_to_end.cut_off_run --cut-s 20` is the whole of it; it needs root.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.bad_flag import BadFlag
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.fleet import TAKEN_OVER_WITHIN_S, Fleet, leads
from tests.end_to_end.fleet_load import CAUGHT_UP_WITHIN_S, MARKER, FleetLoad
from tests.end_to_end.namespaces import Namespace
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually


@dataclass
class CutOff:
    """A fleet of two, of which the first can be cut off from the database; it leads at first."""

    fleet: Fleet
    namespace: Namespace

    @property
    def near(self) -> FlagServer:
        return self.fleet.servers[1]

    @property
    def far(self) -> FlagServer:
        return self.fleet.servers[0]


@contextmanager
def cut_off_fleet(folder: Path) -> Iterator[CutOff]:
    with ExitStack() as stack:
        namespace = stack.enter_context(Namespace())
        cluster = PostgresCluster(
            admits=namespace.network, listen_addresses=f"127.0.0.1,{namespace.outside}"
        )
        stack.enter_context(closing(cluster))
        url = cluster.create_database()
        fleet = stack.enter_context(closing(Fleet(folder, url)))
        fleet.start(
            1,
            ("-m", "tests.end_to_end.namespaces", namespace.name),
            FLAGD_DATABASE_URL=url.replace("127.0.0.1", namespace.outside),
            FLAGD_HOST=namespace.address,
            **FleetLoad.SETTINGS,
        )
        fleet.start(1, **FleetLoad.SETTINGS)
        yield CutOff(fleet, namespace)


def run(cut_off: CutOff, load: FleetLoad, *, cut_s: float, as_leader: bool) -> str:
    """Cut the first server off for so long, and return what was seen of it."""
    bad = BadFlag(cut_off.fleet, f"bad-{as_leader:d}", "production", 100 + as_leader)
    with bad:
        cut_off.fleet.let_lead(cut_off.far if as_leader else cut_off.near)
        cut_off.namespace.cut()
        cut_at = time.monotonic()
        led_s = _wait_for_other(cut_off) - cut_at if as_leader else 0.0
        load.toggle_marker(cut_off.near)
        while time.monotonic() - cut_at < cut_s:
            assert not leads(cut_off.far)
            assert load.seen.failures == []
            time.sleep(0.2)
        eventually(lambda: leads(cut_off.near))
        assert not leads(cut_off.far)
        eventually(lambda: cut_off.far.call("GET", "/readyz").json()["status"] == "degraded")
        far, near = load.clients
        eventually(lambda: far.is_enabled(MARKER) is not near.is_enabled(MARKER))
        cut_off.namespace.heal()
        healed_at = time.monotonic()
        load.wait_for_marker()
        heard_s = time.monotonic() - healed_at
        caught_up_s = load.caught_up_s(healed_at)
    bad.check()
    assert led_s < TAKEN_OVER_WITHIN_S
    assert caught_up_s < CAUGHT_UP_WITHIN_S
    who = f"the leader, replaced after {led_s:.2f} s" if as_leader else "the follower"
    return (
        f"{who}, cut off for {cut_s:g} s: its processes had what was changed meanwhile"
        f" {heard_s:.2f} s after the link was back, and it wrote again within {caught_up_s:.2f} s"
    )


def _wait_for_other(cut_off: CutOff) -> float:
    """Return when the near server led; the far one must have stopped before."""

    eventually(lambda: leads(cut_off.near), every_s=0.02)
    led_at = time.monotonic()
    assert not leads(cut_off.far), "both lead"
    return led_at


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.cut_off_run", description=__doc__
    )
    parser.add_argument("--cut-s", type=float, default=20.0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        cut_off_fleet(Path(folder)) as cut_off,
    ):
        with FleetLoad(cut_off.fleet) as load:
            for as_leader in (True, False):
                print(run(cut_off, load, cut_s=arguments.cut_s, as_leader=as_leader))
        load.check()
        print(load.shown())


if __name__ == "__main__":
    main()
