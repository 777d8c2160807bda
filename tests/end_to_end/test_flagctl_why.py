"""The evidence of a kill in the terminal."""

import time
from pathlib import Path

from flagd_sdk import FlagClient
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.flagctl_process import Flagctl
from tests.end_to_end.processes import DEADLINE_S

FLAG = "new-checkout"
HALF = {"split": {"weights": {"on": 50_000, "off": 50_000}}}


class PaymentError(Exception):
    """What the new checkout runs into."""


def _order(shop: FlagClient, users: int) -> int:
    """Let users order once; the new checkout always fails. Return how many met it."""
    met = 0
    for number in range(users):
        try:
            with shop.scope({"targetingKey": f"user-{number}"}):
                if shop.is_enabled(FLAG):
                    met += 1
                    raise PaymentError("\x1b]0;card refused")
        except PaymentError:
            pass
    return met


def _shop_until_killed(server: FlagServer) -> None:
    token = server.sdk_tokens["production"]
    deadline = time.monotonic() + DEADLINE_S
    # The server is to decide: a process that is first to switch off reports no more failures.
    with FlagClient(server.url, token, service="shop", cache_dir=None, local_breaker=False) as shop:
        assert shop.wait_until_ready(DEADLINE_S)
        _order(shop, 8)
        while not _failing_units(server):  # kinds are in reports once an earlier summary had them
            assert time.monotonic() < deadline, "nothing was reported"
            time.sleep(0.02)
        while _order(shop, 400):
            assert time.monotonic() < deadline, "it was never killed"
            time.sleep(0.05)


def _failing_units(server: FlagServer) -> int:
    path = f"/api/v1/flags/{FLAG}/environments/production/evidence"
    running = server.call("GET", path).json()["running"] or {"comparisons": []}
    return sum(each["treatment"]["failing_units"] for each in running["comparisons"])


def test_a_kill_is_shown_as_a_chart_with_rates_and_kinds(
    server: FlagServer, tmp_path: Path
) -> None:
    ctl = Flagctl(server.url, server.admin_token, tmp_path)
    server.create_flag(FLAG, default_serve=HALF)
    quiet = ctl.run("why", FLAG)
    assert quiet.code == 0
    assert "on" in quiet.out
    _shop_until_killed(server)

    done = ctl.run("why", FLAG)
    assert done.code == 0
    assert done.out.startswith(f"{FLAG} in production: killed\nkilled at ")
    for part in ("━", "╌", "VARIANT", "█", "error:PaymentError", "would be, if it did no harm"):
        assert part in done.out
    assert "\x1b" not in done.out, "neither colours in a pipe, nor what an error message carried"

    document = ctl.ok("why", FLAG)
    assert document["state"] == "killed"
    assert document["report"]["id"] == document["kill"]["evidence"]
    assert document["report"]["comparisons"][0]["path"]
    assert document["receipt"]["processes"] == document["receipt"]["confirmed"]

    coloured = ctl.on_terminal("why", FLAG, columns=70)
    assert "\x1b[1;31m━" in coloured.out
    assert "\x1b]0" not in coloured.out
    plain = ctl.run("why", FLAG, PYTHONIOENCODING="ascii")
    assert plain.out.isascii()
    assert "=" in plain.out
    (row,) = ctl.ok("watch", "--once")["flags"]
    assert row["kill"]["by"] == "guard"
