"""Runs the small examples as their documentation says, against a real server."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from examples.demo.admin import AdminApi
from examples.demo.processes import Cluster

REPOSITORY = Path(__file__).parents[2]
WITHIN_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as cluster:
        cluster.start_server()
        yield cluster


def settings(server: Cluster) -> dict[str, str]:
    return {**os.environ, "FLAGD_URL": server.url, "FLAGD_TOKEN": server.sdk_token}


def order(shop: str) -> str:
    """Return the checkout that a visitor meets."""
    body = {"article": "/mug", "price_cents": 900}
    answer = requests.post(
        f"{shop}/checkout", json=body, headers={"X-Visitor": "ann"}, timeout=WITHIN_S
    )
    answer.raise_for_status()
    return str(answer.json()["checkout"])


def test_the_quickstart_prints_what_the_flag_says(server: Cluster) -> None:
    admin = AdminApi(server.url, server.admin_token)
    admin.create_flag()

    printed = []
    for percent in (0, 100):
        admin.release(percent)
        done = subprocess.run(
            [sys.executable, "-m", "examples.quickstart"],
            cwd=REPOSITORY,
            env=settings(server),
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=True,
        )
        printed.append(done.stdout)

    assert printed == ["the old checkout\n", "the new checkout\n"]


def test_the_shop_changes_its_checkout_while_it_runs(server: Cluster) -> None:
    admin = AdminApi(server.url, server.admin_token)
    admin.create_flag()
    with subprocess.Popen(
        [sys.executable, "-m", "examples.shop", "0"],
        cwd=REPOSITORY,
        env=settings(server),
        stdout=subprocess.PIPE,
        text=True,
    ) as shop:
        try:
            assert shop.stdout is not None
            found = re.match(r"shop on (http://\S+)", shop.stdout.readline())
            assert found is not None
            url = found.group(1)
            before = order(url)
            admin.release(100)
            deadline = time.monotonic() + WITHIN_S
            while order(url) != "new" and time.monotonic() < deadline:
                time.sleep(0.02)
            after = order(url)
        finally:
            shop.terminate()

    assert (before, after) == ("old", "new")
    assert shop.returncode == 0
