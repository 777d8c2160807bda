import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from time import monotonic

import pytest

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import StreamError, TransportError
from flagd_sdk.http_session import Patience, _BoundedResponse
from flagd_sdk.transport import HttpTransport
from flagd_server.hub.local import HEARTBEAT_S
from tests.sdk.fakes import FakeClock

Answer = Callable[[socket.socket], None]


def test_patience_ends_with_its_time_however_much_has_come() -> None:
    clock = FakeClock()
    patience = Patience(clock)
    patience.grant(10.0, 1_000)
    for second in range(10):
        assert patience.left_s() == 10.0 - second
        patience.spend(1)
        clock.advance(1.0)
    with pytest.raises(StreamError, match="too long to arrive"):
        patience.left_s()
    patience.grant(10.0, 1_000)
    assert patience.left_s() == 10.0


def test_patience_ends_with_its_bytes_however_quickly_they_came() -> None:
    patience = Patience(FakeClock())
    patience.grant(10.0, 1_000)
    patience.spend(1_000)
    with pytest.raises(StreamError, match="without an end"):
        patience.spend(1)
    patience.allow(5)
    patience.spend(5)


def test_a_stream_is_silent_for_two_heartbeats_before_it_is_given_up() -> None:
    config = ClientConfig(url="http://a", token="t")
    assert config.stream_silence_s == 2 * HEARTBEAT_S


class Pipe:
    """Stands for a socket whose peer has sent this."""

    def __init__(self, received: bytes) -> None:
        self._received = io.BytesIO(received)
        self.timeouts: list[float] = []

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._received)  # type: ignore[arg-type]

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [(b"no colon here\r\n", "can't be read"), (b": no name\r\n", "can't be read"),
     (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "in two ways")],
)  # fmt: skip
def test_a_head_that_urllib3_would_warn_of_is_refused(lines: bytes, complaint: str) -> None:
    patience = Patience(FakeClock())
    patience.grant(10.0, 1_000)
    pipe = Pipe(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n" + lines + b"\r\n{}")
    response = _BoundedResponse(patience, pipe)  # type: ignore[arg-type]
    with pytest.raises(StreamError, match=complaint):
        response.begin()
    response.close()
    assert pipe.timeouts
    assert set(pipe.timeouts) == {10.0}, "what is left, and not the time of each read"


def test_a_head_in_order_is_read_by_the_standard_library() -> None:
    patience = Patience(FakeClock())
    patience.grant(10.0, 1_000)
    pipe = Pipe(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    response = _BoundedResponse(patience, pipe)  # type: ignore[arg-type]
    response.begin()
    assert isinstance(response, http.client.HTTPResponse)
    assert response.read() == b"{}"


# --- with a socket ------------------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    listeners: list[socket.socket] = []

    def serve(answer: Answer) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    answer(connection)
            except OSError:
                pass  # the client has had enough

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.close()


def drip(start: bytes, byte: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            threading.Event().wait(0.05)
            connection.sendall(byte)

    return answer


# It drips for ever, so whoever is not given up is waited for until the test is ended.
SOON_S = 60.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"


@pytest.mark.parametrize(
    "answer",
    [drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
     drip(HEAD % b"application/json" + b"\r\n", b" "),
     drip(HEAD % b"application/json" + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
     drip(HEAD % b"application/json" + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n")],
    ids=["head", "body", "chunk", "trailer"],
)  # fmt: skip
def test_what_drips_is_given_up_in_the_time_of_a_request(
    serve: Callable[[Answer], str], answer: Answer
) -> None:
    config = ClientConfig(url=serve(answer), token="t", request_timeout_s=0.4)
    began = monotonic()
    with pytest.raises(TransportError, match=r"took too long|Timeout"):
        HttpTransport(config).fetch_flags("")
    assert 0.3 <= monotonic() - began <= SOON_S


def test_a_stream_that_drips_the_frame_of_a_chunk_is_given_up_as_a_silent_one(
    serve: Callable[[Answer], str],
) -> None:
    start = HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n"
    config = ClientConfig(url=serve(drip(start, b"0")), token="t", stream_silence_s=0.4)
    stream = HttpTransport(config).open_stream("", "i")
    began = monotonic()
    with pytest.raises(StreamError):
        stream.read()
    assert 0.3 <= monotonic() - began <= SOON_S
    stream.close()


def test_cookies_are_not_kept(serve: Callable[[Answer], str]) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(
            HEAD % b"application/json" + b"Set-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}"
        )

    transport = HttpTransport(ClientConfig(url=serve(answer), token="t"))
    transport.fetch_flags("")
    assert not len(transport._local.session.cookies)


def test_urllib3_is_required_at_an_age_at_which_it_can_read_what_has_come() -> None:
    # requests takes any; with one that has no `read1` no flag would ever arrive.
    assert "urllib3>=2.2" in (requires("flagd-release") or ())
