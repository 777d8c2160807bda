"""What every answer says to browsers and caches, whoever writes it, on the wire."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.contract.openapi_contract import contract
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.waiting import eventually

REQUIRED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
JSON = "Content-Type: application/json"
Head = dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagServer]:
    server = FlagServer(tmp_path_factory.mktemp("headers"))
    yield server
    server.stop()


def exchange(server: FlagServer, request: bytes) -> tuple[int, Head, bytes]:
    """Return status, headers and what follows them, of the first bytes that come back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as sock:
        sock.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            received = sock.recv(65536)
            assert received, f"closed within its head: {data!r}"
            data += received
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    named = [line.partition(": ")[::2] for line in lines]
    headers = {name.lower(): value for name, value in named}
    assert len(headers) == len(named), f"a header comes twice: {head!r}"
    return int(status.split()[1]), headers, body


def plain(method: str, path: str, *headers: str, body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body:
        lines += [JSON, f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", body)).encode("latin-1")


def check(headers: Head) -> None:
    assert {name: headers.get(name) for name in REQUIRED} == REQUIRED
    # Not what it runs on, and no number of a version (ASVS 5.0, 13.4.6).
    assert headers.get("server", "flagd-server") == "flagd-server"
    assert "x-powered-by" not in headers
    assert headers["cache-control"] in ("no-store", "private, no-cache")


UNPARSED = {
    "a line that is none": (b"fr_admin_secret\r\n\r\n", 400),
    "a header that is none": (b"GET / HTTP/1.1\r\nfr_admin_secret\r\n\r\n", 400),
    "a value that is none": (plain("GET", "/", "Authorization: Bearer fr_admin_secret\0"), 400),
    "two lengths": (plain("GET", "/", "Content-Length: 1", "Content-Length: 2") + b"ab", 400),
    "a long line": (plain("GET", "/fr_admin_secret?" + "x" * 5_000), 414),
    "a long header": (plain("GET", "/", "Authorization: fr_admin_secret" + "x" * 9_000), 431),
    "many headers": (plain("GET", "/", *[f"X-{i}: fr_admin_secret" for i in range(80)]), 431),
    "no end of a head": (b"GET / HTTP/1.1\r\n" + b"X: fr_admin_secret\r\n" * 4_000, 431),
    "a bad chunk": (
        plain("POST", "/sdk/v1/telemetry", "Transfer-Encoding: chunked") + b"fr_admin_secret\r\n",
        400,
    ),
}


def test_answers_of_every_kind_have_them(server: FlagServer) -> None:
    admin = f"Authorization: Bearer {server.admin_token}"
    sdk = f"Authorization: Bearer {server.sdk_tokens['production']}"
    _, flags, _ = exchange(server, plain("GET", "/sdk/v1/flags", sdk))
    summary = next(each for each in contract().operations if each.name == "report_telemetry")
    report = json.dumps(summary.body_example)
    cases = [
        (plain("GET", "/healthz"), 200),
        (plain("GET", "/metrics"), 200),
        (plain("GET", "/api/v1/tokens", admin), 200),
        (plain("GET", "/api/v1/tokens"), 401),
        (plain("GET", "/api/v1/tokens", sdk), 403),
        (plain("GET", "/no/such/path"), 404),
        (plain("DELETE", "/healthz"), 405),
        (plain("POST", "/api/v1/flags", admin, JSON, "Content-Length: 9999999"), 413),
        (plain("POST", "/api/v1/flags", admin, body="[" * 99), 400),
        (plain("GET", "/sdk/v1/flags", sdk, f"If-None-Match: {flags['etag']}"), 304),
        (plain("GET", "/sdk/v1/flags", sdk, "If-None-Match: *"), 304),
        (plain("POST", "/sdk/v1/telemetry", sdk, body=report), 200),
        (plain("POST", "/ofrep/v1/evaluate/flags", sdk, body="{}"), 200),
        (plain("GET", "/sdk/v1/stream", sdk), 200),  # written by the hub
        (plain("HEAD", "/sdk/v1/stream", sdk), 200),
    ]
    for request, expected in cases:
        status, headers, _ = exchange(server, request)
        assert status == expected, request
        check(headers)
        assert "strict-transport-security" not in headers
    assert flags["cache-control"] == "private, no-cache"  # kept, and asked about each time
    for name, (request, expected) in UNPARSED.items():
        status, headers, body = exchange(server, request)
        assert status == expected, name
        check(headers)
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == expected
        assert b"secret" not in body, name


def test_browsers_are_told_to_stay_with_tls_only_where_it_is_in_front(
    start_server: Callable[..., FlagServer],
) -> None:
    server = start_server(FLAGD_BEHIND_TLS="true")
    sdk = f"Authorization: Bearer {server.sdk_tokens['production']}"
    for request in (
        plain("GET", "/healthz"),
        plain("GET", "/sdk/v1/stream", sdk),
        UNPARSED["a long line"][0],
    ):
        _, headers, _ = exchange(server, request)
        assert headers["strict-transport-security"] == "max-age=63072000"


def test_a_body_too_long_by_its_chunks_is_refused_and_its_connection_closed(
    server: FlagServer,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    headers = {
        "Authorization": f"Bearer {server.admin_token}",
        "Content-Type": "application/json",
        "Transfer-Encoding": "chunked",
    }
    chunks = iter([b" " * 65_536] * 17)
    connection.request("POST", "/api/v1/flags", chunks, headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    assert answer.headers["Connection"] == "close"
    connection.close()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_slow_bodies_leave_threads_for_others(
    start_server: Callable[..., FlagServer], *, is_chunked: bool
) -> None:
    """Without a token, sixteen of them held every thread for 20 s."""
    # One's own: with another it may not have noticed yet that those of the case before are gone.
    server = start_server()
    length = "Transfer-Encoding: chunked" if is_chunked else "Content-Length: 900000"
    head = plain("POST", "/api/v1/flags", length)
    slow = []
    for _ in range(32):
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
        sock.sendall(head)
        slow.append(sock)
    took_s = [server.call("GET", "/api/v1/flags").elapsed.total_seconds() for _ in range(20)]
    # One that was held up took 20 s, and a machine may pause.
    assert max(took_s) < 15.0
    answers = [b""] * len(slow)

    def refused() -> int:
        for number, sock in enumerate(slow):
            answers[number] += _what_came(sock)
        return b"".join(answers).count(b"\r\nRetry-After: ")

    eventually(lambda: refused() >= 32 - 4)
    answered = b"".join(answers)
    assert answered.count(b"HTTP/1.1 503 Service Unavailable") == 32 - 4
    assert answered.count(b"\r\nRetry-After: ") == 32 - 4
    for sock in slow:
        sock.close()


def _what_came(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    try:
        return sock.recv(65_536)
    except BlockingIOError:
        return b""
