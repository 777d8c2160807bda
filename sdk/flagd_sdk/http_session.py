"""HTTP sessions whose answers are bounded, head and all. Imported by the thread that first asks.

The timeouts of sockets begin anew with every byte, so a peer that drips holds a thread for hours;
and the standard library reads heads, interim answers and trailers for as long as they go on.
"""

# socket.getaddrinfo, reading proxies and reading netrc import these when first used; see transport.
import encodings.idna  # noqa: F401
import http.client
import io
import netrc  # noqa: F401
import socket
import time
from collections.abc import Callable
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import StreamError


class Patience:
    """How long, and for how many bytes, the thread of a session goes on reading.

    A session has one answer at a time in hand, so one of these does for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s = 0.0
        self._bytes = 0

    def grant(self, seconds: float, most_bytes: int) -> None:
        """Begin anew: so long from now, for so much."""
        self._until_s = self._clock() + seconds
        self._bytes = most_bytes

    def allow(self, most_bytes: int) -> None:
        """Take so much from now on; the time goes on running."""
        self._bytes = most_bytes

    def left_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            StreamError: there are none.
        """
        left_s = self._until_s - self._clock()
        if left_s <= 0:
            raise StreamError("an answer took too long to arrive")
        return left_s

    def spend(self, size: int) -> None:
        """Count bytes that came.

        Raises:
            StreamError: they are more than allowed.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise StreamError("an answer goes on without an end")


class _BoundedReader(io.RawIOBase):
    """Reads a socket while patience lasts."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, patience: Patience) -> None:
        self._raw = raw
        self._sock = sock
        self._patience = patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._patience.left_s())
        size = self._raw.readinto(buffer)
        self._patience.spend(size or 0)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, patience: Patience, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw: io.RawIOBase = self.fp.detach()
        self.fp = io.BufferedReader(_BoundedReader(raw, sock, patience))

    def begin(self) -> None:
        super().begin()
        # urllib3 would take these, and write a warning into the host's log each time.
        head = self.headers
        if head.defects or (head.get_payload() and not head.is_multipart()):
            raise StreamError("the head of an answer can't be read")
        if "Content-Length" in head and "Transfer-Encoding" in head:
            raise StreamError("an answer gives its length in two ways")  # RFC 9112, section 6.3


class _BoundedAdapter(HTTPAdapter):
    def __init__(self, patience: Patience) -> None:
        self._pools = {
            "http": _bounded(HTTPConnectionPool, patience),
            "https": _bounded(HTTPSConnectionPool, patience),
        }
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _bounded(pool: type[HTTPConnectionPool], patience: Patience) -> type[HTTPConnectionPool]:
    response = {"response_class": staticmethod(partial(_BoundedResponse, patience))}
    connection = type("_BoundedConnection", (pool.ConnectionCls,), response)
    return type("_BoundedPool", (pool,), {"ConnectionCls": connection})


def new_session(config: ClientConfig, patience: Patience) -> requests.Session:
    """Return a session that sends the token to one server, and nothing else it was not told."""
    session = requests.Session()
    # Proxies and certificate bundles come from the environment, but never stand before loopback.
    session.trust_env = not config.is_loopback
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "flagd-release-python"})
    # What a login page in between sets would be sent for ever, and may grow until it is refused.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {config.token}"
        return request

    # As `auth`, for a plain header would be overwritten by an entry in ~/.netrc.
    session.auth = authorise
    adapter = _BoundedAdapter(patience)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
