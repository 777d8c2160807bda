"""Servers on one Postgres database, one of which leads: nothing is lost, doubled or forgotten."""

import json
import threading
import time
from collections.abc import Callable

from flagd_server.storage import open_reader
from tests.end_to_end.fleet import (
    ENVIRONMENT,
    FLAG,
    FLAG_PATH,
    TAKEN_OVER_WITHIN_S,
    UNIT,
    Fleet,
    Json,
    cell,
)
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually


def test_a_bad_flag_goes_off_once_everywhere_though_the_leader_dies_on_the_way(
    start_fleet: Callable[..., Fleet],
) -> None:
    fleet = start_fleet(3)
    fleet.follower.create_flag(
        FLAG, default_serve={"split": {"weights": {"on": 25_000, "off": 75_000}}}
    )
    version = fleet.leader.call("GET", FLAG_PATH).json()["version"]
    leader = fleet.leader
    clients = [fleet.client(server) for server in fleet.servers if server is not leader]
    units = ({"targetingKey": f"u-{n}"} for n in range(100))
    # Each hears of the flag from a server of its own, and in its own time.
    for client in clients:
        eventually(lambda c=client: FLAG in c.flag_set.flags)
    served = next(unit for unit in units if clients[0].is_enabled(FLAG, False, unit))
    eventually(lambda: clients[1].is_enabled(FLAG, False, served))
    acknowledged = 0
    counting = threading.Lock()

    def report(process: int) -> None:
        nonlocal acknowledged
        for sequence in range(1, 21):
            # Too little to decide by before the leader dies, and more than enough in the end.
            first = 1_000 * process + 10 * sequence
            failing = [first] if sequence < 8 and process == 0 else []
            failing = list(range(first, first + 4)) if sequence > 12 else failing
            fleet.report(
                process, sequence, [cell("on", version, 10, failing), cell("off", version, 30)]
            )
            with counting:
                acknowledged += 40

    threads = [threading.Thread(target=report, args=[process]) for process in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: acknowledged > 800)
    taken_over_s = fleet.crash(leader)
    for thread in threads:
        thread.join()
    print(f"another server led {taken_over_s:.2f} s after the leader was killed")
    assert taken_over_s < TAKEN_OVER_WITHIN_S
    eventually(lambda: fleet.leader.call("GET", FLAG_PATH).json()["kill"])
    for client in clients:
        eventually(lambda c=client: not c.is_enabled(FLAG, False, served))
    eventually(lambda: _counted(fleet.database) == acknowledged)
    with open_reader(fleet.database) as reader:
        reports = [json.loads(row.document) for row in reader.list_evidence(ENVIRONMENT, FLAG)]
        kills = [row for row in reader.history(ENVIRONMENT, FLAG, 100) if row.action == "kill"]
    assert [each["action"] for each in reports] == ["kill"]
    assert len(kills) == 1


def _counted(database: str) -> int:
    with open_reader(database) as reader:
        if reader.inbox(1):
            return -1
        return sum(row.exposures for row in reader.counts(ENVIRONMENT, FLAG, 0))


def test_a_rollout_goes_on_after_its_leader_has_died(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(2)
    fleet.leader.create_flag(FLAG, default_serve={"split": {"weights": {"on": 0, "off": 100_000}}})
    stages = [
        {"percent": 1, "bake_time_s": 2},
        {"percent": 5, "bake_time_s": 2},
        {"percent": 25, "bake_time_s": 0},
    ]
    started = fleet.follower.ask("POST", f"{FLAG_PATH}/rollouts", {"stages": stages})
    assert started.status_code == 201, started.text
    path = f"{FLAG_PATH}/rollouts/{started.json()['id']}"
    sequence = 0

    def rollout() -> Json:
        nonlocal sequence
        sequence += 1
        server = fleet.servers[-1]
        version = server.call("GET", FLAG_PATH).json()["version"]
        fleet.report(1, sequence, [cell("on", version, 500), cell("off", version, 1_500)])
        shown: Json = server.call("GET", path).json()
        return shown

    # Not the stage itself, which a pause of the machine may skip.
    eventually(lambda: rollout()["stage"] >= 1, every_s=0.3)
    fleet.crash(fleet.leader)
    done = eventually(lambda: (r := rollout())["state"] == "completed" and r, every_s=0.3)
    moves = [move["move"] for move in done["moves"]]
    assert moves == ["start", "advance", "advance", "complete"]


def test_without_the_database_flags_are_served_and_writes_are_refused(
    start_fleet: Callable[..., Fleet], postgres_cluster: PostgresCluster
) -> None:
    fleet = start_fleet(2)
    fleet.leader.create_flag(FLAG, default_serve={"variant": "on"})
    clients = [fleet.client(server) for server in fleet.servers]

    def tags() -> set[str]:
        path = "/sdk/v1/flags"
        answers = [s.call("GET", path, token=s.sdk_tokens[ENVIRONMENT]) for s in fleet.servers]
        return {answer.headers["ETag"] for answer in answers}

    # What the servers and their clients have heard of is what they go on with.
    eventually(lambda: len(tags()) == 1)
    (tag,) = tags()
    for client in clients:
        eventually(lambda c=client: c.is_enabled(FLAG, False, UNIT))
    postgres_cluster.stop()
    try:
        for server in fleet.servers:
            for environment in (ENVIRONMENT, "staging"):  # nobody has asked for that before
                token = server.sdk_tokens[environment]
                read = server.call("GET", "/sdk/v1/flags", token=token)
                assert read.status_code == 200, read.text
            token = server.sdk_tokens[ENVIRONMENT]
            held = server.call("GET", "/sdk/v1/flags", token=token, headers={"If-None-Match": tag})
            assert held.status_code == 304
            began_at = time.monotonic()
            written = server.call("POST", f"{FLAG_PATH}/kill", {"reason": "now"})
            assert written.status_code == 503, written.text
            assert int(written.headers["Retry-After"]) >= 1
            assert time.monotonic() - began_at < 20
            ready = server.call("GET", "/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        for client in clients:
            assert client.is_enabled(FLAG, False, UNIT)
    finally:
        postgres_cluster.start()
    back_at = time.monotonic()
    eventually(
        lambda: fleet.servers[0].call("POST", f"{FLAG_PATH}/kill", {"reason": "x"}).ok,
        every_s=0.1,
    )
    for client in clients:
        eventually(lambda c=client: not c.is_enabled(FLAG, False, UNIT))
    caught_up_s = time.monotonic() - back_at
    print(f"every process had a change {caught_up_s:.2f} s after the database was back")
    assert caught_up_s < TAKEN_OVER_WITHIN_S
