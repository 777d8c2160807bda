"""Two servers on one Postgres behind a real nginx, with the configuration shipped for it."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from flagd_sdk import Backoff, FlagClient
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.nginx import Nginx
from tests.end_to_end.processes import DEADLINE_S
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually

_REFUSED_PER_MINUTE = 5
# What nginx holds back does not come for as long.
_HELD_BACK_S = 1.5
# Before a heartbeat, which might push it out.
_AT_ONCE_S = 10.0
_SDKS = 6


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, postgres_cluster: PostgresCluster
) -> Iterator[list[FlagServer]]:
    """Two, on one database; a test that ends one starts it again."""
    folder = tmp_path_factory.mktemp("servers")
    url = postgres_cluster.create_database()
    settings = {
        "FLAGD_DATABASE": "",
        "FLAGD_DATABASE_URL": url,
        "FLAGD_PROXIES": "1",
        "FLAGD_REFUSED_PER_MINUTE": str(_REFUSED_PER_MINUTE),
    }
    servers = [FlagServer(folder, **settings) for _ in range(2)]
    yield servers
    for server in servers:
        server.stop()
    postgres_cluster.drop_database(url)


@pytest.fixture
def before(tmp_path: Path, servers: list[FlagServer]) -> Iterator[Callable[..., Nginx]]:
    """Start nginx before the servers, with additions to the shipped configuration."""
    started: list[Nginx] = []

    def start(**additions: str) -> Nginx:
        folder = tmp_path / f"nginx-{len(started)}"
        folder.mkdir()
        started.append(Nginx(folder, [server.port for server in servers], **additions))
        return started[-1]

    yield start
    for nginx in started:
        nginx.stop()


@pytest.fixture
def sdks(before: Callable[..., Nginx], servers: list[FlagServer]) -> Iterator[list[FlagClient]]:
    """Applications that know of nginx alone."""
    nginx = before()
    backoff = Backoff(first_s=0.05, floor_s=0.05, cap_s=1.0)
    clients = [
        FlagClient(nginx.url, servers[0].sdk_tokens["production"], cache_dir=None, backoff=backoff)
        for _ in range(_SDKS)
    ]
    yield clients
    for client in clients:
        client.close()


def streams(server: FlagServer) -> int:
    metrics = server.call("GET", "/metrics").text
    found = re.search(r"^flagd_streams(?:_open)? (\d+)", metrics, re.MULTILINE)
    assert found, metrics
    return int(found.group(1))


def test_a_change_at_one_server_comes_through_to_the_streams_of_both(
    servers: list[FlagServer], sdks: list[FlagClient]
) -> None:
    one, other = servers
    eventually(lambda: streams(one) + streams(other) == _SDKS)
    assert min(streams(one), streams(other)) > 0
    one.create_flag("spread", default_serve={"variant": "on"})
    eventually(lambda: all(sdk.is_enabled("spread") for sdk in sdks))

    killed_at = time.monotonic()
    other.kill_flag("spread")
    eventually(lambda: not any(sdk.is_enabled("spread") for sdk in sdks), every_s=0.002)

    took_s = time.monotonic() - killed_at
    print(f"killed on {_SDKS} streams through nginx after {took_s:.3f} s")
    assert took_s < _AT_ONCE_S  # nginx had them by then, though it buffers ordinary answers


def test_when_a_server_dies_its_applications_go_on_at_the_other(
    servers: list[FlagServer], sdks: list[FlagClient]
) -> None:
    one, other = servers
    one.create_flag("moved", default_serve={"variant": "on"})
    eventually(lambda: all(sdk.is_enabled("moved") for sdk in sdks))

    one.crash()
    died_at = time.monotonic()
    try:
        other.kill_flag("moved")
        eventually(lambda: not any(sdk.is_enabled("moved") for sdk in sdks))
        eventually(lambda: streams(other) == _SDKS)
        print(f"all {_SDKS} streams at the other server after {time.monotonic() - died_at:.2f} s")
    finally:
        one.restart()


def test_where_the_header_is_ignored_nginx_holds_even_the_beginning_back(
    servers: list[FlagServer], before: Callable[..., Nginx]
) -> None:
    # That it is our header which keeps it right: without it nothing comes until a buffer is full.
    nginx = before(in_location="proxy_ignore_headers X-Accel-Buffering;")
    token = servers[0].sdk_tokens["production"]
    with closing(socket.create_connection(("127.0.0.1", nginx.port))) as connection:
        connection.settimeout(_HELD_BACK_S)
        lines = ("GET /sdk/v1/stream HTTP/1.1", "Host: flags", f"Authorization: Bearer {token}")
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_compressed_stream_comes_through_event_by_event(
    servers: list[FlagServer], before: Callable[..., Nginx]
) -> None:
    servers[0].create_flag("compressed")
    nginx = before(extra="gzip on; gzip_types text/event-stream; gzip_proxied any;")
    with requests.get(
        f"{nginx.url}/sdk/v1/stream",
        headers={
            "Authorization": f"Bearer {servers[0].sdk_tokens['production']}",
            "Accept-Encoding": "gzip",
        },
        stream=True,
        timeout=_AT_ONCE_S,
    ) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        lines = answer.iter_lines()
        assert any(line == b"event: flags" for line in lines)
        servers[1].kill_flag("compressed")
        assert any(line == b"event: flag" for line in lines)


def test_callers_are_told_apart_by_the_address_that_nginx_sees_whatever_they_claim(
    before: Callable[..., Nginx],
) -> None:
    nginx = before()

    def refused(address: str, claim: str) -> int:
        with requests.Session() as session:
            session.mount("http://", _From(address))
            return session.get(
                f"{nginx.url}/api/v1/flags",
                headers={"Authorization": "Bearer none", "X-Forwarded-For": claim},
                timeout=DEADLINE_S,
            ).status_code

    # Twice as many at least, as each server counts for itself; more where the machine gives them
    # time to forgive some.
    answers = [refused("127.0.0.2", "10.0.0.0")]
    while answers[-1] == 401 and len(answers) < 100:
        answers.append(refused("127.0.0.2", f"10.0.0.{len(answers)}"))
    assert answers[-1] == 429
    assert len(answers) > _REFUSED_PER_MINUTE
    assert refused("127.0.0.3", "127.0.0.2") == 401


class _From(requests.adapters.HTTPAdapter):
    """Connects from an address of one's own."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments: int, **options: object) -> None:
        super().init_poolmanager(*arguments, **options, source_address=(self._address, 0))
