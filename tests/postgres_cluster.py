"""Temporary Postgres clusters: a server of the test's own, its databases, and what breaks it.

Postgres refuses to run as root, so that root starts it as another user, in a folder that this
user may enter.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.ports import ReservedPort
from tests.processes import halted
from tests.waiting import eventually

OWNER = "flagd"
"""The role that owns the databases of the tests. As in production, it is no superuser."""
_SUPERUSER = "postgres"
_UNPRIVILEGED = ("postgres", "nobody")
"""Who runs it where we are root, the first that there is."""
_STARTED_WITHIN_S = 60.0
_MEMORY = "/dev/shm"
_ROOM_BYTES = 2 << 30
"""Containers often have but 64 MB of it: one cluster takes as much."""
_CONNECT_S = 30
"""Bounds waiting only: a machine that pauses for some seconds is no fault."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    # The tests start many servers and clusters; one of these would live but for minutes.
    "autovacuum_naptime": "10min",
    "jit": "off",
}
_UNSYNCED = {"fsync": "off", "full_page_writes": "off"}
"""What it has written survives the death of its processes all the same, but not of the machine."""


class PostgresCluster:
    """A cluster in a temporary folder, started by the constructor, gone after `close`.

    Its port and databases stay through `stop`, `crash` and `start`.
    """

    def __init__(self, *, fsync: bool = False, admits: str = "", **settings: str) -> None:
        """Args:
        fsync: wait for the disk at each commit, as a server of production does.
        admits: a network, as "10.1.2.0/24", whose hosts may connect, beside this one.
        settings: of `postgresql.conf`, such as `max_connections="20"`.
        """
        self._bin = _binaries()
        self._user = _unprivileged_user()
        self._folder = Path(tempfile.mkdtemp(prefix="flagd-pg-", dir=None if fsync else _memory()))
        if self._user:
            shutil.chown(self._folder, self._user)
        # The kernel ends Postgres with the thread that started it, however the tests end.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="postgres")
        self._settings = _SETTINGS | ({} if fsync else _UNSYNCED) | settings
        self._server: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._reserved = ReservedPort()
        try:
            self._initialise()
            if admits:
                with (self._folder / "data/pg_hba.conf").open("a") as rules:
                    rules.write(f"host all all {admits} trust\n")
            self.start()
            with self._superuser() as connection:
                connection.execute(f"CREATE ROLE {OWNER} LOGIN")
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        return self._reserved.number

    def url(self, database: str, user: str = OWNER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def admin_url(self) -> str:
        """The superuser's, in the database `postgres`."""
        return self.url("postgres", _SUPERUSER)

    @property
    def log(self) -> str:
        """What it has written since the cluster was made."""
        path = self._folder / "log"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._server is not None, "it does not run"
        return self._server.pid

    def create_database(self, name: str | None = None, *, template: str = "template1") -> str:
        """Return the URL of a new database, empty or a copy of another that nobody is using."""
        if name is None:
            self._databases += 1
            name = f"test_{self._databases}"
        with self._superuser() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                    *map(sql.Identifier, (name, OWNER, template))
                )
            )
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop it, whoever is connected."""
        name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
        with self._superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def disconnect(self, application_name: str) -> int:
        """End the sessions of that name, from the server's side, and return how many there were.

        They have heard of it by then: to be told to end is not yet to have ended.
        """
        with self._superuser() as connection:
            told = connection.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = %s",
                (application_name,),
            ).fetchall()
            pids = [pid for pid, _ in told]
            eventually(
                lambda: (
                    not connection.execute(
                        "SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", (pids,)
                    ).fetchall()
                )
            )
        return len(pids)

    def start(self) -> None:
        """Start it on its port and return when it answers."""
        assert self._server is None, "it runs already"
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [
            self._program("postgres"),
            *("-D", str(self._folder / "data"), "-k", str(self._folder), "-p", str(self.port)),
            *options,
        ]
        with (self._folder / "log").open("ab") as log:
            self._server = self._starter.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "QUIT", *self._as_user(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C is for the tests, which then stop it
            ).result()
        deadline = monotonic() + _STARTED_WITHIN_S
        while True:
            try:
                psycopg.connect(self.admin_url, connect_timeout=_CONNECT_S).close()
                return
            except psycopg.OperationalError:
                dead = self._server.poll() is not None
                if dead or monotonic() > deadline:
                    raise AssertionError(f"Postgres did not start: {self.log}") from None
                sleep(0.02)

    def stop(self) -> None:
        """Stop it in order, whoever is connected ("fast"): sessions are told and ended."""
        self._end(signal.SIGINT)

    def abort(self) -> None:
        """Stop it without a word to anybody ("immediate"); `start` makes it recover."""
        self._end(signal.SIGQUIT)

    def crash(self) -> None:
        """Kill all its processes at once; `start` makes it recover from its log."""
        assert self._server is not None, "it does not run"
        # Halted first: a session that begins meanwhile would outlive it.
        children = halted(self.pid)
        self._end(signal.SIGKILL)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        # It would not start while one of them holds the shared memory.
        eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children))

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it without ceremony and delete everything."""
        if self._server is not None:
            self.abort()
        self._starter.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        assert self._server is not None, "it does not run"
        self._server.send_signal(number)
        self._server.wait(_STARTED_WITHIN_S)
        self._server = None

    def _initialise(self) -> None:
        command = [
            self._program("initdb"),
            *("-D", str(self._folder / "data"), "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8"),
            *("--locale=C", "--no-sync", "--no-instructions"),
        ]
        prefix = ["setpriv", *self._as_user()] if self._user else []
        made = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr

    def _program(self, name: str) -> str:
        return str(self._bin / name)

    def _as_user(self) -> list[str]:
        if not self._user:
            return []
        return [f"--reuid={self._user}", f"--regid={_group(self._user)}", "--clear-groups"]

    def _superuser(self) -> psycopg.Connection:
        return psycopg.connect(self.admin_url, autocommit=True, connect_timeout=_CONNECT_S)


def _binaries() -> Path:
    """Return the folder of `initdb` and `postgres`, the newest version's; skip without one."""
    found = shutil.which("initdb")
    if found and (Path(found).resolve().parent / "postgres").exists():
        return Path(found).resolve().parent
    # Debian keeps them out of the path, so that several versions may be there.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    message = "Postgres is not installed: apt-get install postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _memory() -> str | None:
    """Return where files are kept in memory, if there is room: a database is made in a fifth of
    the time of one on a disk that others use, too.
    """
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES:
        return _MEMORY
    return None


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())


def _unprivileged_user() -> str | None:
    """Return who is to run it; None means we may ourselves."""
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _UNPRIVILEGED if name in names)


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """One for the session, each worker's its own. Whoever breaks one makes one."""
    cluster = PostgresCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """An empty database for one test."""
    url = postgres_cluster.create_database()
    yield url
    postgres_cluster.drop_database(url)
