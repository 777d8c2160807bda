"""What servers, proxies and networks do on a bad day, as one table.

A fault is a handler of `MisbehavingServer`, or None where connections are refused.
"""

import gzip
import json
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

from tests.end_to_end.misbehaving import (
    Handler,
    MisbehavingServer,
    hang,
    healthy,
    open_stream,
    respond,
    status,
)
from tests.sdk.fakes import flag, flag_set, sse

_DRIP_S = 1.0


class Fault(NamedTuple):
    """A fault, and what becomes of connections where it begins and ends.

    Attributes:
        cuts: whether it begins with a reset of what is connected.
        lets_go: whether its end cuts what is connected; else only new connections are well.
    """

    handler: Handler | None
    cuts: bool = True
    lets_go: bool = True


# --- what is beside HTTP ------------------------------------------------------------------------


def reset(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Cut each connection as soon as something is asked."""
    server.cut()


def raw(content: bytes) -> Handler:
    """Answer everything with these bytes, and close."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        connection.sendall(content)
        connection.close()

    return answer


def endless(start: bytes, again: bytes) -> Handler:
    """Answer everything with a start and then the same again, as fast as it is taken."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        connection.sendall(start.replace(b"KIND", _kind(head)))
        block = again * (1 + 65_536 // len(again))
        while True:
            connection.sendall(block)

    return answer


def dripping(start: bytes, content: bytes) -> Handler:
    """Answer everything with a start, and go on with a byte a second."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        connection.sendall(start.replace(b"KIND", _kind(head)))
        for index in range(len(content)):
            if server.wait(_DRIP_S):
                return
            connection.sendall(content[index : index + 1])
        server.wait()

    return answer


# --- HTTP that is not what was asked for --------------------------------------------------------


def html(kind: str) -> Handler:
    """Answer as a login page in between does."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        respond(connection, "200 OK", b"<html>Please log in</html>", kind)

    return answer


def with_body(body: bytes, headers: str = "") -> Handler:
    """Answer with the right type and this body, on the stream as an event."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        if "/stream" in head and not headers:
            open_stream(connection, chunked=False)
            connection.sendall(b"event: flags\ndata: " + body + b"\n\n")
            connection.close()
        else:
            respond(connection, "200 OK", body, _kind(head).decode(), headers)

    return answer


def with_framing(headers: str, frame: Callable[[bytes], bytes] = lambda body: body) -> Handler:
    """Answer with the true flags under these headers, framed so."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        document = server.document
        event = sse("flags", document, document["sequence"])
        body = event if "/stream" in head else json.dumps(document).encode()
        if "/telemetry" in head:
            body = b'{"accepted": 1}'
        start = f"HTTP/1.1 200 OK\r\nContent-Type: {_kind(head).decode()}\r\n{headers}\r\n"
        start = start.replace("LENGTH", str(len(body)))
        connection.sendall(start.encode("latin-1") + frame(body))
        connection.close()

    return answer


def redirect_elsewhere(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Point to another host, which must not be told the token."""
    location = f"Location: http://localhost:{server.port}/elsewhere\r\n"
    respond(connection, "307 Temporary Redirect", b"{}", "application/json", location)


def cookies(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Set ever more cookies beside a 503, and refuse whoever sends some."""
    if "\r\nCookie:" in head:
        respond(connection, "431 Request Header Fields Too Large", b"{}", "application/json")
        return
    names = [random.randrange(10**9) for _ in range(50)]
    lines = "".join(f"Set-Cookie: c{name}={'x' * 500}; Path=/\r\n" for name in names)
    respond(connection, "503 Service Unavailable", b"{}", "application/json", lines)


# --- flags that are not the server's ------------------------------------------------------------


def replaced(changes: dict[str, Any]) -> Handler:
    """Answer with no flags and these changes, as a newer flag set."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        newer = {**server.document, "sequence": server.document["sequence"] + 9, "flags": {}}
        body = json.dumps({**newer, **changes}).encode()
        with_body(body)(server, connection, head)

    return answer


def twice_named(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Answer with newer flags that stand there twice, the second time none."""
    newer = {**server.document, "sequence": server.document["sequence"] + 9}
    body = json.dumps(newer)[:-1] + ', "flags": {}}'
    with_body(body.encode())(server, connection, head)


def half_an_event(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Break off anywhere in a newer flag set, and in every other answer."""
    newer = {**server.document, "sequence": server.document["sequence"] + 100, "flags": {}}
    if "/stream" in head:
        open_stream(connection, chunked=False)
        event = sse("flags", newer)
        connection.sendall(event[: random.randrange(len(event))])
    else:
        body = json.dumps(newer).encode()
        answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(answer.encode() + b"\r\n\r\n" + body[: random.randrange(len(body))])
    connection.close()


def on_stream(events: Callable[[dict[str, Any]], bytes], closes: bool = False) -> Handler:
    """Answer polls and reports properly, and send this on an open stream."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        if "/stream" not in head:
            healthy(server, connection, head)
            return
        open_stream(connection, chunked=False)
        connection.sendall(events(server.document))
        if closes:
            connection.close()
        server.wait()

    return answer


def split(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Send the true flags in pieces of one byte."""
    if "/stream" not in head:
        healthy(server, connection, head)
        return
    open_stream(connection, chunked=True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    event = sse("flags", server.document, server.document["sequence"])
    for byte in event:
        connection.sendall(b"1\r\n%c\r\n" % byte)
    server.wait()


def dripping_event(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Send a kill a byte a second."""
    if "/stream" not in head:
        healthy(server, connection, head)
        return
    open_stream(connection, chunked=False)
    event = b": hb\n\n" + _change(server.document["sequence"] + 1, 0)
    dripping(event[:20], event[20:])(server, connection, head)


def _truth(document: dict[str, Any], sequence: int | None = None) -> bytes:
    return sse("flags", document, document["sequence"] if sequence is None else sequence)


def _older(document: dict[str, Any]) -> bytes:
    return sse("flags", flag_set(sequence=1), 1)


def _change(sequence: int, on: int) -> bytes:
    change = {"sequence": sequence, "key": "on", "flag": flag("on", on=on)}
    return sse("flag", change, sequence)


def _shuffled(document: dict[str, Any]) -> bytes:
    held: int = document["sequence"]
    late = [_change(held - 1, 0), _older(document), _change(held, 0), _change(1, 0)]
    return _truth(document) + b"".join(late) + _truth(document)


def _kind(head: str) -> bytes:
    return b"text/event-stream" if "/stream" in head else b"application/json"


def _ahead(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def _too_many(retry_after: str) -> Fault:
    return Fault(status("429 Too Many Requests", f"Retry-After: {retry_after}\r\n"))


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: KIND\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_ABSURD_RETRY = b"retry: 0\n\nretry: 999999999999\n\nretry: 1e12\n\n"

FAULTS: dict[str, Fault] = {
    "refuses connections": Fault(None),
    "resets connections": Fault(reset),
    "takes requests and is silent": Fault(hang, lets_go=False),
    "half-open: gone without a word": Fault(hang, cuts=False, lets_go=False),
    "closes without an answer": Fault(raw(b"")),
    "answers with garbage": Fault(raw(b"\x00\xff garbage \x00\xfe\r\n\r\n" * 3)),
    "answers with a TLS alert": Fault(raw(b"\x15\x03\x01\x00\x02\x02\x28" * 3)),
    "drips its head": Fault(dripping(b"HTTP/1.1 2", b"00 OK\r\nX: y" * 900), lets_go=False),
    "drips its body": Fault(
        dripping(_OK + b"Content-Length: 9000\r\n\r\n", b'{"flags": {}, ' * 600), lets_go=False
    ),
    "drips a chunk's length": Fault(dripping(_CHUNKED, b"0" * 9_000), lets_go=False),
    "head without an end": Fault(endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n")),
    "one line without an end": Fault(endless(b"HTTP/1.1 200 OK\r\nX: ", b"x")),
    "100 Continue without an end": Fault(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "trailers without an end": Fault(endless(_CHUNKED + b"0\r\n", b"X-More: and more\r\n")),
    "body without an end": Fault(endless(_OK + b"\r\ndata: ", b"x")),
    "lines without an end": Fault(endless(_OK + b"\r\n", b"data: and more\n")),
    "event of 64 MiB": Fault(with_body(b'{"flags": "' + b"x" * 64 * 1024 * 1024 + b'"}')),
    "gzip bomb": Fault(with_body(gzip.compress(b" " * 50_000_000), "Content-Encoding: gzip\r\n")),
    "unreadable head": Fault(with_framing("no colon here\r\n: no name\r\n")),
    "101": Fault(status("101 Switching Protocols")),
    "204": Fault(raw(b"HTTP/1.1 204 No Content\r\n\r\n")),
    "206": Fault(status("206 Partial Content", "Content-Range: bytes 0-4/5\r\n")),
    "redirect loop": Fault(status("302 Found", "Location: /sdk/v1/flags\r\n")),
    "redirect to another host": Fault(redirect_elsewhere),
    "304 without cause": Fault(raw(b"HTTP/1.1 304 Not Modified\r\n\r\n")),
    "401": Fault(status("401 Unauthorized")),
    "403": Fault(status("403 Forbidden")),
    "404": Fault(status("404 Not Found")),
    "429, Retry-After: 0": _too_many("0"),
    "429, Retry-After: 5": _too_many("5"),
    "429, Retry-After: a date": _too_many(_ahead(60.0)),
    "429, Retry-After: for ever": _too_many("9" * 5_000),
    "429, Retry-After: in the year 9999": _too_many("Fri, 31 Dec 9999 23:59:59 GMT"),
    "429, Retry-After: soon": _too_many("soon"),
    "500": Fault(status("500 Internal Server Error")),
    "503": Fault(status("503 Service Unavailable")),
    "503 with ever more cookies": Fault(cookies),
    "HTML with status 200": Fault(html("text/html; charset=utf-8")),
    "HTML that claims to be JSON": Fault(html("application/json")),
    "Content-Length too short": Fault(with_framing("Content-Length: 20\r\n")),
    "Content-Length too long": Fault(with_framing("Content-Length: 99999\r\n")),
    "Content-Length of 5,000 digits": Fault(with_framing(f"Content-Length: {'9' * 5_000}\r\n")),
    "Content-Length: ²": Fault(with_framing("Content-Length: \xb2\r\n", lambda body: body[:-9])),
    "Content-Length: -1": Fault(with_framing("Content-Length: -1\r\n", lambda body: body[:-9])),
    "length in two ways": Fault(
        with_framing("Content-Length: LENGTH\r\nTransfer-Encoding: chunked\r\n")
    ),
    "chunks that are none": Fault(with_framing("Transfer-Encoding: chunked\r\n")),
    "chunk of negative length": Fault(
        with_framing("Transfer-Encoding: chunked\r\n", lambda body: b"-5\r\n" + body)
    ),
    "chunk of endless length": Fault(
        with_framing("Transfer-Encoding: chunked\r\n", lambda body: b"F" * 99 + b"\r\n{")
    ),
    "garbled JSON": Fault(with_body(b'{"sequence": \x00')),
    "invalid UTF-8": Fault(with_body(b'{"environment": "production\xff"}')),
    "invalid UTF-8 in a flag's key": Fault(
        on_stream(
            lambda held: sse("flags", {**held, "sequence": 60}).replace(b'"on"', b'"o\xee"'), True
        )
    ),
    "deeply nested JSON": Fault(with_body(b"[" * 100_000)),
    "huge number": Fault(with_body(b"9" * 100_000)),
    "NaN": Fault(replaced({"later": float("nan")})),
    "names that stand twice": Fault(twice_named),
    "another environment's flags": Fault(replaced({"environment": "staging"})),
    "sequence below 0": Fault(replaced({"sequence": -1})),
    "sequence beyond all time": Fault(replaced({"sequence": 2**53 - 1})),
    "sequence 1e400": Fault(replaced({"sequence": float("inf")})),
    "older flags": Fault(with_body(json.dumps(flag_set(sequence=1)).encode())),
    "older events behind newer ones": Fault(on_stream(_shuffled)),
    "every event twice": Fault(on_stream(lambda held: _truth(held) * 2 + _change(50, 0) * 2)),
    "events cut anywhere": Fault(half_an_event),
    "events in pieces of a byte": Fault(split),
    "event that drips": Fault(dripping_event, lets_go=False),
    "byte order mark": Fault(on_stream(lambda held: b"\xef\xbb\xbf" + _truth(held), True)),
    "event ids with NUL": Fault(
        on_stream(lambda held: _truth(held).replace(b"id: ", b"id: \0"), True)
    ),
    "absurd retry:": Fault(on_stream(lambda held: _ABSURD_RETRY + _truth(held), True)),
}
