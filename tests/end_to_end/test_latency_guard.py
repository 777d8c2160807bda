"""A feature that is only slow: noticed by a real SDK, killed by a real server."""

import time
from contextlib import closing
from pathlib import Path

from flagd_sdk import FlagClient
from flagd_sdk.core.latency import latency_bucket
from flagd_server.storage import open_storage
from flagd_server.storage.telemetry_records import LatencyRow
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S

FLAG = "new-checkout"
PRODUCTION = f"/api/v1/flags/{FLAG}/environments/production"
USUAL_S, SLOW_S = 0.004, 0.02


def remember_usual_durations(database: Path) -> None:
    """Have the shop's control serve for an hour that is over: most in 1 ms, 1 in 200 in 4 ms."""
    hour_ago = int(time.time() // 60) - 61
    usual, rare = latency_bucket(1_000), latency_bucket(round(USUAL_S * 1e6))
    with closing(open_storage(str(database))) as storage, storage.transaction() as tx:
        tx.add_control_latencies(
            LatencyRow("production", "shop", minute, {usual: 970, rare: 30})
            for minute in range(hour_ago - 60, hour_ago)
        )


def serve(shop: FlagClient, users: range) -> int:
    """Serve each user once; the new checkout is slow. Return how many met it."""
    met = 0
    for number in users:
        with shop.scope({"targetingKey": f"user-{number}"}):
            if shop.is_enabled(FLAG):
                met += 1
                time.sleep(SLOW_S)
    return met


def test_a_slow_feature_goes_off_by_itself(server: FlagServer) -> None:
    weights = {"weights": {"on": 25_000, "off": 75_000}}
    server.create_flag(FLAG, default_serve={"split": weights})
    server.stop()
    remember_usual_durations(server.database)
    server.restart()
    token = server.sdk_tokens["production"]
    with FlagClient(server.url, token, service="shop", cache_dir=None) as shop:
        assert shop.wait_until_ready(DEADLINE_S)
        # The first answer of the server brings the threshold.
        serve(shop, range(10))
        assert shop.flush(DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        users, met = range(1_000, 1_060), 1
        while met:
            met = serve(shop, users)
            users = range(users.stop, users.stop + 60)
            assert time.monotonic() < deadline, "it never went off"
    kill = server.call("GET", PRODUCTION).json()["kill"]
    assert kill["source"] == "guard"
    report = server.call("GET", f"{PRODUCTION}/evidence/{kill['evidence']}").json()
    assert report["decision"]["guard"] == "latency"
    slow = next(each for each in report["comparisons"] if each["metric"] == "slow:p99")
    assert slow["treatment"]["failing_units"] >= 8
    assert slow["control"]["failing_units"] <= 2
    assert slow["treatment"]["errors"] == 0
    page = server.call("GET", f"{PRODUCTION}/evidence/{kill['evidence']}?format=text").text
    assert "slow" in page
