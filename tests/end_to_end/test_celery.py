"""Celery's own workers, one of each pool, against a real server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from flagd_server.storage import open_storage
from tests.end_to_end.celery_broker import FLAG, PaymentError, celery_on_files
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY
from tests.waiting import eventually

TASKS = 24
MAX_TASKS_PER_CHILD = 5
START_WITHIN_S = 90.0


@pytest.fixture
def shop(server: FlagServer) -> FlagServer:
    server.create_flag(FLAG, default_serve={"variant": "on"})
    return server


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """Who sends the tasks."""
    app = celery_on_files(tmp_path)
    yield app
    app.close()


Worker: TypeAlias = subprocess.Popen[bytes]


@contextmanager
def worker(server: FlagServer, folder: Path, pool: str, *options: str) -> Iterator[Worker]:
    """Run `celery worker`; the caller terminates it, and here it is waited for."""
    log = folder / f"{pool}.log"
    environment = {
        **os.environ,
        "CELERY_FOLDER": str(folder),
        "FLAGD_URL": server.url,
        "FLAGD_TOKEN": server.sdk_tokens["production"],
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.end_to_end.celery_app", "worker"]
    command += ["--pool", pool, "--hostname", f"{pool}@here", "--loglevel", "INFO"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(
            lambda: " ready." in log.read_text() or process.poll() is not None, START_WITHIN_S
        )
        assert process.poll() is None, log.read_text()
        yield process
        assert process.wait(DEADLINE_S) == 0, log.read_text()
        assert "flagd_sdk" not in log.read_text(), "nothing is logged"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def send(app: Celery, count: int, **kwargs: Any) -> list[Any]:
    return [app.send_task("work", (number,), kwargs) for number in range(count)]


def answers(results: list[Any]) -> list[tuple[bool, int]]:
    return [tuple(result.get(DEADLINE_S, interval=0.02)) for result in results]


def counted(server: FlagServer) -> tuple[int, int]:
    """Return the exposures and errors that the server has stored, once it has stopped."""
    assert server.stop() == 0
    storage = open_storage(str(server.database))
    with storage.read() as reader:
        rows = list(reader.counts("production", FLAG, 0))
    storage.close()
    return sum(row.exposures for row in rows), sum(row.errors for row in rows)


@pytest.mark.timeout(300)
def test_a_pool_of_processes_counts_each_task_and_sees_changes(
    shop: FlagServer, app: Celery, tmp_path: Path
) -> None:
    options = ("--concurrency", "2", "--max-tasks-per-child", str(MAX_TASKS_PER_CHILD))
    with worker(shop, tmp_path, "prefork", *options) as process:
        done = answers(send(app, TASKS))
        assert all(is_on for is_on, _ in done)
        assert len({pid for _, pid in done}) >= TASKS // MAX_TASKS_PER_CHILD
        broken = send(app, TASKS, is_broken=True)
        for result in broken:
            with pytest.raises(PaymentError):
                result.get(DEADLINE_S, interval=0.02)

        # Time enough to be served the flag first.
        slow = app.send_task("linger", (1,), soft_time_limit=3)
        with pytest.raises(SoftTimeLimitExceeded):
            slow.get(DEADLINE_S, interval=0.02)

        shop.configure(FLAG, default_serve={"variant": "off"})
        changed_at = time.monotonic()
        sent = 0
        while True:
            round_at = time.monotonic()
            done = answers(send(app, 4))
            sent += 4
            if not any(is_on for is_on, _ in done):
                break
        assert round_at - changed_at < DEADLINE_S
        process.terminate()  # right behind the last tasks
    assert counted(shop) == (2 * TASKS + 1 + sent, TASKS + 1)


@pytest.mark.timeout(400)
def test_pools_of_threads_greenlets_and_none_count_each_task(
    shop: FlagServer, tmp_path: Path
) -> None:
    pools = ("threads", "gevent", "solo")
    with ExitStack() as stack:
        processes, results = [], []
        for pool in pools:
            folder = tmp_path / pool  # each with its own broker: files are read by one at a time
            folder.mkdir()
            processes.append(stack.enter_context(worker(shop, folder, pool, "--concurrency", "4")))
            with closing(celery_on_files(folder)) as app:
                results += send(app, TASKS) + send(app, TASKS, is_broken=True)
        for result in results:
            result.get(DEADLINE_S, interval=0.02, propagate=False)
        for process in processes:
            process.terminate()
    assert [result.state for result in results] == (["SUCCESS"] * TASKS + ["FAILURE"] * TASKS) * 3
    assert counted(shop) == (len(pools) * 2 * TASKS, len(pools) * TASKS)
