import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConnectError
from flagd_sdk.transport import HttpTransport, _retry_after_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("30", 30.0), ("999999999999", 300.0), ("", None), ("-1", None), ("soon", None),
     ("1.5", None), ("١٥", None), ("9" * 5_000, 300.0)],
)  # fmt: skip
def test_retry_after_in_seconds_is_bounded(text: str, seconds: float | None) -> None:
    assert _retry_after_s(text) == seconds


@pytest.mark.parametrize(
    ("ahead_s", "low", "high"), [(200, 100.0, 201.0), (-60, 0.0, 0.0), (86_400, 300.0, 300.0)]
)
def test_retry_after_as_a_date_is_bounded(ahead_s: int, low: float, high: float) -> None:
    at = datetime.now(UTC) + timedelta(seconds=ahead_s)
    wait_s = _retry_after_s(format_datetime(at, usegmt=True))
    assert wait_s is not None
    assert low <= wait_s <= high


def test_what_the_http_stack_raises_is_named_without_addresses_and_secrets() -> None:
    config = ClientConfig(url="http://127.0.0.1:1", token="fr_sdk_x_Secret", cache_dir=None)
    with pytest.raises(ConnectError) as refusal:
        HttpTransport(config).fetch_flags("")
    assert str(refusal.value) == "ConnectionError (ConnectionRefusedError: Connection refused)"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_does_not_hold_its_parents_stream_open() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(head)
            accepted.append(connection)

        server = threading.Thread(target=serve)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = HttpTransport(ClientConfig(url, "token"))
        stream = transport.open_stream("", "i-1")
        server.join(60)
        assert stream.read() == b": hello\n\n"
        transport.after_fork()  # as in a child; here nobody else holds the connection
        accepted[0].settimeout(60)
        assert accepted[0].recv(1) == b""
        stream.close()
        accepted[0].close()
