"""What `serving` relies on in gunicorn, against the real thing in a process of its own."""

import http.client
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from flagd_server.api.reporting import TELEMETRY_PATH
from flagd_server.errors import SettingsError
from flagd_server.serving import serve
from tests.end_to_end.processes import DEADLINE_S, ServerProcess
from tests.end_to_end.seam_app import PARKED_S
from tests.waiting import eventually


@pytest.fixture
def start() -> Iterator[Callable[..., ServerProcess]]:
    servers = []

    def start(**seconds: float) -> ServerProcess:
        arguments = ["-m", "tests.end_to_end.seam_app"]
        arguments += [f"{name}={value}" for name, value in seconds.items()]
        servers.append(ServerProcess(arguments, dict(os.environ)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start) -> ServerProcess:
    return start()


def connect(server: ServerProcess, request: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    sock.sendall(request)
    return sock


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *headers, "", "")).encode()


def read_until(sock: socket.socket, marker: bytes) -> bytes:
    data = b""
    while marker not in data:
        received = sock.recv(65536)
        assert received, f"closed before {marker!r}: {data!r}"
        data += received
    return data


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while received := sock.recv(1 << 20):
        data += received
    return data


def has_come(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def get(server: ServerProcess, path: str) -> object:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def wait_for_accounts(server: ServerProcess, **expected: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    accounts: object = None
    while accounts != expected:
        assert time.monotonic() < deadline, f"{accounts} is not {expected}"
        time.sleep(0.02)
        # Where a test makes limits small, a pause of the machine ends whoever asks, too.
        with suppress(http.client.HTTPException, ConnectionError):
            accounts = get(server, "/accounts")


def answers(server: ServerProcess) -> bool:
    """Return whether it answers; it may have cut off who asked. Wait for it where it is held up."""
    try:
        return get(server, "/hello") == "ok"
    except (http.client.HTTPException, ConnectionError):
        return False


# What holds others up holds them up for so long: it tells one who waits for somebody from one who
# waits for the machine.
FOR_LONG_S = 60.0
AT_ONCE_S = FOR_LONG_S / 3
# Who does not stop by himself is ended after 10 s.
NOT_CUT_SHORT_S = 9.0
# But the asking one.
NOTHING_OPEN = {"connections": 1, "deadlines": 0, "lingering": 0, "parked": 0, "streams": 0}


def test_a_stream_leaves_the_worker_and_events_reach_it(server):
    with connect(server, request("/stream")) as stream:
        assert read_until(stream, b"event: flags\n").startswith(b"HTTP/1.1 200 OK\r\n")
        get(server, "/publish")
        read_until(stream, b"id: 2\nevent: flag\n")
        wait_for_accounts(server, **{**NOTHING_OPEN, "streams": 1})


def test_the_worker_counts_right_after_many_streams_came_and_went(server):
    for _ in range(20):
        streams = [connect(server, request("/stream")) for _ in range(50)]
        for stream in streams:
            read_until(stream, b"event: flags\n")
        for stream in streams:
            stream.close()
    wait_for_accounts(server, **NOTHING_OPEN)


def test_what_follows_a_stream_request_on_its_connection_is_dropped(server):
    pipelined = request("/stream") + request("/hello")
    with connect(server, pipelined) as stream:
        data = read_until(stream, b"event: flags\n")
        get(server, "/publish")
        data += read_until(stream, b"event: flag\n")
        assert data.count(b"HTTP/1.1") == 1


def test_ordinary_connections_are_kept_alive(server):
    with connect(server) as sock:
        for _ in range(3):
            sock.sendall(request("/hello"))
            assert b'"ok"' in read_until(sock, b'"ok"')


def test_a_body_reaches_the_application_whole_by_length_and_in_chunks(server):
    size = 1024 * 1024
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request("POST", "/echo", b"x" * size)
    assert json.loads(connection.getresponse().read()) == size
    connection.request("POST", "/echo", iter([b"x" * 1000] * 100), encode_chunked=True)
    assert json.loads(connection.getresponse().read()) == 100_000
    connection.close()


def test_a_client_that_asks_before_it_sends_a_body_gets_its_go_ahead(server):
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with connect(server, head) as sock:
        read_until(sock, b"100 Continue\r\n\r\n")
        sock.sendall(b"hello")
        assert read_until(sock, b"\r\n\r\n5").startswith(b"HTTP/1.1 200")


UNFINISHED = {
    "nothing": b"",
    "half a head": b"GET /hel",
    "half a body": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhel",
}


@pytest.mark.parametrize("unfinished", UNFINISHED.values(), ids=UNFINISHED)
def test_clients_that_do_not_finish_their_requests_hold_nobody_up(start, unfinished):
    server = start(_FIRST_REQUEST_S=FOR_LONG_S, _READ_S=FOR_LONG_S)
    idle = [connect(server, unfinished) for _ in range(100)]
    started_at = time.monotonic()
    for _ in range(5):
        assert get(server, "/hello") == "ok"
    assert time.monotonic() - started_at < AT_ONCE_S
    for sock in idle:
        sock.close()
    wait_for_accounts(server, **NOTHING_OPEN)


def test_a_request_that_comes_byte_by_byte_is_answered(server):
    with connect(server) as sock:
        for method, body in (("POST", b"hello"), ("GET", b"")):
            head = f"{method} /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            for byte in head.encode() + body:
                sock.sendall(bytes([byte]))
            assert read_until(sock, b"\r\n\r\n%d" % len(body)).startswith(b"HTTP/1.1 200")


def test_an_unfinished_request_on_a_kept_connection_holds_nobody_up(start):
    server = start(_READ_S=FOR_LONG_S)
    kept = [connect(server, request("/hello")) for _ in range(20)]
    for sock in kept:
        read_until(sock, b'"ok"')
        sock.sendall(UNFINISHED["half a body"])
    started_at = time.monotonic()
    assert get(server, "/hello") == "ok"
    assert time.monotonic() - started_at < AT_ONCE_S
    for sock in kept:
        sock.sendall(b"lo world"[:6])
        assert read_until(sock, b"\r\n\r\n9").startswith(b"HTTP/1.1 200")
        sock.close()


def test_a_client_that_does_not_close_after_the_answer_stops_nobody(server):
    """gunicorn waits 2 s for it on its main thread, in which nobody else is served."""
    mute = [connect(server, request("/hello", "Connection: close")) for _ in range(20)]
    for sock in mute:
        read_until(sock, b'"ok"')
    started_at = time.monotonic()
    for _ in range(5):
        assert get(server, "/hello") == "ok"
    assert time.monotonic() - started_at < 20 * 2.0 / 2
    wait_for_accounts(server, **NOTHING_OPEN)  # after the server gave them up
    for sock in mute:
        sock.close()


def test_a_client_that_hangs_up_within_a_long_answer_is_forgotten(server):
    with connect(server, request("/large")) as sock:
        sock.recv(1000)
    wait_for_accounts(server, **NOTHING_OPEN)


@pytest.mark.parametrize("unfinished", UNFINISHED.values(), ids=UNFINISHED)
def test_a_request_that_does_not_end_in_time_gives_its_thread_back(start, unfinished):
    server = start(_FIRST_REQUEST_S=0.3, _READ_S=0.3)
    slow = [connect(server, unfinished) for _ in range(8)]  # twice as many as there are threads
    eventually(lambda: answers(server))
    for sock in slow:
        with suppress(ConnectionResetError):  # says that what was sent has not been read
            assert read_to_end(sock) == b""
        sock.close()
    wait_for_accounts(server, **NOTHING_OPEN)


def test_an_answer_that_nobody_reads_gives_its_thread_back(start):
    server = start(_WRITE_S=0.3)
    slow = [connect(server, request("/large")) for _ in range(8)]
    eventually(lambda: answers(server))
    wait_for_accounts(server, **NOTHING_OPEN)
    for sock in slow:
        sock.close()


def test_a_header_too_large_is_refused(server):
    with connect(server, request("/hello", "X-Large: " + "x" * 20_000)) as sock:
        assert b" 431 " in read_until(sock, b"\r\n")


def test_requests_that_wait_for_their_answers_hold_no_thread(start):
    server = start(PARKED_S=FOR_LONG_S)  # or the first might be over before the last has come
    with ExitStack() as open_ones:
        waiting = [open_ones.enter_context(connect(server, request("/park"))) for _ in range(40)]
        wait_for_accounts(server, **{**NOTHING_OPEN, "connections": 41, "parked": 40})
        assert get(server, "/unpark") == 40
        for sock in waiting:
            assert read_until(sock, b'"unparked"').startswith(b"HTTP/1.1 200 OK\r\n")
            sock.sendall(request("/hello"))  # its connection is kept
            read_until(sock, b'"ok"')
    wait_for_accounts(server, **NOTHING_OPEN)


def test_an_answer_that_is_ready_at_once_comes_at_once(server):
    for _ in range(50):
        assert get(server, "/parked-and-ready") == "unparked"


def test_an_answer_that_is_never_ready_is_asked_for_in_the_end(server):
    began = time.monotonic()
    assert get(server, "/park") == "unparked"
    assert time.monotonic() - began >= PARKED_S
    assert get(server, "/unpark") == 1  # too late, and nobody's business any more
    wait_for_accounts(server, **NOTHING_OPEN)


def test_a_later_answer_that_fails_is_an_error_of_the_server(server):
    with connect(server, request("/park-broken")) as sock:
        get(server, "/unpark")
        assert read_to_end(sock).startswith(b"HTTP/1.1 500 ")
    wait_for_accounts(server, **NOTHING_OPEN)


def test_a_client_that_is_gone_or_reads_nothing_holds_no_later_answer_up(start):
    server = start(PARKED_S=FOR_LONG_S)
    connect(server, request("/park")).close()
    mute = socket.socket()
    mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mute.connect(("127.0.0.1", server.port))
    mute.sendall(request("/park-large"))
    with mute, connect(server, request("/park")) as sock:
        wait_for_accounts(server, **{**NOTHING_OPEN, "connections": 4, "parked": 3})
        assert get(server, "/unpark") == 3
        read_until(sock, b'"unparked"')
    wait_for_accounts(server, **NOTHING_OPEN)


def report(body: str = "") -> bytes:
    head = (f"POST {TELEMETRY_PATH} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}")
    return "\r\n".join((*head, "", body)).encode()


def test_a_report_that_keeps_its_thread_holds_none_up_that_came_with_it(server):
    worker_pid = get(server, "/worker")
    with ExitStack() as open_ones:
        first, *others = (open_ones.enter_context(connect(server)) for _ in range(12))
        for sock in (first, *others):
            sock.sendall(request("/hello"))
            read_until(sock, b'"ok"')
        # While it is stopped they all come: one look finds them, and one thread is asked.
        os.kill(worker_pid, signal.SIGSTOP)
        first.sendall(report("waits"))
        for sock in others:
            sock.sendall(report())
        os.kill(worker_pid, signal.SIGCONT)
        for sock in others:
            read_until(sock, b'"ok"')
        assert not has_come(first)
        get(server, "/let-go")
        read_until(first, b"true")


def test_a_stop_lets_requests_that_wait_have_their_answers(server):
    with connect(server, request("/park")) as sock:
        # It may be over already, if the machine has paused since.
        eventually(lambda: get(server, "/accounts")["parked"] == 1 or has_come(sock))
        server.signal(signal.SIGTERM)
        assert b'"unparked"' in read_to_end(sock)
    assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_tells_streams_to_come_back_answers_requests_and_leaves_with_zero(server, number):
    with connect(server, request("/stream")) as stream, connect(server) as idle:
        read_until(stream, b"event: flags\n")
        idle.sendall(request("/hello"))
        read_until(idle, b'"ok"')
        with connect(server, request("/sleep")) as working, connect(server) as waiting:
            waiting.sendall(request("/wait"))
            started_at = time.monotonic()
            server.signal(number)
            assert b'"released"' in read_until(waiting, b'"released"')
            assert b'"ok"' in read_until(working, b'"ok"')
            farewell = read_to_end(stream).replace(b": hb\n\n", b"")
            assert re.fullmatch(rb"(retry: [0-9]+\n\n)+", farewell)
            assert server.wait() == 0
            assert time.monotonic() - started_at < NOT_CUT_SHORT_S
    assert server.log.endswith("closed\nstopped\n")


def test_ctrl_c_in_a_terminal_which_reaches_the_worker_too_is_the_same(server):
    with connect(server, request("/stream")) as stream:
        read_until(stream, b"event: flags\n")
        # Both at once: a worker that ended before its parent had heard would be replaced.
        os.killpg(server.pid, signal.SIGINT)
        assert b"retry: " in read_to_end(stream)
        assert server.wait() == 0


def test_a_second_signal_stops_at_once(server):
    with connect(server, request("/stuck")):
        wait_for_accounts(server, **{**NOTHING_OPEN, "connections": 2})
        started_at = time.monotonic()
        server.signal(signal.SIGTERM)
        while is_listening(server):
            assert time.monotonic() < started_at + DEADLINE_S
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - started_at < NOT_CUT_SHORT_S


def is_listening(server: ServerProcess) -> bool:
    try:
        connect(server).close()
    except ConnectionError:
        return False
    return True


def get_worker(server: ServerProcess) -> int:
    children = f"/proc/{server.pid}/task/{server.pid}/children"
    with open(children) as file:
        return int(file.read().split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker through /proc")
def test_a_worker_that_dies_is_started_again_on_the_same_port(server):
    assert get(server, "/hello") == "ok"
    first = get_worker(server)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        get(server, "/die")
    server.wait_for("listening again on " + server.url)
    assert get(server, "/hello") == "ok"
    assert get_worker(server) != first


def test_signals_that_would_make_a_second_worker_are_ignored(server):
    assert get(server, "/hello") == "ok"
    worker = get_worker(server)
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2):
        server.signal(number)
    assert get(server, "/hello") == "ok"
    assert get_worker(server) == worker


def test_an_address_in_use_is_told_at_once(monkeypatch):
    slept, sleep, own = [], time.sleep, threading.get_ident()

    def noted(seconds: float) -> None:
        if threading.get_ident() == own:
            slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", noted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"can't listen on 127.0.0.1 port {port}: "):
            serve(lambda: None, host="127.0.0.1", port=port)
    assert slept == [], "gunicorn would try again, a second later"


def test_many_clients_at_once_are_all_answered(server):
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(get(server, "/hello") for _ in range(20)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert answers == ["ok"] * 400
    wait_for_accounts(server, **NOTHING_OPEN)
