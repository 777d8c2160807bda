"""The few bytes that the hub writes of its own accord."""

from email.utils import formatdate

from flagd_sdk.core.sse import encode_comment
from flagd_server.http_headers import Headers, as_lines

HEARTBEAT = encode_comment("hb")


def response_head(origin: str | None = None, headers: Headers = ()) -> bytes:
    """Return the head of a response that lasts until the connection closes (RFC 9112, 6.3).

    Args:
        origin: that of the web page which may read it, `*` for any.
        headers: what the head says besides.
    """
    cors = "" if origin is None else f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"
    return (
        "HTTP/1.1 200 OK\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        "Content-Type: text/event-stream\r\n"
        "Cache-Control: no-store\r\n"
        "X-Accel-Buffering: no\r\n"  # nginx would hold events back
        f"{cors}{as_lines(headers)}"
        "Connection: close\r\n\r\n"
    ).encode()


def retry(milliseconds: int) -> bytes:
    """Return what tells a reader how long to wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds
