"""gunicorn's response, with less of a way to the wire."""

from typing import Any

from gunicorn.http import wsgi

# Putting more behind a head costs more than a second call.
_ONE_PIECE_BYTES = 64 * 1024


class Response(wsgi.Response):  # type: ignore[misc]
    """The head goes out with the first piece of the body: one call, one packet."""

    sock: Any

    def write(self, arg: bytes) -> None:
        if self.headers_sent or len(arg) > _ONE_PIECE_BYTES:
            super().write(arg)
            return
        sock, self.sock = self.sock, Held()
        try:
            super().write(arg)
            sock.sendall(b"".join(self.sock))
        finally:
            self.sock = sock


class Held(list[bytes]):
    """What was written in place of a socket."""

    sendall = list[bytes].append
