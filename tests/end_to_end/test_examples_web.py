"""Runs the examples of web frameworks as their documentation says, against a real server."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from examples.demo.admin import AdminApi
from examples.demo.processes import Cluster
from tests.end_to_end.processes import DEADLINE_S, ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(Path(tmp_path_factory.mktemp("flagd"))) as cluster:
        cluster.start_server()
        AdminApi(cluster.url, cluster.admin_token).create_flag()
        yield cluster


@pytest.mark.parametrize("example", ["wsgi_app", "flask_app", "django_app", "fastapi_app"])
def test_a_page_changes_while_the_application_runs(
    server: Cluster, example: str, tmp_path: Path
) -> None:
    admin = AdminApi(server.url, server.admin_token)
    admin.release(0)
    settings = {
        "FLAGD_URL": server.url,
        "FLAGD_TOKEN": server.sdk_token,
        "XDG_CACHE_HOME": str(tmp_path),  # or the next one begins with what this one has kept
        "PYTHONUNBUFFERED": "1",
    }
    shop = ServerProcess(
        ["-m", f"examples.integrations.{example}", "0"], {**os.environ, **settings}
    )
    try:
        url = shop.wait_for(r"(http://127\.0\.0\.1:\d+)").group(1)
        before = page(url)
        admin.release(100)
        deadline = time.monotonic() + DEADLINE_S
        while page(url) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        after = page(url)
    finally:
        shop.stop()
    assert (before, after) == ("the old checkout", "the new checkout"), shop.log
    assert "flag" not in shop.log.lower(), "the SDK has nothing to tell"


def page(url: str) -> str:
    answer = requests.get(url, headers={"X-Visitor": "ann"}, timeout=DEADLINE_S)
    answer.raise_for_status()
    return answer.text
