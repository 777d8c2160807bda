"""Debian's `prometheus` and `prometheus-alertmanager`, run beside a server."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.end_to_end.processes import DEADLINE_S, ServerProcess

_WEB = "--web.listen-address=127.0.0.1:0"


def program(*names: str) -> str:
    """Return the path of a tool; without it the test is skipped, and fails where CI runs it."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    message = f"{names[0]} is not installed: apt-get install prometheus prometheus-alertmanager"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running_alertmanager(folder: Path, configuration: str) -> Iterator[str]:
    """Yield its host and port."""
    path = program("prometheus-alertmanager", "alertmanager")
    (folder / "alertmanager.yml").write_text(configuration)
    with _running(
        path,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        "--cluster.listen-address=",
    ) as process:
        yield _listening(process)


@contextmanager
def running_prometheus(
    folder: Path, configuration: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield its URL, and what stops it before the end."""
    path = program("prometheus")
    (folder / "prometheus.yml").write_text(configuration)
    with _running(
        path,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
    ) as process:
        process.wait_for("Server is ready to receive web requests")
        yield f"http://{_listening(process)}", process.stop


def instant(prometheus: str, query: str) -> list[float]:
    """Return the values of an instant query."""
    url = f"{prometheus}/api/v1/query"
    answer = requests.get(url, {"query": query}, timeout=DEADLINE_S).json()
    assert answer["status"] == "success", answer
    return [float(row["value"][1]) for row in answer["data"]["result"]]


@contextmanager
def _running(path: str, *arguments: str) -> Iterator[ServerProcess]:
    process = ServerProcess([_WEB, *arguments], os.environ, path)
    try:
        yield process
    finally:
        process.stop()


def _listening(process: ServerProcess) -> str:
    return process.wait_for(r"[Ll]istening on.* address=(127\.0\.0\.1:[1-9]\d*)").group(1)
