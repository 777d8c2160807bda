"""Records to store, and threads to store them with."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from flagd_server.domain.configuration import Configuration, Kill, KillSource
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import ConfigurationVersion, Environment, Flag, Token
from flagd_server.storage.telemetry_records import CountRow, ErrorKindRow, LocalKillRow

AT = datetime(2026, 11, 23, 12, 0, 0, 123_000, tzinfo=UTC)
SPLIT = {
    "split": {
        "bucket_by": "targetingKey",
        "salt": "checkout",
        "weights": {"on": 25_000, "off": 75_000},
        "allocation": [[25_000, "on"], [100_000, "off"]],
    }
}
CONDITION = {"attribute": "city", "op": "in", "values": ["Zürich", 1, 1.5, True]}

PRODUCTION = Environment("production", "Production", bytes(range(16)), 5, AT)
FLAG = Flag(
    key="checkout",
    type="boolean",
    variants={"on": True, "off": False},
    description="the new one",
    owner="shop",
    tags=("web", "b"),
    lifetime="temporary",
    expires_at=AT + timedelta(days=30),
    archived=False,
    version=1,
    created_at=AT,
    updated_at=AT,
)
CONFIGURATION = Configuration(
    enabled=True,
    off_variant="off",
    rules=({"id": "swiss", "condition": CONDITION, "serve": SPLIT},),
    default_serve={"variant": "off"},
    guard={
        "mode": "enforce",
        "control": None,
        "alpha": 0.001,
        "margin": 1.05,
        "guards": ["error_rate"],
        "on_breach": "kill",
        "harm_budget": None,
    },
    kill=Kill("kill-1", AT, "guard", KillSource.GUARD, "errors", "ev-1"),
)
FIRST = ConfigurationVersion(
    environment="production",
    flag="checkout",
    version=1,
    configuration=CONFIGURATION,
    variants=FLAG.variants,
    at=AT,
    actor="ann",
    action="create",
    comment="why not",
)
TOKEN = Token(
    id="tok-1",
    name="shop",
    scope="sdk",
    environment="production",
    kind="server",
    prefix="fr_sdk_production",
    digest=b"\x01" * 32,
    created_at=AT,
    created_by="ann",
)
COUNT = CountRow(
    environment="production",
    flag="checkout",
    split="default",
    variant="on",
    config_version=3,
    service="shop",
    service_version="3f2c1ab",
    minute=29_000_000,
    exposures=10,
    errors=1,
    latency={3: 9, 40: 1},
)
LOCAL_KILL = LocalKillRow(
    environment="production",
    id="local-1",
    instance="i-1",
    flag="checkout",
    service="shop",
    service_version="v1",
    document='{"kind":"error:Boom"}',
    told_at=AT,
)
KIND = ErrorKindRow("production", "checkout", "on", "error:KeyError", "shop.py:7", 2, "KeyError: 1")


def fill(tx: Transaction) -> None:
    """Write one environment with one flag."""
    tx.insert_environment(PRODUCTION)
    tx.insert_flag(FLAG)
    tx.write_configuration(FIRST)


def run_together(work: Callable[[], None], threads: int) -> None:
    """Run it in so many threads at once, and raise the first of their exceptions."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=guarded) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
