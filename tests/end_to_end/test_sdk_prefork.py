"""One client in the workers of real servers, with a real flag server."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from flagd_server.storage import open_storage
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, ServerProcess

WORKERS = 4
BEFORE = 10  # units of work before the fork
APP = "tests.end_to_end.prefork_app"
GUNICORN = ["-m", "gunicorn", f"{APP}:application", "--bind=127.0.0.1:0", f"--workers={WORKERS}"]
UWSGI = [
    *("-c", "import pyuwsgi; pyuwsgi.run()", "--module", f"{APP}:application", "--need-app"),
    *("--http-socket", "127.0.0.1:0", "--processes", str(WORKERS), "--die-on-term"),
    *("--disable-logging", "--master", "--enable-threads", "--pythonpath", "."),
]


class Model(NamedTuple):
    """How processes come to be.

    Attributes:
        uses: units of work done before the fork, of which `reported` reach the server: a master
            of uWSGI that keeps its forks from Python has no thread that could.
        keeps: whether flags are kept on disk, which the workers of gevent do in real threads.
    """

    command: list[str]
    uses: int = 0
    reported: int = 0
    keeps: bool = False


MODELS = {
    "gunicorn": Model(GUNICORN),
    "gunicorn preload, unused": Model([*GUNICORN, "--preload"]),
    "gunicorn preload, used": Model([*GUNICORN, "--preload"], BEFORE, BEFORE),
    "gunicorn gevent": Model([*GUNICORN, "--worker-class=gevent"], keeps=True),
    "gunicorn gevent preload, used": Model(
        [*GUNICORN, "--worker-class=gevent", "--preload"], BEFORE, BEFORE, keeps=True
    ),
    "gunicorn gthread preload, used": Model(
        [*GUNICORN, "--threads=4", "--preload"], BEFORE, BEFORE
    ),
    "uwsgi, unused": Model(UWSGI),
    "uwsgi, used": Model(UWSGI, BEFORE),
    "uwsgi threads, used": Model([*UWSGI, "--threads", "4"], BEFORE),
    "uwsgi lazy-apps": Model([*UWSGI, "--lazy-apps"]),
    "uwsgi fork hooks, used": Model([*UWSGI, "--py-call-uwsgi-fork-hooks"], BEFORE, BEFORE),
}


class Answer(NamedTuple):
    pid: int
    is_on: bool
    is_exposure: bool
    status: str
    threads: int


class Application:
    """The application and what it answered."""

    def __init__(self, model: Model, server: FlagServer, flag: str, cache: Path) -> None:
        settings = {
            "FLAGD_URL": server.url,
            "FLAGD_TOKEN": server.sdk_tokens["production"],
            "FLAG": flag,
            "USES_BEFORE_FORK": str(model.uses),
            "CACHE_DIR": str(cache) if model.keeps else "",
        }
        self.process = ServerProcess(model.command, {**os.environ, **settings})
        found = self.process.wait_for(r"(?:Listening at: http://|bound to TCP address )(\S+:\d+)")
        self._url = f"http://{found.group(1)}"
        self.exposures = 0
        self.pids: set[int] = set()

    def ask(self, pool: ThreadPoolExecutor) -> list[Answer]:
        """Send a few requests at once."""
        answers = list(pool.map(self._ask_once, range(3 * WORKERS)))
        self.exposures += sum(answer.is_exposure for answer in answers)
        self.pids |= {answer.pid for answer in answers}
        return answers

    def _ask_once(self, _: int) -> Answer:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(self._url, timeout=DEADLINE_S)
        assert answer.status_code == 200
        pid, is_on, is_exposure, status, threads = answer.text.split()
        return Answer(int(pid), is_on == "1", is_exposure == "1", status, int(threads))

    def wait_until_all(self, pool: ThreadPoolExecutor, is_on: bool) -> None:
        """Ask until the last word of every worker is this, in touch with the server.

        What the first of them has kept on disk, others may begin with.
        """
        began_at = time.monotonic()
        last: dict[int, Answer] = {}
        while len(last) < WORKERS or any(
            (answer.is_on, answer.status) != (is_on, "READY") for answer in last.values()
        ):
            assert time.monotonic() - began_at < DEADLINE_S, (last, self.process.log)
            last |= {answer.pid: answer for answer in self.ask(pool)}
        assert {answer.threads for answer in last.values()} == {2}


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("name", MODELS)
def test_workers_follow_the_flag_and_each_unit_of_work_is_counted_once(
    name: str, module_server: FlagServer, tmp_path: Path
) -> None:
    model, flag = MODELS[name], f"f-{list(MODELS).index(name)}"
    module_server.create_flag(flag, default_serve={"variant": "on"})
    application = Application(model, module_server, flag, tmp_path)
    try:
        with ThreadPoolExecutor(2 * WORKERS) as pool:
            application.wait_until_all(pool, is_on=True)
            module_server.configure(flag, enabled=False)
            application.wait_until_all(pool, is_on=False)
        assert len(application.pids) == WORKERS, "no worker was lost"
    finally:
        code = application.process.stop()
    assert code == 0, application.process.log
    log = application.process.log
    assert "Traceback" not in log
    assert "slow: True" not in log
    with closing(open_storage(str(module_server.database))) as storage, storage.read() as reader:
        counted = sum(row.exposures for row in reader.counts("production", flag, 0))
    assert counted == application.exposures + model.reported, log
