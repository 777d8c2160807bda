"""The few bytes that the hub writes of its own accord."""

from email.utils import formatdate

from flagd_sdk.core.sse import encode_comment

HEARTBEAT = encode_comment("hb")


def response_head() -> bytes:
    """Return the head of a response that lasts until the connection closes (RFC 9112, 6.3)."""
    return (
        "HTTP/1.1 200 OK\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        "Content-Type: text/event-stream\r\n"
        "Cache-Control: no-store\r\n"
        "X-Accel-Buffering: no\r\n"  # nginx would hold events back
        "Connection: close\r\n\r\n"
    ).encode()


def retry(milliseconds: int) -> bytes:
    """Return what tells a reader how long to wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds
