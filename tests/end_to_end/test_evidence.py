"""A kill by the guard on a real server, and what its report says when everything is over."""

import time
from collections.abc import Callable
from typing import Any

from flagd_sdk import FlagClient
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S

FLAG = "new-checkout"
PRODUCTION = f"/api/v1/flags/{FLAG}/environments/production"
USERS = [{"targetingKey": f"user-{number}"} for number in range(400)]
HALF = {"split": {"weights": {"on": 50_000, "off": 50_000}}}


class PaymentError(Exception):
    """What the new checkout runs into."""


def _eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.01)
    return found


def _is_off_after_a_round(shop: FlagClient) -> bool:
    """Let every user order once; the new checkout always fails. Return whether nobody met it."""
    met = 0
    for user in USERS:
        try:
            with shop.scope(user):
                if shop.is_enabled(FLAG):
                    met += 1
                    raise PaymentError
        except PaymentError:
            pass
    return met == 0


def test_a_kill_is_explained_and_its_notes_outlive_a_server_that_is_killed(
    server: FlagServer,
) -> None:
    server.create_flag(FLAG, default_serve=HALF)
    token = server.sdk_tokens["production"]
    # The server is to decide: a process that is first to switch off reports no more failures.
    with FlagClient(server.url, token, service="shop", cache_dir=None, local_breaker=False) as shop:
        assert shop.wait_until_ready(DEADLINE_S)
        _eventually(lambda: not _is_off_after_a_round(shop))
        _eventually(lambda: _is_off_after_a_round(shop))
        kill = _eventually(lambda: server.call("GET", PRODUCTION).json()["kill"])
        assert kill["source"] == "guard"
        report = f"{PRODUCTION}/evidence/{kill['evidence']}"
        (told,) = _eventually(lambda: server.call("GET", report).json()["notes"])
    assert told["kind"] == "told"
    assert (told["document"]["processes"], told["document"]["confirmed"]) == (1, 1)
    (slowest,) = told["document"]["slowest"]
    assert slowest["after_ms"] > 0
    steps = told["document"]["steps"]
    assert None not in steps.values()
    times = [steps[name] for name in ("first_failure", "decided", "committed", "sent")]
    assert times == sorted(times)

    server.kill_worker()
    after = server.call("GET", report).json()
    assert after["notes"] == [told]
    page = server.call("GET", report, headers={"Accept": "text/plain"}).text
    assert page.startswith("new-checkout in production: switched off by the guard")
    assert "PaymentError" in page
    assert "1 of 1 processes confirmed that the feature is off" in page
