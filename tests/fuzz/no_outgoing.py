"""What stands in for the server's own HTTP calls, so that no made-up URL is ever asked.

Run as a program, `no_outgoing.py serve`, it is `flagd-server` with that in place.
"""

import sys
from collections.abc import Mapping
from unittest.mock import patch

from flagd_server.domain.targets import parse_target
from flagd_server.errors import OutgoingFailedError, OutgoingRefusedError


class NoOutgoing:
    """Refuses the URLs that the real one refuses by their form; nobody answers at the others."""

    def __init__(self, allowed: object, *, tracing: object) -> None:
        pass

    def get(self, url: str, timeout_s: float) -> tuple[int, bytes]:
        self.check(url, timeout_s)
        raise OutgoingFailedError("nobody is asked while fuzzing")

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        return self.get(url, timeout_s)

    def check(self, url: str, timeout_s: float) -> None:
        try:
            parse_target(url)
        except ValueError as error:
            raise OutgoingRefusedError(str(error)) from None


if __name__ == "__main__":
    from flagd_server.cli import main

    with patch("flagd_server.parts.OutgoingHttp", NoOutgoing):
        sys.exit(main(sys.argv[1:]))
