"""What `make check` says of the packages in the lock, with a service that answers and without."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from supply_chain import LOCK, main, runtime

FAULTY = "blinker"


class Service(BaseHTTPRequestHandler):
    """Answers as OSV does: something is known against one package."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found: dict[str, Any] = {}
        if asked["package"]["name"] == FAULTY:
            found = {"vulns": [{"id": "PYSEC-0000-1", "summary": "bad", "affected": []}]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def small_lock(tmp_path: Path) -> Path:
    """The lock's own lines of two packages."""
    text = LOCK.read_text()
    blocks = []
    for name in (FAULTY, "cachetools"):
        start = text.index(f"\n{name}==") + 1
        blocks.append(text[start : text.index("    # via", start)])
    lock = tmp_path / "small.lock"
    lock.write_text("".join(blocks))
    return lock


def test_a_known_vulnerability_fails(
    service: str, small_lock: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--lock", str(small_lock), "audit", "--osv-url", service]) == 1
    said = capfd.readouterr()
    assert f"{FAULTY} " in said.out
    assert "PYSEC-0000-1" in said.out
    assert "2 of 2 packages audited, 1 with known vulnerabilities" in said.out
    text = small_lock.read_text()
    small_lock.write_text(text[text.index("cachetools==") :])
    assert main(["--lock", str(small_lock), "audit", "--strict", "--osv-url", service]) == 0
    said = capfd.readouterr()
    assert said.out == "1 of 1 packages audited, 0 with known vulnerabilities\n"
    assert "NOT AUDITED" not in said.err


def test_a_service_that_can_not_be_asked_is_no_clean_bill(
    small_lock: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ran = subprocess.run, []

    def run_once(*arguments: Any, **options: Any) -> Any:
        """Judge one run of pip-audit twice: it takes seconds to start."""
        if not ran:
            ran.append(run(*arguments, **options))
        return ran[0]

    monkeypatch.setattr("supply_chain.subprocess.run", run_once)
    arguments = ["--lock", str(small_lock), "audit", "--osv-url", "http://127.0.0.1:9/v1/query"]
    for options, expected in (([], 0), (["--strict"], 1)):
        assert main([*arguments, *options]) == expected
        said = capfd.readouterr()
        assert "0 of 2 packages audited" in said.out
        assert "NOT AUDITED: 2 of 2 packages (blinker, cachetools)" in said.err


def test_a_lock_without_hashes_fails(
    small_lock: Path, service: str, capfd: pytest.CaptureFixture[str]
) -> None:
    small_lock.write_text("blinker==1.9.0\n")
    assert main(["--lock", str(small_lock), "audit", "--osv-url", service]) != 0
    assert "hash" in capfd.readouterr().err


def test_the_parts_are_what_a_server_brings_along() -> None:
    """The list itself is written and held to its schema by `make check`."""
    blocks = list(runtime(LOCK))
    parts = {block.partition("==")[0] for block in blocks}
    assert {"flask", "werkzeug", "gunicorn", "psycopg", "google-re2", "limits", "cffi"} <= parts
    assert not {"pytest", "hypothesis", "mypy", "django", "celery", "ruff"} & parts
    assert [*sorted(parts)] == [block.partition("==")[0] for block in blocks]
    assert all("--hash=sha256:" in block for block in blocks)
