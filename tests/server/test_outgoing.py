"""What the server asks of others, against real servers that behave in every way they shouldn't."""

import socket
import ssl
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from flagd_server.domain.targets import Address, Allowed
from flagd_server.errors import OutgoingFailedError, OutgoingRefusedError, OutgoingTimeoutError
from flagd_server.outgoing import MAX_BODY_BYTES, OutgoingHttp
from tests.server.strange_servers import (
    Behave,
    answering,
    dripping,
    hanging,
    nobody_listening,
    sending,
    serving,
)

TLS = Path(__file__).parent / "tls"
LOOPBACK = Allowed.parse(["127.0.0.1"])
# For what is answered at once, on a machine that may stand still for some seconds.
PATIENCE_S = 30.0


def resolving(*addresses: str) -> OutgoingHttp:
    """Return what takes every name for these addresses, of which the loopback is allowed."""
    found: list[Address] = [ip_address(address) for address in addresses]
    return OutgoingHttp(LOOPBACK, resolve=lambda host: found)


def test_an_answer_comes_back_whatever_its_status() -> None:
    http = OutgoingHttp(LOOPBACK)
    with serving(answering("503 Service Unavailable", b"no")) as server:
        assert http.get(f"{server.url}/healthz?deep=1", PATIENCE_S) == (503, b"no")
        (head,) = server.requests
    assert head.startswith("GET /healthz?deep=1 HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in head
    assert "\r\nConnection: close\r\n" in head


def test_a_body_may_come_after_its_head_where_the_server_closes() -> None:
    def in_two(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
        threading.Event().wait(0.1)
        connection.sendall(b"late")
        connection.close()

    with serving(in_two) as server:
        assert OutgoingHttp(LOOPBACK).get(server.url, PATIENCE_S) == (200, b"late")


def test_a_body_is_posted_with_its_headers() -> None:
    with serving(answering("202 Accepted")) as server:
        headers = {"Content-Type": "application/json", "X-Signature": "abc"}
        assert OutgoingHttp(LOOPBACK).post(server.url, b"{}", headers, PATIENCE_S) == (202, b"")
        (head,) = server.requests
    assert head.startswith("POST / HTTP/1.1\r\n")
    assert "\r\nContent-Length: 2\r\n" in head
    assert "\r\nX-Signature: abc\r\n" in head


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with serving(answering("200 OK", b"secret")) as inner:
        moved = answering("302 Found", b"", f"Location: {inner.url}/")
        with serving(moved) as server:
            assert OutgoingHttp(LOOPBACK).get(server.url, PATIENCE_S) == (302, b"")
        assert inner.requests == []


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering("200 OK", b"proxy")) as proxy, serving(answering("200 OK")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert OutgoingHttp(LOOPBACK).get(server.url, PATIENCE_S) == (200, b"")
        assert proxy.requests == []


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:{}/",
            "http://[::1]:{}/",
            "http://[::ffff:127.0.0.1]:{}/",
            "http://localhost:{}/",
            "http://169.254.169.254/latest/meta-data/",
        ],
    )
    def test_nothing_but_public_addresses_is_asked_unless_named(self, url: str) -> None:
        with serving(answering("200 OK")) as server:
            with pytest.raises(OutgoingRefusedError, match="FLAGD_OUTGOING_ALLOW"):
                OutgoingHttp(Allowed()).get(url.format(server.port), PATIENCE_S)
            assert server.requests == []

    def test_a_name_is_asked_by_its_name_at_the_address_it_was_resolved_to(self) -> None:
        with serving(answering("200 OK")) as server:
            http = resolving("127.0.0.1")
            assert http.get(f"http://shop.example:{server.port}/", PATIENCE_S)[0] == 200
            (head,) = server.requests
        assert f"\r\nHost: shop.example:{server.port}\r\n" in head

    def test_a_name_is_resolved_once_so_that_it_can_not_turn_private_afterwards(self) -> None:
        answers = iter([["127.0.0.1"], ["10.0.0.1"]])
        asked = []

        def rebind(host: str) -> list[Address]:
            asked.append(host)
            return [ip_address(address) for address in next(answers)]

        with serving(answering("200 OK")) as server:
            http = OutgoingHttp(LOOPBACK, resolve=rebind)
            http.get(f"http://shop.example:{server.port}/", PATIENCE_S)
        assert asked == ["shop.example"]

    def test_only_permitted_addresses_of_a_name_are_tried(self) -> None:
        with serving(answering("200 OK")) as server:
            http = resolving("10.0.0.1", "169.254.169.254", "127.0.0.1")
            assert http.get(f"http://shop.example:{server.port}/", PATIENCE_S)[0] == 200

    def test_a_name_with_private_addresses_only_is_refused_with_them(self) -> None:
        with pytest.raises(OutgoingRefusedError, match=r"shop.example \(10.0.0.1, fd00::1\)"):
            resolving("10.0.0.1", "fd00::1").get("http://shop.example/", PATIENCE_S)

    def test_the_next_address_is_tried_where_one_takes_no_connection(self) -> None:
        allowed = Allowed.parse(["127.0.0.0/8"])
        found: list[Address] = [ip_address("127.0.0.2"), ip_address("127.0.0.1")]
        http = OutgoingHttp(allowed, resolve=lambda host: found)
        with serving(answering("200 OK")) as server:
            assert http.get(f"http://shop.example:{server.port}/", PATIENCE_S)[0] == 200

    def test_a_check_sends_nothing(self) -> None:
        with serving(answering("200 OK")) as server:
            resolving("127.0.0.1").check(f"http://shop.example:{server.port}/", PATIENCE_S)
            with pytest.raises(OutgoingRefusedError):
                resolving("10.0.0.1").check(f"http://shop.example:{server.port}/", PATIENCE_S)
            with pytest.raises(OutgoingFailedError, match="can't be resolved"):
                OutgoingHttp(LOOPBACK).check("http://nowhere.invalid/", PATIENCE_S)
            assert server.requests == []


class TestTime:
    """One deadline over everything: looking up, connecting, every byte."""

    @pytest.mark.parametrize(
        "behave",
        [
            hanging,
            dripping(b"HTTP/1.1 200 OK\r\n"),
            dripping(b"HTTP/1.1 200 OK\r\nX: "),
            dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
            dripping(b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
        ],
        ids=["hangs", "drips its status", "drips a header", "drips its body", "says continue"],
    )
    def test_a_slow_answer_costs_the_timeout_and_no_more(self, behave: Behave) -> None:
        with serving(behave) as server:
            began = time.monotonic()
            with pytest.raises(OutgoingTimeoutError, match=r"gave no answer within 0.3 s"):
                OutgoingHttp(LOOPBACK).get(f"{server.url}/hooks/secret?token=secret", 0.3)
            # Whoever waits from byte to byte waits for all of them: minutes.
            assert 0.25 < time.monotonic() - began < PATIENCE_S

    def test_a_server_that_accepts_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            port = listener.getsockname()[1]
            filling = []
            for _ in range(8):  # a full backlog answers no more connections
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
                filling.append(one)
            began = time.monotonic()
            with pytest.raises(OutgoingTimeoutError):
                OutgoingHttp(LOOPBACK).get(f"http://127.0.0.1:{port}/", 0.3)
            assert time.monotonic() - began < PATIENCE_S
            for one in filling:
                one.close()

    def test_a_tls_server_that_never_shakes_hands(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(OutgoingTimeoutError):
                OutgoingHttp(LOOPBACK).get(f"https://127.0.0.1:{port}/", 0.3)

    def test_a_resolver_that_hangs_is_left_behind(self) -> None:
        release = threading.Event()

        def hang(host: str) -> list[Address]:
            release.wait(60)
            return []

        http = OutgoingHttp(LOOPBACK, resolve=hang)
        began = time.monotonic()
        with pytest.raises(OutgoingTimeoutError, match="its name was not resolved"):
            http.get("http://shop.example/", 0.2)
        assert time.monotonic() - began < PATIENCE_S
        release.set()

    def test_what_hangs_in_the_resolver_is_bounded(self) -> None:
        release = threading.Event()

        def hang(host: str) -> list[Address]:
            release.wait(30)
            return []

        http = OutgoingHttp(LOOPBACK, resolve=hang)
        before = threading.active_count()
        for _ in range(20):
            with pytest.raises(OutgoingTimeoutError):
                http.get("http://shop.example/", 0.01)
        assert threading.active_count() - before <= 16
        release.set()


class TestGarbage:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x16\x03\x01 this is not http\r\n\r\n",
            b"HTTP/1.1 many OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        ],
        ids=["nothing", "tls", "no status", "cut off", "bad chunk", "headers", "long header"],
    )
    def test_what_is_no_answer_is_a_failure(self, data: bytes) -> None:
        with serving(sending(data)) as server, pytest.raises(OutgoingFailedError):
            OutgoingHttp(LOOPBACK).get(server.url, PATIENCE_S)

    def test_a_body_may_be_so_large_and_no_larger(self) -> None:
        for extra in (0, 1):
            with serving(answering("200 OK", b"x" * (MAX_BODY_BYTES + extra))) as server:
                http = OutgoingHttp(LOOPBACK)
                if extra:
                    with pytest.raises(OutgoingFailedError, match="more than 1 MiB"):
                        http.get(server.url, PATIENCE_S)
                else:
                    assert len(http.get(server.url, PATIENCE_S)[1]) == MAX_BODY_BYTES

    def test_nobody_listens(self) -> None:
        with nobody_listening() as url, pytest.raises(OutgoingFailedError, match="refused"):
            OutgoingHttp(LOOPBACK).get(f"{url}/hooks/secret?token=secret", PATIENCE_S)

    def test_neither_path_nor_query_is_repeated_in_a_message(self) -> None:
        with serving(hanging) as server, pytest.raises(OutgoingTimeoutError) as caught:
            OutgoingHttp(LOOPBACK).get(f"{server.url}/secret?token=secret", 0.1)
        assert "secret" not in str(caught.value)
        assert server.url in str(caught.value)


class TestTls:
    @pytest.fixture
    def server_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "shop.example.pem", TLS / "shop.example.key")
        return context

    def client(self) -> OutgoingHttp:
        trusting = ssl.create_default_context(cafile=str(TLS / "shop.example.pem"))
        loopback = [ip_address("127.0.0.1")]
        return OutgoingHttp(LOOPBACK, resolve=lambda host: list(loopback), tls=trusting)

    def test_the_certificate_is_checked_for_the_name_not_the_address(
        self, server_tls: ssl.SSLContext
    ) -> None:
        with serving(answering("200 OK", b"ok"), server_tls) as server:
            url = f"https://shop.example:{server.port}/"
            assert self.client().get(url, PATIENCE_S) == (200, b"ok")

    @pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
    def test_a_certificate_of_another_name_is_refused(
        self, server_tls: ssl.SSLContext, host: str
    ) -> None:
        with serving(answering("200 OK"), server_tls) as server:
            with pytest.raises(OutgoingFailedError, match="not trusted"):
                self.client().get(f"https://{host}:{server.port}/", PATIENCE_S)
            assert server.requests == []

    def test_an_authority_that_nobody_trusts_is_refused(self, server_tls: ssl.SSLContext) -> None:
        with serving(answering("200 OK"), server_tls) as server:
            http = resolving("127.0.0.1")
            with pytest.raises(OutgoingFailedError, match="not trusted"):
                http.get(f"https://shop.example:{server.port}/", PATIENCE_S)
